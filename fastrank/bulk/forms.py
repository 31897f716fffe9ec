"""Batches as other libraries have them: their columns out, and the same batch with more columns back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa


class Form(Protocol):
    """A batch of rows, whatever library it is of."""

    @property
    def names(self) -> Sequence[str]:
        """Of the columns."""

    def column(self, name: str) -> Any:
        """A column, as `columns.texts` takes it."""

    def result(self, keep: Sequence[str], added: Mapping[str, Any]) -> Any:
        """A batch of the same form with some of its columns, and Arrow arrays as further ones."""


def of(batch: Any) -> Form | None:
    """The batch behind one face; None: it is no batch of rows."""
    if isinstance(batch, (pa.Table, pa.RecordBatch)):
        return _Arrow(batch)
    if isinstance(batch, Mapping):
        return _Dict(batch)
    if type(batch).__name__ != "DataFrame":
        return None
    if _package(batch) == "pandas":
        return _Pandas(batch)
    return _Polars(batch) if _package(batch) == "polars" else None


def is_series(value: Any) -> bool:
    """Whether it is a column of pandas or polars."""
    return type(value).__name__ == "Series" and _package(value) in ("pandas", "polars")


def like_series(series: Any, array: Any) -> Any:
    """An Arrow array as a series of the library that `series` is of, with its name and index."""
    if _package(series) == "polars":
        import polars as pl

        return pl.Series(series.name, array)
    return _pandas_series(array, series.index, series.name)


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


class _Arrow:
    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.names: list[str] = batch.schema.names

    def column(self, name: str) -> Any:
        return self._batch.column(name)

    def result(self, keep: Sequence[str], added: Mapping[str, Any]) -> Any:
        schema = self._batch.schema
        fields = [schema.field(name) for name in keep]
        fields += [pa.field(name, array.type) for name, array in added.items()]
        columns = [*(self._batch.column(name) for name in keep), *added.values()]
        return type(self._batch).from_arrays(columns, schema=pa.schema(fields, schema.metadata))


class _Pandas:
    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.names: list[str] = list(batch.columns)

    def column(self, name: str) -> Any:
        return self._batch[name]

    def result(self, keep: Sequence[str], added: Mapping[str, Any]) -> Any:
        series = {name: _pandas_series(array, self._batch.index) for name, array in added.items()}
        return self._batch[list(keep)].assign(**series)


class _Polars:
    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.names: list[str] = batch.columns

    def column(self, name: str) -> Any:
        return self._batch.get_column(name)

    def result(self, keep: Sequence[str], added: Mapping[str, Any]) -> Any:
        import polars as pl

        return self._batch.select(list(keep)).with_columns([pl.Series(name, array) for name, array in added.items()])


class _Dict:
    """Lists or arrays by name. Results are lists of numpy arrays, or one array where the batch has arrays."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self._batch = batch
        self.names: list[str] = list(batch)
        self._arrow = any(isinstance(each, (pa.Array, pa.ChunkedArray)) for each in batch.values())
        self._arrays = any(isinstance(each, np.ndarray) for each in batch.values())

    def column(self, name: str) -> Any:
        return self._batch[name]

    def result(self, keep: Sequence[str], added: Mapping[str, Any]) -> Any:
        kept = {name: self._batch[name] for name in keep}
        if self._arrow:
            return {**kept, **added}
        lists = {name: _numpy_rows(array) for name, array in added.items()}
        if not self._arrays:
            return {**kept, **lists}
        return {**kept, **{name: _as_array(added[name], rows) for name, rows in lists.items()}}


def _pandas_series(array: Any, index: Any, name: Any = None) -> Any:
    """With Arrow's own type, so that null is null and no value becomes a Python object."""
    import pandas as pd

    values = pd.arrays.ArrowExtensionArray(pa.chunked_array([array]) if isinstance(array, pa.Array) else array)
    return pd.Series(values, index=index, name=name)


def _numpy_rows(array: Any) -> list[Any]:
    """A value per row: a numpy array, a dict of two, a matrix of token vectors, a number or a string; None for null."""
    if pa.types.is_struct(array.type):
        columns = {field.name: _numpy_rows(array.field(field.name)) for field in array.type}
        valid = array.is_valid().to_pylist()
        return [{name: rows[at] for name, rows in columns.items()} if there else None for at, there in enumerate(valid)]
    if not _is_list(array.type):
        return list(array.to_pylist())
    if _is_list(array.type.value_type):
        return [None if row is None else _matrix(row) for row in _values(array)]
    return [None if row is None else row.to_numpy(zero_copy_only=False) for row in _values(array)]


def _values(lists: Any) -> Iterator[Any]:
    return (each.values for each in lists)  # noqa: PD011 - Arrow's, of a list scalar


def _matrix(vectors: Any) -> Any:
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(vectors), -1) if len(vectors) else flat.reshape(0, 0)


def _as_array(array: Any, rows: Sequence[Any]) -> Any:
    """One numpy array: a matrix of dense vectors, numbers, or objects."""
    if array.null_count == 0 and _is_list(array.type) and not _is_list(array.type.value_type) and rows:
        return np.stack(rows)
    if pa.types.is_floating(array.type):
        return array.to_numpy(zero_copy_only=False)
    found = np.empty(len(rows), object)
    for position, row in enumerate(rows):  # numpy would make a matrix of rows that happen to be equally long
        found[position] = row
    return found


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))
