"""BM25's weights of terms in documents, as sparse vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank import inputs
from fastrank.bm25 import analysis
from fastrank.bm25.analysis import ANALYZERS, DROPPED, Stemmer
from fastrank.bm25.languages import LANGUAGES

__all__ = ["BM25", "Analyzer", "Counts", "Statistics", "Stemmer"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Analyzer: TypeAlias = "Literal['unicode', 'bigram'] | Callable[[str], Iterable[str]] | None"

_BATCH = 256  # texts counted together
_TOKENS = 1 << 15  # and their words, unless one text has more: what stays in a processor's cache
_ID_BITS = 32  # ids go up to and including 2**31


class Counts(NamedTuple):
    """The terms of some documents, document after document, in the order in which they first appear."""

    ids: Integers  # (terms,)
    counts: Integers  # (terms,): how often each stands in its document
    distinct: Integers  # (documents,): terms of each document
    lengths: Integers  # (documents,): words of each document, those left out not counted


class Statistics(NamedTuple):
    """What a corpus says about its terms."""

    documents: int
    avg_len: float  # words in a document, those left out not counted
    ids: Integers  # (terms,), ascending
    frequencies: Integers  # (terms,): in how many documents each stands

    def idf(self, ids: Integers) -> Floats:
        """ln(1 + (N - n + 0.5) / (n + 0.5)) of each id, as Lucene and Qdrant have it; n is 0 for an unknown one."""
        n = np.zeros(len(ids))
        if len(self.ids):
            at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
            n = np.where(self.ids[at] == ids, self.frequencies[at], 0)
        values: Floats = np.log1p((self.documents - n + 0.5) / (n + 0.5))
        return values


class BM25:
    """Texts to sparse vectors, with FastEmbed's ids and values.

    A document's value for a term that it has f times is f * (k + 1) / (f + k * (1 - b + b * length / avg_len)), where
    length counts its words, those left out not. A query's values are 1. The IDF is left to the store (Qdrant's
    modifier "idf") unless `idf` is set. Where stems share an id, their counts are added.

    An instance may be used by many threads. It is pickled by its settings and statistics.

    Args:
        language: one of LANGUAGES, for stemmer and stop words; None for neither. Another name may be given where no
            stemmer is looked for: with `stemmer`, `disable_stemmer`, analyzer "bigram" or an analyzer of your own.
        k: how late repetition stops to count.
        b: how much long documents are held back: 0 not at all, 1 fully.
        avg_len: words of an average document; "auto": `fit` must find it out.
        token_max_length: characters a word may have, else it is left out.
        disable_stemmer: no stemmer and, as in FastEmbed, no stop words either unless `stopwords` are given.
        stemmer: an object with a method `stem_word(word) -> str`, instead of the language's.
        stopwords: words to leave out, instead of the language's.
        analyzer: None for FastEmbed's; "unicode": words keep their combining marks (Tamil, Hindi) and texts that
            differ in normal form only are equal; "bigram": the same, and pairs of characters for scripts without spaces
            (Chinese, Japanese, Korean, Thai); or a function from a text to its terms, which are taken as they are.
        idf: whether document values are multiplied by the IDF of the corpus given to `fit`, for stores that have none.

    Raises:
        ValueError: an unknown language (the message lists them), settings out of range or that exclude each other.
        TypeError: `stopwords` is a string, or `stemmer` or `analyzer` is nothing of the above.
    """

    def __init__(
        self,
        language: str | None = "english",
        k: float = 1.2,
        b: float = 0.75,
        avg_len: float | Literal["auto"] = 256.0,
        token_max_length: int = 40,
        disable_stemmer: bool = False,
        stemmer: Stemmer | None = None,
        stopwords: Iterable[str] | None = None,
        analyzer: Analyzer = None,
        *,
        idf: bool = False,
    ) -> None:
        if disable_stemmer and stemmer is not None:
            raise ValueError("stemmer cannot be supplied with disable_stemmer=True")
        if stemmer is not None and not callable(getattr(stemmer, "stem_word", None)):
            raise TypeError(f"stemmer must be an object with a method stem_word, not {type(stemmer).__name__}")
        if isinstance(stopwords, (str, bytes)):
            raise TypeError(f"stopwords must be a collection of words, not {type(stopwords).__name__}")
        if not (analyzer is None or analyzer in ANALYZERS or callable(analyzer)):
            raise ValueError(f"analyzer must be None, a function, or one of {', '.join(ANALYZERS)}, not {analyzer!r}")
        if callable(analyzer) and (stemmer is not None or stopwords is not None):
            raise ValueError("stemmer and stopwords cannot be supplied with an analyzer function: its terms are final")
        if not 0 <= k < float("inf"):
            raise ValueError(f"k must be >= 0, got {k}")
        if not 0 <= b <= 1:
            raise ValueError(f"b must be between 0 and 1, got {b}")
        average = None if avg_len == "auto" else float(avg_len)
        if average is not None and not 0 < average < float("inf"):
            raise ValueError(f'avg_len must be > 0 or "auto", got {avg_len}')
        needs_stemmer = not (disable_stemmer or stemmer is not None or analyzer == "bigram" or callable(analyzer))
        if needs_stemmer and language is not None and language not in LANGUAGES:
            raise ValueError(
                f"{language} language is not supported. Languages: {', '.join(LANGUAGES)}. "
                'For another, give stemmer=, disable_stemmer=True, or analyzer="bigram" where words have no spaces.'
            )
        self.language = language
        self.k = float(k)
        self.b = float(b)
        self.token_max_length = inputs.positive(token_max_length, "token_max_length")
        self.disable_stemmer = disable_stemmer
        self.stemmer = stemmer
        self.stopwords = None if stopwords is None else frozenset(word.lower() for word in stopwords)
        self.analyzer = analyzer
        self.idf = idf
        self.statistics: Statistics | None = None
        self._avg_len = average
        self._analysis = self._make_analysis()

    @property
    def avg_len(self) -> float | Literal["auto"]:
        """Words of an average document: as `fit` found it, else as given."""
        if self.statistics is not None:
            return self.statistics.avg_len
        return "auto" if self._avg_len is None else self._avg_len

    def documents(self, texts: Sequence[str]) -> list[tuple[Integers, Floats]]:
        """(ids, values) of each text: distinct ids in order of first appearance, int64, and their values, float64.

        Raises:
            ValueError: the settings ask for corpus statistics (`avg_len="auto"`, `idf=True`) and `fit` was not called.
        """
        statistics, average = self.statistics, self.avg_len
        if average == "auto" or (self.idf and statistics is None):
            asked = 'avg_len="auto"' if average == "auto" else "idf=True"
            raise ValueError(f"{asked} needs the statistics of a corpus: call fit(corpus) first")
        vectors: list[tuple[Integers, Floats]] = []
        for counted in self.counts(texts):
            counts = counted.counts.astype(np.float64)
            norms = self.k * (1 - self.b + self.b * counted.lengths / average)
            values = counts * (self.k + 1) / (counts + np.repeat(norms, counted.distinct))
            if self.idf and statistics is not None:
                values *= statistics.idf(counted.ids)
            vectors.extend(_parts(counted.ids, values, np.cumsum(counted.distinct).tolist()))
        return vectors

    def queries(self, texts: Sequence[str]) -> list[tuple[Integers, Integers]]:
        """(ids, ones) of each text: its distinct ids in order of first appearance, int64, and as many ones, int64."""
        every: list[int] = []
        ends: list[int] = []
        for text in texts:
            found = dict.fromkeys(self._analysis.ids(text))
            found.pop(DROPPED, None)
            every.extend(found)
            ends.append(len(every))
        ids = np.array(every, np.int64)
        return _parts(ids, np.ones_like(ids), ends)

    def token_count(self, texts: Iterable[str]) -> int:
        """How many words the texts have, those left out included."""
        return sum(map(self._analysis.count, texts))

    def fit(self, corpus: Iterable[str]) -> BM25:
        """Take `avg_len` and IDF from a corpus; what was known before is forgotten. Returns the instance.

        Raises:
            TypeError: a text is no string; the message says which.
            ValueError: the corpus has no words.
        """
        documents = words = 0
        frequencies: Counter[int] = Counter()
        for counted in self.counts(inputs.texts(corpus, "corpus")):
            documents += len(counted.lengths)
            words += int(counted.lengths.sum())
            frequencies.update(counted.ids.tolist())
        if not words:
            raise ValueError(f"A corpus of {documents} documents without a single word has no statistics")
        ids = np.fromiter(frequencies, np.int64, len(frequencies))
        counts = np.fromiter(frequencies.values(), np.int64, len(frequencies))
        order = np.argsort(ids)
        self.statistics = Statistics(documents, words / documents, ids[order], counts[order])
        return self

    def query_ids(self, text: str) -> Integers:
        """The ids of all words of a text, repeated ones repeated: int64, (words,)."""
        return np.array([each for each in self._analysis.ids(text) if each != DROPPED], np.int64)

    def counts(self, texts: Iterable[str]) -> Iterator[Counts]:
        """What stands in the texts and how often, in order, some texts at a time: they need not be in memory."""
        ids: list[int] = []
        ends: list[int] = []
        for text in texts:
            found = self._analysis.ids(text)
            if ends and (len(ends) == _BATCH or len(ids) + len(found) > _TOKENS):
                yield _count(ids, ends)
                ids, ends = [], []
            ids.extend(found)
            ends.append(len(ids))
        if ends:
            yield _count(ids, ends)

    def settings(self) -> dict[str, Any]:
        """The arguments that make an equal instance, without statistics."""
        return {
            "language": self.language,
            "k": self.k,
            "b": self.b,
            "avg_len": "auto" if self._avg_len is None else self._avg_len,
            "token_max_length": self.token_max_length,
            "disable_stemmer": self.disable_stemmer,
            "stemmer": self.stemmer,
            "stopwords": self.stopwords,
            "analyzer": self.analyzer,
            "idf": self.idf,
        }

    def _make_analysis(self) -> analysis.Pieces | analysis.Custom:
        if callable(self.analyzer):
            return analysis.Custom(self.analyzer)
        known = self.language in LANGUAGES and not self.disable_stemmer
        stop = self.stopwords
        if stop is None:
            stop = analysis.default_stopwords(self.language) if known else frozenset()
        stemmer = self.language if known and self.stemmer is None else self.stemmer
        return analysis.pieces(self.analyzer, self.language, stop, self.token_max_length, stemmer)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.settings(), self.statistics)

    def __repr__(self) -> str:
        return f"BM25({self.language!r}, k={self.k}, b={self.b}, avg_len={self.avg_len!r})"


def _restore(settings: dict[str, Any], statistics: Statistics | None) -> BM25:
    bm25 = BM25(**settings)
    bm25.statistics = statistics
    return bm25


def _parts(ids: Integers, values: Any, ends: list[int]) -> list[tuple[Integers, Any]]:
    return [(ids[start:end], values[start:end]) for start, end in pairwise([0, *ends])]


def _count(ids: list[int], ends: list[int]) -> Counts:
    """Count equal ids inside each text: `ids` of text after text, each ending at one of `ends`.

    One sort of (text, id, position) packed into 64 bits: half the time of a `Counter` for each text and its arrays.
    """
    words = np.fromiter(ids, np.int64, len(ids))
    texts = np.repeat(np.arange(len(ends), dtype=np.int64), np.diff(ends, prepend=0))
    kept = np.flatnonzero(words != DROPPED)
    words, texts = words[kept], texts[kept]
    lengths = np.bincount(texts, minlength=len(ends))
    bits = len(words).bit_length()
    keys = (((texts << _ID_BITS) | words) << bits) | np.arange(len(words), dtype=np.int64)
    keys.sort()
    groups = keys >> bits
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    counts = np.zeros(len(words), np.int64)
    counts[keys[starts] & ((1 << bits) - 1)] = np.diff(starts, append=len(words))
    first = np.flatnonzero(counts)
    return Counts(words[first], counts[first], np.bincount(texts[first], minlength=len(ends)), lengths)
