"""FastEmbed's descriptions of models, and the names that FastEmbed 0.9.1 ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastrank.models import registry
from fastrank.models.spec import (
    CROSS_ENCODER,
    LATE_INTERACTION,
    SPARSE_EMBEDDING,
    TEXT_EMBEDDING,
    HubSource,
    ModelSource,
    ModelSpec,
)

_TOKENS = "-tokens"  # ends the late-interaction name of a model that is a dense one too
_ALWAYS_FETCHED = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}

# A custom model may have any other name: FastEmbed's own documentation adds "intfloat/multilingual-e5-small", which
# fastrank ships.
SHIPPED: Mapping[str, frozenset[str]] = {
    TEXT_EMBEDDING: frozenset(
        """
        BAAI/bge-base-en BAAI/bge-base-en-v1.5 BAAI/bge-large-en-v1.5 BAAI/bge-small-en BAAI/bge-small-en-v1.5
        BAAI/bge-small-zh-v1.5 mixedbread-ai/mxbai-embed-large-v1 snowflake/snowflake-arctic-embed-xs
        snowflake/snowflake-arctic-embed-s snowflake/snowflake-arctic-embed-m snowflake/snowflake-arctic-embed-m-long
        snowflake/snowflake-arctic-embed-l jinaai/jina-clip-v1 Qdrant/constella-zero Qdrant/stella-en-400M-v5-doc-onnx
        Qdrant/clip-ViT-B-32-text google/siglip2-base-patch16-224 sentence-transformers/all-MiniLM-L6-v2
        jinaai/jina-embeddings-v2-base-en jinaai/jina-embeddings-v2-small-en jinaai/jina-embeddings-v2-base-de
        jinaai/jina-embeddings-v2-base-code jinaai/jina-embeddings-v2-base-zh jinaai/jina-embeddings-v2-base-es
        thenlper/gte-base thenlper/gte-large Qdrant/constella-nano nomic-ai/nomic-embed-text-v1.5
        nomic-ai/nomic-embed-text-v1.5-Q nomic-ai/nomic-embed-text-v1
        sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2
        sentence-transformers/paraphrase-multilingual-mpnet-base-v2 intfloat/multilingual-e5-large
        jinaai/jina-embeddings-v3 google/embeddinggemma-300m ibm-granite/granite-embedding-small-english-r2
        Qwen/Qwen3-Embedding-0.6B Qwen/Qwen3-Embedding-0.6B-Q minishlab/potion-base-8M minishlab/potion-retrieval-32M
        minishlab/potion-multilingual-128M
        """.casefold().split()
    ),
    CROSS_ENCODER: frozenset(
        """
        Xenova/ms-marco-MiniLM-L-6-v2 Xenova/ms-marco-MiniLM-L-12-v2 BAAI/bge-reranker-base BAAI/bge-reranker-v2-m3
        BAAI/bge-reranker-v2-m3-int8 jinaai/jina-reranker-v1-tiny-en jinaai/jina-reranker-v1-turbo-en
        jinaai/jina-reranker-v2-base-multilingual
        """.casefold().split()
    ),
}


@dataclass(frozen=True)
class BaseModelDescription:
    """FastEmbed's description of a model."""

    model: str
    sources: ModelSource
    model_file: str
    description: str
    license: str
    size_in_GB: float  # noqa: N815 - FastEmbed's name
    additional_files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DenseModelDescription(BaseModelDescription):
    """FastEmbed's description of a model of dense or token vectors."""

    dim: int | None = None
    tasks: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class SparseModelDescription(BaseModelDescription):
    """FastEmbed's description of a sparse model."""

    requires_idf: bool | None = None
    vocab_size: int | None = None


_CLASSES: Mapping[str, type[BaseModelDescription]] = {
    TEXT_EMBEDDING: DenseModelDescription,
    LATE_INTERACTION: DenseModelDescription,
    SPARSE_EMBEDDING: SparseModelDescription,
    CROSS_ENCODER: BaseModelDescription,
}


def rows(task: str) -> list[dict[str, Any]]:
    """The models for a task as dicts, one for each name a model has: FastEmbed's may be our alias.

    Source, file and size are those of the variant that the drop-in runs.
    """
    return [
        {**row, "model": name, "sources": _sources(row), "additional_files": _additional(row)}
        for spec in registry.entries(task)
        for row in [registry.describe(spec, task, half_precision(spec))]
        for name in _names(spec, task)
    ]


def describe(row: Mapping[str, Any], task: str) -> BaseModelDescription:
    """A row as the object that FastEmbed makes such rows of."""
    return _CLASSES[task](**{**row, "sources": ModelSource(**row["sources"])})


def find(model_name: str, task: str) -> ModelSpec:
    """The entry with this name, which may be a dense model's with "-tokens" at its end.

    Raises:
        ModelNotFoundError: there is none.
    """
    if task == LATE_INTERACTION and isinstance(model_name, str):
        for spec in registry.entries(task):
            if model_name in _names(spec, task):
                return spec
    return registry.find(model_name, task)


def half_precision(spec: ModelSpec) -> str | None:
    """The variant with FastEmbed's file, where that is in half precision: one from Qdrant's repositories."""
    for variant in spec.variants:
        hubs = [source.hub.lower() for source in variant.sources if isinstance(source, HubSource)]
        if variant.precision == "fp16" and any(hub.startswith("qdrant/") for hub in hubs):
            return variant.name
    return None


def _sources(row: Mapping[str, Any]) -> dict[str, Any]:
    """Where a model comes from; one that is in no repository (in an installed wheel, say) has its own name here."""
    return {**row["sources"], "hf": row["sources"]["hf"] or row["model"]}


def _additional(row: Mapping[str, Any]) -> list[str]:
    """The files beside the graph, without those that FastEmbed fetches of every model."""
    return [path for path in row["additional_files"] if path not in _ALWAYS_FETCHED]


def _names(spec: ModelSpec, task: str) -> list[str]:
    ending = _TOKENS if task == LATE_INTERACTION and TEXT_EMBEDDING in spec.tasks else ""
    return [name + ending for name in (spec.name, *spec.aliases)]
