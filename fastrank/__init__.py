"""fastrank: embeddings and reranking for retrieval on ONNX Runtime.

Importing this package loads nothing heavy; names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrank.dense.text_embedding import TextEmbedding
    from fastrank.engine.options import Device
    from fastrank.errors import (
        DownloadError,
        FastrankError,
        IntegrityError,
        ModelLoadError,
        ModelNotCachedError,
        ModelNotFoundError,
        OutputError,
        ProviderError,
        RegistryError,
    )
    from fastrank.late_interaction import LateInteractionTextEmbedding
    from fastrank.models.spec import ModelSource, PoolingType
    from fastrank.rerank.cross_encoder import TextCrossEncoder
    from fastrank.rerank.ranking import RankedDocument
    from fastrank.sparse.embedding import SparseEmbedding
    from fastrank.sparse.sparse_text_embedding import SparseTextEmbedding

__version__ = "0.1.0"

__all__ = [
    "Device",
    "DownloadError",
    "FastrankError",
    "IntegrityError",
    "LateInteractionTextEmbedding",
    "ModelLoadError",
    "ModelNotCachedError",
    "ModelNotFoundError",
    "ModelSource",
    "OutputError",
    "PoolingType",
    "ProviderError",
    "RankedDocument",
    "RegistryError",
    "SparseEmbedding",
    "SparseTextEmbedding",
    "TextCrossEncoder",
    "TextEmbedding",
]

_HOMES = {
    "Device": "engine.options",
    "LateInteractionTextEmbedding": "late_interaction",
    "ModelSource": "models.spec",
    "PoolingType": "models.spec",
    "RankedDocument": "rerank.ranking",
    "SparseEmbedding": "sparse.embedding",
    "SparseTextEmbedding": "sparse.sparse_text_embedding",
    "TextCrossEncoder": "rerank.cross_encoder",
    "TextEmbedding": "dense.text_embedding",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
