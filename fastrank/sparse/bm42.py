"""BM42: the attention of [CLS] to each word. Queries run no model."""

from __future__ import annotations

import numpy as np

from fastrank.engine.batching import Batch, Tokens
from fastrank.engine.pooling import Floats
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.sparse.embedding import SparseEmbedding
from fastrank.sparse.settings import SparseSettings
from fastrank.sparse.splade import Query, SparseHead
from fastrank.sparse.words import Words


def documents(settings: SparseSettings, tokenizer: Tokenizer) -> SparseHead:
    """The attention of [CLS] to each word: (texts, heads, tokens, tokens) -> float32 vectors.

    log(1 + w) ** alpha, where w sums the attention to a word's tokens, averaged over heads; of words with one stem the
    highest counts. Vasnetsov, BM42, 2024 (qdrant/fastembed, sparse/bm42.py). The store applies the IDF.
    """
    words = Words(settings.language, tokenizer)

    def head(output: Floats, batch: Batch) -> list[SparseEmbedding]:
        if output.ndim != 4:
            raise ModelLoadError(f"the model's output has shape {output.shape}, BM42 needs attentions")
        vectors = []
        for attention, ids, length in zip(output[:, :, 0].mean(axis=1), batch.ids, batch.mask.sum(axis=1), strict=True):
            weights: dict[int, float] = {}
            of_token = attention.tolist()
            for word_id, positions in words.of(ids[:length].tolist()):
                weights[word_id] = max(weights.get(word_id, 0.0), sum(of_token[position] for position in positions))
            values = np.log1p(np.fromiter(weights.values(), np.float32, len(weights))) ** np.float32(settings.alpha)
            vectors.append(SparseEmbedding(values=values, indices=np.fromiter(weights, np.int64, len(weights))))
        return vectors

    return head


def query(settings: SparseSettings, tokenizer: Tokenizer) -> Query:
    """Queries run no model: weight 1 for each distinct word."""
    words = Words(settings.language, tokenizer)

    def query(tokens: Tokens) -> SparseEmbedding:
        return SparseEmbedding.from_dict({word_id: 1.0 for word_id, _ in words.of(tokens.ids.tolist())})

    return query
