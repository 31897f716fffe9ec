"""Chroma: embedding functions, dense and sparse, that collections find by name.

>>> from fastrank.integrations.chroma import FastrankEmbeddingFunction
>>> client.create_collection("notes", embedding_function=FastrankEmbeddingFunction("BAAI/bge-small-en-v1.5"))

A collection stores name and arguments, so import this module before opening it again. A model is loaded once per
process, at its first use. Works with Chroma 1.2 and newer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import device_options, shared
from fastrank.sparse.embedding import SparseEmbedding
from fastrank.sparse.sparse_text_embedding import SparseTextEmbedding

with required("chroma"):
    from chromadb.api.types import Documents, EmbeddingFunction, SparseEmbeddingFunction, SparseVector
    from chromadb.utils.embedding_functions import register_embedding_function, register_sparse_embedding_function

__all__ = ["FastrankEmbeddingFunction", "FastrankSparseEmbeddingFunction"]


class _Configured:
    """The arguments of an embedding function, which collections store, and its model."""

    def _configure(
        self, kind: Callable[..., Any], model_name: str, device: str | None, batch_size: int, options: dict[str, Any]
    ) -> None:
        self._config = {"model_name": model_name, "device": device, "batch_size": batch_size, **options}
        self.model = shared(kind, model_name, **{**device_options(device), **options})
        self.batch_size = batch_size

    def get_config(self) -> dict[str, Any]:
        """The arguments, to be stored."""
        return dict(self._config)

    @classmethod
    def build_from_config(cls, config: dict[str, Any]) -> Self:
        """The function that a collection was made with."""
        return cls(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another model, whose vectors would be mixed with those of the first.

        Raises:
            ValueError: it is another model.
        """
        old, new = old_config.get("model_name"), new_config.get("model_name")
        if new is not None and new != old:
            raise ValueError(f"This collection's vectors are those of {old}; for {new} make a collection of its own")


@register_embedding_function
class FastrankEmbeddingFunction(_Configured, EmbeddingFunction[Documents]):
    """Dense embeddings, with the model's prompts for queries and documents where it has them.

    Args:
        model_name: a model of `fastrank.TextEmbedding`.
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the largest batch.
        **options: further arguments of `fastrank.TextEmbedding` that JSON can hold, such as `threads` or `cache_dir`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        device: str | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        self._configure(TextEmbedding, model_name, device, batch_size, options)

    def __call__(self, input: Documents) -> list[NDArray[np.float32]]:  # noqa: A002 - Chroma's name
        """Embeddings of documents, float32 of shape (dim,)."""
        return list(self.model.passage_embed(input, batch_size=self.batch_size))

    def embed_query(self, input: Documents) -> list[NDArray[np.float32]]:  # noqa: A002 - Chroma's name
        """Embeddings of queries, float32 of shape (dim,)."""
        return list(self.model.query_embed(input, batch_size=self.batch_size))

    @staticmethod
    def name() -> str:
        """The name that collections store."""
        return "fastrank"

    def default_space(self) -> str:
        """Cosine."""
        return "cosine"


@register_sparse_embedding_function
class FastrankSparseEmbeddingFunction(_Configured, SparseEmbeddingFunction[Documents]):
    """Sparse embeddings for a sparse vector index.

    Args:
        model_name: a model of `fastrank.SparseTextEmbedding`.
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the largest batch.
        **options: further arguments of `fastrank.SparseTextEmbedding` that JSON can hold, such as `language`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.SparseTextEmbedding`.
    """

    def __init__(
        self,
        model_name: str = "Qdrant/bm25",
        device: str | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        self._configure(SparseTextEmbedding, model_name, device, batch_size, options)

    def __call__(self, input: Documents) -> list[SparseVector]:  # noqa: A002 - Chroma's name
        """Embeddings of documents."""
        return list(map(_sparse, self.model.embed(input, batch_size=self.batch_size)))

    def embed_query(self, input: Documents) -> list[SparseVector]:  # noqa: A002 - Chroma's name
        """Embeddings of queries."""
        return list(map(_sparse, self.model.query_embed(input, batch_size=self.batch_size)))

    @staticmethod
    def name() -> str:
        """The name that collections store."""
        return "fastrank_sparse"


def _sparse(vector: SparseEmbedding) -> SparseVector:
    """As Chroma has it: ids ascending."""
    order = np.argsort(vector.indices)
    return SparseVector(vector.indices[order].tolist(), vector.values[order].astype(float).tolist())
