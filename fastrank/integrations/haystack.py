"""Haystack: text and document embedders, dense and sparse, and rankers.

>>> from fastrank.integrations.haystack import FastrankRanker, FastrankTextEmbedder
>>> pipeline.add_component("embedder", FastrankTextEmbedder("BAAI/bge-small-en-v1.5"))
>>> pipeline.add_component("ranker", FastrankRanker(top_k=3))

A model is loaded once per process: by `warm_up`, else at its first use. A pipeline stores the arguments; import this
module before loading one from a file, so that Haystack trusts it. `run_async` blocks no loop, and stops when its task
is cancelled. Queries and documents get the model's own prompts where it has them, so there is no argument for prefixes.
"""

# No `from __future__ import annotations`: Haystack reads the types of `run`.

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from fastrank import inputs
from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import shared
from fastrank.late_interaction import LateInteractionTextEmbedding
from fastrank.rerank.cross_encoder import TextCrossEncoder
from fastrank.rerank.ranking import RankedDocument
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
    "FastrankLateInteractionRanker",
    "FastrankRanker",
    "FastrankSparseDocumentEmbedder",
    "FastrankSparseTextEmbedder",
    "FastrankTextEmbedder",
]

T = TypeVar("T")


class _Component:
    """A component with a shared model. Its attributes have the names of its arguments, which Haystack stores."""

    _nothing: Any = ""  # an input that loads the model

    def _share(self, kind: Callable[..., Any], model: str, model_kwargs: dict[str, Any] | None) -> None:
        self.model = model
        self.model_kwargs = model_kwargs
        self._shared = shared(kind, model, **(model_kwargs or {}))

    def warm_up(self) -> None:
        """Load the model."""
        self._shared.token_count(self._nothing)


@component
class FastrankTextEmbedder(_Component):
    """The dense embedding of a query.

    Args:
        model: a model of `fastrank.TextEmbedding`.
        model_kwargs: further arguments of `fastrank.TextEmbedding`, such as `{"threads": 2}`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    def __init__(self, model: str = "BAAI/bge-small-en-v1.5", model_kwargs: dict[str, Any] | None = None) -> None:
        self._share(TextEmbedding, model, model_kwargs)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """The embedding of a text, under "embedding".

        Raises:
            TypeError: it is not a string.
        """
        return {"embedding": next(self._shared.query_embed(inputs.text(text, "text"))).tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """`run` for asyncio."""
        (vector,) = [each async for each in self._shared.aquery_embed(inputs.text(text, "text"))]
        return {"embedding": vector.tolist()}


@component
class FastrankSparseTextEmbedder(_Component):
    """The sparse embedding of a query.

    Args:
        model: a model of `fastrank.SparseTextEmbedding`.
        model_kwargs: further arguments of `fastrank.SparseTextEmbedding`, such as `{"language": "german"}`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.SparseTextEmbedding`.
    """

    def __init__(self, model: str = "Qdrant/bm25", model_kwargs: dict[str, Any] | None = None) -> None:
        self._share(SparseTextEmbedding, model, model_kwargs)

    @component.output_types(sparse_embedding=SparseEmbedding)
    def run(self, text: str) -> dict[str, SparseEmbedding]:
        """The embedding of a text, under "sparse_embedding".

        Raises:
            TypeError: it is not a string.
        """
        return {"sparse_embedding": _sparse(next(self._shared.query_embed(inputs.text(text, "text"))))}

    @component.output_types(sparse_embedding=SparseEmbedding)
    async def run_async(self, text: str) -> dict[str, SparseEmbedding]:
        """`run` for asyncio."""
        (vector,) = [each async for each in self._shared.aquery_embed(inputs.text(text, "text"))]
        return {"sparse_embedding": _sparse(vector)}


class _DocumentEmbedder(_Component):
    """Documents with embeddings."""

    batch_size: int
    progress_bar: bool
    meta_fields_to_embed: list[str] | None
    embedding_separator: str

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Copies of the documents with their embeddings, under "documents".

        Raises:
            TypeError: `documents` is not a list of documents.
        """
        texts = _texts(documents, self.meta_fields_to_embed, self.embedding_separator)
        vectors = _shown(self._shared.passage_embed(texts, self.batch_size), len(texts), self.progress_bar)
        pairs = zip(documents, vectors, strict=True)
        return {"documents": [replace(document, **self._embedding(vector)) for document, vector in pairs]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """`run` for asyncio."""
        texts = _texts(documents, self.meta_fields_to_embed, self.embedding_separator)
        shown = _shown(self._shared.apassage_embed(texts, self.batch_size), len(texts), self.progress_bar)
        pairs = zip(documents, [vector async for vector in shown], strict=True)
        return {"documents": [replace(document, **self._embedding(vector)) for document, vector in pairs]}

    @staticmethod
    @abstractmethod
    def _embedding(vector: Any) -> dict[str, Any]:
        """The field of a document that holds a vector."""


@component
class FastrankDocumentEmbedder(_DocumentEmbedder):
    """Documents with dense embeddings, in `embedding`.

    Args:
        model: a model of `fastrank.TextEmbedding`.
        batch_size: the largest batch.
        progress_bar: whether to show one.
        meta_fields_to_embed: fields of a document's `meta` to put before its text.
        embedding_separator: the string between them.
        model_kwargs: further arguments of `fastrank.TextEmbedding`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
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
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.meta_fields_to_embed = meta_fields_to_embed
        self.embedding_separator = embedding_separator
        self._share(TextEmbedding, model, model_kwargs)

    @staticmethod
    def _embedding(vector: Any) -> dict[str, Any]:
        return {"embedding": vector.tolist()}


@component
class FastrankSparseDocumentEmbedder(_DocumentEmbedder):
    """Documents with sparse embeddings, in `sparse_embedding`.

    Arguments are those of `FastrankDocumentEmbedder`, `model` and `model_kwargs` for `fastrank.SparseTextEmbedding`.
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
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.meta_fields_to_embed = meta_fields_to_embed
        self.embedding_separator = embedding_separator
        self._share(SparseTextEmbedding, model, model_kwargs)

    @staticmethod
    def _embedding(vector: Any) -> dict[str, Any]:
        return {"sparse_embedding": _sparse(vector)}


class _Ranker(_Component):
    """The best documents by a model that scores them."""

    top_k: int
    batch_size: int
    score_threshold: float | None
    meta_fields_to_embed: list[str] | None
    embedding_separator: str

    def _set(
        self,
        top_k: int,
        batch_size: int,
        score_threshold: float | None,
        meta_fields_to_embed: list[str] | None,
        embedding_separator: str,
    ) -> None:
        self.top_k = inputs.positive(top_k, "top_k")
        self.batch_size = batch_size
        self.score_threshold = score_threshold
        self.meta_fields_to_embed = meta_fields_to_embed
        self.embedding_separator = embedding_separator

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None, score_threshold: float | None = None
    ) -> dict[str, list[Document]]:
        """Copies of the best documents with `score`, best first, under "documents"; ties keep their order.

        Raises:
            TypeError: the query is not a string, or `documents` not a list of documents.
            ValueError: `top_k` is below 1.
        """
        distinct, texts, most = self._checked(query, documents, top_k)
        ranked = self._shared.rank(query, texts, most, self.batch_size) if texts else []
        return {"documents": self._scored(distinct, ranked, score_threshold)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None, score_threshold: float | None = None
    ) -> dict[str, list[Document]]:
        """`run` for asyncio."""
        distinct, texts, most = self._checked(query, documents, top_k)
        ranked = await self._shared.arank(query, texts, most, self.batch_size) if texts else []
        return {"documents": self._scored(distinct, ranked, score_threshold)}

    def _checked(
        self, query: str, documents: list[Document], top_k: int | None
    ) -> tuple[list[Document], list[str], int]:
        most = inputs.positive(self.top_k if top_k is None else top_k, "top_k")
        inputs.text(query, "query")
        distinct = _distinct(documents)
        return distinct, _texts(distinct, self.meta_fields_to_embed, self.embedding_separator), most

    def _scored(
        self, documents: list[Document], ranked: list[RankedDocument], score_threshold: float | None
    ) -> list[Document]:
        least = self.score_threshold if score_threshold is None else score_threshold
        return [
            replace(documents[each.index], score=each.score) for each in ranked if least is None or each.score >= least
        ]


@component
class FastrankRanker(_Ranker):
    """The best documents by a cross-encoder, best first, with its scores.

    As with Haystack's own rankers, documents with the same id count once: the one with the highest score before.

    Args:
        model: a cross-encoder of fastrank's registry.
        top_k: how many documents to keep.
        batch_size: the largest batch of pairs.
        score_threshold: keep only documents with at least this score.
        meta_fields_to_embed: fields of a document's `meta` to put before its text.
        embedding_separator: the string between them.
        model_kwargs: further arguments of `fastrank.TextCrossEncoder`, such as `{"activation": "sigmoid"}`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`, and if `top_k` is below 1.
    """

    _nothing = (("", ""),)

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
        self._set(top_k, batch_size, score_threshold, meta_fields_to_embed, embedding_separator)
        self._share(TextCrossEncoder, model, model_kwargs)


@component
class FastrankLateInteractionRanker(_Ranker):
    """The best documents by MaxSim of token vectors (ColBERT), best first, with its scores.

    Arguments are those of `FastrankRanker`, `model` and `model_kwargs` for `fastrank.LateInteractionTextEmbedding`.
    With normalized vectors a score is at most the number of the query's tokens.
    """

    def __init__(
        self,
        model: str = "colbert-ir/colbertv2.0",
        top_k: int = 10,
        batch_size: int = 64,
        score_threshold: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self._set(top_k, batch_size, score_threshold, meta_fields_to_embed, embedding_separator)
        self._share(LateInteractionTextEmbedding, model, model_kwargs)


def _checked(documents: Any) -> list[Document]:
    if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
        raise TypeError("documents must be a list of Haystack documents")
    return documents


def _distinct(documents: Any) -> list[Document]:
    """The documents, of those with one id the first with the highest score, where the first of them stood."""
    best: dict[str, Document] = {}
    for document in _checked(documents):
        if document.id not in best or _score(document) > _score(best[document.id]):
            best[document.id] = document
    return list(best.values())


def _score(document: Document) -> float:
    return -math.inf if document.score is None else float(document.score)


def _texts(documents: Any, fields: list[str] | None, separator: str) -> list[str]:
    """The text of each document, after the chosen fields of its `meta` that are not None."""
    chosen = [[document.meta.get(field) for field in fields or ()] for document in _checked(documents)]
    return [
        separator.join([*(str(value) for value in values if value is not None), document.content or ""])
        for values, document in zip(chosen, documents, strict=True)
    ]


def _shown(vectors: T, total: int, progress_bar: bool) -> T:
    """The vectors with a progress bar; asynchronous ones stay so."""
    from tqdm.asyncio import tqdm

    shown: T = tqdm(vectors, "Embedding", total, disable=not progress_bar)
    return shown


def _sparse(vector: FastrankSparseEmbedding) -> SparseEmbedding:
    return SparseEmbedding(indices=vector.indices.tolist(), values=[float(value) for value in vector.values])
