"""BM25's weights of terms in documents, as sparse vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank import inputs
from fastrank.bm25 import analysis, array_file
from fastrank.bm25.analysis import ANALYZERS, DROPPED, MAX_ID, Batch, Stemmer
from fastrank.bm25.languages import LANGUAGES
from fastrank.bm25.segmenters import SEGMENTERS
from fastrank.errors import ModelLoadError

__all__ = ["BM25", "Analyzer", "Counts", "Statistics", "Stemmer"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Analyzer: TypeAlias = (
    "Literal['unicode', 'bigram', 'unigram+bigram', 'code', 'jieba', 'fugashi', 'pythainlp', 'kiwipiepy']"
    " | Callable[[str], Iterable[str]] | None"
)

_NAMED = (*ANALYZERS, *SEGMENTERS)

FORMAT = "fastrank BM25 statistics"
VERSION = 1

_BATCH = 256  # texts analysed and counted together
_CHARACTERS = 1 << 17  # and their characters, unless one text has more: what stays in a CPU's cache
_ID_BITS = 32  # ids of terms go up to and including 2**31, those of stop words to 2**32 - 1
_MAX_DIMENSIONS = MAX_ID + 1  # more would change nothing
_ANALYSIS = (
    *("language", "token_max_length", "disable_stemmer", "stemmer", "stopwords", "analyzer"),
    *("strip_accents", "dimensions"),
)  # settings that decide which terms a text has


class Vectors(NamedTuple):
    """Sparse vectors of some texts, one after the other."""

    ids: Integers  # (terms,)
    values: NDArray[Any]  # (terms,)
    ends: list[int]  # where each text's vector ends

    def split(self) -> list[tuple[Integers, Any]]:
        """(ids, values) of each text."""
        return [(self.ids[start:end], self.values[start:end]) for start, end in pairwise([0, *self.ends])]


class Counts(NamedTuple):
    """The terms of some documents, document after document, in the order in which they first appear."""

    ids: Integers  # (terms,)
    counts: Integers  # (terms,): how often each stands in its document
    distinct: Integers  # (documents,): terms of each document
    lengths: Integers  # (documents,): words of each document, stop words not counted


@dataclass
class Statistics:
    """Document frequencies and lengths of a corpus, extended in place.

    Attributes:
        documents: number of documents.
        words: number of words in all of them, stop words not counted.
        frequencies: term id -> number of documents that have it.
    """

    documents: int = 0
    words: int = 0
    frequencies: dict[int, int] = field(default_factory=dict)

    @property
    def avg_len(self) -> float:
        """Words of an average document."""
        return self.words / self.documents

    def add(self, counted: Counts) -> None:
        """Add documents. Documents come first, so that a reader in another thread sees no frequency above them."""
        self.documents += len(counted.lengths)
        self.words += int(counted.lengths.sum())
        frequencies = self.frequencies
        for term in counted.ids.tolist():
            frequencies[term] = frequencies.get(term, 0) + 1

    def idf(self, ids: Integers) -> Floats:
        """The IDF of each id, float64; see `idf`."""
        get = self.frequencies.get
        frequencies = np.fromiter((get(each, 0) for each in ids.tolist()), np.int64, len(ids))
        return idf(frequencies, self.documents)


def idf(frequencies: NDArray[Any], documents: int) -> Floats:
    """ln(1 + (N - n + 0.5) / (n + 0.5)), as Lucene and Qdrant have it: N documents, n of which have the term."""
    values: Floats = np.log1p((documents - frequencies + 0.5) / (frequencies + 0.5))
    return values


class BM25:
    """Texts to sparse vectors, with FastEmbed's ids and values.

    A document's value for a term that it has f times is f * (k + 1) / (f + k * (1 - b + b * length / avg_len)), where
    length counts its words without stop words. A query's values are 1. The IDF is left to the store (Qdrant's
    modifier "idf") unless `idf` is set. Where stems share an id, their counts are added.

    Many threads may use an instance. It is pickled as its settings and statistics.

    Args:
        language: one of LANGUAGES, for stemmer and stop words; None for neither. Any name may be given where no
            stemmer is looked up: with `stemmer`, `disable_stemmer`, a "bigram" analyzer, a package's name or a function
            as analyzer.
        k: term-frequency saturation (k1).
        b: length normalization, 0 none to 1 full.
        avg_len: words of an average document; "auto": taken from the corpus given to `fit`.
        token_max_length: characters a word may have; longer words are dropped.
        disable_stemmer: no stemmer and, as in FastEmbed, no stop words either unless `stopwords` are given.
        stemmer: an object with a method `stem_word(word) -> str`, instead of the language's.
        stopwords: words to drop, instead of the language's.
        analyzer: None for FastEmbed's;
            "unicode": words keep their combining marks (Tamil, Hindi), and normal forms of Unicode are equal;
            "bigram": the same, and pairs of characters for scripts without spaces (Chinese, Japanese, Korean, Thai);
            "unigram+bigram": single characters of these scripts too;
            "code": identifiers whole and in parts (snake_case, camelCase);
            "jieba" (Chinese), "fugashi" (Japanese), "pythainlp" (Thai), "kiwipiepy" (Korean): words that this package
            finds, each an extra of its name;
            or a function from a text to its terms, which are taken as they are.
        idf: multiply document values by the IDF of the corpus given to `fit`, for stores that apply none.
        strip_accents: é -> e, ß -> ss, before stop words and stemmer are applied; needs an analyzer by name.
        dimensions: ids are taken modulo this, for stores with a largest index (pgvector's sparsevec: 1_000_000_000).
            Where that makes terms share an id, their counts are added. None: FastEmbed's ids, up to 2**31.

    Raises:
        ValueError: an unknown language (the message lists them), settings out of range or that exclude each other.
        TypeError: `stopwords` is a string, or `stemmer` has no method `stem_word`.
        ModuleNotFoundError: the package of `analyzer` is not installed.
        ModelLoadError: it has no dictionary.
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
        strip_accents: bool = False,
        dimensions: int | None = None,
    ) -> None:
        if isinstance(stopwords, (str, bytes)):
            raise TypeError(f"stopwords must be a collection of words, not {type(stopwords).__name__}")
        _check_analyzer(analyzer, stemmer, stopwords, strip_accents=strip_accents)
        _check_stemmer(language, analyzer, stemmer, disable_stemmer=disable_stemmer)
        if not 0 <= k < float("inf"):
            raise ValueError(f"k must be >= 0, got {k}")
        if not 0 <= b <= 1:
            raise ValueError(f"b must be between 0 and 1, got {b}")
        average = None if avg_len == "auto" else float(avg_len)
        if average is not None and not 0 < average < float("inf"):
            raise ValueError(f'avg_len must be > 0 or "auto", got {avg_len}')
        if dimensions is not None and inputs.positive(dimensions, "dimensions") > _MAX_DIMENSIONS:
            raise ValueError(f"dimensions must be at most {_MAX_DIMENSIONS}, got {dimensions}")
        self.language = language
        self.k = float(k)
        self.b = float(b)
        self.token_max_length = inputs.positive(token_max_length, "token_max_length")
        self.disable_stemmer = disable_stemmer
        self.stemmer = stemmer
        self.stopwords = None if stopwords is None else frozenset(word.lower() for word in stopwords)
        self.analyzer = analyzer
        self.idf = idf
        self.strip_accents = strip_accents
        self.dimensions = dimensions
        self.statistics: Statistics | None = None
        self._avg_len = average
        self._analysis = self._make_analysis()

    @property
    def avg_len(self) -> float | Literal["auto"]:
        """Words of an average document: of the fitted corpus, else as given."""
        if self.statistics is not None and self.statistics.words:
            return self.statistics.avg_len
        return "auto" if self._avg_len is None else self._avg_len

    def documents(self, texts: Sequence[str]) -> list[tuple[Integers, Floats]]:
        """(ids, values) of each text: distinct ids in order of first appearance, int64, and their values, float64.

        Raises:
            ValueError: the settings need corpus statistics (`avg_len="auto"`, `idf=True`) and `fit` was not called.
        """
        return self.document_vectors(texts).split()

    def queries(self, texts: Sequence[str]) -> list[tuple[Integers, Integers]]:
        """(ids, ones) of each text: its distinct ids in order of first appearance, int64, and as many ones, int64."""
        return self.query_vectors(texts).split()

    def document_vectors(self, texts: Sequence[str]) -> Vectors:
        """`documents` in two arrays, which travel between processes far cheaper than many small ones."""
        statistics, average = self.statistics, self.avg_len
        if average == "auto" or (self.idf and statistics is None):
            setting = 'avg_len="auto"' if average == "auto" else "idf=True"
            raise ValueError(f"{setting} needs the statistics of a corpus: call fit(corpus) first")
        ids, values, distinct = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, np.int64)]
        for counted in self.counts(texts):
            counts = counted.counts.astype(np.float64)
            norms = self.k * (1 - self.b + self.b * counted.lengths / average)
            weights = counts * (self.k + 1) / (counts + np.repeat(norms, counted.distinct))
            if self.idf and statistics is not None:
                weights *= statistics.idf(counted.ids)
            ids.append(counted.ids)
            values.append(weights)
            distinct.append(counted.distinct)
        ends = np.cumsum(np.concatenate(distinct)).tolist()
        return Vectors(np.concatenate(ids), np.concatenate(values), ends)

    def query_vectors(self, texts: Sequence[str]) -> Vectors:
        """`queries` in two arrays."""
        every: list[int] = []
        ends: list[int] = []
        for text in texts:
            distinct = dict.fromkeys(self._analysis.ids(text))
            distinct.pop(DROPPED, None)
            every += [each for each in distinct if each <= MAX_ID]  # no stop words
            ends.append(len(every))
        ids = np.array(every, np.int64)
        return Vectors(ids, np.ones_like(ids), ends)

    def token_count(self, texts: Iterable[str]) -> int:
        """How many words the texts have, dropped ones included."""
        return sum(map(self._analysis.count, texts))

    def token_ids(self, text: str) -> list[int]:
        """The ids of a text's words in order; above `analysis.MAX_ID` for stop words, negative for dropped words."""
        return self._analysis.ids(text)

    def words(self, text: str) -> list[tuple[str, int]]:
        """The words of a text in order, each with its id as `token_ids` has it."""
        return self._analysis.words(text)

    # -- statistics of a corpus -------------------------------------------------------------------------------------

    def fit(self, corpus: Iterable[str]) -> BM25:
        """Take `avg_len` and IDF from a corpus, in place of an earlier one. Returns the instance.

        Raises:
            TypeError: an item is not a string; the message says which. The earlier statistics stay.
            ValueError: the corpus has no words.
        """
        statistics = Statistics()
        for counted in self.counts(inputs.texts(corpus, "corpus")):
            statistics.add(counted)
        if not statistics.words:
            raise ValueError(f"A corpus of {statistics.documents} documents without a single word has no statistics")
        self.statistics = statistics
        return self

    def partial_fit(self, corpus: str | Iterable[str]) -> BM25:
        """Extend the statistics by more documents, or begin them. Returns the instance.

        Call it from one thread at a time; other threads may embed meanwhile.

        Raises:
            TypeError: an item is not a string; the message says which. Nothing is added.
        """
        counted = list(self.counts(inputs.texts(corpus, "corpus")))
        statistics = Statistics() if self.statistics is None else self.statistics
        for each in counted:
            statistics.add(each)
        self.statistics = statistics
        return self

    def save(self, path: str | Path) -> None:
        """Write settings and statistics to one file, which is replaced when the new one is complete.

        A stemmer or an analyzer function of your own is not written: give it to `load` again.
        """
        header: dict[str, Any] = {"settings": self.plain_settings()}
        arrays: dict[str, NDArray[Any]] = {}
        if (statistics := self.statistics) is not None:
            header |= {"documents": statistics.documents, "words": statistics.words}
            ids = np.fromiter(statistics.frequencies, np.uint32, len(statistics.frequencies))
            counts = np.fromiter(statistics.frequencies.values(), np.uint32, len(ids))
            arrays = {"ids": ids, "frequencies": counts}
        array_file.write(Path(path), FORMAT, VERSION, header, arrays)

    @classmethod
    def load(cls, path: str | Path, *, stemmer: Stemmer | None = None, analyzer: Analyzer = None) -> BM25:
        """An instance that `save` wrote.

        Args:
            path: the file.
            stemmer: the stemmer it was saved with, if that was your own.
            analyzer: the analyzer function it was saved with, if it was one.

        Raises:
            FileNotFoundError: there is no such file.
            ModelLoadError: the file is damaged, of another version, or holds something else.
            ValueError: `stemmer` or `analyzer` is needed and was not given, or the other way round.
        """
        path = Path(path)
        header, arrays = array_file.read(path, FORMAT, VERSION)
        bm25 = cls.from_plain_settings(header.get("settings"), path, stemmer, analyzer)
        if arrays:
            with array_file.damage(path):
                bm25.statistics = _statistics(header, arrays)
        return bm25

    def load_statistics(self, path: str | Path) -> BM25:
        """Take the statistics that `save` wrote, in place of earlier ones. Returns the instance.

        Raises:
            FileNotFoundError: there is no such file.
            ModelLoadError: the file is damaged, of another version, or holds something else.
            ValueError: it was saved with settings that give other terms; the message names them.
        """
        path = Path(path)
        own = self.analysis_settings()
        custom = {"stemmer": self.stemmer, "analyzer": self.analyzer if callable(self.analyzer) else None}
        other = BM25.load(path, **custom)  # type: ignore[arg-type]
        if differing := [name for name, value in other.analysis_settings().items() if value != own[name]]:
            raise ValueError(f"{path} has statistics of other terms: these settings differ: {', '.join(differing)}")
        self.statistics = other.statistics
        return self

    def counts(self, texts: Iterable[str]) -> Iterator[Counts]:
        """The terms of texts and their counts, in order, some texts at a time: they need not be in memory."""
        return map(_count, self.batches(texts))

    def batches(self, texts: Iterable[str]) -> Iterator[Batch]:
        """The ids of the words of texts, in order, some texts at a time: they need not be in memory.

        Ids above `analysis.MAX_ID` are of stop words, negative ones of dropped words.
        """
        batch: list[str] = []
        characters = 0
        for text in texts:
            if batch and (len(batch) == _BATCH or characters + len(text) > _CHARACTERS):
                yield self._analysis.batch(batch)
                batch, characters = [], 0
            batch.append(text)
            characters += len(text)
        if batch:
            yield self._analysis.batch(batch)

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
            "strip_accents": self.strip_accents,
            "dimensions": self.dimensions,
        }

    def analysis_settings(self) -> dict[str, Any]:
        """The settings that decide which terms a text has."""
        settings = self.settings()
        return {name: settings[name] for name in _ANALYSIS}

    def plain_settings(self) -> dict[str, Any]:
        """`settings` as JSON can hold them: code of the caller's own becomes True."""
        settings = self.settings()
        return {
            **settings,
            "stemmer": True if self.stemmer is not None else None,
            "analyzer": True if callable(self.analyzer) else self.analyzer,
            "stopwords": None if self.stopwords is None else sorted(self.stopwords),
        }

    @classmethod
    def from_plain_settings(cls, settings: Any, path: Path, stemmer: Stemmer | None, analyzer: Analyzer) -> BM25:
        """An instance of `plain_settings` that stood in a file, with the caller's own code put in again.

        Raises:
            ModelLoadError: these are no such settings; the message names the file.
            ValueError: code was not given that is needed, or the other way round.
        """
        if not isinstance(settings, dict) or settings.keys() != cls().settings().keys():
            raise ModelLoadError(f"{path} is damaged: its settings are not those of BM25")
        settings = dict(settings)
        for name, given in (("stemmer", stemmer), ("analyzer", analyzer)):
            if (settings[name] is True) != (given is not None):
                was = "was built with" if given is None else "was not built with"
                raise ValueError(f"{path} {was} {'an' if name == 'analyzer' else 'a'} {name} of your own: {name}=")
            if settings[name] is True:
                settings[name] = given
        try:
            return cls(**settings)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelLoadError(f"{path} is damaged: {error}") from error

    def _make_analysis(self) -> analysis.Vocabulary | analysis.WholeTexts:
        if callable(self.analyzer):
            return analysis.WholeTexts(self.analyzer, analysis.TermIds(dimensions=self.dimensions))
        known = self.language in LANGUAGES and not self.disable_stemmer
        stop = self.stopwords
        if stop is None:
            stop = analysis.default_stopwords(self.language) if known else frozenset()
        stemmer = self.language if known and self.stemmer is None else self.stemmer
        dotless = self.language == "turkish"
        settings = analysis.Settings(
            self.analyzer, dotless, stop, self.token_max_length, self.strip_accents, self.dimensions
        )
        return analysis.vocabulary(settings, stemmer)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.settings(), self.statistics)

    def __repr__(self) -> str:
        return f"BM25({self.language!r}, k={self.k}, b={self.b}, avg_len={self.avg_len!r})"


def _check_analyzer(
    analyzer: Analyzer, stemmer: Stemmer | None, stopwords: Iterable[str] | None, *, strip_accents: bool
) -> None:
    if not (analyzer is None or analyzer in _NAMED or callable(analyzer)):
        raise ValueError(f"analyzer must be None, a function, or one of {', '.join(_NAMED)}, not {analyzer!r}")
    if callable(analyzer) and (stemmer is not None or stopwords is not None):
        raise ValueError("stemmer and stopwords cannot be supplied with an analyzer function: its terms are final")
    if strip_accents and not isinstance(analyzer, str):
        raise ValueError(f"strip_accents needs an analyzer by name: {', '.join(_NAMED)}")


def _check_stemmer(language: str | None, analyzer: Analyzer, stemmer: Stemmer | None, *, disable_stemmer: bool) -> None:
    if disable_stemmer and stemmer is not None:
        raise ValueError("stemmer cannot be supplied with disable_stemmer=True")
    if stemmer is not None and not callable(getattr(stemmer, "stem_word", None)):
        raise TypeError(f"stemmer must be an object with a method stem_word, not {type(stemmer).__name__}")
    without = disable_stemmer or callable(analyzer) or analyzer in ("bigram", "unigram+bigram", *SEGMENTERS)
    if language is None or language in LANGUAGES or stemmer is not None or without:
        return
    raise ValueError(
        f"{language} language is not supported. Languages: {', '.join(LANGUAGES)}. "
        'For another, give stemmer=, disable_stemmer=True, or analyzer="bigram" where words have no spaces.'
    )


def _restore(settings: dict[str, Any], statistics: Statistics | None) -> BM25:
    bm25 = BM25(**settings)
    bm25.statistics = statistics
    return bm25


def _statistics(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Statistics:
    """The statistics in a file.

    Raises:
        ValueError: they contradict themselves.
    """
    documents, words = header["documents"], header["words"]
    ids, frequencies = (array_file.checked(arrays, name, "<u4") for name in ("ids", "frequencies"))
    if (
        not (type(documents) is type(words) is int and documents >= 0 and 0 <= words < 1 << 63)
        or len(ids) != len(frequencies)
        or (len(ids) and not 1 <= frequencies.min() <= frequencies.max() <= documents)
        or (words > 0) != (len(ids) > 0)
        or frequencies.sum(dtype=np.int64) > words
    ):
        raise ValueError("its numbers do not fit together")
    table = dict(zip(ids.tolist(), frequencies.tolist(), strict=True))
    if len(table) != len(ids) or (table and max(table) > MAX_ID):
        raise ValueError("its ids are not distinct ids of terms")
    return Statistics(documents, words, table)


def _count(batch: Batch) -> Counts:
    """Count equal ids inside each text.

    One sort of (text, id, position) packed into 64 bits: half the time of a `Counter` for each text and its arrays.
    """
    words, sizes = batch
    texts = np.repeat(np.arange(len(sizes)), sizes)
    kept = np.flatnonzero(words.view(np.uint64) <= MAX_ID)  # neither dropped (negative) nor a stop word
    words, texts = words[kept], texts[kept]
    lengths = np.bincount(texts, minlength=len(sizes))
    bits = len(words).bit_length()
    keys = (((texts << _ID_BITS) | words) << bits) | np.arange(len(words), dtype=np.int64)
    keys.sort()
    groups = keys >> bits
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    counts = np.zeros(len(words), np.int64)
    counts[keys[starts] & ((1 << bits) - 1)] = np.diff(starts, append=len(words))
    first = np.flatnonzero(counts)
    return Counts(words[first], counts[first], np.bincount(texts[first], minlength=len(sizes)), lengths)
