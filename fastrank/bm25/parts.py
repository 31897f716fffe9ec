"""The parts of a BM25 index: a segment each, with the ids of its documents and what has been deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrank.bm25 import document_ids, segment
from fastrank.bm25.document_ids import DocumentIds
from fastrank.bm25.segment import Segment, Weights

_GROWTH = 4  # parts are merged unless one is this many times as large as those behind it

Integers = NDArray[np.int64]


class Part(NamedTuple):
    """A segment and its documents. Nothing in it ever changes: what would change makes another part."""

    segment: Segment
    numbers: Integers  # (documents,): ascending; an index numbers documents in the order of adding
    ids: DocumentIds | None  # (documents,): given by the caller; None: the numbers are the ids
    alive: NDArray[np.bool_] | None  # (documents,): which are not deleted; None: all
    documents: int  # that are not deleted
    words: int  # of these documents, stop words not counted

    def frequency(self, row: int) -> int:
        """The number of documents that have the term in this row of the segment."""
        postings = self.segment.slice(row)
        if self.alive is None:
            return int(postings.stop - postings.start)
        return int(np.count_nonzero(self.alive[self.segment.documents[postings]]))

    def positions(self) -> Integers:
        """Where the documents are that are not deleted."""
        return np.arange(len(self.numbers)) if self.alive is None else np.flatnonzero(self.alive)

    def find(self, numbers: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """(positions of the documents with these numbers, whether there is one that is not deleted)."""
        positions = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        found: NDArray[np.bool_] = self.numbers[positions] == numbers
        return positions, found if self.alive is None else found & self.alive[positions]

    def ids_at(self, positions: Integers) -> NDArray[Any]:
        """Ids of the documents at these positions: int64, or objects that are strings."""
        return self.numbers[positions] if self.ids is None else document_ids.taken(self.ids, positions)

    def without(self, positions: Integers) -> Part:
        """The part with these documents deleted too; their postings go when more than half are deleted."""
        alive = np.ones(len(self.numbers), np.bool_) if self.alive is None else self.alive.copy()
        alive[positions] = False
        documents, words = int(alive.sum()), int(self.segment.lengths[alive].sum(dtype=np.int64))
        marked = self._replace(alive=alive, documents=documents, words=words)
        return marked.compacted() if documents < len(alive) / 2 else marked

    def compacted(self) -> Part:
        """The part without postings of deleted documents."""
        if self.alive is None:
            return self
        ids = None if self.ids is None else document_ids.selected(self.ids, self.alive)
        return part(segment.without(self.segment, self.alive), self.numbers[self.alive], ids)


class Snapshot(NamedTuple):
    """All that a search needs; it never changes."""

    parts: tuple[Part, ...] = ()
    weights: tuple[Weights, ...] = ()  # of each part
    documents: int = 0
    avg_len: float = 1.0  # words of an average document


def part(postings: Segment, numbers: Integers, ids: DocumentIds | None) -> Part:
    """A part without deletions."""
    return Part(postings, numbers, ids, None, len(numbers), int(postings.lengths.sum(dtype=np.int64)))


def snapshot(parts: Sequence[Part], k: float, b: float, known: Sequence[Weights] = ()) -> Snapshot:
    """The parts with weights for the average length of all their documents; `known` weights that fit are kept."""
    documents, words = sum(each.documents for each in parts), sum(each.words for each in parts)
    avg_len = words / documents if words else 1.0
    fitting = {id(each.segment): each for each in known if each.avg_len == avg_len}
    weights = (fitting.get(id(each.segment)) or Weights(each.segment, k, b, avg_len) for each in parts)
    return Snapshot(tuple(parts), tuple(weights), documents, avg_len)


def tidied(parts: Sequence[Part]) -> list[Part]:
    """The parts without empty ones, the small ones at the end merged: about log(documents) are left."""
    kept = [each for each in parts if each.documents]
    first = len(kept) - 1
    behind = kept[first].segment.postings if kept else 0
    while first > 0 and kept[first - 1].segment.postings < _GROWTH * behind:
        first -= 1
        behind += kept[first].segment.postings
    return [*kept[:first], merged(kept[first:])] if len(kept) - first > 1 else kept


def merged(parts: Sequence[Part]) -> Part:
    """One part of several, without deleted documents."""
    compacted = [each.compacted() for each in parts]
    if len(compacted) == 1:
        return compacted[0]
    ids = [each.ids for each in compacted if each.ids is not None]
    numbers = np.concatenate([each.numbers for each in compacted])
    postings = segment.merged([each.segment for each in compacted])
    return part(postings, numbers, document_ids.joined(ids) if ids else None)


def exist(parts: Sequence[Part], numbers: Integers) -> NDArray[np.bool_]:
    """Whether there are documents with these numbers."""
    found = np.zeros(len(numbers), np.bool_)
    for each in parts:
        found |= each.find(numbers)[1]
    return found


def masks(state: Snapshot, mask: Any) -> list[NDArray[np.bool_] | None]:
    """For each part which documents may be found, deletions included; None: all.

    Args:
        state: the parts.
        mask: booleans (documents,), without deleted ones; None: all documents may be found.

    Raises:
        TypeError: these are not booleans in one dimension.
        ValueError: they are more or fewer than documents.
    """
    if mask is None:
        return [each.alive for each in state.parts]
    allowed = np.asarray(mask)
    if allowed.dtype != np.bool_ or allowed.ndim != 1:
        raise TypeError(f"mask must be booleans in one dimension, not {allowed.dtype} in {allowed.ndim}")
    if len(allowed) != state.documents:
        raise ValueError(f"mask has {len(allowed)} values, the index has {state.documents} documents")
    found: list[NDArray[np.bool_] | None] = []
    for each in state.parts:
        own, allowed = allowed[: each.documents], allowed[each.documents :]
        if each.alive is not None:
            whole = each.alive.copy()
            whole[whole] = own
            own = whole
        found.append(own)
    return found
