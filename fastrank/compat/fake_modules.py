"""Modules named `fastembed`, `fastembed.common` and so on that hold fastrank's classes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from numpy.typing import NDArray

from fastrank import environment
from fastrank.bm25 import LANGUAGES
from fastrank.bm25.weights import Stemmer
from fastrank.compat import metadata, utils
from fastrank.compat.classes import (
    Bm25,
    ImageEmbedding,
    JinaEmbedding,
    LateInteractionMultimodalEmbedding,
    LateInteractionTextEmbedding,
    Muvera,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)
from fastrank.compat.descriptions import BaseModelDescription, DenseModelDescription, SparseModelDescription
from fastrank.compat.metadata import VERSION
from fastrank.engine.options import Device, OnnxProvider
from fastrank.models.spec import ModelSource, PoolingType
from fastrank.sparse.embedding import SparseEmbedding

PathInput: TypeAlias = "str | Path"
NumpyArray: TypeAlias = NDArray[Any]


class Task(int, Enum):
    """The tasks of jinaai/jina-embeddings-v3, as `task_id` takes them."""

    RETRIEVAL_QUERY = 0
    RETRIEVAL_PASSAGE = 1
    SEPARATION = 2
    CLASSIFICATION = 3
    TEXT_MATCHING = 4


def _named(*values: Any) -> dict[str, Any]:
    return {value.__name__: value for value in values}


_TYPES = {"OnnxProvider": OnnxProvider, "ImageInput": PathInput, "PathInput": PathInput}
_TEXT = _named(TextEmbedding)
_SPARSE = _named(SparseEmbedding, SparseTextEmbedding)
_LATE = _named(LateInteractionTextEmbedding)
_IMAGE = _named(ImageEmbedding)
_MULTIMODAL = _named(LateInteractionMultimodalEmbedding)
_CROSS_ENCODER = _named(TextCrossEncoder)
_PUBLIC = {**_TEXT, **_SPARSE, **_IMAGE, **_LATE, **_MULTIMODAL}  # what `from fastembed import *` gives

_MODULES: Mapping[str, Mapping[str, Any]] = {
    "fastembed": {**_PUBLIC, "__all__": list(_PUBLIC), "__version__": VERSION, "version": VERSION},
    "fastembed.common": {**_TYPES, "__all__": list(_TYPES)},
    "fastembed.common.model_description": _named(
        ModelSource, PoolingType, BaseModelDescription, DenseModelDescription, SparseModelDescription
    ),
    "fastembed.common.types": {**_TYPES, "Device": Device, "NumpyArray": NumpyArray},
    "fastembed.common.utils": _named(
        utils.normalize,
        utils.mean_pooling,
        utils.last_token_pooling,
        utils.iter_batch,
        utils.define_cache_dir,
        utils.get_all_punctuation,
        utils.remove_non_alphanumeric,
    ),
    "fastembed.embedding": {
        **_TEXT,
        **_named(JinaEmbedding),
        "DefaultEmbedding": TextEmbedding,
        "FlagEmbedding": TextEmbedding,
    },
    "fastembed.image": {**_IMAGE, "__all__": list(_IMAGE)},
    "fastembed.image.image_embedding": _IMAGE,
    "fastembed.late_interaction": {**_LATE, "__all__": list(_LATE)},
    "fastembed.late_interaction.late_interaction_text_embedding": _LATE,
    "fastembed.late_interaction_multimodal": {**_MULTIMODAL, "__all__": list(_MULTIMODAL)},
    "fastembed.late_interaction_multimodal.late_interaction_multimodal_embedding": _MULTIMODAL,
    "fastembed.postprocess": {**_named(Muvera), "__all__": ["Muvera"]},
    "fastembed.postprocess.muvera": _named(Muvera),
    "fastembed.rerank": {},
    "fastembed.rerank.cross_encoder": {**_CROSS_ENCODER, "__all__": list(_CROSS_ENCODER)},
    "fastembed.rerank.cross_encoder.text_cross_encoder": _CROSS_ENCODER,
    "fastembed.sparse": {**_SPARSE, "__all__": list(_SPARSE)},
    "fastembed.sparse.bm25": {**_named(Bm25, Stemmer), "supported_languages": list(LANGUAGES)},
    "fastembed.sparse.sparse_embedding_base": _named(SparseEmbedding),
    "fastembed.sparse.sparse_text_embedding": _SPARSE,
    "fastembed.sparse.utils": {},
    "fastembed.sparse.utils.tokenizer": _named(utils.SimpleTokenizer),
    "fastembed.text": {**_TEXT, "__all__": list(_TEXT)},
    "fastembed.text.multitask_embedding": _named(Task),
    "fastembed.text.text_embedding": _TEXT,
}

_ours: dict[str, ModuleType] = {}  # while installed: what stands in sys.modules
_replaced: dict[str, ModuleType] = {}  # and what stood there before


def install() -> None:
    """Let `import fastembed` and its submodules give fastrank's classes, whether FastEmbed is installed or not.

    Modules that have imported FastEmbed before keep it, with a warning: install first. Twice does no more than once.
    """
    if _ours:
        return
    _replaced.update(_loaded())
    if any(_replaced.values()):
        warnings.warn(
            "fastembed was imported before fastrank.compat.fastembed; modules that hold its classes keep them",
            stacklevel=3,
        )
    for name in _replaced:
        del sys.modules[name]
    for name, content in _MODULES.items():
        module = module_from_spec(ModuleSpec(name, None, is_package=True))
        module.__doc__ = f"{name} of FastEmbed {VERSION}, by fastrank."
        module.__dict__.update(content)
        _ours[name] = sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(_ours[parent], child, module)
    metadata.install()


def uninstall() -> None:
    """Take the modules away again and put back those that stood there. What was imported from them stays as it is."""
    if not _ours:
        return
    for name in _loaded():
        del sys.modules[name]
    sys.modules.update(_replaced)
    metadata.uninstall()
    _ours.clear()
    _replaced.clear()


def run(program: str, arguments: Sequence[str]) -> None:
    """Run a Python file as `__main__`, as `python program arguments...` does.

    Its module keeps the spec of `python -m fastrank.compat.fastembed`, so that this is what processes started by
    `multiprocessing` import as their main module.
    """
    path = Path(program).absolute()
    environment.set_compat_program(str(path))
    code = compile(path.read_bytes(), program, "exec", dont_inherit=True)
    main = ModuleType("__main__")
    main.__dict__.update(__file__=program, __spec__=sys.modules["__main__"].__spec__)
    sys.modules["__main__"] = main
    sys.argv[:] = [program, *arguments]
    sys.path.insert(0, str(path.parent))
    exec(code, main.__dict__)  # noqa: S102 - the user's own program


def _loaded() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "fastembed"}
