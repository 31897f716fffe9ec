"""From results to Arrow arrays, through numpy's buffers: no Python number is made of a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DTYPES = ("float32", "float16", "int8")
LISTS = ("fixed", "variable")
_NUMPY: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "int8": np.int8}
_LARGEST_OFFSET = 2**31 - 1


class Builder(Protocol):
    """Collects the results of a batch of rows, and makes one array of them; rows without one are null."""

    def add(self, row: int, result: Any) -> None:
        """The result of a row; rows come in any order, each once."""

    def finish(self) -> Any:
        """The array, with a value or null for each row."""


class Layout(NamedTuple):
    """The type of a column of results.

    Attributes:
        type: Arrow's.
        builder: from a number of rows to what collects their results.
    """

    type: Any
    builder: Callable[[int], Builder]


def dense(dim: int, dtype: str, lists: str) -> Layout:
    """One list of `dim` numbers a row."""
    value = _value_type(dtype)
    return Layout(pa.list_(value, dim if lists == "fixed" else -1), lambda rows: _Dense(rows, dim, dtype, lists))


def sparse(dtype: str) -> Layout:
    """`indices`, int64, and `values`, in the order of the embedding."""
    kind = pa.struct([("indices", pa.list_(pa.int64())), ("values", pa.list_(_value_type(dtype)))])
    return Layout(kind, lambda rows: _Sparse(rows, dtype))


def late(dim: int, dtype: str, lists: str) -> Layout:
    """A list of token vectors a row, each of `dim` numbers."""
    token = pa.list_(_value_type(dtype), dim if lists == "fixed" else -1)
    return Layout(pa.list_(token), lambda rows: _Late(rows, dim, dtype, lists))


def score() -> Layout:
    """A float32 a row."""
    return Layout(pa.float32(), _Score)


class _Dense:
    def __init__(self, rows: int, dim: int, dtype: str, lists: str) -> None:
        self._values = np.zeros((rows, dim), _NUMPY[dtype])
        self._null = np.ones(rows, bool)
        self._fixed, self._quantized = lists == "fixed", dtype == "int8"

    def add(self, row: int, result: Any) -> None:
        if result.shape != self._values.shape[1:]:
            raise ValueError(f"the vector has shape {result.shape}, not {self._values.shape[1:]}")
        self._values[row] = _to_int8(result) if self._quantized else result
        self._null[row] = False

    def finish(self) -> Any:
        dim = self._values.shape[1]
        mask = pa.array(self._null) if self._null.any() else None
        if self._fixed:
            return pa.FixedSizeListArray.from_arrays(pa.array(self._values.reshape(-1)), dim, mask=mask)
        return _lists(pa.array(self._values[~self._null].reshape(-1)), np.where(self._null, 0, dim), mask)


class _Sparse:
    def __init__(self, rows: int, dtype: str) -> None:
        self._found: list[Any] = [None] * rows
        self._dtype = _NUMPY[dtype]

    def add(self, row: int, result: Any) -> None:
        self._found[row] = result

    def finish(self) -> Any:
        null = np.array([each is None for each in self._found], bool)
        there = [each for each in self._found if each is not None]
        lengths = np.array([0 if each is None else len(each.indices) for each in self._found], np.int64)
        indices = _joined([each.indices for each in there], np.int64)
        values = _joined([each.values for each in there], self._dtype)
        return pa.StructArray.from_arrays(
            [_lists(pa.array(indices), lengths, None), _lists(pa.array(values), lengths, None)],
            names=["indices", "values"],
            mask=pa.array(null) if null.any() else None,
        )


class _Late:
    def __init__(self, rows: int, dim: int, dtype: str, lists: str) -> None:
        self._found: list[NDArray[Any] | None] = [None] * rows
        self._dim, self._dtype, self._fixed = dim, _NUMPY[dtype], lists == "fixed"

    def add(self, row: int, result: Any) -> None:
        self._found[row] = np.ascontiguousarray(result, self._dtype).reshape(-1)

    def finish(self) -> Any:
        dim = self._dim
        null = np.array([each is None for each in self._found], bool)
        lengths = np.array([0 if each is None else len(each) // dim for each in self._found], np.int64)
        flat = pa.array(_joined([each for each in self._found if each is not None], self._dtype))
        if self._fixed:
            vectors = pa.FixedSizeListArray.from_arrays(flat, dim)
        else:
            vectors = _lists(flat, np.full(int(lengths.sum()), dim), None)
        return _lists(vectors, lengths, pa.array(null) if null.any() else None)


class _Score:
    def __init__(self, rows: int) -> None:
        self._values, self._null = np.zeros(rows, np.float32), np.ones(rows, bool)

    def add(self, row: int, result: Any) -> None:
        self._values[row], self._null[row] = result, False

    def finish(self) -> Any:
        return pa.array(self._values, mask=self._null)


def _to_int8(vector: NDArray[np.float32]) -> NDArray[np.int8]:
    """The vector on a scale of its own, on which its largest number is 127: its direction is kept, not its length."""
    largest = float(np.abs(vector).max(initial=0.0))
    scaled: NDArray[np.int8] = np.rint(vector * (127 / largest if largest else 0.0)).astype(np.int8)
    return scaled


def _value_type(dtype: str) -> Any:
    return pa.from_numpy_dtype(_NUMPY[dtype])


def _joined(arrays: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(arrays, dtype=dtype, casting="unsafe") if arrays else np.zeros(0, dtype)


def _lists(values: Any, lengths: NDArray[Any], mask: Any) -> Any:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if offsets[-1] > _LARGEST_OFFSET:
        raise ValueError(f"{offsets[-1]} values are too many for one Arrow list array: pass batches of fewer rows")
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, mask=mask)
