"""A search index for up to some millions of passages: BM25 as Lucene scores it, in numpy arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrank import inputs
from fastrank.bm25 import document_ids, index_file, parts, ranking, segment
from fastrank.bm25.analysis import MAX_ID, Batch
from fastrank.bm25.document_ids import Id, Strings
from fastrank.bm25.explanation import BM25Explanation, TermScore
from fastrank.bm25.parts import Part, Snapshot
from fastrank.bm25.segment import Scores, Segment
from fastrank.bm25.weights import BM25, Analyzer, Stemmer, idf

_RUN_WORDS = 1 << 19  # words sorted at once while documents are added
_RUN_DOCUMENTS = 1 << 16

Masks = Sequence[NDArray[np.bool_] | None]


class BM25Index:
    """Documents to search, or a corpus whose statistics score other documents.

    A document's score is the sum over the query's words of idf * f / (f + k * (1 - b + b * length / avg_len)), with
    idf = ln(1 + (N - n + 0.5) / (n + 0.5)) and avg_len of these documents: Lucene's formula, with exact lengths. A word
    that is twice in the query counts twice. Stop words count in a query that has no other word; lengths never count
    them.

    Examples:
        >>> index = BM25Index.build(["A cat sat on the mat.", "Dogs bark."])
        >>> positions, scores = index.search("barking dog")
        >>> positions.tolist()
        [1]

    Documents have the ids that are given with them, else numbers in the order of adding, from 0; no number is used
    twice. Scores are always those of an index built from the documents that are there now.

    Many threads may search at once. `add`, `delete` and `compact` may run beside them and take effect when they return.

    Args:
        bm25: how texts become terms, and k and b; its `avg_len` and `idf` are not used. None: `BM25()`.
    """

    def __init__(self, bm25: BM25 | None = None) -> None:
        self.bm25 = BM25() if bm25 is None else bm25
        self._snapshot = Snapshot()
        self._next_number = 0
        self._numbers: dict[Id, int] | None = None  # by the caller's ids; made when it is first needed
        self._lock = Lock()  # held by whatever changes the index

    @classmethod
    def build(cls, texts: Iterable[str], *, ids: Iterable[Id] | None = None, **options: Any) -> BM25Index:
        """An index of these texts.

        Args:
            texts: as for `add`.
            ids: as for `add`.
            **options: of `BM25`.

        Raises:
            TypeError, ValueError: as `add` and `BM25`.
        """
        return cls(BM25(**options)).add(texts, ids=ids)

    # -- documents --------------------------------------------------------------------------------------------------

    def add(self, texts: str | Iterable[str], *, ids: Id | Iterable[Id] | None = None) -> BM25Index:
        """Add documents behind those that are there. Returns the index.

        Texts are read one by one and not kept, so a corpus need not be in memory. If anything raises an error, nothing
        is added.

        Args:
            texts: one text, or an iterable of texts.
            ids: one for each text, all integers or all strings; either all documents of an index have one or none.

        Raises:
            TypeError: an item is not a string, or an id neither integer nor string; the message says which.
            ValueError: an id is taken or given twice, there are more or fewer ids than texts, or the index has ids and
                these texts have none, or the other way round.
        """
        given = None if ids is None else list(document_ids.each(ids, "ids"))
        runs = list(self._runs(inputs.texts(texts, "texts")))
        count = sum(len(run.lengths) for run in runs)
        if given is not None and len(given) != count:
            raise ValueError(f"{count} texts need as many ids, got {len(given)}")
        if not count:
            return self
        added = segment.merged(runs)
        with self._lock:
            self._check_ids(given)
            numbers = np.arange(self._next_number, self._next_number + count)
            column = None if given is None else document_ids.column(given)
            self._replace(parts.tidied([*self._snapshot.parts, parts.part(added, numbers, column)]))
            self._next_number += count
            if given is not None and self._numbers is not None:
                self._numbers.update(zip(given, numbers.tolist(), strict=True))
        return self

    def delete(self, ids: Id | Iterable[Id]) -> None:
        """Delete documents: one id or several. Other documents keep their ids.

        They leave the statistics at once, and the memory when their segment is merged with others, when more than half
        of it is deleted, or with `compact`. A call copies one byte per document of the segments it touches: delete many
        at once.

        Raises:
            KeyError: there is no such document; nothing is deleted.
            TypeError: an id is neither integer nor string.
        """
        with self._lock:
            given = list(dict.fromkeys(document_ids.each(ids, "ids")))
            numbers = self._numbers_of(given)
            if len(missing := np.flatnonzero(numbers < 0)):
                raise KeyError(f"No document has the id {given[missing[0]]!r}")
            changed = []
            for part in self._snapshot.parts:
                positions, found = part.find(numbers)
                changed.append(part.without(positions[found]) if found.any() else part)
            self._replace(parts.tidied(changed))
            if self._numbers is not None:
                for each in given:
                    del self._numbers[each]

    def compact(self) -> BM25Index:
        """Merge all segments into one and free what deleted documents hold. Returns the index."""
        with self._lock:
            if self._snapshot.parts:
                self._replace([parts.merged(self._snapshot.parts)])
        return self

    @property
    def ids(self) -> NDArray[Any]:
        """The ids of all documents in the order of adding: int64, or objects that are strings; (documents,)."""
        columns = [part.ids_at(part.positions()) for part in self._snapshot.parts]
        return np.concatenate(columns) if columns else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return self._snapshot.documents

    def __contains__(self, document_id: Any) -> bool:
        with self._lock:
            return bool(self._numbers_of(list(document_ids.each(document_id, "id")))[0] >= 0)

    # -- searching --------------------------------------------------------------------------------------------------

    def search(self, query: str, k: int = 10, *, mask: Any = None) -> tuple[NDArray[Any], Scores]:
        """The best `k` documents that have a word of the query, best first.

        Args:
            query: a text.
            k: the most documents to return.
            mask: booleans (documents,) in the order of `ids`: which documents may be returned. Scores are the same with
                and without it.

        Returns:
            Ids (int64, or objects that are strings) and scores (float32, > 0). Equal scores are in the order of adding.

        Raises:
            TypeError: the query is not a string, `k` not an integer, or `mask` not booleans.
            ValueError: `k` is smaller than 1, or `mask` has another length than the index.
        """
        query, k, state = inputs.text(query, "query"), inputs.positive(k, "k"), self._snapshot
        return self._search(state, query, k, parts.masks(state, mask))

    def search_batch(
        self, queries: Iterable[str], k: int = 10, *, mask: Any = None
    ) -> list[tuple[NDArray[Any], Scores]]:
        """`search` for each query, all in the same state of the index.

        Raises:
            TypeError, ValueError: as `search`; the message says which query.
        """
        texts, k, state = list(inputs.documents(queries, "queries")), inputs.positive(k, "k"), self._snapshot
        masks = parts.masks(state, mask)
        return [self._search(state, text, k, masks) for text in texts]

    def scores(self, query: str, documents: str | Iterable[str]) -> Scores:
        """The score of each of these texts, float32, (documents,): to rerank what another search found.

        The statistics are those of the index; if it is empty, those of `documents` themselves.

        Raises:
            TypeError: the query or a document is not a string.
        """
        query, state = inputs.text(query, "query"), self._snapshot
        runs = list(self._runs(inputs.texts(documents)))
        if not runs:
            return np.zeros(0, np.float32)
        scored = segment.merged(runs)
        if not state.documents:
            numbers = np.arange(len(scored.lengths))
            state = parts.snapshot([parts.part(scored, numbers, None)], self.bm25.k, self.bm25.b)
        weights = segment.Weights(scored, self.bm25.k, self.bm25.b, state.avg_len)
        terms, counts = self._terms(query)
        found = [part.segment.find(terms) for part in state.parts]
        return ranking.scores(scored, weights, _present(scored.find(terms), _query_weights(state, found, counts)))

    def explain(self, query: str, document: str) -> BM25Explanation:
        """What each term of a query adds to the score of a text, which need not be in the index.

        Examples:
            >>> print(index.explain("running dogs", "A dog runs.").text())

        Args:
            query: one text.
            document: one text.

        Returns:
            A `BM25Explanation`: for each term of the query its words, counts, IDF, weight and score; their sum is that
            of `scores`. `as_dict()` for JSON, `text()` for a terminal.

        Raises:
            TypeError: the query or the document is not a string.
        """
        query, document, state = inputs.text(query, "query"), inputs.text(document, "document"), self._snapshot
        scored = segment.merged(list(self._runs(iter([document]))))
        if not state.documents:
            state = parts.snapshot([parts.part(scored, np.arange(1), None)], self.bm25.k, self.bm25.b)
        terms, counts = self._terms(query)
        frequencies = _frequencies(state, [part.segment.find(terms) for part in state.parts], len(terms))
        idfs, weights = (
            idf(frequencies, state.documents),
            segment.Weights(scored, self.bm25.k, self.bm25.b, state.avg_len),
        )
        words: dict[int, dict[str, None]] = {}
        for word, term in [*self.bm25.words(query), *self.bm25.words(document)]:
            words.setdefault(term, {})[word] = None
        found = []
        for place, row in enumerate(scored.find(terms)):
            postings = scored.slice(row) if row >= 0 else slice(0, 0)
            weight = weights.of(row, postings)[0] if row >= 0 else np.float32(0)
            found.append(
                TermScore(
                    tuple(words[int(terms[place])]),
                    int(counts[place]),
                    int(scored.counts[postings][0]) if row >= 0 else 0,
                    int(frequencies[place]),
                    float(idfs[place]),
                    float(weight),
                    float(np.float32(idfs[place] * counts[place]) * weight),
                )
            )
        found.sort(key=lambda term: -term.score)
        return BM25Explanation(
            found, float(self.scores(query, document)[0]), int(scored.lengths[0]), float(state.avg_len), state.documents
        )

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the index to one file, which is replaced when the new one is complete and on the disk.

        The file holds the weights too, so nothing is left to compute after `load`. A stemmer or an analyzer function of
        your own is not written: give it to `load` again.
        """
        with self._lock:
            state, next_number = self._snapshot, self._next_number
        index_file.save(Path(path), self.bm25, state, next_number)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        mmap: bool = False,
        verify: bool = True,
        stemmer: Stemmer | None = None,
        analyzer: Analyzer = None,
    ) -> BM25Index:
        """An index that `save` wrote.

        Args:
            path: the file.
            mmap: map the file instead of reading it into memory: processes share it, and what no query needs is not
                read. Nothing may change the file in place meanwhile; `save` to the same path replaces it, which Windows
                refuses while it is mapped.
            verify: check checksums and structure of all arrays, which reads the file once. False is for files that you
                wrote yourself: a damaged one may fail at a search or answer wrongly.
            stemmer: the stemmer it was built with, if that was your own.
            analyzer: the analyzer function it was built with, if it was one.

        Raises:
            FileNotFoundError: there is no such file.
            ModelLoadError: the file is damaged, of another version, or not an index.
            ValueError: the index needs `stemmer` or `analyzer` and it was not given, or the other way round.
        """
        bm25, state, next_number = index_file.load(
            Path(path), mmap=mmap, verify=verify, stemmer=stemmer, analyzer=analyzer
        )
        index = cls(bm25)
        index._snapshot, index._next_number = state, next_number
        return index

    def __getstate__(self) -> tuple[BM25, tuple[Part, ...], int]:
        with self._lock:
            return self.bm25, self._snapshot.parts, self._next_number

    def __setstate__(self, state: tuple[BM25, tuple[Part, ...], int]) -> None:
        bm25, stored, next_number = state
        BM25Index.__init__(self, bm25)
        self._replace(stored)
        self._next_number = next_number

    def __repr__(self) -> str:
        return f"BM25Index({self.bm25!r}, documents={len(self)})"

    # -- inside -----------------------------------------------------------------------------------------------------

    def _runs(self, texts: Iterator[str]) -> Iterator[Segment]:
        """Segments of texts in order, each small enough to be sorted in little memory."""
        run: list[Batch] = []
        words = documents = 0
        for batch in self.bm25.batches(texts):
            run.append(batch)
            words += len(batch.ids)
            documents += len(batch.sizes)
            if words >= _RUN_WORDS or documents >= _RUN_DOCUMENTS:
                yield segment.from_batches(run)
                run, words, documents = [], 0, 0
        if run:
            yield segment.from_batches(run)

    def _check_ids(self, given: list[Id] | None) -> None:
        """Raise an error if documents with these ids cannot be added."""
        existing = self._snapshot.parts
        if existing and (existing[0].ids is None) != (given is None):
            raise ValueError(
                "The documents of this index have ids: give ids=, one for each text"
                if given is None
                else "The documents of this index are numbered and have no ids of their own: leave out ids="
            )
        if given is None:
            return
        kind: type = type(given[0])
        if existing:
            kind = str if isinstance(existing[0].ids, Strings) else int
        taken, seen = self._numbers_by_id() if existing else {}, set[Id]()
        for position, each in enumerate(given):
            if type(each) is not kind:
                raise TypeError(f"ids[{position}] must be {kind.__name__} like the others, not {type(each).__name__}")
            if each in taken or each in seen:
                raise ValueError(f"ids[{position}] is taken: {each!r}. Delete that document first")
            seen.add(each)

    def _numbers_by_id(self) -> dict[Id, int]:
        """Numbers of all documents by the caller's ids."""
        if self._numbers is None:
            self._numbers = {}
            for part in self._snapshot.parts:
                ids, numbers = part.ids_at(part.positions()), part.numbers[part.positions()]
                self._numbers.update(zip(ids.tolist(), numbers.tolist(), strict=True))
        return self._numbers

    def _numbers_of(self, ids: Sequence[Id]) -> NDArray[np.int64]:
        """The numbers of the documents with these ids, -1 where there is none."""
        existing = self._snapshot.parts
        if existing and existing[0].ids is not None:
            by_id = self._numbers_by_id()
            return np.array([by_id.get(each, -1) for each in ids], np.int64)
        numbers = np.array([-1 if isinstance(each, str) else each for each in ids], np.int64)
        return np.where(parts.exist(existing, numbers), numbers, -1)

    def _replace(self, changed: Sequence[Part]) -> None:
        self._snapshot = parts.snapshot(changed, self.bm25.k, self.bm25.b, self._snapshot.weights)

    def _terms(self, query: str) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The query's distinct terms, ascending, and their counts; stop words only if it has no other word."""
        words = self.bm25.token_ids(query)
        counts = Counter(each for each in words if 0 <= each <= MAX_ID) or Counter(each for each in words if each >= 0)
        terms = sorted(counts)
        return np.array(terms, np.uint32), np.array([counts[term] for term in terms], np.int64)

    def _search(self, state: Snapshot, query: str, k: int, masks: Masks) -> tuple[NDArray[Any], Scores]:
        terms, counts = self._terms(query)
        rows = [part.segment.find(terms) for part in state.parts]
        weights = _query_weights(state, rows, counts)
        found = [
            ranking.best(part.segment, own, _present(those, weights), k, mask)
            for part, own, those, mask in zip(state.parts, state.weights, rows, masks, strict=True)
        ]
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        ids = [part.ids_at(positions) for part, (positions, _) in zip(state.parts, found, strict=True)]
        if len(ids) == 1:
            return ids[0], found[0][1]
        scores = np.concatenate([each for _, each in found])
        best = np.argsort(-scores, kind="stable")[:k]  # parts are in the order of adding
        return np.concatenate(ids)[best], scores[best]


def _query_weights(state: Snapshot, rows: Sequence[Sequence[int]], counts: NDArray[np.int64]) -> Scores:
    """The IDF of each term of a query times its count in the query, float32.

    Args:
        state: the parts.
        rows: for each part, the rows of the terms, -1 for one that is not there.
        counts: of the terms in the query.
    """
    return (idf(_frequencies(state, rows, len(counts)), state.documents) * counts).astype(np.float32)


def _frequencies(state: Snapshot, rows: Sequence[Sequence[int]], terms: int) -> NDArray[np.int64]:
    """The number of documents that have each term; arguments as `_query_weights`."""
    frequencies = np.zeros(terms, np.int64)
    for part, those in zip(state.parts, rows, strict=True):
        frequencies += np.array([part.frequency(row) if row >= 0 else 0 for row in those], np.int64)
    return frequencies


def _present(rows: Sequence[int], weights: Scores) -> Iterator[tuple[int, np.float32]]:
    """The terms that a segment has."""
    return ((row, weight) for row, weight in zip(rows, weights, strict=True) if row >= 0)
