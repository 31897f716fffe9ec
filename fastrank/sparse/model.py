"""The model behind `SparseTextEmbedding`: pipelines from texts to sparse vectors. BM25's load no model code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from fastrank.engine.loaded import DOCUMENTS, LoadedModel, Names, TextPipeline
from fastrank.sparse.bm25_encoder import BM25Encoder
from fastrank.sparse.embedding import SparseEmbedding

SparsePipeline: TypeAlias = TextPipeline[SparseEmbedding]


@dataclass(frozen=True)
class SparseModel(LoadedModel[SparsePipeline, SparsePipeline, Any]):
    """A sparse model in memory.

    Attributes:
        passages: for passages, which may have a prompt and a limit of their own.
    """

    passages: SparsePipeline


class _BM25Pipeline(NamedTuple):
    """BM25 with the interface of a model's pipeline."""

    encoder: BM25Encoder
    encode: Callable[[Iterator[str], int, int | None], Iterator[SparseEmbedding]]

    def run(
        self, texts: Iterator[str], batch_size: int, workers: int | None, names: Names = DOCUMENTS
    ) -> Iterator[SparseEmbedding]:
        """One vector per text, in order."""
        del names
        return self.encode(texts, batch_size, workers)

    def token_count(self, texts: Iterator[str], batch_size: int) -> int:
        """Number of words in all texts, stop words included."""
        return self.encoder.token_count(texts, batch_size)


def bm25(encoder: BM25Encoder) -> SparseModel:
    """BM25 as a loaded model."""
    documents = _BM25Pipeline(encoder, encoder.documents)
    return SparseModel(documents, _BM25Pipeline(encoder, encoder.queries), None, encoder.info(), documents)
