"""From a model's output to dense vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.dense.settings import DenseSettings
from fastrank.engine import pooling
from fastrank.engine.batching import Batch
from fastrank.engine.pipeline import Head
from fastrank.errors import ModelLoadError

Vector: TypeAlias = NDArray[np.float32]


def dense(name: str, settings: DenseSettings) -> Head[Vector]:
    """(texts, tokens, hidden), or (texts, dim) of a graph that pools itself, -> one float32 (dim,) per text.

    Raises:
        ModelLoadError: a module's weights are missing or damaged; at a run, the output has another shape.
    """
    pool = _pool(settings)
    states = 4 if settings.pooled and settings.pooled.layers else 3

    def head(output: pooling.Floats, batch: Batch) -> Sequence[Vector]:
        if settings.graph_may_pool and output.ndim == 2:
            rows = output
        elif pool and output.ndim == states:
            rows = pool(output, batch)
        else:
            raise ModelLoadError(f"{name}: the model's output has shape {output.shape}, which its pooling cannot take")
        rows = pooling.unit(rows) if settings.normalize else rows
        if settings.truncate_dim is not None:
            rows = rows[:, : settings.truncate_dim].copy()
        if settings.check_dim and rows.shape[1] != settings.dim:
            raise ModelLoadError(
                f"{name}: the model returns {rows.shape[1]}-dimensional vectors; expected {settings.dim}"
            )
        return list(rows)

    return head


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
