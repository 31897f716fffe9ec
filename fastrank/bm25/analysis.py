r"""From a text to the ids of its terms.

A text is cut at ASCII characters that are in no word, which `bytes.translate` and `bytes.split` do fast; each distinct
piece is then analysed once, and looked up ever after. That is exact, because no analyzer here looks past such a
character: FastEmbed turns them into spaces before it lower-cases, so not even a final sigma sees them.

FastEmbed's steps (fastembed 0.9.1, sparse/bm25.py): every character but `\w` and `\s` becomes a space, lower case,
every character but `\w` becomes a space, split; a lone "_", stop words and words of more than `token_max_length`
characters are left out; stem; drop what became empty; id = abs(murmur3 of 32 bits, seed 0).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import pairwise
from typing import Protocol, TypeAlias

from fastrank.bm25 import languages

DROPPED = -1  # instead of an id: a stop word, a lone "_", a word that is too long

_PIECES = 1 << 18  # kept at most, about 40 MB; then the vocabulary starts anew
_LONGEST_PIECE = 96  # bytes: what is longer (a base64 blob, a Chinese sentence) hardly comes twice
_VOCABULARIES = 4  # settings whose vocabularies this process keeps

_WORD_BYTES = b"0123456789_abcdefghijklmnopqrstuvwxyz" + bytes(range(0x80, 0x100))  # of other scripts: all
_CUT = bytes(byte if byte in _WORD_BYTES else 0x20 for byte in bytes(range(256)).lower())  # lower() is for ASCII only
_CUT_DOTLESS = _CUT[: ord("I")] + b"I" + _CUT[ord("I") + 1 :]  # leaves I to be made lower case the Turkish way

Ids: TypeAlias = "int | tuple[int, ...]"  # of the terms of a piece: DROPPED if there is none, a tuple if several
Words: TypeAlias = "Callable[[str], list[str]]"


class Stemmer(Protocol):
    """What `stemmer=` takes: an object with this method. An empty stem drops the word."""

    def stem_word(self, word: str, /) -> str:
        """The stem of a lower-case word."""


class Terms(dict[str, int]):
    """Word -> id of its term, made at the first look-up."""

    def __init__(self, stop: frozenset[str], longest: int | None, stem: Callable[[str], str] | None) -> None:
        from mmh3 import hash as murmur3

        super().__init__()
        self._stop = stop
        self._longest = longest
        self._stem = stem
        self._hash: Callable[[str], int] = murmur3

    def of(self, word: str) -> int:
        """The id of one word's term, or DROPPED."""
        if word in self._stop or (self._longest is not None and len(word) > self._longest):
            return DROPPED
        stem = word if self._stem is None else self._stem(word)
        return abs(self._hash(stem)) if stem else DROPPED

    def __missing__(self, word: str) -> int:
        found = self.of(word)
        if len(word) <= _LONGEST_PIECE:
            if len(self) >= _PIECES:
                self.clear()
            self[word] = found
        return found


class Pieces(dict[bytes, Ids]):
    """Piece of a text between ASCII characters that are in no word -> ids of its terms, made at the first look-up.

    Threads may share it: at worst two of them analyse the same piece.
    """

    def __init__(self, words: Words, terms: Terms, cut: bytes = _CUT) -> None:
        super().__init__()
        self._cut = cut
        self._words = words
        self._terms = terms

    def ids(self, text: str) -> list[int]:
        """The ids of all words of a text in order, with DROPPED ones."""
        # A lone surrogate, which has no UTF-8, becomes "?": both separate words.
        found = list(map(self.__getitem__, text.encode("utf-8", "replace").translate(self._cut).split()))
        if text.isascii() or tuple not in map(type, found):
            return found  # type: ignore[return-value]  # no tuple is in it
        flat: list[int] = []
        for ids in found:
            flat.extend(ids) if isinstance(ids, tuple) else flat.append(ids)
        return flat

    def count(self, text: str) -> int:
        """How many words a text has, stop words included."""
        pieces = text.encode("utf-8", "replace").translate(self._cut).split()
        if text.isascii():
            return len(pieces)
        return sum(1 if piece.isascii() else len(self._words(piece.decode())) for piece in pieces)

    def __missing__(self, piece: bytes) -> Ids:
        if piece.isascii() and b"I" not in piece:
            found: Ids = self._terms.of(piece.decode())
        else:
            every = map(self._terms.__getitem__, self._words(piece.decode()))
            kept = tuple(each for each in every if each != DROPPED)
            found = kept if len(kept) > 1 else kept[0] if kept else DROPPED
        if len(piece) <= _LONGEST_PIECE:
            if len(self) >= _PIECES:
                self.clear()
            self[piece] = found
        return found


class Custom:
    """The caller's own analyzer: text -> terms. They are hashed as they are."""

    def __init__(self, analyzer: Callable[[str], Iterable[str]]) -> None:
        self._analyzer = analyzer
        self._terms = Terms(frozenset(), None, None)

    def ids(self, text: str) -> list[int]:
        """The ids of all terms of a text in order, DROPPED for empty ones."""
        return list(map(self._terms.__getitem__, self._analyzer(text)))

    def count(self, text: str) -> int:
        """How many terms a text has."""
        return sum(1 for _ in self._analyzer(text))


# -- words ----------------------------------------------------------------------------------------------------------

# Patterns are compiled (and kept by `re`) when they are first used: most processes need none or one of them.


def fastembed_words(text: str) -> list[str]:
    """FastEmbed's words. It takes combining marks for separators, so Tamil, Hindi and decomposed text fall apart."""
    return re.findall(r"\w+", re.sub(r"[^\w\s]", " ", text).lower())


class _Letters(dict[int, "int | str | None"]):
    """For `str.translate`: keeps letters, marks, numbers and "_", deletes what is invisible, makes all else a space."""

    def __missing__(self, point: int) -> int | str | None:
        category = unicodedata.category(chr(point))
        if category[0] in "LMN" or point == ord("_"):
            kept: int | str | None = point
        else:
            kept = None if category == "Cf" else " "
        self[point] = kept
        return kept


_VARIATION_SELECTORS = dict.fromkeys([*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
_LETTERS = _Letters({**_VARIATION_SELECTORS, 0x200B: " "})  # the zero-width space parts Thai and Khmer words


def unicode_words(text: str, *, dotless: bool = False) -> list[str]:
    r"""Words of letters, marks and numbers, in lower case and one normal form (NFKC), whatever form the text has.

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


def bigrams(text: str, *, dotless: bool = False) -> list[str]:
    """The words of `unicode_words`, but overlapping pairs of characters where a script has no spaces.

    A character is a letter with its marks; one that stands alone is a term.
    """
    found: list[str] = []
    for word in unicode_words(text, dotless=dotless):
        for number, part in enumerate(re.split(_SPACELESS, word)):
            if number % 2 == 0:
                if part:
                    found.append(part)
                continue
            letters: list[str] = []
            for letter in part:
                if letters and unicodedata.category(letter)[0] == "M":
                    letters[-1] += letter
                else:
                    letters.append(letter)
            found.extend(map("".join, pairwise(letters)) if len(letters) > 1 else letters)
    return found


# -- vocabularies ---------------------------------------------------------------------------------------------------

ANALYZERS = ("unicode", "bigram")  # by name; None is FastEmbed's own


def pieces(
    analyzer: str | None,
    language: str | None,
    stop: frozenset[str],
    longest: int,
    stemmer: Stemmer | str | None,
) -> Pieces:
    """A vocabulary for these settings.

    The process has one for equal settings, so that a word is stemmed and hashed once, whoever asks for it.

    Args:
        analyzer: None for FastEmbed's, or one of ANALYZERS.
        language: for rules of lower case.
        stop: words to leave out, in lower case.
        longest: characters a word may have.
        stemmer: the caller's, or the language of a Snowball stemmer, or None.
    """
    if stemmer is None or isinstance(stemmer, str):
        return _shared(analyzer, language == "turkish", stop, longest, stemmer)
    return _new(analyzer, language == "turkish", stop, longest, stemmer.stem_word)


@lru_cache(maxsize=_VOCABULARIES)
def _shared(analyzer: str | None, dotless: bool, stop: frozenset[str], longest: int, snowball: str | None) -> Pieces:
    stem = None
    if snowball is not None:
        from py_rust_stemmers import SnowballStemmer  # type: ignore[import-untyped]

        stem = SnowballStemmer(snowball).stem_word
    return _new(analyzer, dotless, stop, longest, stem)


def forget() -> None:
    """Let go of the vocabularies that this process keeps; instances that use one keep theirs."""
    _shared.cache_clear()


def _new(
    analyzer: str | None, dotless: bool, stop: frozenset[str], longest: int, stem: Callable[[str], str] | None
) -> Pieces:
    words: Words = fastembed_words
    if analyzer is not None:
        words = partial(bigrams if analyzer == "bigram" else unicode_words, dotless=dotless)
        stop = frozenset(unicodedata.normalize("NFKC", word) for word in stop)
    cut = _CUT_DOTLESS if analyzer is not None and dotless else _CUT
    return Pieces(words, Terms(stop | {"_"}, longest, stem), cut)


def default_stopwords(language: str | None) -> frozenset[str]:
    """The packaged stop words of a language; none if it has none here."""
    return languages.stopwords(language) if language in languages.LANGUAGES else frozenset()
