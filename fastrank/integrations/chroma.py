"""Chroma: embedding functions, dense and sparse, that collections find by name.

>>> from fastrank.integrations.chroma import FastrankEmbeddingFunction
>>> client.create_collection("notes", embedding_function=FastrankEmbeddingFunction("BAAI/bge-small-en-v1.5"))

A collection keeps name and arguments, so import this module before opening it again. Models are loaded once a process,
at their first use. Works with Chroma 1.2 and newer.
"""

from __future__ import annotations

from typing import Any

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


@register_embedding_function
class FastrankEmbeddingFunction(EmbeddingFunction[Documents]):
    """Dense vectors, with the model's prefixes for queries and documents where it has some.

    Args:
        model_name: a model of `fastrank.TextEmbedding`.
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the most texts that run together.
        **options: further arguments of `fastrank.TextEmbedding`, as JSON has them, such as `threads` or `cache_dir`.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        device: str | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        self._config = {"model_name": model_name, "device": device, "batch_size": batch_size, **options}
        self.model = shared(TextEmbedding, model_name, **{**device_options(device), **options})
        self.batch_size = batch_size

    def __call__(self, input: Documents) -> list[NDArray[np.float32]]:  # noqa: A002 - Chroma's name
        """Vectors of documents, float32 of shape (dim,)."""
        return list(self.model.passage_embed(input, batch_size=self.batch_size))

    def embed_query(self, input: Documents) -> list[NDArray[np.float32]]:  # noqa: A002 - Chroma's name
        """Vectors of queries, float32 of shape (dim,)."""
        return list(self.model.query_embed(input, batch_size=self.batch_size))

    @staticmethod
    def name() -> str:
        """The name that collections keep."""
        return "fastrank"

    def default_space(self) -> str:
        """Cosine."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """The arguments that collections keep."""
        return dict(self._config)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> FastrankEmbeddingFunction:
        """The function that a collection was made with."""
        return FastrankEmbeddingFunction(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another model, whose vectors would stand among those of the first.

        Raises:
            ValueError: it is another model.
        """
        _check_model(old_config, new_config)


@register_sparse_embedding_function
class FastrankSparseEmbeddingFunction(SparseEmbeddingFunction[Documents]):
    """Sparse vectors for a sparse vector index.

    Args:
        model_name: a model of `fastrank.SparseTextEmbedding`.
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the most texts that run together.
        **options: further arguments of `fastrank.SparseTextEmbedding`, as JSON has them, such as `language`.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        TypeError, ValueError: as `fastrank.SparseTextEmbedding`.
    """

    def __init__(
        self,
        model_name: str = "Qdrant/bm25",
        device: str | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        self._config = {"model_name": model_name, "device": device, "batch_size": batch_size, **options}
        self.model = shared(SparseTextEmbedding, model_name, **{**device_options(device), **options})
        self.batch_size = batch_size

    def __call__(self, input: Documents) -> list[SparseVector]:  # noqa: A002 - Chroma's name
        """Vectors of documents."""
        return list(map(_sparse, self.model.embed(input, batch_size=self.batch_size)))

    def embed_query(self, input: Documents) -> list[SparseVector]:  # noqa: A002 - Chroma's name
        """Vectors of queries."""
        return list(map(_sparse, self.model.query_embed(input, batch_size=self.batch_size)))

    @staticmethod
    def name() -> str:
        """The name that collections keep."""
        return "fastrank_sparse"

    def get_config(self) -> dict[str, Any]:
        """The arguments that collections keep."""
        return dict(self._config)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> FastrankSparseEmbeddingFunction:
        """The function that a collection was made with."""
        return FastrankSparseEmbeddingFunction(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another model.

        Raises:
            ValueError: it is another model.
        """
        _check_model(old_config, new_config)


def _check_model(old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
    old, new = old_config.get("model_name"), new_config.get("model_name")
    if new is not None and new != old:
        raise ValueError(f"This collection's vectors are those of {old}; for {new} make a collection of its own")


def _sparse(vector: SparseEmbedding) -> SparseVector:
    """As Chroma has it: ids ascending."""
    order = np.argsort(vector.indices)
    return SparseVector(vector.indices[order].tolist(), vector.values[order].astype(float).tolist())
