"""From the states of all tokens to the vectors of those that count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrank.engine import pooling
from fastrank.engine.batching import Batch
from fastrank.engine.pipeline import Head
from fastrank.engine.pooling import Floats
from fastrank.errors import ModelLoadError


def documents(name: str, dim: int, skipped: Sequence[int], *, normalize: bool) -> Head[Floats]:
    """(texts, length, dim) -> one (tokens, dim) a text, without tokens whose ids are `skipped`."""
    left_out = np.asarray(skipped, np.int64)

    def head(output: Floats, batch: Batch) -> list[Floats]:
        _check(output, name, dim)
        kept = batch.mask.astype(bool) & ~np.isin(batch.ids, left_out)
        return [_finished(states[tokens], normalize=normalize) for states, tokens in zip(output, kept, strict=True)]

    return head


def queries(name: str, dim: int, length: int, *, normalize: bool) -> Head[Floats]:
    """(texts, length, dim) -> one (tokens, dim) a text; at least `length` tokens, as what fills up counts too."""

    def head(output: Floats, batch: Batch) -> list[Floats]:
        _check(output, name, dim)
        counts = np.maximum(batch.mask.sum(axis=1), length)
        # Copies, as a view would keep the states of all texts alive.
        return [
            _finished(states[:count].copy(), normalize=normalize) for states, count in zip(output, counts, strict=True)
        ]

    return head


def _finished(vectors: Floats, *, normalize: bool) -> Floats:
    return pooling.unit(vectors) if normalize else vectors


def _check(output: Floats, name: str, dim: int) -> None:
    if output.ndim != 3:
        raise ModelLoadError(f"{name}: the model's output has shape {output.shape}, which is not a vector a token")
    if output.shape[2] != dim:
        raise ModelLoadError(f"{name}: the model returns vectors of {output.shape[2]} numbers, not of {dim}")
