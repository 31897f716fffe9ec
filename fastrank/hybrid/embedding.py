"""The embeddings of one text, and how those of two are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrank.maxsim import maxsim
from fastrank.sparse.embedding import SparseEmbedding

WEIGHTS = (0.4, 0.2, 0.4)  # of dense, sparse and tokens, as BGE-M3's authors recommend


class HybridEmbedding(NamedTuple):
    """What a model makes of a text in one run; None: it was not wanted, or the model does not have it.

    Attributes:
        dense: float32 (dim,).
        sparse: ids and weights of the text's tokens.
        tokens: float32 (tokens, dim), for late interaction.
    """

    dense: NDArray[np.float32] | None = None
    sparse: SparseEmbedding | None = None
    tokens: NDArray[np.float32] | None = None


def hybrid_scores(
    query: HybridEmbedding, documents: Iterable[HybridEmbedding], weights: Sequence[float] = WEIGHTS
) -> NDArray[np.float32]:
    """How well documents answer a query: the mean of three similarities by their weights.

    As FlagEmbedding's `compute_score` for BGE-M3: the dot product of dense vectors, that of sparse vectors, and MaxSim
    divided by the number of the query's tokens. Parts that the query lacks are left out, and so are their weights.

    Args:
        query: its embeddings.
        documents: their embeddings, with the parts that the query has.
        weights: of dense, sparse and tokens, none below 0.

    Returns:
        float32 (documents,).

    Raises:
        ValueError: a document lacks a part, `weights` are not three numbers of at least 0, or those of the query's
            parts are all 0.
    """
    _check(weights)
    listed = list(documents)
    used = [(part, weight) for part, weight in zip(HybridEmbedding._fields, weights, strict=True) if weight]
    used = [(part, weight) for part, weight in used if getattr(query, part) is not None]
    if not used:
        raise ValueError(f"weights {tuple(weights)} leave nothing of a query to compare")
    total = np.zeros(len(listed), np.float32)
    for part, weight in used:
        own, others = getattr(query, part), [getattr(document, part) for document in listed]
        if (lacking := next((n for n, other in enumerate(others) if other is None), None)) is not None:
            raise ValueError(f"documents[{lacking}] has no {part} embedding, and the query has one")
        total += np.float32(weight) * _SIMILARITIES[part](own, others)
    return total / np.float32(sum(weight for _, weight in used))


def _check(weights: Any) -> None:
    if len(weights) != 3 or not all(isinstance(weight, (int, float)) and weight >= 0 for weight in weights):
        raise ValueError(f"weights must be three numbers of at least 0, for dense, sparse and tokens, not {weights!r}")


def _dense(query: NDArray[np.float32], documents: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.array([query @ document for document in documents], np.float32)


def _sparse(query: SparseEmbedding, documents: Sequence[SparseEmbedding]) -> NDArray[np.float32]:
    def product(document: SparseEmbedding) -> float:
        _, ours, theirs = np.intersect1d(query.indices, document.indices, assume_unique=True, return_indices=True)
        return float(query.values[ours] @ document.values[theirs])

    return np.array([product(document) for document in documents], np.float32)


def _tokens(query: NDArray[np.float32], documents: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if not documents:
        return np.zeros(0, np.float32)
    return np.asarray(maxsim(query, documents) / max(len(query), 1), np.float32)


_SIMILARITIES: dict[str, Callable[[Any, Sequence[Any]], NDArray[np.float32]]] = {
    "dense": _dense,
    "sparse": _sparse,
    "tokens": _tokens,
}
