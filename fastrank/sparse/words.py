"""Whole words of WordPiece tokens."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from fastrank.bm25.terms import DROPPED, terms
from fastrank.engine.tokenizer import Tokenizer


class Words:
    """Whole words of WordPiece tokens, with BM25's ids: stemmed, without stop words and punctuation."""

    def __init__(self, language: str, tokenizer: Tokenizer) -> None:
        self._pieces = tokenizer.vocab
        self._special = tokenizer.special_ids
        self._terms = terms(language, string.punctuation)

    def of(self, ids: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
        """(id of the word, its tokens' positions) of each word that is kept, in order."""
        word, positions = "", list[int]()
        for position, number in enumerate(ids):
            if number in self._special:
                continue
            piece = self._pieces[number] or ""
            if piece.startswith("##"):
                word += piece[2:]
            else:
                yield from self._ended(word, positions)
                word, positions = piece, []
            positions.append(position)
        yield from self._ended(word, positions)

    def _ended(self, word: str, positions: list[int]) -> Iterable[tuple[int, list[int]]]:
        if word and (number := self._terms[word]) != DROPPED:
            yield number, positions
