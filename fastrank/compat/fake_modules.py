"""Modules named `fastembed`, `fastembed.common` and so on that hold fastrank's classes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from numpy.typing import NDArray

from fastrank import environment
from fastrank.bm25 import LANGUAGES
from fastrank.compat.classes import (
    Bm25,
    ImageEmbedding,
    LateInteractionMultimodalEmbedding,
    LateInteractionTextEmbedding,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)
from fastrank.engine.options import Device, OnnxProvider
from fastrank.models.spec import ModelSource, PoolingType
from fastrank.postprocess import Muvera
from fastrank.sparse.embedding import SparseEmbedding

VERSION = "0.9.1"  # the FastEmbed that is stood in for

PathInput: TypeAlias = "str | Path"
NumpyArray: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class BaseModelDescription:
    """FastEmbed's description of a model, for programs that make one."""

    model: str
    sources: ModelSource
    model_file: str
    description: str
    license: str
    size_in_GB: float  # noqa: N815 - FastEmbed's name
    additional_files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DenseModelDescription(BaseModelDescription):
    """FastEmbed's description of a dense model."""

    dim: int | None = None
    tasks: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class SparseModelDescription(BaseModelDescription):
    """FastEmbed's description of a sparse model."""

    requires_idf: bool | None = None
    vocab_size: int | None = None


def _named(*values: Any) -> dict[str, Any]:
    return {value.__name__: value for value in values}


_TYPES = {"OnnxProvider": OnnxProvider, "ImageInput": PathInput, "PathInput": PathInput}
_TEXT = _named(TextEmbedding)
_SPARSE = _named(SparseEmbedding, SparseTextEmbedding)
_LATE = _named(LateInteractionTextEmbedding)
_IMAGE = _named(ImageEmbedding)
_MULTIMODAL = _named(LateInteractionMultimodalEmbedding)
_CROSS_ENCODER = _named(TextCrossEncoder)

_MODULES: Mapping[str, Mapping[str, Any]] = {
    "fastembed": {**_TEXT, **_SPARSE, **_LATE, **_IMAGE, **_MULTIMODAL, "__version__": VERSION},
    "fastembed.common": _TYPES,
    "fastembed.common.model_description": _named(
        ModelSource, PoolingType, BaseModelDescription, DenseModelDescription, SparseModelDescription
    ),
    "fastembed.common.types": {**_TYPES, "Device": Device, "NumpyArray": NumpyArray},
    "fastembed.embedding": {**_TEXT, "DefaultEmbedding": TextEmbedding, "FlagEmbedding": TextEmbedding},
    "fastembed.image": _IMAGE,
    "fastembed.image.image_embedding": _IMAGE,
    "fastembed.late_interaction": _LATE,
    "fastembed.late_interaction.late_interaction_text_embedding": _LATE,
    "fastembed.late_interaction_multimodal": _MULTIMODAL,
    "fastembed.late_interaction_multimodal.late_interaction_multimodal_embedding": _MULTIMODAL,
    "fastembed.postprocess": _named(Muvera),
    "fastembed.postprocess.muvera": _named(Muvera),
    "fastembed.rerank": {},
    "fastembed.rerank.cross_encoder": _CROSS_ENCODER,
    "fastembed.rerank.cross_encoder.text_cross_encoder": _CROSS_ENCODER,
    "fastembed.sparse": _SPARSE,
    "fastembed.sparse.bm25": {**_named(Bm25), "supported_languages": list(LANGUAGES)},
    "fastembed.sparse.sparse_embedding_base": _named(SparseEmbedding),
    "fastembed.sparse.sparse_text_embedding": _SPARSE,
    "fastembed.text": _TEXT,
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


def uninstall() -> None:
    """Take the modules away again and put back those that stood there. What was imported from them stays as it is."""
    if not _ours:
        return
    for name in _loaded():
        del sys.modules[name]
    sys.modules.update(_replaced)
    _ours.clear()
    _replaced.clear()


def run(program: str, arguments: Sequence[str]) -> None:
    """Run a Python file as `__main__`, as `python program arguments...` does.

    Its module keeps the spec of `python -m fastrank.compat.fastembed`, so that this is what processes started by
    `multiprocessing` import as their main module.
    """
    path = Path(program).absolute()
    environment.leave_program(str(path))
    code = compile(path.read_bytes(), program, "exec", dont_inherit=True)
    main = ModuleType("__main__")
    main.__dict__.update(__file__=program, __spec__=sys.modules["__main__"].__spec__)
    sys.modules["__main__"] = main
    sys.argv[:] = [program, *arguments]
    sys.path.insert(0, str(path.parent))
    exec(code, main.__dict__)  # noqa: S102 - the user's own program


def _loaded() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "fastembed"}
