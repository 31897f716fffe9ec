"""A callable that embeds batches of rows for engines that schedule: pickled as its configuration, loaded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from fastrank import inputs, log
from fastrank.bulk import arrow, columns, forms, models
from fastrank.bulk.columns import Texts
from fastrank.bulk.models import Config, Encoder
from fastrank.errors import BulkError, OutputError
from fastrank.models import registry
from fastrank.models.spec import ModelSpec

OUTPUTS = {"dense": "embedding", "sparse": "sparse_embedding", "late": "token_embeddings", "rerank": "score"}
ROLES = ("plain", "passage", "query")
_DTYPES = {"dense": arrow.DTYPES, "late": ("float32", "float16"), "sparse": ("float32", "float16")}
_ROWS_OF_TOKENS = 1024  # of a stream's batch of token vectors: with 100 tokens of 128 numbers 50 MB


class Result(NamedTuple):
    """The results of a batch.

    Attributes:
        array: one value or null per row.
        problems: of rows that could not be embedded, by position: why.
    """

    array: Any
    problems: dict[int, str]


class Embedder:
    """Adds a column of embeddings, or of scores, to batches of rows. Only its configuration is pickled.

    >>> import pyarrow as pa
    >>> from fastrank.bulk import Embedder
    >>> embedder = Embedder("Qdrant/bm25")
    >>> embedder(pa.table({"id": [1, 2], "text": ["hello world", None]})).column("sparse_embedding").null_count
    1

    The model is loaded in the process that embeds, when it first does, and once in it, however many embedders with the
    same configuration and however many tasks there are. Threads: `threads`, else FASTRANK_THREADS, else the smaller of
    OMP_NUM_THREADS (which is what Ray, Spark and Dask grant a worker) and the cores this process may use.

    Called with a batch it returns a batch of the same form: a pyarrow Table or RecordBatch, a pandas or polars
    DataFrame, a dict of arrays or lists; called with a column alone (a pyarrow Array or ChunkedArray, a pandas or
    polars Series) a column; called with an iterator of batches an iterator. Values go from numpy to Arrow as buffers.

    A row without a text (null, NaN, NaT, NA) gets null. The empty string is a text. A value that is no string (in a
    column of objects) and a text for which the model returns NaN are errors that name the row, or null with
    `on_error="null"`. Bytes that are not UTF-8 become U+FFFD. Results are those of `TextEmbedding.embed` and its like,
    bit for bit if they get the same texts and `batch_size` in one call; other batches differ by rounding, below 1e-6.

    Args:
        model_name: as the public classes take it.
        column: the column with the texts.
        output: the new column. None: "embedding", "sparse_embedding", "token_embeddings" or "score".
        kind: "dense" (float vectors), "sparse" (indices and values), "late" (token vectors) or "rerank" (a score for
            the query and the text). None: as the registry says, the first of these.
        role: which method embeds: "plain" `embed`, "passage" `passage_embed`, "query" `query_embed`.
        query_column: the column with the queries, for "rerank".
        dtype: of the numbers: "float32"; "float16"; "int8", only dense, each vector on a scale of its own, for cosine
            similarity. Scores are float32.
        lists: "fixed": lists of vectors have Arrow's fixed size; "variable" for engines without (Spark, ClickHouse).
        on_error: what a row that cannot be embedded does: "raise", or "null".
        error_column: with "null": a further column with the reason, null where there is none. None: no column; reasons
            are logged.
        keep: the columns of the batch that are kept. None: all.
        threads: CPU threads of the model in each process. None: as the engine grants, see above.
        batch_size: texts read ahead and sorted by length, and of a batch at most. A token budget makes batches smaller.
        options: more arguments of the public class, such as precision, max_length, specific_model_path, cache_dir,
            local_files_only, language. They must be data.

    Raises:
        ModelNotFoundError: there is no such model; the message suggests similar names.
        TypeError: an argument has the wrong type, or the model's class does not have it.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        model_name: str,
        column: str = "text",
        output: str | None = None,
        *,
        kind: str | None = None,
        role: str = "plain",
        query_column: str = "query",
        dtype: str = "float32",
        lists: str = "fixed",
        on_error: str = "raise",
        error_column: str | None = None,
        keep: Sequence[str] | None = None,
        threads: int | None = None,
        batch_size: int = 1024,
        **options: Any,
    ) -> None:
        options = models.data(options)
        if kind is None:
            kind = models.kind_of(model_name, own=options.get("specific_model_path") is not None)
        _choice("kind", kind, tuple(models.KINDS))
        _choice("role", role, ROLES if kind != "rerank" else ("plain",))
        _choice("dtype", dtype, _DTYPES.get(kind, ("float32",)))
        _choice("lists", lists, arrow.LISTS)
        _choice("on_error", on_error, ("raise", "null"))
        if error_column is not None and on_error != "null":
            raise ValueError("error_column is for on_error='null'")
        if isinstance(keep, str):
            raise TypeError(f"keep must be a list of columns, such as [{keep!r}]")
        self.model_name, self.kind, self.role = model_name, kind, role
        self.column, self.query_column = _name("column", column), _name("query_column", query_column)
        self.output = OUTPUTS[kind] if output is None else _name("output", output)
        self.dtype, self.lists = dtype, lists
        self.on_error, self.error_column = on_error, error_column
        self.keep = None if keep is None else tuple(_name("keep", name) for name in keep)
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        self.batch_size = inputs.positive(batch_size, "batch_size")
        self.options = options
        self._config = Config(model_name, kind, role, self.threads, options)
        self._config.check()
        self._encoder: Encoder | None = None
        self._layout: arrow.Layout | None = None
        self._about: dict[str, Any] | None = None

    # -- batches ------------------------------------------------------------------------------------------------------

    def __call__(self, batch: Any) -> Any:
        """The batch with the new column; a column for a column; an iterator for an iterator.

        Raises:
            TypeError: it is no batch; or the column's type is not text.
            ValueError: there is no such column, or one of the new columns is there already.
            BulkError: a row cannot be embedded, unless `on_error="null"`.
        """
        if (form := forms.of(batch)) is not None:
            return self._of_form(form)
        if isinstance(batch, (pa.Array, pa.ChunkedArray)) or forms.is_series(batch):
            return self._of_column(batch)
        if isinstance(batch, Iterator):
            return self._of_stream(batch)
        raise TypeError(
            "an Embedder is called with a batch of rows (pyarrow Table or RecordBatch, pandas or polars DataFrame, "
            f"dict of columns), a column or an iterator of batches, not {type(batch).__name__}. For texts alone: "
            "embedder.embed(texts)"
        )

    def embed(self, texts: Iterable[str | None], queries: Iterable[str | None] | None = None) -> Any:
        """A pyarrow Array of the results of texts, null for None; with their queries where the kind is "rerank".

        Raises:
            TypeError: `texts` is one string, or nothing that has texts; `queries` where there should be none.
            ValueError: there are not as many queries as texts.
            BulkError: a row cannot be embedded, unless `on_error="null"`.
        """
        if (queries is None) is (self.kind == "rerank"):
            raise TypeError("queries are for kind='rerank', which needs them: embed(texts, queries)")
        asked = None if queries is None else columns.texts(queries, "queries")
        return self.result(columns.texts(texts, "texts"), asked, "texts").array

    def result(self, texts: Texts, queries: Texts | None, where: str) -> Result:
        """What `__call__` makes of a column: for those who have the texts already.

        Args:
            texts: of the rows.
            queries: of the rows, where the kind is "rerank".
            where: what errors call the column.

        Raises:
            BulkError: a row cannot be embedded, unless `on_error="null"`.
        """
        problems = dict(texts.problems)
        if queries is not None:
            if len(queries.values) != len(texts.values):
                raise ValueError(f"there are {len(queries.values)} queries for {len(texts.values)} texts")
            problems |= {row: f"the query {problem}" for row, problem in queries.problems.items()}
        if problems and self.on_error == "raise":
            row = min(problems)
            raise BulkError(f"{where}, row {row} of this batch: {problems[row]}", row, problems[row])
        builder = self._known_layout().builder(len(texts.values))
        rows = [
            row
            for row, text in enumerate(texts.values)
            if text is not None and (queries is None or queries.values[row] is not None)
        ]
        for row, found in self._found(rows, texts, queries):
            if isinstance(found, OutputError):
                problems[row] = "the model returned NaN or infinity for it"
                if self.on_error == "raise":
                    raise BulkError(f"{where}, row {row} of this batch: {problems[row]}", row, problems[row]) from found
            else:
                builder.add(row, found)
        return Result(builder.finish(), problems)

    def _found(self, rows: list[int], texts: Texts, queries: Texts | None) -> Iterator[tuple[int, Any]]:
        """The results of rows, or the error of one; what precedes an error is kept, what follows is halved."""
        if not rows:
            return
        given = [texts.values[row] or "" for row in rows]
        asked = None if queries is None else [queries.values[row] or "" for row in rows]
        done = 0
        try:
            for found in self.encoder.run(given, asked, self.batch_size):
                yield rows[done], found
                done += 1
        except OutputError as error:
            yield rows[done], error
            rest = rows[done + 1 :]
            middle = (len(rest) + 1) // 2
            yield from self._found(rest[:middle], texts, queries)
            yield from self._found(rest[middle:], texts, queries)

    def _of_form(self, form: forms.Form) -> Any:
        queries = None
        if self.kind == "rerank":
            queries = columns.texts(self._column_of(form, self.query_column), f"column {self.query_column!r}")
        texts = columns.texts(self._column_of(form, self.column), f"column {self.column!r}")
        keep = self._kept(form.names)
        result = self.result(texts, queries, f"column {self.column!r}")
        self._warn(result)
        added = {self.output: result.array}
        if self.error_column is not None:
            added[self.error_column] = reasons(len(texts.values), result.problems)
        return form.result(keep, added)

    def _of_column(self, column: Any) -> Any:
        if self.kind == "rerank":
            raise TypeError("kind='rerank' needs two columns: pass a batch, or call embed(texts, queries)")
        result = self.result(columns.texts(column, "the column"), None, "the column")
        self._warn(result)
        if isinstance(column, pa.ChunkedArray):
            return pa.chunked_array([result.array])
        return result.array if isinstance(column, pa.Array) else forms.like_series(column, result.array)

    def _of_stream(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            if self.kind == "late" and isinstance(batch, (pa.RecordBatch, pa.Table)) and batch.num_rows:
                for start in range(0, batch.num_rows, _ROWS_OF_TOKENS):
                    yield self(batch.slice(start, _ROWS_OF_TOKENS))
            else:
                yield self(batch)

    def _column_of(self, form: forms.Form, name: str) -> Any:
        if (count := list(form.names).count(name)) != 1:
            raise ValueError(
                f"the batch has {'no' if not count else 'more than one'} column {name!r}; its columns: "
                f"{', '.join(map(str, form.names))}"
            )
        return form.column(name)

    def _kept(self, names: Sequence[str]) -> list[str]:
        keep = list(names if self.keep is None else self.keep)
        if missing := [name for name in keep if name not in names]:
            raise ValueError(f"keep: no column {missing[0]!r}; the batch has {', '.join(map(str, names))}")
        for name in filter(None, (self.output, self.error_column)):
            if name in keep:
                raise ValueError(
                    f"the batch has a column {name!r} already: name the new one with output= or error_column=, or "
                    "leave the old one out with keep="
                )
        return keep

    def _warn(self, result: Result) -> None:
        if result.problems:
            row = min(result.problems)
            others = f" and {len(result.problems) - 1} more" if len(result.problems) > 1 else ""
            log.warning("column %r: row %d of this batch%s: %s", self.column, row, others, result.problems[row])

    # -- types --------------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Numbers of a vector, or of a token's. From the registry, else from the model's files.

        Raises:
            ValueError: the kind has no vectors of one size.
        """
        if self.kind not in ("dense", "late"):
            raise ValueError(f"kind={self.kind!r} has no dim: its results are no vectors of one size")
        return int(self._config.model().embedding_size)

    @property
    def type(self) -> Any:
        """Arrow's type of the new column."""
        return self._known_layout().type

    def schema(self, schema: Any) -> Any:
        """Arrow's schema of a batch with the new column.

        Args:
            schema: of the batch as it comes.

        Raises:
            ValueError: as for the batch itself.
        """
        fields = [schema.field(name) for name in self._kept(schema.names)]
        fields.append(pa.field(self.output, self.type))
        if self.error_column is not None:
            fields.append(pa.field(self.error_column, pa.string()))
        return pa.schema(fields, schema.metadata)

    def spark_schema(self, schema: Any) -> Any:
        """Spark's schema of a DataFrame with the new column, for `df.mapInArrow(embedder, embedder.spark_schema(...))`.

        Args:
            schema: `df.schema`.

        Raises:
            ValueError: Spark does not have such a type: it takes neither lists of fixed size nor float16.
        """
        if self.lists != "variable" and self.kind in ("dense", "late"):
            raise ValueError("Spark takes no lists of a fixed size: make the Embedder with lists='variable'")
        if self.dtype == "float16":
            raise ValueError("Spark has no float16: make the Embedder with dtype='float32' or 'int8'")
        from pyspark.sql import types

        number = types.ByteType() if self.dtype == "int8" else types.FloatType()
        values = types.ArrayType(number)
        kinds = {
            "dense": values,
            "late": types.ArrayType(values),
            "rerank": number,
            "sparse": types.StructType(
                [
                    types.StructField("indices", types.ArrayType(types.LongType())),
                    types.StructField("values", values),
                ]
            ),
        }
        found = types.StructType([schema[name] for name in self._kept(schema.fieldNames())])
        found.add(self.output, kinds[self.kind])
        return found if self.error_column is None else found.add(self.error_column, types.StringType())

    def _known_layout(self) -> arrow.Layout:
        if self._layout is None:
            if self.kind == "dense":
                self._layout = arrow.dense(self.dim, self.dtype, self.lists)
            elif self.kind == "late":
                self._layout = arrow.late(self.dim, self.dtype, self.lists)
            else:
                self._layout = arrow.sparse(self.dtype) if self.kind == "sparse" else arrow.score()
        return self._layout

    # -- the model ----------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The model of this process: a `TextEmbedding`, `SparseTextEmbedding` ..., loaded or not."""
        return self._config.model()

    @property
    def encoder(self) -> Encoder:
        """The loaded model with the method that embeds."""
        if self._encoder is None or self._encoder.is_closed:
            self._encoder = Encoder(self._config)
        return self._encoder

    def warm(self) -> Embedder:
        """Load the model now; the embedder itself is returned."""
        _ = self.encoder
        return self

    def describe(self) -> dict[str, Any]:
        """What decides the values of results: version, model, options, files with their SHA-256. Loads the model."""
        if self._about is None:
            about = models.description(self._config)
            self._about = {**about, "dtype": self.dtype, "lists": self.lists}
        return self._about

    def fingerprint(self) -> str:
        """The SHA-256 of `describe`: equal where results are. Threads, columns and on_error have no part in it."""
        return models.fingerprint(self.describe())

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self._arguments(), registry.custom(self.model_name))

    def __repr__(self) -> str:
        return f"Embedder({', '.join(f'{name}={value!r}' for name, value in self._arguments().items())})"

    def _arguments(self) -> dict[str, Any]:
        """The arguments of the constructor that are not its defaults."""
        arguments = {
            "column": (self.column, "text"),
            "output": (self.output, OUTPUTS[self.kind]),
            "kind": (self.kind, None),
            "role": (self.role, "plain"),
            "query_column": (self.query_column, "query"),
            "dtype": (self.dtype, "float32"),
            "lists": (self.lists, "fixed"),
            "on_error": (self.on_error, "raise"),
            "error_column": (self.error_column, None),
            "keep": (self.keep, None),
            "threads": (self.threads, None),
            "batch_size": (self.batch_size, 1024),
        }
        said = {name: value for name, (value, default) in arguments.items() if value != default}
        return {"model_name": self.model_name, **said, **self.options}


def reasons(rows: int, problems: dict[int, str]) -> Any:
    """An Arrow array of what is wrong with each row; null: nothing."""
    return pa.array([problems.get(row) for row in range(rows)], pa.string())


def _unpickled(cls: type[Embedder], arguments: dict[str, Any], custom: list[tuple[str, ModelSpec]]) -> Embedder:
    registry.add_if_missing(custom)
    return cls(**arguments)


def _choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))} here, not {value!r}")


def _name(argument: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{argument} must be the name of a column, not {value!r}")
    return value
