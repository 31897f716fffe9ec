"""From a model's output to dense vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.dense.settings import DenseSettings
from fastrank.engine import pooling
from fastrank.engine.batching import Batch
from fastrank.engine.overflow import ChunkVectors, Span
from fastrank.engine.pipeline import Head
from fastrank.errors import ModelLoadError

Vector: TypeAlias = NDArray[np.float32]

_LENGTH_TOLERANCE = 1e-3  # float16 graphs normalize to that


def dense(name: str, settings: DenseSettings) -> Head[Vector]:
    """(texts, tokens, hidden), or (texts, dim) of a graph that pools itself, -> one float32 (dim,) per text.

    Raises:
        ModelLoadError: a module's weights are missing or damaged; at a run, the output has another shape.
    """
    pool, finish = _pool(settings), _finish(name, settings)
    states = 4 if settings.pooled and settings.pooled.layers else 3

    def head(output: pooling.Floats, batch: Batch) -> Sequence[Vector]:
        if settings.graph_may_pool and output.ndim == 2:
            rows = output
        elif pool and output.ndim == states:
            rows = pool(output, batch)
        else:
            raise ModelLoadError(f"{name}: the model's output has shape {output.shape}, which its pooling cannot take")
        return list(finish(rows))

    return head


def late_chunks(name: str, settings: DenseSettings) -> Head[Vector] | None:
    """(texts, tokens, hidden) -> float32 (chunks, dim) per text: the means of the pieces that its tokens state.

    None: the model's pooling is no mean over tokens, so that it has no vectors for parts of a text.
    """
    pooled = settings.pooled
    if pooled is None or tuple(pooled.poolings) != ("mean",) or pooled.layers or not pooled.include_prompt:
        return None
    from fastrank.engine import modules

    before, after = modules.function(pooled.token_steps), modules.function(pooled.steps)
    finish = _finish(name, settings)

    def head(output: pooling.Floats, batch: Batch) -> Sequence[Vector]:
        if output.ndim != 3:
            raise ModelLoadError(f"{name}: the model's output has shape {output.shape}, not one vector per token")
        rows = []
        for states, pieces in zip(output, batch.pieces, strict=True):
            assert pieces is not None  # noqa: S101 - the tokens of late chunking have some
            rows_of_text = before(states) if pooled.token_steps else states
            means = np.stack([rows_of_text[start:stop].mean(axis=0) for start, stop in pieces.tolist()])
            rows.append(finish(after(means)))
        return rows

    return head


def mean(vectors: Sequence[Vector], _spans: Sequence[Span]) -> Vector:
    """One vector of those of a text's chunks: their mean, normalized again if they are normalized."""
    if len(vectors) == 1:
        return vectors[0]
    rows = np.stack(vectors)
    total: Vector = rows.mean(axis=0)
    if np.all(np.abs(np.linalg.norm(rows, axis=1) - 1) < _LENGTH_TOLERANCE):
        total = pooling.unit(total[None])[0]
    return total


def listed(vectors: Sequence[Vector], spans: Sequence[Span]) -> ChunkVectors:
    """The vectors of a text's chunks, as they are."""
    return ChunkVectors(np.stack(vectors), list(spans))


def concatenated(vectors: Sequence[Vector], spans: Sequence[Span]) -> ChunkVectors:
    """The vectors of a text's chunks, of each of its runs some."""
    return ChunkVectors(np.concatenate(vectors), list(spans))


def _finish(name: str, settings: DenseSettings) -> Callable[[Vector], Vector]:
    """What is done with pooled vectors: (texts, dim) -> (texts, dim)."""

    def finish(rows: Vector) -> Vector:
        rows = pooling.unit(rows) if settings.normalize else rows
        if settings.truncate_dim is not None and settings.resized:
            rows = settings.shortening.of(rows, settings.truncate_dim)
        elif settings.truncate_dim is not None:
            rows = rows[:, : settings.truncate_dim].copy()
        if settings.check_dim and rows.shape[1] != settings.dim:
            raise ModelLoadError(
                f"{name}: the model returns {rows.shape[1]}-dimensional vectors; expected {settings.dim}"
            )
        return rows

    return finish


def without_prompt(head: Head[Vector], tokens: int) -> Head[Vector]:
    """The head for texts whose first tokens, those of a prompt, do not count."""
    return lambda output, batch: head(output, pooling.without_prompt(tokens, batch))


def _pool(settings: DenseSettings) -> pooling.Pooling | None:
    if (pooled := settings.pooled) is None:
        return None
    if not (pooled.steps or pooled.token_steps or pooled.layers) and len(pooled.poolings) == 1 and pooled.width is None:
        return pooling.POOLINGS[pooled.poolings[0]]
    from fastrank.engine import modules  # most models of the registry need none

    return modules.head(pooled)
