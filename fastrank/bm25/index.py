"""A small search index in memory: BM25 as Lucene scores it, in numpy arrays."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrank import inputs
from fastrank.bm25.weights import BM25, Analyzer, Counts, Integers, Statistics, Stemmer
from fastrank.errors import ModelLoadError

FORMAT = "fastrank BM25 index"
VERSION = 1

_PLACE_BITS = 31  # beside the 32 of an id in a positive int64

Scores = NDArray[np.float32]


class _Postings(NamedTuple):
    """Which term stands where, grouped by term (CSR). Terms ascend, and so do the documents of a term."""

    terms: Integers  # (terms,): ids
    starts: Integers  # (terms + 1,): where each term's postings begin
    documents: NDArray[np.int32]  # (postings,): positions
    counts: NDArray[np.int32]  # (postings,)
    lengths: NDArray[np.int32]  # (documents,): words of each document


class _Packed(NamedTuple):
    """`Counts` as they wait for their index: 8 bytes a posting."""

    terms: NDArray[np.uint32]
    counts: NDArray[np.int32]
    distinct: NDArray[np.int32]
    lengths: NDArray[np.int32]


class _View(NamedTuple):
    """Postings ready to search."""

    postings: _Postings
    statistics: Statistics
    weights: Scores  # (postings,): count / (count + k * (1 - b + b * length / avg_len))


_EMPTY = _Postings(
    np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32)
)


class BM25Index:
    """Documents to search in, or a corpus whose statistics score other documents.

    A document's score is the sum over the query's words of idf * f / (f + k * (1 - b + b * length / avg_len)), with
    idf = ln(1 + (N - n + 0.5) / (n + 0.5)) and avg_len of these documents: Lucene's formula, with exact lengths. A word
    that stands twice in the query counts twice.

    >>> index = BM25Index.build(["A cat sat on the mat.", "Dogs bark."])
    >>> positions, scores = index.search("barking dog")
    >>> positions.tolist()
    [1]

    Many threads may search at once; `add` may run beside them and takes effect when it returns.

    Args:
        bm25: how texts become terms, and k and b; its `avg_len` and `idf` are not used. None: `BM25()`.
    """

    def __init__(self, bm25: BM25 | None = None) -> None:
        self.bm25 = BM25() if bm25 is None else bm25
        self._postings = _EMPTY
        self._view: _View | None = None
        self._lock = Lock()

    @classmethod
    def build(cls, texts: Iterable[str], **options: Any) -> BM25Index:
        """An index of these texts. `options` are those of `BM25`.

        Raises:
            TypeError: a text is no string; the message says which.
        """
        return cls(BM25(**options)).add(texts)

    def add(self, texts: Iterable[str]) -> BM25Index:
        """Add documents behind those that are there. Returns the index.

        Texts are read one by one and not kept, so a corpus need not be in memory. Each call sorts the
        whole index anew: add many at once. If `texts` raises an error, nothing is added.

        Raises:
            TypeError: a text is no string; the message says which.
        """
        found = [_packed(counted) for counted in self.bm25.counts(inputs.texts(texts, "texts"))]
        with self._lock:
            self._postings = _merged(self._postings, found)
            self._view = None
        return self

    def __len__(self) -> int:
        return len(self._postings.lengths)

    def search(self, query: str, k: int = 10) -> tuple[Integers, Scores]:
        """The best `k` documents that have a word of the query, best first.

        Returns:
            Positions (int64, in order of adding) and scores (float32, > 0). Equal scores are ordered by position.

        Raises:
            TypeError: the query is no string, or `k` no integer.
            ValueError: `k` is smaller than 1.
        """
        query, k = inputs.text(query, "query"), inputs.positive(k, "k")
        view = self._ready()
        scores = np.zeros(len(view.postings.lengths), np.float32)
        terms, weights = self._query(query, view.statistics)
        postings = view.postings
        at = np.searchsorted(postings.terms, terms)
        for place, term, weight in zip(at.tolist(), terms.tolist(), weights, strict=True):
            if place < len(postings.terms) and postings.terms[place] == term:
                those = slice(postings.starts[place], postings.starts[place + 1])
                scores[postings.documents[those]] += weight * view.weights[those]
        return _best(scores, k)

    def scores(self, query: str, documents: Sequence[str]) -> Scores:
        """The score of each of these texts, float32, (documents,): to rerank what another search found.

        The statistics are those of the index; if it is empty, those of `documents` themselves.

        Raises:
            TypeError: the query or a document is no string.
        """
        query = inputs.text(query, "query")
        counted = list(self.bm25.counts(inputs.texts(documents)))
        view = self._ready() if len(self) else _view(self.bm25, _merged(_EMPTY, [_packed(part) for part in counted]))
        terms, weights = self._query(query, view.statistics)
        found: list[Scores] = []
        for part in counted:
            at = np.minimum(np.searchsorted(terms, part.ids), max(len(terms) - 1, 0))
            hits = np.flatnonzero(terms[at] == part.ids) if len(terms) else np.zeros(0, np.int64)
            rows = np.repeat(np.arange(len(part.lengths)), part.distinct)[hits]
            values = _saturated(self.bm25, part.counts[hits], part.lengths[rows], view.statistics.avg_len)
            # Summed in the order of terms, as `search` does: equal texts have equal scores.
            order = np.argsort(at[hits], kind="stable")
            scores = np.zeros(len(part.lengths), np.float32)
            np.add.at(scores, rows[order], weights[at[hits][order]] * values[order])
            found.append(scores)
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def save(self, path: str | Path) -> None:
        """Write the index as one file (numpy's .npz, without pickle), put in place when it is complete.

        A stemmer or an analyzer function of your own is not written: give it to `load` again.
        """
        path = Path(path)
        settings = self.bm25.settings()
        header = {
            "format": FORMAT,
            "version": VERSION,
            "settings": {
                **settings,
                "stemmer": settings["stemmer"] is not None,
                "analyzer": True if callable(settings["analyzer"]) else settings["analyzer"],
                "stopwords": None if settings["stopwords"] is None else sorted(settings["stopwords"]),
            },
        }
        blob = np.frombuffer(json.dumps(header).encode(), np.uint8)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
        try:
            with unfinished.open("wb") as file:
                np.savez(file, header=blob, **self._postings._asdict())
            unfinished.replace(path)
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()

    @classmethod
    def load(cls, path: str | Path, *, stemmer: Stemmer | None = None, analyzer: Analyzer = None) -> BM25Index:
        """An index that `save` wrote.

        Args:
            path: the file.
            stemmer: the stemmer it was built with, if that was your own.
            analyzer: the analyzer function it was built with, if it was one.

        Raises:
            FileNotFoundError: there is no such file.
            ModelLoadError: the file is damaged, of another version, or no index.
            ValueError: the index needs `stemmer` or `analyzer` and it was not given, or the other way round.
        """
        path = Path(path)
        header, postings = _read(path)
        settings = dict(header["settings"])
        for name, given in (("stemmer", stemmer), ("analyzer", analyzer)):
            if (settings[name] is True) != (given is not None):
                was = "was built with" if given is None else "was not built with"
                raise ValueError(f"{path} {was} {'an' if name == 'analyzer' else 'a'} {name} of your own: {name}=")
            settings[name] = given if settings[name] is True else settings[name] or None
        try:
            index = cls(BM25(**settings))
        except (TypeError, ValueError) as error:
            raise ModelLoadError(f"{path} is damaged: {error}") from error
        index._postings = postings
        return index

    def __repr__(self) -> str:
        return f"BM25Index({self.bm25!r}, documents={len(self)})"

    def _ready(self) -> _View:
        view = self._view
        if view is None:
            with self._lock:
                view = self._view = self._view or _view(self.bm25, self._postings)
        return view

    def _query(self, query: str, statistics: Statistics) -> tuple[Integers, Scores]:
        """The query's terms, ascending so that the order of words does not change a sum, and their weights."""
        terms, counts = np.unique(self.bm25.query_ids(query), return_counts=True)
        return terms, (statistics.idf(terms) * counts).astype(np.float32)


def _packed(counted: Counts) -> _Packed:
    return _Packed(
        counted.ids.astype(np.uint32),
        counted.counts.astype(np.int32),
        counted.distinct.astype(np.int32),
        counted.lengths.astype(np.int32),
    )


def _merged(old: _Postings, more: Sequence[_Packed]) -> _Postings:
    """Postings of the old and of more documents: one sort of (term, place in the sequence) packed into 64 bits."""
    if not more:
        return old
    lengths = np.concatenate([old.lengths, *(part.lengths for part in more)])
    counts = np.concatenate([old.counts, *(part.counts for part in more)])
    added = np.arange(len(old.lengths), len(lengths), dtype=np.int32)
    documents = np.concatenate([old.documents, np.repeat(added, np.concatenate([part.distinct for part in more]))])
    bits = len(counts).bit_length()
    if bits > _PLACE_BITS:
        raise ValueError(f"An index can hold 2**{_PLACE_BITS} different words of documents, these have {len(counts)}")
    keys = np.concatenate([np.repeat(old.terms, np.diff(old.starts)), *(part.terms for part in more)], dtype=np.int64)
    keys <<= bits
    keys |= np.arange(len(keys), dtype=np.int64)
    keys.sort()
    order = keys & ((1 << bits) - 1)
    documents, counts = documents[order], counts[order]
    keys >>= bits
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return _Postings(keys[starts], np.append(starts, len(keys)), documents, counts, lengths)


def _view(bm25: BM25, postings: _Postings) -> _View:
    documents = len(postings.lengths)
    words = int(postings.lengths.sum(dtype=np.int64))
    statistics = Statistics(documents, words / documents if words else 1.0, postings.terms, np.diff(postings.starts))
    lengths = postings.lengths[postings.documents]
    return _View(postings, statistics, _saturated(bm25, postings.counts, lengths, statistics.avg_len))


def _saturated(bm25: BM25, counts: NDArray[Any], lengths: NDArray[Any], average: float) -> Scores:
    norms = bm25.k * (1 - bm25.b + bm25.b * lengths / average)
    values: Scores = (counts / (counts + norms)).astype(np.float32)
    return values


def _best(scores: Scores, k: int) -> tuple[Integers, Scores]:
    """The `k` best positive scores; of equal ones those that come first."""
    floor = np.float32(0)
    if k < len(scores):
        floor = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero((scores >= floor) & (scores > 0))
    found = found[np.argsort(-scores[found], kind="stable")][:k]
    return found, scores[found]


def _read(path: Path) -> tuple[dict[str, Any], _Postings]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            _check_header(header, path)
            postings = _Postings(*(file[name] for name in _Postings._fields))
            _check(postings)
    except (FileNotFoundError, IsADirectoryError, PermissionError, ModelLoadError):
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds on damaged bytes
        raise ModelLoadError(f"{path} is no BM25 index, or a damaged one: {error}") from error
    return header, postings


def _check_header(header: Any, path: Path) -> None:
    if header["format"] != FORMAT:
        raise ValueError("its header is of something else")
    if header["version"] != VERSION:
        raise ModelLoadError(
            f"{path} has version {header['version']} of the index format, this fastrank reads {VERSION}: build it anew"
        )
    if header["settings"].keys() != BM25().settings().keys():
        raise ValueError("its settings are not those of BM25")


def _check(postings: _Postings) -> None:
    """What `search` relies on, so that no file can make it fail or answer wrongly in silence."""
    for name, array in postings._asdict().items():
        wanted = getattr(_EMPTY, name).dtype
        if array.dtype != wanted or array.ndim != 1:
            raise ValueError(f"{name} has type {array.dtype} and {array.ndim} dimensions, not {wanted} and 1")
    terms, starts, documents, counts, lengths = postings
    good = (
        len(starts) == len(terms) + 1
        and starts[0] == 0
        and starts[-1] == len(documents) == len(counts)
        and (np.diff(starts) > 0).all()
        and (np.diff(terms) > 0).all()
        and (counts > 0).all()
        and (lengths >= 0).all()
        and (not len(documents) or 0 <= documents.min() <= documents.max() < len(lengths))
    )
    if not good:
        raise ValueError("its arrays do not fit together")
