"""SPLADE: the maximum over tokens of log(1 + relu(logit)); queries from an IDF table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.engine import modules
from fastrank.engine.batching import Batch, Tokens
from fastrank.engine.pooling import Floats
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models.config import read_object
from fastrank.sparse.embedding import SparseEmbedding
from fastrank.sparse.settings import SparseSettings

SparseHead: TypeAlias = Callable[[Floats, Batch], list[SparseEmbedding]]
_MAX_TABLE = 100_000_000  # bytes of a table of tokens and weights

Query: TypeAlias = Callable[[Tokens], SparseEmbedding]


def documents(settings: SparseSettings, tokenizer: Tokenizer) -> SparseHead:
    """Max over tokens of log(1 + relu(logit)) for each word piece: (texts, length, vocabulary) -> vectors, float32.

    `pooling` "sum" takes the sum instead, as the first SPLADE did (Formal et al., 2021, arXiv:2107.05720).

    Formal et al., SPLADE v2, 2021. `activation` "log1p-log1p" is of OpenSearch's inference-free v3 models
    (Shen et al., 2025), which leave special tokens out. The maximum comes first, one text at a time: the
    logarithm keeps the order, so it is needed for a few hundred numbers and not for every token's vocabulary.
    """
    special = sorted(tokenizer.special_ids) if settings.skip_special_tokens else []

    def head(output: Floats, batch: Batch) -> list[SparseEmbedding]:
        if output.ndim != 3:
            raise ModelLoadError(
                f"the model's output has shape {output.shape}, SPLADE needs (texts, tokens, vocabulary)"
            )
        vectors = []
        for logits, length in zip(output, batch.mask.sum(axis=1), strict=True):
            if settings.pooling == "sum":
                weights = _log1p(np.maximum(logits[:length], 0), settings.activation).sum(axis=0)
            else:
                weights = logits[:length].max(axis=0)
            weights[special] = 0
            indices = np.flatnonzero(~(weights <= 0))  # NaN stays, to be found out
            values = weights[indices]
            if settings.pooling == "max":
                values = _log1p(values, settings.activation)
            vectors.append(_largest(values, indices, settings.max_active_dims))
        return vectors

    return head


def _log1p(logits: Floats, activation: str) -> Floats:
    values: Floats = np.log1p(logits)
    return np.log1p(values) if activation == "log1p-log1p" else values


def _largest(values: Floats, indices: NDArray[np.int64], most: int | None) -> SparseEmbedding:
    """The largest weights of a vector, in the order of their indices."""
    if most is not None and len(values) > most:
        kept = np.sort(np.argsort(-np.abs(values), kind="stable")[:most])
        values, indices = values[kept], indices[kept]
    return SparseEmbedding(values=values, indices=indices)


def table(settings: SparseSettings, tokenizer: Tokenizer) -> Query:
    """Texts without a model, as SparseStaticEmbedding: each distinct token has the weight of a table, float32.

    Raises:
        ModelLoadError: the table is missing, damaged, or shorter than the vocabulary.
    """
    weights = modules.table(settings.home)
    if len(weights) < len(tokenizer.vocab):
        raise ModelLoadError(
            f"{settings.home} has {len(weights)} weights for a vocabulary of {len(tokenizer.vocab)} tokens"
        )

    def query(tokens: Tokens) -> SparseEmbedding:
        found = np.unique(tokens.ids[: tokens.attended]).astype(np.int64)
        found = found[weights[found] != 0]
        return _largest(weights[found], found, settings.max_active_dims)

    return query


def query(folder: Path, file: str, tokenizer: Tokenizer) -> Query:
    """Queries without a model: each distinct word piece has the weight that a table says. float64, ids ascending."""
    try:
        table = read_object(folder / file, _MAX_TABLE)
        ids = {piece: number for number, piece in enumerate(tokenizer.vocab) if piece is not None}
        weights = {ids[piece]: float(weight) for piece, weight in table.items() if piece in ids}
    except (ModelLoadError, ValueError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{folder / file} is no table of tokens and weights: {error}") from error

    def query(tokens: Tokens) -> SparseEmbedding:
        found = sorted({*tokens.ids.tolist()} - tokenizer.special_ids)
        return SparseEmbedding.from_dict({number: weights[number] for number in found if number in weights})

    return query
