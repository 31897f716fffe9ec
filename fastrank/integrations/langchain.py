"""LangChain: embeddings, a cross-encoder, and a document compressor that reranks.

>>> from fastrank.integrations.langchain import FastrankEmbeddings, FastrankRerank
>>> store = InMemoryVectorStore(FastrankEmbeddings(model_name="BAAI/bge-small-en-v1.5"))
>>> query = "why is the sky blue"
>>> FastrankRerank(top_n=3).compress_documents(store.similarity_search(query, k=20), query)

All hold nothing but their configuration, which LangChain can copy and store; each model is loaded once per process, at
its first use. `aembed_documents`, `aembed_query` and `acompress_documents` block no loop, and stop when their task is
cancelled.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from fastrank import inputs
from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import shared
from fastrank.rerank.cross_encoder import TextCrossEncoder
from fastrank.rerank.ranking import RankedDocument

with required("langchain"):
    from langchain_core.callbacks import Callbacks
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from pydantic import BaseModel, ConfigDict, Field

__all__ = ["FastrankCrossEncoder", "FastrankEmbeddings", "FastrankRerank"]


class _Model(BaseModel):
    """The arguments of a model, checked when they are given; the model is loaded when it is used."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())  # a misspelt argument is an error

    model_name: str
    batch_size: int = 64
    model_kwargs: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self._model()  # here and not in a validator, where pydantic would wrap its errors

    @abstractmethod
    def _model(self) -> TextEmbedding | TextCrossEncoder: ...


class FastrankEmbeddings(_Model, Embeddings):
    """Dense embeddings as lists of floats, with the model's prompts for queries and documents where it has them.

    Args:
        model_name: a model of `fastrank.TextEmbedding`.
        batch_size: the largest batch.
        model_kwargs: further arguments of `fastrank.TextEmbedding`, such as `{"threads": 2}`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    model_name: str = "BAAI/bge-small-en-v1.5"
    batch_size: int = 256

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents."""
        documents = inputs.documents(texts, "texts")
        return [vector.tolist() for vector in self._model().passage_embed(documents, batch_size=self.batch_size)]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        vector: list[float] = next(self._model().query_embed(inputs.text(text, "text"))).tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, for asyncio: together with those of other tasks, and stopped with this one."""
        documents, model = inputs.documents(texts, "texts"), await asyncio.to_thread(self._model)
        return [vector.tolist() async for vector in model.apassage_embed(documents, batch_size=self.batch_size)]

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a query, for asyncio."""
        query, model = inputs.text(text, "text"), await asyncio.to_thread(self._model)
        vectors: list[list[float]] = [vector.tolist() async for vector in model.aquery_embed(query)]
        return vectors[0]

    def _model(self) -> TextEmbedding:
        return shared(TextEmbedding, self.model_name, **self.model_kwargs)


class FastrankCrossEncoder(_Model, BaseCrossEncoder):
    """Scores of pairs of query and document, for LangChain's own `CrossEncoderReranker`.

    Args:
        model_name: a cross-encoder of fastrank's registry.
        batch_size: the largest batch of pairs.
        model_kwargs: further arguments of `fastrank.TextCrossEncoder`, such as `{"activation": "sigmoid"}`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`.
    """

    model_name: str = "Xenova/ms-marco-MiniLM-L-6-v2"

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """The score of each (query, document) pair."""
        return list(self._model().rerank_pairs(text_pairs, batch_size=self.batch_size))

    def _model(self) -> TextCrossEncoder:
        return shared(TextCrossEncoder, self.model_name, **self.model_kwargs)


class FastrankRerank(_Model, BaseDocumentCompressor):
    """The best documents by a cross-encoder, best first, their scores as `metadata["relevance_score"]`.

    The documents given are left as they are.

    Args:
        model_name: a cross-encoder of fastrank's registry.
        top_n: how many documents to keep; None: all.
        batch_size: the largest batch of pairs.
        model_kwargs: further arguments of `fastrank.TextCrossEncoder`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`, and if `top_n` is below 1.
    """

    model_name: str = "Xenova/ms-marco-MiniLM-L-6-v2"
    top_n: int | None = Field(default=3, ge=1)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Copies of the best documents, best first; ties keep their order.

        Raises:
            TypeError: `documents` is not a sequence of LangChain documents, or the query not a string.
        """
        del callbacks
        texts = _texts(documents)
        return _scored(documents, self._model().rank(query, texts, self.top_n, self.batch_size)) if texts else []

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """`compress_documents` for asyncio."""
        del callbacks
        texts, model = _texts(documents), await asyncio.to_thread(self._model)
        return _scored(documents, await model.arank(query, texts, self.top_n, self.batch_size)) if texts else []

    def _model(self) -> TextCrossEncoder:
        return shared(TextCrossEncoder, self.model_name, **self.model_kwargs)


def _texts(documents: Any) -> list[str]:
    if not (isinstance(documents, Sequence) and all(isinstance(document, Document) for document in documents)):
        raise TypeError("documents must be a sequence of LangChain documents")
    return [document.page_content for document in documents]


def _scored(documents: Sequence[Document], ranking: Sequence[RankedDocument]) -> list[Document]:
    """Copies of the ranked documents, with their scores."""
    return [
        documents[ranked.index].model_copy(
            update={"metadata": {**documents[ranked.index].metadata, "relevance_score": ranked.score}}
        )
        for ranked in ranking
    ]
