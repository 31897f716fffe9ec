"""FastEmbed's classes over fastrank: where the defaults of the two differ, these have FastEmbed's.

Texts are cut where FastEmbed cuts them, half-precision files are used where FastEmbed uses them, no prefix is put
before queries and passages, and options that FastEmbed ignores are ignored (with a warning). So vectors equal
FastEmbed's, and collections that were made with it can be searched and added to.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import fastrank
from fastrank import environment, store
from fastrank.engine.options import Device, OnnxProvider
from fastrank.errors import ModelNotFoundError
from fastrank.models import registry
from fastrank.models.spec import (
    CROSS_ENCODER,
    LATE_INTERACTION,
    SPARSE_EMBEDDING,
    TEXT_EMBEDDING,
    HubSource,
    ModelSpec,
    SparseTask,
)
from fastrank.sparse.sparse_text_embedding import OPTIONS as SPARSE_OPTIONS

# Tokens at which FastEmbed cuts: `max_length` in tokenizer_config.json of its own copies of these models.
_LIMITS = {
    "Qdrant/bm42-all-minilm-l6-v2-attentions": 128,
    "prithivida/Splade_PP_en_v1": 128,
    "sentence-transformers/all-MiniLM-L6-v2": 128,
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": 128,
    "thenlper/gte-large": 128,
}
_OPTIONS = {"specific_model_path", "local_files_only", "device_id", "enable_cpu_mem_arena"}
_TOKENS = "-tokens"  # ends the name of token vectors of a model that is a dense one too
_NOT_FASTEMBEDS = {"analyzer", "idf"}  # options of sparse models that only fastrank has


class TextEmbedding(fastrank.TextEmbedding):
    """`fastrank.TextEmbedding` with FastEmbed's limits, files and lack of prefixes."""

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[OnnxProvider] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        **options: Any,
    ) -> None:
        cache = cache_dir or environment.fastembed_cache()
        known = _as_fastembed(registry.find(model_name, TEXT_EMBEDDING), cache, options, _OPTIONS)
        super().__init__(model_name, cache, threads, providers, cuda, device_ids, lazy_load, prefixes=False, **known)

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models, as FastEmbed lists them."""
        return _listed(TEXT_EMBEDDING)


class SparseTextEmbedding(fastrank.SparseTextEmbedding):
    """`fastrank.SparseTextEmbedding` with FastEmbed's limits."""

    def __init__(
        self,
        model_name: str,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[OnnxProvider] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        **options: Any,
    ) -> None:
        cache = cache_dir or environment.fastembed_cache()
        spec = registry.find(model_name, SPARSE_EMBEDDING)
        own = SPARSE_OPTIONS[spec.task(SPARSE_EMBEDDING, SparseTask).kind] - _NOT_FASTEMBEDS
        known = _as_fastembed(spec, cache, options, _OPTIONS | own)
        super().__init__(model_name, cache, threads, providers, cuda, device_ids, lazy_load, **known)

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models, as FastEmbed lists them."""
        return _listed(SPARSE_EMBEDDING)


class LateInteractionTextEmbedding(fastrank.LateInteractionTextEmbedding):
    """`fastrank.LateInteractionTextEmbedding` with FastEmbed's limits.

    qdrant-client tells by a name alone which vectors are meant. So the token vectors of a model that is a dense one too
    go by its name with "-tokens" behind: "sentence-transformers/all-MiniLM-L6-v2-tokens".
    """

    def __init__(
        self,
        model_name: str,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[OnnxProvider] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        **options: Any,
    ) -> None:
        cache = cache_dir or environment.fastembed_cache()
        spec = registry.find(_without_ending(model_name), LATE_INTERACTION)
        known = _as_fastembed(spec, cache, options, _OPTIONS)
        super().__init__(spec.name, cache, threads, providers, cuda, device_ids, lazy_load, **known)

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The length of a model's token vectors."""
        return super().get_embedding_size(_without_ending(model_name))

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models, as FastEmbed lists them."""
        return _listed(LATE_INTERACTION)


class TextCrossEncoder(fastrank.TextCrossEncoder):
    """`fastrank.TextCrossEncoder` with FastEmbed's limits."""

    def __init__(
        self,
        model_name: str,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[OnnxProvider] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        **options: Any,
    ) -> None:
        cache = cache_dir or environment.fastembed_cache()
        known = _as_fastembed(registry.find(model_name, CROSS_ENCODER), cache, options, _OPTIONS)
        super().__init__(model_name, cache, threads, providers, cuda, device_ids, lazy_load, **known)

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models, as FastEmbed lists them."""
        return _listed(CROSS_ENCODER)


class _Images:
    """A class of FastEmbed for images: it says which models that has, and refuses to make one.

    Raises:
        ModelNotFoundError: always.
    """

    _dims: ClassVar[Mapping[str, int]]

    def __init__(self, model_name: str, *_arguments: Any, **_options: Any) -> None:
        raise ModelNotFoundError(
            f"{model_name} reads images, and fastrank reads text only. Use FastEmbed for it, in a process without "
            "fastrank.compat.fastembed and fastrank.integrations.qdrant."
        )

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """Names and vector lengths of FastEmbed's models; qdrant-client looks for them here."""
        return [{"model": name, "dim": dim} for name, dim in cls._dims.items()]


class ImageEmbedding(_Images):
    """FastEmbed's image models, which fastrank does not run."""

    _dims = {  # noqa: RUF012 - declared above
        "Qdrant/clip-ViT-B-32-vision": 512,
        "Qdrant/resnet50-onnx": 2048,
        "Qdrant/Unicom-ViT-B-16": 768,
        "Qdrant/Unicom-ViT-B-32": 512,
        "jinaai/jina-clip-v1": 768,
        "nomic-ai/nomic-embed-vision-v1.5": 768,
        "nomic-ai/nomic-embed-vision-v1.5-Q": 768,
        "google/siglip2-base-patch16-224": 768,
    }


class LateInteractionMultimodalEmbedding(_Images):
    """FastEmbed's ColPali models, which fastrank does not run."""

    _dims = {"Qdrant/colpali-v1.3-fp16": 128, "Qdrant/colmodernvbert": 128}  # noqa: RUF012 - declared above


def Bm25(  # noqa: N802 - FastEmbed's name
    model_name: str = "Qdrant/bm25",
    cache_dir: str | Path | None = None,
    k: float = 1.2,
    b: float = 0.75,
    avg_len: float = 256.0,
    language: str = "english",
    token_max_length: int = 40,
    disable_stemmer: bool = False,
    specific_model_path: str | Path | None = None,
    **options: Any,
) -> SparseTextEmbedding:
    """BM25, with the arguments of `fastembed.sparse.bm25.Bm25`."""
    return SparseTextEmbedding(
        model_name,
        cache_dir,
        k=k,
        b=b,
        avg_len=avg_len,
        language=language,
        token_max_length=token_max_length,
        disable_stemmer=disable_stemmer,
        specific_model_path=specific_model_path,
        **options,
    )


def _listed(task: str) -> list[dict[str, Any]]:
    """`list_supported_models`, with a row for each name a model has: FastEmbed's may be our alias."""
    return [
        {**registry.describe(spec, task), "model": name}
        for spec in registry.entries(task)
        for name in _names(spec, task)
    ]


def _names(spec: ModelSpec, task: str) -> list[str]:
    ending = _TOKENS if task == LATE_INTERACTION and TEXT_EMBEDDING in spec.tasks else ""
    return [name + ending for name in (spec.name, *spec.aliases)]


def _without_ending(model_name: str) -> str:
    for spec in registry.entries(LATE_INTERACTION):
        if model_name in _names(spec, LATE_INTERACTION):
            return spec.name
    return model_name


def _as_fastembed(
    spec: ModelSpec, cache_dir: str | Path | None, options: Mapping[str, Any], known: Iterable[str]
) -> dict[str, Any]:
    """The options that FastEmbed knows, and those of ours that make a model behave as in FastEmbed."""
    if unknown := set(options) - set(known):
        warnings.warn(f"{spec.name} ignores {', '.join(sorted(unknown))}, as FastEmbed does", stacklevel=3)
    found = {name: value for name, value in options.items() if name in known}
    if not spec.variants:  # BM25
        return found
    given = found.get("specific_model_path")
    if given is not None or spec not in registry.builtin():
        files = store.locate(
            spec, cache_dir=cache_dir, given=given, local_files_only=found.get("local_files_only", False)
        )
        return {**found, "max_length": _limit(files.folder)}
    return {**found, "max_length": _LIMITS.get(spec.name), "variant": _half_precision(spec)}


def _half_precision(spec: ModelSpec) -> str | None:
    """The variant with FastEmbed's file, where that is in half precision: one from Qdrant's repositories."""
    for variant in spec.variants:
        hubs = [source.hub.lower() for source in variant.sources if isinstance(source, HubSource)]
        if variant.precision == "fp16" and any(hub.startswith("qdrant/") for hub in hubs):
            return variant.name
    return None


def _limit(folder: Path) -> int | None:
    """The limit that FastEmbed takes from a folder's tokenizer_config.json; None: there is none it could use."""
    limits = [_json(folder / "tokenizer_config.json").get(key) for key in ("model_max_length", "max_length")]
    limit = min((n for n in limits if type(n) is int and 0 < n <= sys.maxsize), default=None)
    positions = _json(folder / "config.json").get("max_position_embeddings")
    too_long = limit is not None and isinstance(positions, int) and limit > positions
    return None if too_long else limit


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if it cannot be read: what loads the model says so."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
