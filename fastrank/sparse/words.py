"""Whole words from WordPiece tokens."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from fastrank.bm25.terms import DROPPED, terms
from fastrank.engine.tokenizer import Tokenizer


class Words:
    """Whole words from WordPiece tokens, with BM25's ids: stemmed, without stop words and punctuation."""

    def __init__(self, language: str, tokenizer: Tokenizer) -> None:
        self._vocab = tokenizer.vocab
        self._special = tokenizer.special_ids
        self._terms = terms(language, string.punctuation)

    def of(self, ids: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
        """(word id, positions of its tokens) for each word that BM25 keeps, in order."""
        word, positions = "", list[int]()
        for position, token_id in enumerate(ids):
            if token_id in self._special:
                continue
            token = self._vocab[token_id] or ""
            if token.startswith("##"):
                word += token[2:]
            else:
                yield from self._ended(word, positions)
                word, positions = token, []
            positions.append(position)
        yield from self._ended(word, positions)

    def _ended(self, word: str, positions: list[int]) -> Iterable[tuple[int, list[int]]]:
        if word and (word_id := self._terms[word]) != DROPPED:
            yield word_id, positions
