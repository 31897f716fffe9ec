"""The best documents of every query, kept while the documents stream by in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrank.evaluation.metrics import ranked

_QUERIES_AT_ONCE = 1024


class Best:
    """The `k` best documents of each query. Memory: one block of scores and `k` ids a query, whatever the corpus.

    A document whose id is the query's own is never a result: in some collections queries are documents, and BEIR
    leaves them out everywhere.
    """

    def __init__(self, queries: Sequence[str], k: int) -> None:
        self._queries = queries
        self._k = k
        self._found: list[list[tuple[float, str]]] = [[] for _ in queries]

    def add(self, documents: Sequence[str], scores: NDArray[np.float32], first: int = 0) -> None:
        """Take a block of scores, (queries, documents), into account; its rows begin at query number `first`.

        The scores are changed.
        """
        column = {document: at for at, document in enumerate(documents)}
        limits = np.full((len(scores), 1), -np.inf, np.float32)
        if len(documents) > self._k + 1:  # one more than asked for, as one may be the query itself
            limits[:, 0] = np.partition(scores, -self._k - 1, axis=1)[:, -self._k - 1]
        for row, query in enumerate(self._queries[first : first + len(scores)]):
            if query in column:
                scores[row, column[query]] = np.nan
            found = self._found[first + row]
            if len(found) == self._k:
                limits[row] = max(limits[row, 0], found[-1][0])
        rows, columns = np.nonzero(scores >= limits)
        candidates: dict[int, list[tuple[float, str]]] = {}
        for row, at, score in zip(rows.tolist(), columns.tolist(), scores[rows, columns].tolist(), strict=True):
            candidates.setdefault(first + row, []).append((score, documents[at]))
        for query_number, more in candidates.items():
            self._found[query_number] = ranked(self._found[query_number] + more, self._k)

    def add_vectors(self, queries: NDArray[np.float32], documents: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Score a block of document vectors by dot product with the query vectors, some queries at a time."""
        for first in range(0, len(queries), _QUERIES_AT_ONCE):
            self.add(documents, queries[first : first + _QUERIES_AT_ONCE] @ vectors.T, first)

    def rankings(self) -> dict[str, list[str]]:
        """Query id -> document ids, best first."""
        return {
            query: [document for _, document in found] for query, found in zip(self._queries, self._found, strict=True)
        }


class SparseIndex:
    """Sparse vectors of documents, all compared with a query by dot product.

    Args:
        ids: of the terms of each document, integers.
        values: of these terms.
    """

    def __init__(self, ids: Sequence[NDArray[Any]], values: Sequence[NDArray[Any]]) -> None:
        self._documents = len(ids)
        flat = np.concatenate([np.zeros(0, np.int64), *ids])
        self._values = np.concatenate([np.zeros(0), *values])
        self._terms, self._columns = np.unique(flat, return_inverse=True)
        self._places = np.repeat(np.arange(len(ids)), [len(each) for each in ids])

    def scores(self, ids: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float32]:
        """The dot product of a query and each document, float32 (documents,)."""
        weights = np.zeros(len(self._terms))
        rows = np.searchsorted(self._terms, ids)
        known = rows < len(self._terms)
        known[known] = self._terms[rows[known]] == ids[known]
        weights[rows[known]] = values[known]
        products = weights[self._columns] * self._values
        return np.bincount(self._places, products, self._documents).astype(np.float32)
