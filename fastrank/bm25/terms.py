"""Single words as BM25 sees them, for models that share its ids but weigh words themselves: BM42, MiniCOIL."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastrank.bm25.analysis import DROPPED, TermIds
from fastrank.bm25.languages import stopwords

__all__ = ["DROPPED", "stemmer", "stopwords", "term_id", "terms"]


def stemmer(language: str) -> Callable[[str], str]:
    """Snowball's stemmer of a language, in the version whose stems FastEmbed's ids are of."""
    from py_rust_stemmers import SnowballStemmer  # type: ignore[import-untyped]

    stem: Callable[[str], str] = SnowballStemmer(language).stem_word
    return stem


def term_id(stem: str) -> int:
    """abs(murmur3) of 32 bits, seed 0: from 0 to 2**31."""
    from mmh3 import hash as murmur3

    return abs(murmur3(stem.encode("utf-8", "replace")))  # it crashes at a str with a lone surrogate


def terms(language: str, leave_out: Iterable[str] = ()) -> TermIds:
    """Word -> id of its stem, or DROPPED for stop words and those of `leave_out`."""
    return TermIds(dropped=stopwords(language) | frozenset(leave_out), stem=stemmer(language))
