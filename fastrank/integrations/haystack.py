"""Haystack: text and document embedders, dense and sparse, and a ranker.

>>> from fastrank.integrations.haystack import FastrankRanker, FastrankTextEmbedder
>>> pipeline.add_component("embedder", FastrankTextEmbedder("BAAI/bge-small-en-v1.5"))
>>> pipeline.add_component("ranker", FastrankRanker(top_k=3))

Models are loaded once a process: by `warm_up`, else at the first use. A pipeline keeps the arguments; import this
module before loading one from a file, so that Haystack trusts it. `run_async` runs in a thread. Queries and documents
get the model's own prefixes where it has some, so there are none to be given.
"""

# No `from __future__ import annotations`: Haystack reads the types of `run`.

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from fastrank import inputs
from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import shared
from fastrank.rerank.cross_encoder import TextCrossEncoder
from fastrank.sparse.embedding import SparseEmbedding as FastrankSparseEmbedding
from fastrank.sparse.sparse_text_embedding import SparseTextEmbedding

with required("haystack"):
    from haystack import Document, component
    from haystack.dataclasses import SparseEmbedding

try:
    from haystack.core.serialization import allow_deserialization_module
except ImportError:  # a Haystack that trusts every module
    pass
else:
    allow_deserialization_module(__name__)

__all__ = [
    "FastrankDocumentEmbedder",
    "FastrankRanker",
    "FastrankSparseDocumentEmbedder",
    "FastrankSparseTextEmbedder",
    "FastrankTextEmbedder",
]

T = TypeVar("T")


@component
class FastrankTextEmbedder:
    """The dense vector of a query.

    Args:
        model: a model of `fastrank.TextEmbedding`.
        model_kwargs: further arguments of `fastrank.TextEmbedding`, such as `{"threads": 2}`.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    def __init__(self, model: str = "BAAI/bge-small-en-v1.5", model_kwargs: dict[str, Any] | None = None) -> None:
        self.model = model
        self.model_kwargs = model_kwargs
        self._embedding = shared(TextEmbedding, model, **(model_kwargs or {}))

    def warm_up(self) -> None:
        """Load the model."""
        self._embedding.token_count("")

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """The vector of a text, under "embedding".

        Raises:
            TypeError: it is no string.
        """
        return {"embedding": next(self._embedding.query_embed(inputs.text(text, "text"))).tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class FastrankDocumentEmbedder:
    """Documents with dense vectors.

    Args:
        model: a model of `fastrank.TextEmbedding`.
        batch_size: the most texts that run together.
        progress_bar: whether to draw one.
        meta_fields_to_embed: fields of a document's `meta` that are put before its text.
        embedding_separator: what stands between them.
        model_kwargs: further arguments of `fastrank.TextEmbedding`.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    def __init__(
        self,
        model: str = "BAAI/bge-small-en-v1.5",
        batch_size: int = 64,
        progress_bar: bool = True,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.meta_fields_to_embed = meta_fields_to_embed
        self.embedding_separator = embedding_separator
        self.model_kwargs = model_kwargs
        self._embedding = shared(TextEmbedding, model, **(model_kwargs or {}))

    def warm_up(self) -> None:
        """Load the model."""
        self._embedding.token_count("")

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Copies of the documents with `embedding`, under "documents".

        Raises:
            TypeError: something that is no list of documents.
        """
        texts = _texts(documents, self.meta_fields_to_embed, self.embedding_separator)
        vectors = _shown(self._embedding.passage_embed(texts, self.batch_size), len(texts), self.progress_bar)
        pairs = zip(documents, vectors, strict=True)
        return {"documents": [replace(document, embedding=vector.tolist()) for document, vector in pairs]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, documents)


@component
class FastrankSparseTextEmbedder:
    """The sparse vector of a query.

    Args:
        model: a model of `fastrank.SparseTextEmbedding`.
        model_kwargs: further arguments of `fastrank.SparseTextEmbedding`, such as `{"language": "german"}`.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        TypeError, ValueError: as `fastrank.SparseTextEmbedding`.
    """

    def __init__(self, model: str = "Qdrant/bm25", model_kwargs: dict[str, Any] | None = None) -> None:
        self.model = model
        self.model_kwargs = model_kwargs
        self._embedding = shared(SparseTextEmbedding, model, **(model_kwargs or {}))

    def warm_up(self) -> None:
        """Load the model."""
        self._embedding.token_count("")

    @component.output_types(sparse_embedding=SparseEmbedding)
    def run(self, text: str) -> dict[str, SparseEmbedding]:
        """The vector of a text, under "sparse_embedding".

        Raises:
            TypeError: it is no string.
        """
        return {"sparse_embedding": _sparse(next(self._embedding.query_embed(inputs.text(text, "text"))))}

    @component.output_types(sparse_embedding=SparseEmbedding)
    async def run_async(self, text: str) -> dict[str, SparseEmbedding]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class FastrankSparseDocumentEmbedder:
    """Documents with sparse vectors.

    Args:
        model: a model of `fastrank.SparseTextEmbedding`.
        batch_size: the most texts that run together.
        progress_bar: whether to draw one.
        meta_fields_to_embed: fields of a document's `meta` that are put before its text.
        embedding_separator: what stands between them.
        model_kwargs: further arguments of `fastrank.SparseTextEmbedding`.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        TypeError, ValueError: as `fastrank.SparseTextEmbedding`.
    """

    def __init__(
        self,
        model: str = "Qdrant/bm25",
        batch_size: int = 64,
        progress_bar: bool = True,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.meta_fields_to_embed = meta_fields_to_embed
        self.embedding_separator = embedding_separator
        self.model_kwargs = model_kwargs
        self._embedding = shared(SparseTextEmbedding, model, **(model_kwargs or {}))

    def warm_up(self) -> None:
        """Load the model."""
        self._embedding.token_count("")

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Copies of the documents with `sparse_embedding`, under "documents".

        Raises:
            TypeError: something that is no list of documents.
        """
        texts = _texts(documents, self.meta_fields_to_embed, self.embedding_separator)
        vectors = _shown(self._embedding.passage_embed(texts, self.batch_size), len(texts), self.progress_bar)
        pairs = zip(documents, vectors, strict=True)
        return {"documents": [replace(document, sparse_embedding=_sparse(vector)) for document, vector in pairs]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, documents)


@component
class FastrankRanker:
    """The best documents by a cross-encoder, best first, with its scores.

    Args:
        model: a cross-encoder of fastrank's registry.
        top_k: how many documents to keep.
        batch_size: the most pairs that run together.
        score_threshold: keep only documents with at least this score.
        meta_fields_to_embed: fields of a document's `meta` that are put before its text.
        embedding_separator: what stands between them.
        model_kwargs: further arguments of `fastrank.TextCrossEncoder`, such as `{"activation": "sigmoid"}`.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`, and if `top_k` is below 1.
    """

    def __init__(
        self,
        model: str = "Xenova/ms-marco-MiniLM-L-6-v2",
        top_k: int = 10,
        batch_size: int = 64,
        score_threshold: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.top_k = inputs.positive(top_k, "top_k")
        self.batch_size = batch_size
        self.score_threshold = score_threshold
        self.meta_fields_to_embed = meta_fields_to_embed
        self.embedding_separator = embedding_separator
        self.model_kwargs = model_kwargs
        self._encoder = shared(TextCrossEncoder, model, **(model_kwargs or {}))

    def warm_up(self) -> None:
        """Load the model."""
        self._encoder.token_count([("", "")])

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None, score_threshold: float | None = None
    ) -> dict[str, list[Document]]:
        """Copies of the best documents with `score`, best first, under "documents"; equal scores in the order given.

        Raises:
            TypeError: the query is no string, or `documents` no list of documents.
            ValueError: `top_k` is below 1.
        """
        texts = _texts(documents, self.meta_fields_to_embed, self.embedding_separator)
        most = self.top_k if top_k is None else top_k
        least = self.score_threshold if score_threshold is None else score_threshold
        best = self._encoder.rank(query, texts, most, self.batch_size) if texts else []
        kept = [ranked for ranked in best if least is None or ranked.score >= least]
        return {"documents": [replace(documents[ranked.index], score=ranked.score) for ranked in kept]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None, score_threshold: float | None = None
    ) -> dict[str, list[Document]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, query, documents, top_k, score_threshold)


def _texts(documents: Any, fields: list[str] | None, separator: str) -> list[str]:
    """What stands for each document: the chosen fields of its `meta` that it has, and its text."""
    if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
        raise TypeError("documents must be a list of Haystack documents")
    chosen = [[document.meta.get(field) for field in fields or ()] for document in documents]
    return [
        separator.join([*(str(value) for value in values if value is not None), document.content or ""])
        for values, document in zip(chosen, documents, strict=True)
    ]


def _shown(vectors: Iterator[T], total: int, progress_bar: bool) -> Iterator[T]:
    from tqdm import tqdm

    return iter(tqdm(vectors, "Embedding", total, disable=not progress_bar))


def _sparse(vector: FastrankSparseEmbedding) -> SparseEmbedding:
    return SparseEmbedding(indices=vector.indices.tolist(), values=[float(value) for value in vector.values])
