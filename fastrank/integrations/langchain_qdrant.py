"""langchain-qdrant: sparse embeddings for its hybrid and sparse retrieval, by fastrank instead of FastEmbed.

>>> from langchain_qdrant import QdrantVectorStore, RetrievalMode
>>> from fastrank.integrations.langchain import FastrankEmbeddings
>>> from fastrank.integrations.langchain_qdrant import FastrankSparse
>>> QdrantVectorStore.from_texts(
...     texts,
...     embedding=FastrankEmbeddings(),
...     sparse_embedding=FastrankSparse(),
...     retrieval_mode=RetrievalMode.HYBRID,
...     location=":memory:",
... )

A model is loaded once per process, at its first use. Ids and values are those of langchain-qdrant's FastEmbedSparse, so
collections made with it stay usable.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastrank import inputs
from fastrank.integrations._host import required
from fastrank.integrations._models import shared
from fastrank.sparse.embedding import SparseEmbedding
from fastrank.sparse.sparse_text_embedding import SparseTextEmbedding

with required("langchain-qdrant"):
    from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

__all__ = ["FastrankSparse"]


class FastrankSparse(SparseEmbeddings):
    """Sparse vectors: BM25, or a model of the SPLADE family.

    For BM25 the collection must apply the IDF: `sparse_vector_params={"modifier": Modifier.IDF}`.

    Args:
        model_name: a model of `fastrank.SparseTextEmbedding`.
        batch_size: the largest batch.
        **options: further arguments of `fastrank.SparseTextEmbedding`, such as `language` and `analyzer` of BM25.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.SparseTextEmbedding`.
    """

    def __init__(self, model_name: str = "Qdrant/bm25", batch_size: int = 256, **options: Any) -> None:
        self.model_name = model_name
        self.batch_size = batch_size
        self._options = options
        self._model()  # checks the arguments; nothing is loaded

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Vectors of documents."""
        documents = inputs.documents(texts, "texts")
        return [_vector(each) for each in self._model().passage_embed(documents, batch_size=self.batch_size)]

    def embed_query(self, text: str) -> SparseVector:
        """The vector of a query."""
        return _vector(next(self._model().query_embed(inputs.text(text, "text"))))

    async def aembed_documents(self, texts: list[str]) -> list[SparseVector]:
        """`embed_documents` for asyncio: it blocks no loop, and stops when its task is cancelled."""
        documents, model = inputs.documents(texts, "texts"), await asyncio.to_thread(self._model)
        return [_vector(each) async for each in model.apassage_embed(documents, batch_size=self.batch_size)]

    async def aembed_query(self, text: str) -> SparseVector:
        """`embed_query` for asyncio."""
        query, model = inputs.text(text, "text"), await asyncio.to_thread(self._model)
        vectors = [_vector(each) async for each in model.aquery_embed(query)]
        return vectors[0]

    def _model(self) -> SparseTextEmbedding:
        return shared(SparseTextEmbedding, self.model_name, **self._options)


def _vector(embedding: SparseEmbedding) -> SparseVector:
    return SparseVector(indices=embedding.indices.tolist(), values=[float(value) for value in embedding.values])
