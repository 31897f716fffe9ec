"""Segments of a BM25 index: postings of some documents in arrays that are never changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrank.bm25.analysis import MAX_ID, Batch

Scores = NDArray[np.float32]

_BLOCK = 1 << 20  # postings handled at once where temporary arrays are as long


class Segment(NamedTuple):
    """Which term occurs in which documents, grouped by term (CSR). Documents are numbered from 0 in each segment.

    `documents` and `counts` have the smallest unsigned type that holds their largest value.
    """

    terms: NDArray[np.uint32]  # (terms,): ids, ascending
    starts: NDArray[np.int64]  # (terms + 1,): where each term's postings begin
    documents: NDArray[Any]  # (postings,): ascending for each term
    counts: NDArray[Any]  # (postings,): how often the term occurs in the document
    lengths: NDArray[np.uint32]  # (documents,): words of each document, stop words not counted

    @property
    def postings(self) -> int:
        """Number of postings."""
        return len(self.documents)

    def find(self, terms: NDArray[np.uint32]) -> list[int]:
        """The row of each id in `self.terms`, -1 for one that is not there."""
        if not len(self.terms):
            return [-1] * len(terms)
        rows = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        found: list[int] = np.where(self.terms[rows] == terms, rows, -1).tolist()
        return found

    def slice(self, row: int) -> slice:
        """Where the postings of a row are."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))


class Weights:
    """The weights of a segment's postings: count / (count + k * (1 - b + b * length / avg_len)), float32.

    They are computed for each term at its first use and kept, so a new average costs nothing by itself. Threads may
    share an instance: at worst two compute the same numbers.

    Args:
        segment: the postings.
        k: BM25's k.
        b: BM25's b.
        avg_len: words of an average document.
        stored: float32 (postings,): all weights, where a file has them.
    """

    def __init__(self, segment: Segment, k: float, b: float, avg_len: float, stored: Scores | None = None) -> None:
        self.segment = segment
        self.avg_len = avg_len
        self._k = k
        self._b = b
        self._norms: NDArray[np.float64] | None = None
        # An empty array is address space only until it is written to.
        self._values = np.empty(segment.postings, np.float32) if stored is None else stored
        self._ready = np.full(len(segment.terms), stored is not None)

    def of(self, row: int, postings: slice) -> Scores:
        """The weights of one row's postings."""
        if not self._ready[row]:
            self._values[postings] = self._compute(postings)
            self._ready[row] = True
        return self._values[postings]

    def all(self) -> Scores:
        """The weights of all postings."""
        if not self._ready.all():
            for rows, postings in _blocks(self.segment.starts):
                self._values[postings] = self._compute(postings)
                self._ready[rows] = True
        return self._values

    def _compute(self, postings: slice) -> Scores:
        norms = self._norms
        if norms is None:
            lengths = self.segment.lengths.astype(np.float64)
            self._norms = norms = self._k * (1 - self._b + self._b * lengths / self.avg_len)
        counts = self.segment.counts[postings]
        weights: NDArray[np.float64] = counts / (counts + norms[self.segment.documents[postings]])
        return weights.astype(np.float32)


def from_batches(batches: list[Batch]) -> Segment:
    """The segment of some documents, by one sort of (term, document) packed into 64 bits.

    Args:
        batches: the words of the documents; emptied.
    """
    words = np.concatenate([each.ids for each in batches])
    sizes = np.concatenate([each.sizes for each in batches])
    batches.clear()
    documents = np.repeat(np.arange(len(sizes)), sizes)
    is_term = words.view(np.uint64) <= MAX_ID
    lengths = np.bincount(documents[is_term], minlength=len(sizes)).astype(np.uint32)
    bits = len(sizes).bit_length()
    keys = words << bits
    keys |= documents
    del words, documents, is_term
    keys = keys[keys >= 0]
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(first, append=len(keys))
    keys = keys[first]
    documents = _smallest(keys & ((1 << bits) - 1), len(sizes))
    keys >>= bits
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return Segment(
        keys[starts].astype(np.uint32),
        np.append(starts, len(keys)),
        documents,
        _smallest(counts, int(counts.max(initial=0))),
        lengths,
    )


def merged(segments: list[Segment]) -> Segment:
    """One segment of the documents of all, in their order. Postings are copied, not sorted.

    Args:
        segments: emptied, so that arrays can be freed while others are made.
    """
    if len(segments) == 1:
        return segments.pop()
    terms = np.unique(np.concatenate([each.terms for each in segments]))
    layouts = [(np.searchsorted(terms, each.terms), each.starts) for each in segments]
    starts = np.zeros(len(terms) + 1, np.int64)
    for rows, old in layouts:
        starts[1:][rows] += np.diff(old)
    np.cumsum(starts, out=starts)
    lengths = np.concatenate([each.lengths for each in segments])
    bases = np.cumsum([0, *(len(each.lengths) for each in segments)]).tolist()
    documents, counts = [each.documents for each in segments], [each.counts for each in segments]
    segments.clear()
    return Segment(
        terms,
        starts,
        _scattered(starts, layouts, documents, np.min_scalar_type(len(lengths)), bases),
        _scattered(starts, layouts, counts, np.result_type(*(each.dtype for each in counts)), [0] * len(bases)),
        lengths,
    )


def without(segment: Segment, alive: NDArray[np.bool_]) -> Segment:
    """The segment without the documents that `alive` (documents,) says are deleted; the others are renumbered."""
    numbers = np.cumsum(alive) - 1
    documents_type = np.min_scalar_type(int(alive.sum()))
    sizes = np.zeros(len(segment.terms), np.int64)
    documents: list[NDArray[Any]] = [np.zeros(0, documents_type)]
    counts: list[NDArray[Any]] = [np.zeros(0, segment.counts.dtype)]
    for rows, postings in _blocks(segment.starts):
        old = segment.documents[postings]
        kept = alive[old]
        sizes[rows] = np.add.reduceat(kept, segment.starts[rows] - postings.start, dtype=np.int64)
        documents.append(numbers[old[kept]].astype(documents_type))
        counts.append(segment.counts[postings][kept])
    left = np.flatnonzero(sizes)
    return Segment(
        segment.terms[left],
        np.append(0, np.cumsum(sizes[left])),
        np.concatenate(documents),
        np.concatenate(counts),
        segment.lengths[alive],
    )


def check(segment: Segment) -> None:
    """What a search relies on, so that no file can make it fail or answer wrongly in silence.

    Raises:
        ValueError: the arrays contradict each other.
    """
    terms, starts, documents, counts, lengths = segment
    if not (
        len(starts) == len(terms) + 1
        and starts[0] == 0
        and starts[-1] == len(documents) == len(counts)
        and (starts[1:] > starts[:-1]).all()
        and (terms[1:] > terms[:-1]).all()
        and (not len(documents) or (documents.max() < len(lengths) and counts.min() > 0))
        and all(_ascending(segment, rows, postings) for rows, postings in _blocks(starts))
    ):
        raise ValueError("its arrays do not fit together")


def _ascending(segment: Segment, rows: slice, postings: slice) -> bool:
    """Whether the documents of each of these rows ascend."""
    documents = segment.documents[postings]
    rising = documents[1:] > documents[:-1]
    rising[segment.starts[rows][1:] - postings.start - 1] = True
    return bool(rising.all())


def _scattered(
    starts: NDArray[np.int64],
    layouts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    columns: list[NDArray[Any]],
    dtype: np.dtype[Any],
    bases: Sequence[int],
) -> NDArray[Any]:
    """One column of merged segments: what each has of a term, one after the other, `bases` added.

    Args:
        starts: where each term of the merged segment begins.
        layouts: for each segment, the rows of its terms there and where they begin in its own column.
        columns: of the segments; each is freed when it is copied.
        dtype: of the result.
        bases: what to add to the numbers of each segment.
    """
    found = np.empty(starts[-1], dtype)
    free = starts[:-1].copy()
    for number, (rows, old) in enumerate(layouts):
        sizes, shifts = np.diff(old), free[rows] - old[:-1]
        for some, postings in _blocks(old):
            places = np.repeat(shifts[some], sizes[some])
            places += np.arange(postings.start, postings.stop)
            found[places] = np.add(columns[number][postings], bases[number], dtype=dtype, casting="unsafe")
        free[rows] += sizes
        columns[number] = found[:0]
    return found


def _blocks(starts: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """(rows, postings) in blocks of about _BLOCK postings, each of whole rows."""
    cuts = np.searchsorted(starts, np.arange(0, starts[-1], _BLOCK)).tolist()
    for first, last in pairwise(dict.fromkeys([*cuts, len(starts) - 1])):
        yield slice(first, last), slice(int(starts[first]), int(starts[last]))


def _smallest(numbers: NDArray[Any], largest: int) -> NDArray[Any]:
    return numbers.astype(np.min_scalar_type(largest))
