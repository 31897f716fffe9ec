"""DuckDB: `embed`, `embed_query` and `rerank` as functions of SQL, over Arrow.

>>> import duckdb
>>> from fastrank.integrations.duckdb import register
>>> register(duckdb, "sentence-transformers/all-MiniLM-L6-v2")
>>> duckdb.sql("CREATE TABLE vectors AS SELECT id, text, embed(text) AS vector FROM 'notes.parquet'")
>>> duckdb.sql("SELECT text FROM vectors ORDER BY array_cosine_distance(vector, embed_query('insects')) LIMIT 3")

A model is loaded once per process, at its first use. DuckDB passes some thousands of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations import _models
from fastrank.integrations._host import required
from fastrank.integrations._models import shared

with required("duckdb"):
    import duckdb  # noqa: F401 - fails now and not at the first query
    import pyarrow as pa

__all__ = ["register"]


def register(
    connection: Any,
    model_name: str | None = None,
    *,
    reranker: str | None = None,
    late_interaction: bool | None = None,
    batch_size: int = 256,
    prefix: str = "",
    options: dict[str, Any] | None = None,
    reranker_options: dict[str, Any] | None = None,
) -> None:
    """Make the functions on a connection. NULL gives NULL.

        embed(text VARCHAR) -> FLOAT[dim]                   the vector of a document, with its prompt
        embed_query(text VARCHAR) -> FLOAT[dim]             the vector of a query, with its prompt
        rerank(query VARCHAR, document VARCHAR) -> FLOAT    how well a document fits a query

    Args:
        connection: of DuckDB, or the module `duckdb` for its default one.
        model_name: a model of `fastrank.TextEmbedding`; None: no `embed` and `embed_query`.
        reranker: a model of `fastrank.TextCrossEncoder` or `fastrank.LateInteractionTextEmbedding`; None: no `rerank`.
        late_interaction: whether `reranker` is of the second class; None: as the registry says.
        batch_size: the largest batch of the models.
        prefix: put before the functions' names, for several models on one connection.
        options: further arguments of `fastrank.TextEmbedding`.
        reranker_options: further arguments of the reranker's class.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as the models' classes, or neither model is named.
        duckdb.Error: the connection has such a function already.
    """
    if model_name is None and reranker is None:
        raise ValueError("Name a model for embed, or a reranker for rerank, or both")
    if model_name is not None:
        model = shared(TextEmbedding, model_name, **(options or {}))
        vector = connection.array_type("FLOAT", model.embedding_size)
        for name, embed in (("embed", model.passage_embed), ("embed_query", model.query_embed)):
            _function(connection, prefix + name, _Embed(embed, model.embedding_size, batch_size), 1, vector)
    if reranker is not None:
        ranker = _models.reranker(reranker, late_interaction=late_interaction, **(reranker_options or {}))
        score = _Rerank(ranker, batch_size)
        _function(connection, f"{prefix}rerank", score, 2, "FLOAT")


def _function(connection: Any, name: str, function: Any, arguments: int, returned: Any) -> None:
    connection.create_function(name, function, ["VARCHAR"] * arguments, returned, type="arrow", null_handling="special")


class _Embed:
    """The vectors of a column of texts."""

    def __init__(self, embed: Any, dim: int, batch_size: int) -> None:
        self._embed = embed
        self._dim = dim
        self._batch_size = batch_size

    def __call__(self, texts: Any) -> Any:
        listed = texts.to_pylist()
        vectors = self._embed((text for text in listed if text is not None), batch_size=self._batch_size)
        kept = np.array([text is not None for text in listed], bool)
        values = np.zeros((len(listed), self._dim), np.float32)
        values[kept] = list(vectors) if kept.any() else 0
        return pa.FixedSizeListArray.from_arrays(values.ravel(), self._dim, mask=pa.array(~kept))


class _Rerank:
    """The scores of columns of queries and documents. Rows of one query are scored together."""

    def __init__(self, model: Any, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size

    def __call__(self, queries: Any, documents: Any) -> Any:
        scores: list[float | None] = [None] * len(queries)
        pairs = zip(queries.to_pylist(), documents.to_pylist(), strict=True)
        places: dict[str, list[tuple[int, str]]] = {}
        for place, (query, document) in enumerate(pairs):
            if query is not None and document is not None:
                places.setdefault(query, []).append((place, document))
        for query, of_query in places.items():
            found: Iterator[float] = self._model.rerank(
                query, [document for _, document in of_query], batch_size=self._batch_size
            )
            for (place, _), score in zip(of_query, found, strict=True):
                scores[place] = score
        return pa.array(scores, pa.float32())
