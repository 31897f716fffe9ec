"""From a model's output to sparse vectors: SPLADE's and BM42's heads, and queries that need no model."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fastrank.bm25.terms import DROPPED, terms
from fastrank.errors import ModelLoadError
from fastrank.heads import Floats
from fastrank.registry import SparseTask
from fastrank.schedule import Batch, Tokens
from fastrank.sparse_embedding import SparseEmbedding
from fastrank.tokenizer import Tokenizer

SparseHead: TypeAlias = Callable[[Floats, Batch], list[SparseEmbedding]]
Query: TypeAlias = Callable[[Tokens], SparseEmbedding]


def splade(task: SparseTask, tokenizer: Tokenizer) -> SparseHead:
    """Max over tokens of log(1 + relu(logit)) for each word piece: (texts, length, vocabulary) -> vectors, float32.

    Formal et al., SPLADE v2, 2021. `activation` "log1p-log1p" is of OpenSearch's inference-free v3 models
    (Shen et al., 2025), which leave special tokens out. The maximum comes first, one text at a time: the
    logarithm keeps the order, so it is needed for a few hundred numbers and not for every token's vocabulary.
    """
    special = sorted(tokenizer.special_ids) if task.skip_special_tokens else []

    def head(output: Floats, batch: Batch) -> list[SparseEmbedding]:
        if output.ndim != 3:  # noqa: PLR2004
            raise ModelLoadError(
                f"the model's output has shape {output.shape}, SPLADE needs (texts, tokens, vocabulary)"
            )
        vectors = []
        for logits, length in zip(output, batch.mask.sum(axis=1), strict=True):
            scores = logits[:length].max(axis=0)
            scores[special] = 0
            indices = np.flatnonzero(~(scores <= 0))  # NaN stays, to be found out
            values = np.log1p(scores[indices])
            if task.activation == "log1p-log1p":
                values = np.log1p(values)
            vectors.append(SparseEmbedding(values=values, indices=indices))
        return vectors

    return head


def idf_query(folder: Path, file: str, tokenizer: Tokenizer) -> Query:
    """Queries without a model: each distinct word piece has the weight that a table says. float64, ids ascending."""
    try:
        table: dict[str, float] = json.loads((folder / file).read_text(encoding="utf-8"))
        ids = {piece: number for number, piece in enumerate(tokenizer.pieces) if piece is not None}
        weights = {ids[piece]: float(weight) for piece, weight in table.items() if piece in ids}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{folder / file} is no table of word pieces and weights: {error}") from error

    def query(tokens: Tokens) -> SparseEmbedding:
        found = sorted({*tokens.ids.tolist()} - tokenizer.special_ids)
        return SparseEmbedding.from_dict({number: weights[number] for number in found if number in weights})

    return query


class Words:
    """Whole words of WordPiece tokens, with BM25's ids: stemmed, without stop words and punctuation."""

    def __init__(self, language: str, tokenizer: Tokenizer) -> None:
        self._pieces = tokenizer.pieces
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


def bm42(task: SparseTask, tokenizer: Tokenizer) -> SparseHead:
    """The attention that [CLS] pays to each word: (texts, heads, length, length) -> vectors, float32.

    log(1 + w) ** alpha, where w sums the mean attention of a word's pieces; of equal stems the highest.
    Vasnetsov, BM42, 2024 (qdrant/fastembed, sparse/bm42.py). The store applies the IDF.
    """
    words = Words(task.language or "english", tokenizer)

    def head(output: Floats, batch: Batch) -> list[SparseEmbedding]:
        if output.ndim != 4:  # noqa: PLR2004
            raise ModelLoadError(f"the model's output has shape {output.shape}, BM42 needs attentions")
        vectors = []
        for attention, ids, length in zip(output[:, :, 0].mean(axis=1), batch.ids, batch.mask.sum(axis=1), strict=True):
            weights: dict[int, float] = {}
            seen = attention.tolist()
            for number, positions in words.of(ids[:length].tolist()):
                weights[number] = max(weights.get(number, 0.0), sum(seen[position] for position in positions))
            values = np.log1p(np.fromiter(weights.values(), np.float32, len(weights))) ** np.float32(task.alpha)
            vectors.append(SparseEmbedding(values=values, indices=np.fromiter(weights, np.int64, len(weights))))
        return vectors

    return head


def bm42_query(task: SparseTask, tokenizer: Tokenizer) -> Query:
    """Queries without a model: 1 for each distinct word."""
    words = Words(task.language or "english", tokenizer)

    def query(tokens: Tokens) -> SparseEmbedding:
        return SparseEmbedding.from_dict({number: 1.0 for number, _ in words.of(tokens.ids.tolist())})

    return query
