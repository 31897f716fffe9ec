"""From a column of any library to texts: what is null, what is text, and what is neither."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from fastrank import inputs


class Texts(NamedTuple):
    """A column of texts.

    Attributes:
        values: a string, or None where there is none.
        problems: of values that are neither text nor null, by position: what is wrong. `values` has None there.
    """

    values: list[str | None]
    problems: dict[int, str]


def texts(column: Any, name: str) -> Texts:
    """The texts of a column.

    Args:
        column: a pyarrow array, plain or chunked; a numpy or pandas array or series; a polars series; or an iterable of
            values, which are looked at one by one.
        name: what errors call it.

    Raises:
        TypeError: the column's type is not text, so that every value would be wrong.
    """
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return _of_arrow(column, name)
    if (package := type(column).__module__.partition(".")[0]) == "polars":
        if str(column.dtype) == "Object":
            return _of_objects(column.to_list(), name)
        return _of_arrow(column.to_arrow(), name)
    if package == "pandas":
        return _of_pandas(column, name)
    if (kind := getattr(getattr(column, "dtype", None), "kind", None)) is not None and kind not in "OUT":
        raise TypeError(_wrong(name, str(column.dtype)))
    if isinstance(column, (str, bytes)) or not isinstance(column, Iterable):
        raise TypeError(f"{name} must be an array or a list of texts, not {type(column).__name__}")
    values: Any = column
    return _of_objects(values.tolist() if kind else values, name)


def check_type(kind: Any, name: str) -> None:
    """Refuse an Arrow type that is not text.

    Raises:
        TypeError: the message names the column.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if not (pa.types.is_null(kind) or _is_text(kind)):
        raise TypeError(_wrong(name, str(kind)))


def _of_arrow(column: Any, name: str) -> Texts:
    check_type(column.type, name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    try:
        found = column.to_pylist()
    except UnicodeDecodeError:
        large = pa.types.is_large_string(column.type)
        found = [
            None if value is None else value.decode("utf-8", "replace")
            for value in column.cast(pa.large_binary() if large else pa.binary()).to_pylist()
        ]
    return Texts(found, {})


def _of_pandas(series: Any, name: str) -> Texts:
    if str(series.dtype) == "object":
        return _of_objects(series.tolist(), name)
    if getattr(series.dtype, "kind", "O") == "f" and bool(series.isna().all()):  # an empty column of text files
        return Texts([None] * len(series), {})
    found = pa.array(series, from_pandas=True)
    return _of_arrow(found, name)


def _of_objects(column: Iterable[Any], name: str) -> Texts:
    values: list[str | None] = []
    problems: dict[int, str] = {}
    for position, value in enumerate(column):
        if isinstance(value, str):
            values.append(inputs.text(value, name))
            continue
        values.append(None)
        if not _is_null(value):
            problems[position] = f"must be a string, not {type(value).__name__}"
    return Texts(values, problems)


def _is_null(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value  # noqa: PLR0124 - numpy's and Python's NaN


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or (hasattr(pa.types, "is_string_view") and pa.types.is_string_view(kind))
    )


def _wrong(name: str, kind: str) -> str:
    return f"{name} holds {kind}, not text. Name another column, or make it text before"
