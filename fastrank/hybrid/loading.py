"""Loading a model of several embeddings: one session, and a head for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from fastrank import store
from fastrank.dense import loading as dense_loading
from fastrank.engine import loading
from fastrank.engine.batching import Batch
from fastrank.engine.loaded import LoadedModel
from fastrank.engine.loading import Request
from fastrank.engine.pipeline import Head, Pipeline
from fastrank.engine.pooling import Floats
from fastrank.errors import ModelLoadError
from fastrank.hybrid.embedding import HybridEmbedding
from fastrank.late_interaction import loading as tokens_loading
from fastrank.models import token_heads
from fastrank.models.spec import (
    LATE_INTERACTION,
    SPARSE_EMBEDDING,
    TEXT_EMBEDDING,
    DenseTask,
    LateInteractionTask,
    ModelSpec,
    SparseTask,
    Task,
)
from fastrank.sparse import loading as sparse_loading

OWN_TASKS: Mapping[str, Task] = MappingProxyType(
    {
        TEXT_EMBEDDING: DenseTask(),
        SPARSE_EMBEDDING: SparseTask("splade", activation=None),
        LATE_INTERACTION: LateInteractionTask(),
    }
)
"""The tasks of a folder that says itself how it is used."""

Part: TypeAlias = "Head[Any]"


class Parts(NamedTuple):
    """What a model can make: a head for each part; those of sparse vectors and tokens may be missing."""

    dense: Part
    sparse: Part | None
    tokens: Part | None

    def available(self) -> list[str]:
        """Names of the parts."""
        return [name for name, head in zip(self._fields, self, strict=True) if head is not None]


@dataclass(frozen=True, eq=False, repr=False)  # as `dense.loading`
class HybridModel(LoadedModel[Pipeline[Any], Pipeline[Any], Parts]):
    """A model of several embeddings in memory; its settings are its parts.

    Attributes:
        passages: for passages, which may have a prefix and a limit of their own.
    """

    passages: Pipeline[Any]


def load(request: Request) -> HybridModel:
    """The model in memory.

    Raises:
        ModelLoadError: the model has nothing but a dense vector.
    """
    files = loading.find(request)
    has_sparse, has_tokens = _has(request.spec, files)
    if not has_sparse and not has_tokens:
        raise ModelLoadError(
            f"{request.spec.name}: {files.folder} has no layer for sparse vectors and none for token embeddings, "
            f"such as {' and '.join(token_heads.FILES)}: use TextEmbedding"
        )
    # Each takes the session of the one before.
    dense = dense_loading.load(request, request.spec.task(TEXT_EMBEDDING, DenseTask))
    sparse: Any = sparse_loading.load(request, {}).documents if has_sparse else None
    tokens: Any = tokens_loading.load(request).documents if has_tokens else None
    parts = Parts(dense.documents.head, getattr(sparse, "head", None), getattr(tokens, "head", None))
    return HybridModel(dense.documents, dense.queries, parts, dense.info, dense.passages)


def pipeline(pipeline: Pipeline[Any], parts: Parts, wanted: Collection[str]) -> Pipeline[HybridEmbedding]:
    """The pipeline that makes the wanted parts of each text, in one run."""
    heads: dict[str, Part] = {name: getattr(parts, name) for name in wanted}

    def head(output: Floats, batch: Batch) -> list[HybridEmbedding]:
        made = {name: part(output, batch) for name, part in heads.items()}
        return [HybridEmbedding(**{name: rows[n] for name, rows in made.items()}) for n in range(len(batch.ids))]

    return replace(pipeline, head=head)


def _has(spec: ModelSpec, files: store.ModelFiles) -> tuple[bool, bool]:
    """Whether a model has sparse vectors, and token embeddings: its entry says so, or leaves it to the folder."""
    sparse, tokens = spec.tasks.get(SPARSE_EMBEDDING), spec.tasks.get(LATE_INTERACTION)
    has_sparse = isinstance(sparse, SparseTask) and sparse.kind == "token-weights"
    if isinstance(sparse, SparseTask) and sparse.activation is None:
        has_sparse = token_heads.sparse(files.folder) is not None
    has_tokens = isinstance(tokens, LateInteractionTask) and bool(tokens.linear)
    if isinstance(tokens, LateInteractionTask) and not tokens.dim:
        has_tokens = token_heads.tokens(files.folder) is not None
    return has_sparse, has_tokens
