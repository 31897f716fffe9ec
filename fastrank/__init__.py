"""fastrank: embeddings and reranking for retrieval on ONNX Runtime.

Importing this package is cheap: each public name is loaded on first use.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrank.dense.text_embedding import TextEmbedding
    from fastrank.engine.options import Device
    from fastrank.engine.overflow import ChunkVectors
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
        TextTooLongError,
    )
    from fastrank.hybrid import HybridEmbedding, HybridTextEmbedding, hybrid_scores
    from fastrank.late_interaction import LateInteractionTextEmbedding
    from fastrank.models.spec import ModelSource, PoolingType
    from fastrank.rerank.cross_encoder import TextCrossEncoder
    from fastrank.rerank.ranking import RankedDocument
    from fastrank.sparse.embedding import SparseEmbedding
    from fastrank.sparse.sparse_text_embedding import SparseTextEmbedding

__version__ = "0.1.0"

__all__ = [
    "ChunkVectors",
    "Device",
    "DownloadError",
    "FastrankError",
    "HybridEmbedding",
    "HybridTextEmbedding",
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
    "TextTooLongError",
    "hybrid_scores",
]

_HOMES = {
    "ChunkVectors": "engine.overflow",
    "Device": "engine.options",
    "HybridEmbedding": "hybrid",
    "HybridTextEmbedding": "hybrid",
    "LateInteractionTextEmbedding": "late_interaction",
    "ModelSource": "models.spec",
    "PoolingType": "models.spec",
    "RankedDocument": "rerank.ranking",
    "SparseEmbedding": "sparse.embedding",
    "SparseTextEmbedding": "sparse.sparse_text_embedding",
    "TextCrossEncoder": "rerank.cross_encoder",
    "TextEmbedding": "dense.text_embedding",
    "hybrid_scores": "hybrid",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _warn_of_namesake() -> None:
    """Warn if PyPI's `fastrank`, another project with the same import name, is installed as well."""
    site = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 - pathlib takes 8 ms to import
    try:
        names = os.listdir(site)  # noqa: PTH208 - as above
    except OSError:  # in a zip file
        return
    if any(name.startswith("fastrank-") and name.endswith(".dist-info") for name in names):
        import warnings

        message = (
            f"Two projects share the folder {site}{os.sep}fastrank and have overwritten each other's files: "
            "fastrank-onnx (this one: embeddings and reranking) and fastrank (learning to rank). "
            "Uninstall both, then install the one you need: pip uninstall -y fastrank fastrank-onnx"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=3)


_warn_of_namesake()
