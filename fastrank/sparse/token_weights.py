"""Sparse vectors of a weight for each token: the largest of a token's weights, if it is above zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from fastrank.engine.batching import Batch
from fastrank.engine.linear import Linear
from fastrank.engine.pooling import Floats
from fastrank.errors import ModelLoadError
from fastrank.sparse.embedding import SparseEmbedding

TokenWeights: TypeAlias = Callable[[Floats, Batch], list[SparseEmbedding]]


def documents(linear: Linear, dropped: Sequence[int]) -> TokenWeights:
    """Weights relu(linear(state)) of each token, (texts, tokens, hidden) -> vectors, float32, ids ascending.

    Of equal tokens the largest weight counts, as in FlagEmbedding's BGE-M3 and mGTE.

    Args:
        linear: from states to one number.
        dropped: ids of tokens that have no weight: the beginning and end of a text, padding and the unknown token.
    """
    without = np.asarray(dropped, np.int64)

    def head(output: Floats, batch: Batch) -> list[SparseEmbedding]:
        if output.ndim != 3:
            raise ModelLoadError(f"the model's output has shape {output.shape}, not one state per token")
        weights = linear(output)[:, :, 0]
        kept = batch.mask.astype(bool) & ~np.isin(batch.ids, without)
        return [_of_text(row[keep], ids[keep]) for row, ids, keep in zip(weights, batch.ids, kept, strict=True)]

    return head


def _of_text(weights: Floats, ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> SparseEmbedding:
    indices, positions = np.unique(ids, return_inverse=True)
    largest = np.zeros(len(indices), np.float32)
    np.maximum.at(largest, positions, weights)  # NaN stays, to be found out
    kept = ~(largest <= 0)
    return SparseEmbedding(values=largest[kept], indices=indices[kept])
