"""From token states to the token embeddings that count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fastrank.engine import modules
from fastrank.engine.batching import Batch
from fastrank.engine.overflow import ChunkVectors, Span
from fastrank.engine.pipeline import Head
from fastrank.engine.pooling import Floats, unit
from fastrank.engine.vectors import Shortening
from fastrank.errors import ModelLoadError
from fastrank.late_interaction.settings import TokenModules
from fastrank.postprocess.token_pooling import pool_tokens


def documents(name: str, dim: int, skiplist: Sequence[int], *, normalize: bool) -> Head[Floats]:
    """(texts, tokens, dim) -> one (tokens, dim) per text, without tokens whose ids are in `skiplist`."""
    skipped = np.asarray(skiplist, np.int64)

    def head(output: Floats, batch: Batch) -> list[Floats]:
        _check(output, name, dim)
        kept = batch.mask.astype(bool) & ~np.isin(batch.ids, skipped)
        rows = [states[tokens] for states, tokens in zip(output, kept, strict=True)]
        return [unit(row) for row in rows] if normalize else rows

    return head


def queries(name: str, dim: int, length: int, *, normalize: bool) -> Head[Floats]:
    """(texts, tokens, dim) -> one (tokens, dim) per text; at least `length` tokens, as expansion tokens count too."""

    def head(output: Floats, batch: Batch) -> list[Floats]:
        _check(output, name, dim)
        counts = np.maximum(batch.mask.sum(axis=1), length)
        # Copies, as a view would keep the states of all texts alive.
        rows = [states[:count].copy() for states, count in zip(output, counts, strict=True)]
        return [unit(row) for row in rows] if normalize else rows

    return head


def projected(name: str, linear: Callable[[Floats], Floats]) -> Head[Floats]:
    """(texts, tokens, hidden) -> one (tokens - 1, dim) per text, L2-normalized: the first token has no embedding.

    As FlagEmbedding's BGE-M3 does.
    """

    def head(output: Floats, batch: Batch) -> list[Floats]:
        if output.ndim != 3:
            raise ModelLoadError(f"{name}: the model's output has shape {output.shape}, not one state per token")
        counts = batch.mask.sum(axis=1)
        return [unit(linear(states[1:count])) for states, count in zip(output, counts, strict=True)]

    return head


def by_modules(chain: TokenModules, task: str, skiplist: Sequence[int], expand_to: int) -> Head[Floats]:
    """(texts, tokens, hidden) -> one (tokens, dim) per text, by the modules of a MultiVectorEncoder.

    Args:
        chain: the modules.
        task: "query" or "document".
        skiplist: ids of the tokens that leave no embedding.
        expand_to: how many tokens of a query leave one even if nothing attends to them.

    Raises:
        ModelLoadError: a module's weights are missing or damaged.
    """
    before, after = modules.function(chain.steps), modules.function(chain.after_pooling)
    skipped = np.asarray(skiplist if task in chain.skiplist.tasks else [], np.int64)
    pooling = chain.pooling if chain.pooling and task in chain.pooling.tasks else None

    def embeddings(states: Floats) -> Floats:
        rows = before(states)
        if pooling is not None and len(rows) and np.isfinite(rows).all():  # else an error that names the text, later
            rows = pool_tokens(rows, pooling.factor, pooling.protected)
            rows = unit(rows) if pooling.normalize else rows
        return after(rows)

    def head(output: Floats, batch: Batch) -> list[Floats]:
        kept = batch.mask.astype(bool)
        kept[:, :expand_to] = True
        kept &= ~np.isin(batch.ids, skipped)
        return [embeddings(states[tokens]) for states, tokens in zip(output, kept, strict=True)]

    return head


def shortened(head: Head[Floats], dim: int) -> Head[Floats]:
    """The head, whose embeddings are shortened to so many numbers and normalized again, if they are normalized."""

    def short(output: Floats, batch: Batch) -> list[Floats]:
        return [Shortening().of(rows, dim) for rows in head(output, batch)]

    return short


def concatenated(embeddings: Sequence[Floats], _spans: Sequence[Span]) -> Floats:
    """Embeddings of a text's tokens, of those of its chunks."""
    return embeddings[0] if len(embeddings) == 1 else np.concatenate(embeddings)


def listed(embeddings: Sequence[Floats], spans: Sequence[Span]) -> ChunkVectors:
    """The embeddings of a text's chunks, as they are."""
    return ChunkVectors(list(embeddings), list(spans))


def _check(output: Floats, name: str, dim: int) -> None:
    if output.ndim != 3:
        raise ModelLoadError(f"{name}: the model's output has shape {output.shape}, not one vector per token")
    if output.shape[2] != dim:
        raise ModelLoadError(f"{name}: the model returns {output.shape[2]}-dimensional vectors; expected {dim}")
