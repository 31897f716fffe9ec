"""Haystack: text and document embedders, dense and sparse, and a ranker.

>>> from fastrank.integrations.haystack import FastrankRanker, FastrankTextEmbedder
>>> pipeline.add_component("embedder", FastrankTextEmbedder("BAAI/bge-small-en-v1.5"))
>>> pipeline.add_component("ranker", FastrankRanker(top_k=3))

A model is loaded once per process: by `warm_up`, else at its first use. A pipeline stores the arguments; import this
module before loading one from a file, so that Haystack trusts it. `run_async` runs in a thread. Queries and documents
get the model's own prompts where it has them, so there is no argument for prefixes.
"""

# No `from __future__ import annotations`: Haystack reads the types of `run`.

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
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


def _in_thread(run: Callable[..., Any]) -> Callable[..., Any]:
    """A component's `run_async`: `run` in a thread. Haystack wants the two to have one signature."""

    @wraps(run)
    async def run_async(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(run, *args, **kwargs)

    return run_async


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

    run_async = _in_thread(run)


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

    run_async = _in_thread(run)


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

    run_async = _in_thread(run)

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


@component
class FastrankRanker(_Component):
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
        self.top_k = inputs.positive(top_k, "top_k")
        self.batch_size = batch_size
        self.score_threshold = score_threshold
        self.meta_fields_to_embed = meta_fields_to_embed
        self.embedding_separator = embedding_separator
        self._share(TextCrossEncoder, model, model_kwargs)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None, score_threshold: float | None = None
    ) -> dict[str, list[Document]]:
        """Copies of the best documents with `score`, best first, under "documents"; ties keep their order.

        Raises:
            TypeError: the query is not a string, or `documents` not a list of documents.
            ValueError: `top_k` is below 1.
        """
        top_k = inputs.positive(self.top_k if top_k is None else top_k, "top_k")
        least = self.score_threshold if score_threshold is None else score_threshold
        distinct = _distinct(documents)
        texts = _texts(distinct, self.meta_fields_to_embed, self.embedding_separator)
        ranked = self._shared.rank(inputs.text(query, "query"), texts, top_k, self.batch_size) if texts else []
        return {
            "documents": [
                replace(distinct[each.index], score=each.score)
                for each in ranked
                if least is None or each.score >= least
            ]
        }

    run_async = _in_thread(run)


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


def _shown(vectors: Iterator[T], total: int, progress_bar: bool) -> Iterator[T]:
    from tqdm import tqdm

    return iter(tqdm(vectors, "Embedding", total, disable=not progress_bar))


def _sparse(vector: FastrankSparseEmbedding) -> SparseEmbedding:
    return SparseEmbedding(indices=vector.indices.tolist(), values=[float(value) for value in vector.values])
