r"""From a text to term ids.

A text is cut at ASCII characters that belong to no word, which `bytes.translate` and `bytes.split` do fast. Each
distinct piece is analysed once and looked up afterwards. That is exact, because no analyzer here looks past such a
character: FastEmbed turns them into spaces before it lower-cases, so not even a final sigma sees them.

FastEmbed's steps (fastembed 0.9.1, sparse/bm25.py): every character but `\w` and `\s` becomes a space, lower case,
every character but `\w` becomes a space, split; a lone "_", stop words and words of more than `token_max_length`
characters are dropped; stem; empty stems are dropped; id = abs(murmur3 of 32 bits, seed 0).

Stop words get ids of their own above MAX_ID: vectors leave them out, an index keeps them for queries that have no other
word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import chain, pairwise
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.bm25 import languages
from fastrank.bm25.segmenters import SEGMENTERS, Segmenter, segmenter
from fastrank.bm25.word_table import WordTable

DROPPED = -1  # instead of an id: a lone "_", a word that is too long, an empty stem
MAX_ID = 1 << 31  # of a term: abs() of a signed 32-bit hash; stop words have ids from MAX_ID + 1 to 2**32 - 1

_STOP_WORD_IDS = MAX_ID - 1
_MAX_PIECES = 1 << 18  # kept at most, about 40 MB; then the vocabulary starts anew
_MAX_PIECE_BYTES = 96  # longer pieces (a base64 blob, a Chinese sentence) hardly come twice
_MAX_VOCABULARIES = 4  # vocabularies kept by this process

_MIN_TABLE_CHARACTERS = 1 << 12  # of a batch that a table is worth while for
_MIN_TABLE_PIECES = 1 << 10  # of a vocabulary
_TABLE_GROWTH = 1.5  # of a vocabulary until it gets a new table

_WORD_BYTES = b"0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + bytes(range(0x80, 0x100))
_CUT_CASED = bytes(byte if byte in _WORD_BYTES else 0x20 for byte in range(256))  # a table for bytes.translate
_CUT = _CUT_CASED.lower()  # lower() changes ASCII only
_CUT_DOTLESS = _CUT[: ord("I")] + b"I" + _CUT[ord("I") + 1 :]  # leaves I, which Turkish lower-cases differently

Ids: TypeAlias = "int | tuple[int, ...]"  # of a piece: DROPPED if it has no term, a tuple if it has several
Words: TypeAlias = "Callable[[str], list[str]]"


class Batch(NamedTuple):
    """The words of several texts, text after text."""

    ids: NDArray[np.int64]  # (words,): terms, stop words (above MAX_ID) and negative numbers for dropped words
    sizes: NDArray[np.int64]  # (texts,): words of each


class Stemmer(Protocol):
    """What `stemmer=` takes: an object with this method. An empty stem drops the word."""

    def stem_word(self, word: str, /) -> str:
        """The stem of a lower-case word."""


class TermIds(dict[str, int]):
    """Word -> term id, computed at the first look-up.

    Args:
        dropped: words without an id.
        stop: stop words; their ids are above MAX_ID.
        max_length: characters a word may have; None: any number.
        stem: the stemmer; None for none.
        dimensions: ids of terms are taken modulo this; None: they are abs(murmur3).
    """

    def __init__(
        self,
        dropped: frozenset[str] = frozenset(),
        stop: frozenset[str] = frozenset(),
        max_length: int | None = None,
        stem: Callable[[str], str] | None = None,
        dimensions: int | None = None,
    ) -> None:
        from mmh3 import hash as murmur3

        super().__init__()
        self._dropped = dropped
        self._stop = stop
        self._max_length = max_length
        self._stem = stem
        self._dimensions = dimensions
        self._hash: Callable[[bytes], int] = murmur3

    def of(self, word: str) -> int:
        """The id of one word, or DROPPED; not kept."""
        if word in self._dropped or (self._max_length is not None and len(word) > self._max_length):
            return DROPPED
        stem = word if self._stem is None else self._stem(word)
        if not stem:
            return DROPPED
        term_id = abs(self._hash(stem.encode("utf-8", "replace")))  # mmh3 crashes at a str with a lone surrogate
        if word in self._stop:
            return MAX_ID + 1 + term_id % _STOP_WORD_IDS
        return term_id if self._dimensions is None else term_id % self._dimensions

    def __missing__(self, word: str) -> int:
        term_id = self.of(word)
        if len(word) <= _MAX_PIECE_BYTES:
            if len(self) >= _MAX_PIECES:
                self.clear()
            self[word] = term_id
        return term_id


class Vocabulary(dict[bytes, Ids]):
    """Piece of a text between ASCII characters of no word -> its term ids, computed at the first look-up.

    Threads may share it: at worst two of them analyse the same piece.

    Args:
        words: cuts a piece into words.
        term_ids: ids of words.
        cut: the table for `bytes.translate` that turns separators into spaces.
        ascii_words: whether an ASCII piece is always one word.
    """

    def __init__(self, words: Words, term_ids: TermIds, cut: bytes = _CUT, *, ascii_words: bool = True) -> None:
        super().__init__()
        self._cut = cut
        self._words = words
        self._term_ids = term_ids
        self._ascii_words = ascii_words
        self._table: WordTable | None = None
        self._table_pieces = 0  # how many the vocabulary had when the table was made

    def batch(self, texts: Sequence[str]) -> Batch:
        """The ids of the words of several texts; long batches are looked up at once."""
        table = self._table
        if table is None or sum(map(len, texts)) < _MIN_TABLE_CHARACTERS:
            batch = _one_by_one(self.ids, texts)
        else:
            batch = self._looked_up(table, texts)
        if len(self) >= _MIN_TABLE_PIECES and (table is None or len(self) > _TABLE_GROWTH * self._table_pieces):
            self._table_pieces = len(self)
            self._table = WordTable({piece: ids for piece, ids in self.copy().items() if isinstance(ids, int)})
        return batch

    def _looked_up(self, table: WordTable, texts: Sequence[str]) -> Batch:
        parts = [text.encode("utf-8", "replace").translate(self._cut) for text in texts]
        joined = b" ".join(parts)
        words = table.find(joined)
        ends = np.searchsorted(words.starts, np.cumsum([len(part) + 1 for part in parts]))
        sizes = np.diff(ends, prepend=0)
        bounds = words.starts[words.unknown].tolist(), words.stops[words.unknown].tolist()
        found = [self[joined[start:stop]] for start, stop in zip(*bounds, strict=True)]
        if tuple not in map(type, found):
            words.ids[words.unknown] = found
            return Batch(words.ids, sizes)
        terms = [each if isinstance(each, tuple) else (each,) for each in found]
        counts = np.ones(len(words.ids), np.int64)
        counts[words.unknown] = list(map(len, terms))
        ids, unknown = np.repeat(words.ids, counts), np.zeros(len(words.ids), np.bool_)
        unknown[words.unknown] = True
        ids[np.repeat(unknown, counts)] = list(chain.from_iterable(terms))
        return Batch(ids, np.diff(np.append(0, np.cumsum(counts))[ends], prepend=0))

    def ids(self, text: str) -> list[int]:
        """The ids of a text's words in order: terms, stop words (above MAX_ID) and DROPPED."""
        # A lone surrogate, which has no UTF-8, becomes "?": both separate words.
        pieces = list(map(self.__getitem__, text.encode("utf-8", "replace").translate(self._cut).split()))
        if (self._ascii_words and text.isascii()) or tuple not in map(type, pieces):
            return pieces  # type: ignore[return-value]  # no tuple is in it
        flat: list[int] = []
        for ids in pieces:
            flat.extend(ids) if isinstance(ids, tuple) else flat.append(ids)
        return flat

    def words(self, text: str) -> list[tuple[str, int]]:
        """The words of a text in order, each with its id as in `ids`."""
        pieces = text.encode("utf-8", "replace").translate(self._cut).split()
        words = chain.from_iterable(
            [piece.decode()] if self._is_word(piece) else self._words(piece.decode()) for piece in pieces
        )
        return [(word, self._term_ids[word]) for word in words]

    def count(self, text: str) -> int:
        """How many words a text has, stop words included."""
        pieces = text.encode("utf-8", "replace").translate(self._cut).split()
        if self._ascii_words and text.isascii():
            return len(pieces)
        return sum(1 if self._is_word(piece) else len(self._words(piece.decode())) for piece in pieces)

    def _is_word(self, piece: bytes) -> bool:
        return self._ascii_words and piece.isascii() and b"I" not in piece

    def __missing__(self, piece: bytes) -> Ids:
        if self._is_word(piece):
            ids: Ids = self._term_ids.of(piece.decode())
        else:
            every = map(self._term_ids.__getitem__, self._words(piece.decode()))
            kept = tuple(each for each in every if each != DROPPED)
            ids = kept if len(kept) > 1 else kept[0] if kept else DROPPED
        if len(piece) <= _MAX_PIECE_BYTES:
            if len(self) >= _MAX_PIECES:
                self.clear()
            self[piece] = ids
        return ids


class WholeTexts:
    """An analyzer that is given whole texts: a segmenter, or the caller's own."""

    def __init__(self, analyzer: Callable[[str], Iterable[str]], term_ids: TermIds) -> None:
        self._analyzer = analyzer
        self._term_ids = term_ids

    def batch(self, texts: Sequence[str]) -> Batch:
        """The ids of the terms of several texts."""
        return _one_by_one(self.ids, texts)

    def ids(self, text: str) -> list[int]:
        """The ids of a text's terms in order, DROPPED for empty ones."""
        return list(map(self._term_ids.__getitem__, self._analyzer(text)))

    def words(self, text: str) -> list[tuple[str, int]]:
        """The terms of a text in order, each with its id."""
        return [(word, self._term_ids[word]) for word in self._analyzer(text)]

    def count(self, text: str) -> int:
        """How many terms a text has."""
        return sum(1 for _ in self._analyzer(text))


def _one_by_one(analyze: Callable[[str], list[int]], texts: Sequence[str]) -> Batch:
    words = list(map(analyze, texts))
    sizes = list(map(len, words))
    return Batch(np.fromiter(chain.from_iterable(words), np.int64, sum(sizes)), np.array(sizes, np.int64))


# -- words ----------------------------------------------------------------------------------------------------------

# Patterns are compiled (and kept by `re`) at their first use: most processes need none or one of them.


def fastembed_words(text: str) -> list[str]:
    """FastEmbed's words. Combining marks separate them, so Tamil, Hindi and decomposed text fall apart."""
    return re.findall(r"\w+", re.sub(r"[^\w\s]", " ", text).lower())


class _Letters(dict[int, "int | str | None"]):
    """For `str.translate`: keeps letters, marks, numbers and "_", deletes invisible characters, else makes a space."""

    def __missing__(self, point: int) -> int | str | None:
        category = unicodedata.category(chr(point))
        if category[0] in "LMN" or point == ord("_"):
            kept: int | str | None = point
        else:
            kept = None if category == "Cf" else " "
        self[point] = kept
        return kept


_VARIATION_SELECTORS = dict.fromkeys([*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
_LETTERS = _Letters({**_VARIATION_SELECTORS, 0x200B: " "})  # the zero-width space separates Thai and Khmer words


def unicode_words(text: str, *, dotless: bool = False) -> list[str]:
    r"""Words of letters, marks and numbers, lower-cased and in one normal form (NFKC), whatever form the text has.

    `dotless`: I becomes the letter without a dot, as in Turkish. \u0130, with one, becomes i everywhere.
    """
    text = unicodedata.normalize("NFKC", text).replace("\u0130", "i")
    if dotless:
        text = text.replace("I", "\u0131")
    words = text.lower().translate(_LETTERS).split()
    return [word for word in map(_from_first_letter, words) if word]


def _from_first_letter(word: str) -> str:
    """A mark without a letter before it (≠ in decomposed form leaves one) belongs to no word."""
    for at, letter in enumerate(word):
        if unicodedata.category(letter)[0] != "M":
            return word[at:]
    return ""


def code_words(text: str) -> list[str]:
    """Identifiers whole and in parts, lower-cased: "parseHTTPResponse" and "parse_http_response" give the same four.

    Parts end at "_", before a capital that follows a small letter or a digit, and before the last of several capitals
    if a small letter follows it. The whole has no "_".
    """
    words: list[str] = []
    identifiers = unicodedata.normalize("NFKC", text).replace("\u0130", "i").translate(_LETTERS).split()
    for identifier in map(_from_first_letter, identifiers):
        kinds = "".join(map(_kind, identifier))
        matches = re.finditer("u+d*(?=ul)|u?[ld]+|u+d*", kinds)
        parts = [identifier[match.start() : match.end()].lower() for match in matches]
        if len(parts) > 1:
            words.append("".join(parts))
        words.extend(parts)
    return words


def _kind(letter: str) -> str:
    """The letter "u" for a capital, "d" for a digit, "l" for any other letter or mark."""
    return "_" if letter == "_" else "u" if letter.isupper() else "d" if letter.isdecimal() else "l"


def segmented_words(segment: Segmenter, text: str, *, dotless: bool = False) -> list[str]:
    """The words of `unicode_words` in each of a segmenter's."""
    return [word for part in segment(text) for word in unicode_words(part, dotless=dotless)]


# Scripts written without spaces, and Hangul, whose words are long; blocks of Unicode, first to last.
_SPACELESS = (
    "(["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u1100-\u11ff\uac00-\ud7ff"  # Hangul
    "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "\u3040-\u312f\u31f0-\u31ff"  # Hiragana, Katakana, Bopomofo
    "]+)"
)


def bigrams(text: str, *, dotless: bool = False, unigrams: bool = False) -> list[str]:
    """The words of `unicode_words`, but overlapping pairs of characters where a script has no spaces.

    A character is a letter with its marks; one that stands alone is a term. `unigrams`: every single character is one
    too, so that a query of one character finds it inside words.
    """
    terms: list[str] = []
    for word in unicode_words(text, dotless=dotless):
        for number, part in enumerate(re.split(_SPACELESS, word)):
            if number % 2 == 0:
                if part:
                    terms.append(part)
                continue
            letters = _letters_with_marks(part)
            if unigrams or len(letters) == 1:
                terms.extend(letters)
            terms.extend(map("".join, pairwise(letters)))
    return terms


def _letters_with_marks(text: str) -> list[str]:
    letters: list[str] = []
    for letter in text:
        if letters and unicodedata.category(letter)[0] == "M":
            letters[-1] += letter
        else:
            letters.append(letter)
    return letters


# Marks of Latin, Greek and Cyrillic; the breve of \u0439 makes another letter, which Russian stems need.
_ACCENTS = "[\u0300-\u0305\u0307-\u036f]|(?<!\u0438)\u0306"
_PLAIN_LETTERS = {
    **{ord(letter): plain for letter, plain in zip("\u00df\u00e6\u0153\u00fe", ("ss", "ae", "oe", "th"), strict=True)},
    **dict(zip(map(ord, "\u00f8\u00f0\u0111\u0142\u0127\u0131"), "oddlhi", strict=True)),
}


def without_accents(word: str) -> str:
    """A lower-case word with plain letters: é -> e, ß -> ss, ø -> o. Vowel signs of other scripts stay."""
    if word.isascii():
        return word
    plain = re.sub(_ACCENTS, "", unicodedata.normalize("NFKD", word)).translate(_PLAIN_LETTERS)
    return unicodedata.normalize("NFC", plain)


# -- vocabularies ---------------------------------------------------------------------------------------------------

ANALYZERS = ("unicode", "bigram", "unigram+bigram", "code")  # by name, beside SEGMENTERS; None is FastEmbed's own


class Settings(NamedTuple):
    """What decides which terms a text has.

    Attributes:
        analyzer: None for FastEmbed's, or one of ANALYZERS or SEGMENTERS.
        dotless: whether I is lower-cased the Turkish way.
        stop: stop words, in lower case.
        max_length: characters a word may have.
        strip_accents: whether words lose their accents, before stop words and stemmer see them.
        dimensions: ids of terms are taken modulo this, if it is not None.
    """

    analyzer: str | None
    dotless: bool
    stop: frozenset[str]
    max_length: int
    strip_accents: bool = False
    dimensions: int | None = None


def vocabulary(settings: Settings, stemmer: Stemmer | str | None) -> Vocabulary | WholeTexts:
    """A vocabulary for these settings, or a segmenter's words.

    The process has one for equal settings, so that a word is stemmed and hashed once, whoever asks for it.

    Args:
        settings: how texts are cut and words become ids.
        stemmer: the caller's, or the language of a Snowball stemmer, or None.

    Raises:
        ModuleNotFoundError: the analyzer is a segmenter that is not installed.
        ModelLoadError: its dictionary cannot be loaded.
    """
    if stemmer is None or isinstance(stemmer, str):
        return _shared(settings, stemmer)
    return _new(settings, stemmer.stem_word)


@lru_cache(maxsize=_MAX_VOCABULARIES)
def _shared(settings: Settings, snowball: str | None) -> Vocabulary | WholeTexts:
    stem = None
    if snowball is not None:
        from py_rust_stemmers import SnowballStemmer  # type: ignore[import-untyped]

        stem = SnowballStemmer(snowball).stem_word
    return _new(settings, stem)


def forget() -> None:
    """Let go of the vocabularies that this process keeps; instances that use one keep theirs."""
    _shared.cache_clear()


def _new(settings: Settings, stem: Callable[[str], str] | None) -> Vocabulary | WholeTexts:
    words, stop, cut = _words(settings), settings.stop, _CUT
    if settings.analyzer is not None:
        stop = frozenset(unicodedata.normalize("NFKC", word) for word in stop)
        cut = _CUT_CASED if settings.analyzer == "code" else _CUT_DOTLESS if settings.dotless else _CUT
    if settings.strip_accents:
        words = partial(_plain_words, words)
        stop = frozenset(map(without_accents, stop))
    term_ids = TermIds(frozenset("_"), stop, settings.max_length, stem, settings.dimensions)
    if settings.analyzer in SEGMENTERS:
        return WholeTexts(words, term_ids)
    return Vocabulary(words, term_ids, cut, ascii_words=settings.analyzer != "code")


def _words(settings: Settings) -> Words:
    if settings.analyzer is None:
        return fastembed_words
    if settings.analyzer == "code":
        return code_words
    if settings.analyzer == "unicode":
        return partial(unicode_words, dotless=settings.dotless)
    if settings.analyzer in SEGMENTERS:
        return partial(segmented_words, segmenter(settings.analyzer), dotless=settings.dotless)
    return partial(bigrams, dotless=settings.dotless, unigrams=settings.analyzer == "unigram+bigram")


def _plain_words(words: Words, text: str) -> list[str]:
    return [plain for plain in map(without_accents, words(text)) if plain]


def default_stopwords(language: str | None) -> frozenset[str]:
    """The packaged stop words of a language; none if it has none here."""
    return languages.stopwords(language) if language in languages.LANGUAGES else frozenset()
