"""The model behind `SparseTextEmbedding`: pipelines from texts to sparse vectors. BM25's load no model code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from fastrank.engine.loaded import DOCUMENTS, NO_PROMPTS, LoadedModel, Names, TextPipeline
from fastrank.engine.overflow import Overflow
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

    def asked(self, prompt: str | None, overflow: Overflow) -> _BM25Pipeline:
        """The same: no text is too long.

        Raises:
            ValueError: there are no prompts here.
        """
        del overflow
        if prompt is not None:
            raise ValueError(NO_PROMPTS)
        return self

    def token_counts(self, texts: Iterator[str], batch_size: int, *, truncate: bool = True) -> Iterator[int]:
        """Number of words in each text, stop words included; no text is too long."""
        del truncate
        return (self.encoder.token_count(iter([text]), batch_size) for text in texts)


def bm25(encoder: BM25Encoder) -> SparseModel:
    """BM25 as a loaded model."""
    documents = _BM25Pipeline(encoder, encoder.documents)
    return SparseModel(documents, _BM25Pipeline(encoder, encoder.queries), None, encoder.info(), documents)
