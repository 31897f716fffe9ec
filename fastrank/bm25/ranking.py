"""The best documents of a segment for a query, by touching only documents that have one of its terms."""

from __future__ import annotations

from collections.abc import Iterable
from threading import local
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.bm25.segment import Scores, Segment, Weights

_SAMPLE = 1 << 12  # scores from which a first bound for the best is taken

_scratch = local()  # .sums: zeros, float32, as long as the largest segment this thread has searched


Terms: TypeAlias = "Iterable[tuple[int, np.float32]]"  # (row of the segment, weight in the query), rows ascending


def best(
    postings: Segment, weights: Weights, terms: Terms, k: int, mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], Scores]:
    """The best `k` documents of a segment.

    Scores are summed term by term in an array of zeros; then they are read term by term, and each is set to zero again,
    so that none is read twice.

    Args:
        postings: the segment.
        weights: of its postings.
        terms: of the query. A document's sum has one order, whatever the order of words.
        k: the most documents to return.
        mask: (documents,): which may be returned; None: all.

    Returns:
        Positions and scores above zero, best first, equal scores by position.
    """
    sums = _zeros(len(postings.lengths))
    touched: list[NDArray[np.intp]] = []
    for row, weight in terms:
        those = postings.slice(row)
        documents = postings.documents[those].astype(np.intp)
        values = weight * weights.of(row, those)
        if touched:
            np.add.at(sums, documents, values)
        else:
            sums[documents] = values
        touched.append(documents)
    selection = _Selection(k)
    for documents in touched:
        values = sums[documents]
        sums[documents] = 0
        selection.add(documents, values if mask is None else np.where(mask[documents], values, np.float32(0)))
    _scratch.sums = sums
    return selection.best()


def scores(postings: Segment, weights: Weights, terms: Terms) -> Scores:
    """The scores of all documents of a segment, float32, (documents,)."""
    found = np.zeros(len(postings.lengths), np.float32)
    for row, weight in terms:
        those = postings.slice(row)
        found[postings.documents[those]] += weight * weights.of(row, those)
    return found


def _zeros(length: int) -> Scores:
    """Zeros of at least this length, this thread's own. An error in between loses them, so they are always zeros."""
    sums: Scores | None = _scratch.__dict__.pop("sums", None)
    return np.zeros(length, np.float32) if sums is None or len(sums) < length else sums


class _Selection:
    """The best `k` of scores that come in several arrays. Scores that are not positive do not count."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._floor = np.float32(0)  # once positive, at least `k` scores reach it
        self._kept: list[tuple[NDArray[np.intp], Scores]] = []

    def add(self, documents: NDArray[np.intp], scores: Scores) -> None:
        """Add documents and their scores."""
        if len(scores) > 2 * _SAMPLE:
            self._raise_floor(scores[:_SAMPLE])
        chosen = np.flatnonzero(scores >= self._floor if self._floor else scores > 0)
        documents, scores = documents[chosen], scores[chosen]
        self._raise_floor(scores)
        self._kept.append((documents, scores))

    def best(self) -> tuple[NDArray[np.int64], Scores]:
        """Documents and scores, best first, equal scores by document."""
        if not self._kept:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        documents = np.concatenate([each for each, _ in self._kept])
        scores = np.concatenate([each for _, each in self._kept])
        chosen = np.flatnonzero(scores >= self._floor)
        documents, scores = documents[chosen], scores[chosen]
        order = np.lexsort((documents, -scores))[: self._k]
        return documents[order].astype(np.int64), scores[order]

    def _raise_floor(self, scores: Scores) -> None:
        if len(scores) >= self._k:
            self._floor = max(self._floor, np.partition(scores, len(scores) - self._k)[len(scores) - self._k])
