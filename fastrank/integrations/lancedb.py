"""LanceDB: rerankers for its searches, and embedding functions that its tables find by name.

Rerankers take the place of LanceDB's own of the same names, which need PyTorch:

>>> from fastrank.integrations.lancedb import CrossEncoderReranker
>>> table.search("why is the sky blue", query_type="hybrid").rerank(CrossEncoderReranker()).to_list()

Importing this module registers the embedding functions "fastrank" (dense) and "fastrank-late" (token vectors). A table
keeps the name and the arguments given to `create`, so import it as well before opening such a table:

>>> from lancedb.embeddings import get_registry
>>> import fastrank.integrations.lancedb
>>> dense = get_registry().get("fastrank").create(name="sentence-transformers/all-MiniLM-L6-v2")
>>> class Note(LanceModel):
...     text: str = dense.SourceField()
...     vector: Vector(dense.ndims()) = dense.VectorField()

Each model is loaded once per process, at its first use. Works with LanceDB 0.25 and newer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastrank import inputs
from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import device_options, shared
from fastrank.late_interaction import LateInteractionTextEmbedding
from fastrank.rerank.cross_encoder import TextCrossEncoder

with required("lancedb"):
    import lancedb  # noqa: F401 - first, so that an error names it
    import pyarrow as pa
    from lancedb.embeddings import TextEmbeddingFunction, register
    from lancedb.query import (
        BooleanQuery,
        BoostQuery,
        LanceQueryBuilder,
        MatchQuery,
        MultiMatchQuery,
        Occur,
        PhraseQuery,
    )
    from lancedb.rerankers import Reranker
    from pydantic import ConfigDict

__all__ = ["ColbertReranker", "CrossEncoderReranker", "FastrankEmbeddings", "FastrankLateEmbeddings"]

_SCORE = "_relevance_score"

# -- rerankers ---------------------------------------------------------------------------------------------------------


class _ModelReranker(Reranker):
    """A model that scores texts for a query, as LanceDB calls rerankers: with tables of search results."""

    def __init__(
        self, model: TextCrossEncoder | LateInteractionTextEmbedding, column: str, return_score: str, batch_size: int
    ) -> None:
        super().__init__(return_score)
        self.model = model
        self.model_name = model.model_name
        self.column = column
        self.batch_size = batch_size

    def __str__(self) -> str:
        return f"{type(self).__name__}(model_name={self.model_name})"

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """The results of a vector search, best first."""
        return self._rerank(query, vector_results)

    def rerank_fts(self, query: Any, fts_results: pa.Table) -> pa.Table:
        """The results of a full-text search, best first."""
        return self._rerank(query, fts_results)

    def rerank_hybrid(self, query: Any, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """The results of both searches together, best first."""
        return self._rerank(query, _merged(vector_results, fts_results))

    def rerank_multivector(
        self,
        vector_results: pa.Table | LanceQueryBuilder | Sequence[pa.Table | LanceQueryBuilder],
        query: Any = None,
        deduplicate: bool = False,
    ) -> pa.Table:
        """The results of several searches together, best first.

        Args:
            vector_results: queries, or their results; of asynchronous queries only the results.
            query: the text to score by. It must be given.
            deduplicate: whether a row that several searches found is scored and returned once; the searches must have
                used `.with_row_id(True)`.

        Raises:
            ValueError: no query, no results, or no row ids to deduplicate by.
            TypeError: something that is neither a query nor a table.
        """
        if query is None:
            raise ValueError("rerank_multivector needs the text to score by: rerank_multivector([...], query='...')")
        given = [vector_results] if isinstance(vector_results, (pa.Table, LanceQueryBuilder)) else list(vector_results)
        if not given:
            raise ValueError("rerank_multivector needs the results of at least one search")
        tables = [_executed(each) for each in given]
        if deduplicate and not all("_rowid" in table.column_names for table in tables):
            raise ValueError("deduplicate=True needs row ids: search with .with_row_id(True)")
        together = pa.concat_tables(tables, promote_options="default")
        return self._rerank(query, _distinct(together) if deduplicate else together)

    def _rerank(self, query: Any, results: pa.Table) -> pa.Table:
        texts = _texts(results, self.column)
        # no texts: no model is loaded
        scores = list(self.model.rerank(_query_text(query), texts, batch_size=self.batch_size)) if texts else []
        ranked = results.append_column(_SCORE, pa.array(scores, pa.float32())).sort_by([(_SCORE, "descending")])
        if self.score == "all":
            return ranked
        return ranked.drop_columns([name for name in ("_distance", "_score") if name in ranked.column_names])


class CrossEncoderReranker(_ModelReranker):
    """Search results in the order of a cross-encoder's scores.

    Rows whose text is null are scored as the empty text. Texts of FullTextQuery objects are understood.

    Args:
        model_name: a cross-encoder of fastrank's registry.
        column: the column of strings to score.
        device: None, "cpu", "cuda" or "cuda:1".
        return_score: "relevance" for the column `_relevance_score` alone, "all" to keep `_distance` and `_score` too.
        trust_remote_code: accepted for compatibility; no code is loaded with a model.
        batch_size: the largest batch of pairs.
        **options: further arguments of `fastrank.TextCrossEncoder`, such as `max_length` or `cache_dir`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`, and if `return_score` is neither of the two.
    """

    def __init__(
        self,
        model_name: str = "cross-encoder/ms-marco-TinyBERT-L-6",
        column: str = "text",
        device: str | None = None,
        return_score: str = "relevance",
        trust_remote_code: bool = True,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        del trust_remote_code
        model = shared(TextCrossEncoder, model_name, **{**device_options(device), **options})
        super().__init__(model, column, return_score, batch_size)


class ColbertReranker(_ModelReranker):
    """Reranks search results by MaxSim: the sum of each query token's best match among a text's tokens.

    Otherwise as `CrossEncoderReranker`; its scores are those of `fastrank.LateInteractionTextEmbedding.rerank`.

    Args:
        model_name: a late interaction model of fastrank's registry.
        column: the column of strings to score.
        return_score: "relevance" or "all".
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the largest batch.
        **options: further arguments of `fastrank.LateInteractionTextEmbedding`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.LateInteractionTextEmbedding`, and if `return_score` is neither of the two.
    """

    def __init__(
        self,
        model_name: str = "colbert-ir/colbertv2.0",
        column: str = "text",
        return_score: str = "relevance",
        device: str | None = None,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        model = shared(LateInteractionTextEmbedding, model_name, **{**device_options(device), **options})
        super().__init__(model, column, return_score, batch_size)


def _executed(results: pa.Table | LanceQueryBuilder) -> pa.Table:
    if isinstance(results, LanceQueryBuilder):
        return results.to_arrow()
    if isinstance(results, pa.Table):
        return results
    raise TypeError(
        f"rerank_multivector takes queries or their Arrow tables, not {type(results).__name__}; "
        "of an asynchronous query pass `await query.to_arrow()`"
    )


def _merged(vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
    """The rows that either search found, once, with the scores of both; null for the search that did not find it."""
    rows = _distinct(pa.concat_tables([vector_results, fts_results], promote_options="default"))
    if "_score" not in fts_results.column_names:
        return rows
    scores = dict(zip(fts_results["_rowid"].to_pylist(), fts_results["_score"].to_pylist(), strict=True))
    column = pa.array([scores.get(row) for row in rows["_rowid"].to_pylist()], pa.float32())
    return rows.set_column(rows.column_names.index("_score"), "_score", column)


def _distinct(table: pa.Table) -> pa.Table:
    """The first of the rows that have the same row id."""
    _, first = np.unique(table["_rowid"].to_numpy(), return_index=True)
    return table.take(np.sort(first))


def _texts(results: pa.Table, column: str) -> list[str]:
    if column not in results.column_names:
        raise ValueError(
            f"There is no column {column!r} to rerank by among {', '.join(results.column_names)}. "
            "Name the column of texts: column=... of the reranker; a query's select() must keep it."
        )
    kind = results.schema.field(column).type
    if not _holds_texts(kind):
        raise TypeError(f"The column {column!r} to rerank by holds {kind}, not strings. Name another: column=...")
    return ["" if text is None else text for text in results[column].to_pylist()]


def _holds_texts(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null))


def _query_text(query: Any) -> str:
    """The words of a query; of a FullTextQuery those that results should have."""
    if isinstance(query, str):
        return query
    if isinstance(query, (MatchQuery, PhraseQuery, MultiMatchQuery)):
        return str(query.query)
    if isinstance(query, BoostQuery):
        return _query_text(query.positive)
    if isinstance(query, BooleanQuery):
        parts = (_query_text(part) for occur, part in query.queries if occur != Occur.MUST_NOT)
        return " ".join(dict.fromkeys(parts))
    raise TypeError(f"A reranker needs the query as text, not {type(query).__name__}")


# -- embedding functions -----------------------------------------------------------------------------------------------


class _Embeddings(TextEmbeddingFunction):
    """What LanceDB stores of an embedding function with a table: its name and the arguments given to `create`."""

    model_config = ConfigDict(extra="forbid")  # a misspelt argument is an error

    name: str
    batch_size: int = 64
    device: str | None = None
    trust_remote_code: bool = True
    max_retries: int = 0
    cache_dir: str | None = None
    threads: int | None = None
    specific_model_path: str | None = None
    local_files_only: bool = False
    variant: str | None = None
    max_length: int | None = None

    _OWN: ClassVar = ["cache_dir", "threads", "specific_model_path", "local_files_only", "variant", "max_length"]

    def VectorField(self, **options: Any) -> Any:  # noqa: N802 - LanceDB's name
        """LanceDB's field for the vectors. The model is loaded now, so that no table is made that cannot be filled."""
        self._model().token_count("")
        return super().VectorField(**options)

    def compute_query_embeddings_with_retry(self, *args: Any, **options: Any) -> list[Any]:
        """Without retries: what fails here is not the network, and the error stays as it is."""
        vectors: list[Any] = self.compute_query_embeddings(*args, **options)
        return vectors

    def compute_source_embeddings_with_retry(self, *args: Any, **options: Any) -> list[Any]:
        """Without retries."""
        vectors: list[Any] = self.compute_source_embeddings(*args, **options)
        return vectors

    def generate_embeddings(self, texts: Any, *_args: Any, **_options: Any) -> list[Any]:
        """Vectors of texts, as of a source column."""
        vectors: list[Any] = self.compute_source_embeddings(texts)
        return vectors

    @abstractmethod
    def _model(self) -> TextEmbedding | LateInteractionTextEmbedding:
        """The model, shared by all instances."""

    def _options(self) -> dict[str, Any]:
        return {**device_options(self.device), **{name: getattr(self, name) for name in self._OWN}}

    def _embedded(self, texts: Any, embed: Callable[..., Iterator[Any]]) -> list[Any]:
        """A vector for each text, and null for a null."""
        kind = getattr(texts, "type", None)  # of a column
        if kind is not None and not _holds_texts(kind):
            raise TypeError(f"{self.name} embeds texts, and the source column holds {kind}; name a column of strings")
        sanitized = self.sanitize_input(texts)
        inputs.texts(sanitized, "texts")  # refuses what is no container of texts
        rows: list[str | None] = list(sanitized)
        vectors = embed([text for text in rows if text is not None], batch_size=self.batch_size)
        return [None if text is None else next(vectors) for text in rows]


@register("fastrank")
class FastrankEmbeddings(_Embeddings):
    """Dense vectors: `get_registry().get("fastrank").create(name="organisation/model")`.

    Queries and sources get the model's prefixes where it has some. A null text has no vector: what happens to its row
    is for `on_bad_vectors` of `table.add` to say.

    Args:
        name: a model of `fastrank.TextEmbedding`.
        batch_size: the largest batch.
        device: None, "cpu", "cuda" or "cuda:1".
        normalize: whether vectors are L2-normalized; None: as the model's authors do.
        trust_remote_code: accepted for compatibility; no code is loaded with a model.
        max_retries: accepted for compatibility; nothing is retried.
        cache_dir, threads, specific_model_path, local_files_only, variant, max_length: as `fastrank.TextEmbedding`.
    """

    name: str = "BAAI/bge-small-en-v1.5"
    normalize: bool | None = None

    def ndims(self) -> int:
        """The length of a vector. The model is not loaded for it."""
        return TextEmbedding.get_embedding_size(self.name)

    def compute_query_embeddings(self, query: Any, *_args: Any, **_options: Any) -> list[Any]:
        """The vector of a query, float32 of shape (dim,), in a list."""
        return self._embedded(query, self._model().query_embed)

    def compute_source_embeddings(self, texts: Any, *_args: Any, **_options: Any) -> list[Any]:
        """Vectors of texts, float32 of shape (dim,)."""
        return self._embedded(texts, self._model().passage_embed)

    def _model(self) -> TextEmbedding:
        return shared(TextEmbedding, self.name, normalize=self.normalize, **self._options())


@register("fastrank-late")
class FastrankLateEmbeddings(_Embeddings):
    """Token vectors for a multivector column, which LanceDB searches by MaxSim.

    >>> late = get_registry().get("fastrank-late").create(name="colbert-ir/colbertv2.0")
    >>> class Note(LanceModel):
    ...     text: str = late.SourceField()
    ...     tokens: MultiVector(late.ndims()) = late.VectorField()
    >>> table.search("why is the sky blue").distance_type("cosine").to_list()

    Arguments are those of `FastrankEmbeddings` without `normalize`; `name` is a model of
    `fastrank.LateInteractionTextEmbedding`.
    """

    name: str = "colbert-ir/colbertv2.0"

    def ndims(self) -> int:
        """The length of a token's vector. The model is not loaded for it."""
        return _TokenSize(LateInteractionTextEmbedding.get_embedding_size(self.name))

    def compute_query_embeddings(self, query: Any, *_args: Any, **_options: Any) -> list[Any]:
        """The token vectors of a query, float32 of shape (tokens, dim), in a list."""
        return self._embedded(query, self._model().query_embed)

    def compute_source_embeddings(self, texts: Any, *_args: Any, **_options: Any) -> list[Any]:
        """Token vectors of texts, each a list of float32 arrays of shape (dim,), as Arrow takes lists of lists."""
        matrices: list[NDArray[np.float32] | None] = self._embedded(texts, self._model().passage_embed)
        return [None if matrix is None else list(matrix) for matrix in matrices]

    def _model(self) -> LateInteractionTextEmbedding:
        return shared(LateInteractionTextEmbedding, self.name, **self._options())


class _TokenSize(int):
    """The length of a token's vector, equal to any number.

    LanceDB (0.40) stores null for a vector unless `len(vector) == function.ndims()`, in silence; the `len` of token
    vectors is the number of tokens.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    __hash__ = int.__hash__
