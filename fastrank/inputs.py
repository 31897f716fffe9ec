"""Checks of what callers pass: documents, queries, batch sizes. No other module checks their types."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_NOT_TEXTS = (bytes, bytearray, memoryview, Mapping)


def texts(documents: str | Iterable[str], name: str = "documents") -> Iterator[str]:
    """The documents one by one, as strings that any tokenizer accepts. A string is one document.

    The container is checked at the call, each item when it is reached, so that earlier results are not lost.
    Surrogate pairs are joined; lone surrogates, which cannot be encoded, become U+FFFD.

    Raises:
        TypeError: at the call, if `documents` is neither a string nor an iterable of strings (None, bytes, a dict,
            ...); at the item, as in "documents[2] must be a string, not NoneType".
    """
    if isinstance(documents, str):
        documents = (documents,)
    refuse_table(documents, name)
    if isinstance(documents, _NOT_TEXTS) or not isinstance(documents, Iterable):
        raise TypeError(f"{name} must be a string or an iterable of strings, not {type(documents).__name__}")
    return _each(iter(documents), name)


def documents(values: Iterable[str], name: str = "documents") -> Iterator[str]:
    """Like `texts`, but a single string is refused: it may be meant as one document, or as an iterable of characters.

    Raises:
        TypeError: as in `texts`, or `values` is a string.
    """
    if isinstance(values, str):
        raise TypeError(f"{name} must be an iterable of strings, not one string; for one document pass [document]")
    return texts(values, name)


def pairs(values: Iterable[tuple[str, str]], name: str = "pairs") -> Iterator[tuple[str, str]]:
    """Pairs of texts one by one; a single tuple of two strings is one pair.

    Raises:
        TypeError: at the call, if `values` is not iterable; at the item, if it is not a pair of strings.
    """
    refuse_table(values, name)
    items: Any = values
    if isinstance(values, tuple) and len(values) == 2 and all(isinstance(value, str) for value in values):
        items = (values,)
    elif isinstance(values, (str, *_NOT_TEXTS)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be an iterable of (query, document) pairs, not {type(values).__name__}")
    return _each_pair(iter(items), name)


def text(value: Any, name: str) -> str:
    """One string, cleaned for tokenizers as in `texts`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    characters = str.__str__(value)  # a subclass, such as an Enum, may print itself as something else
    if characters.isascii():
        return characters
    try:
        characters.encode()
    except UnicodeEncodeError:
        return characters.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return characters


def refuse_table(values: Any, name: str) -> None:
    """Refuse a DataFrame or table: iterating over it yields column names or columns, not rows.

    Raises:
        TypeError: `values` has columns; the message lists them.
    """
    columns = getattr(values, "column_names", None) or getattr(values, "columns", None)
    if columns is not None and not callable(columns):
        names = [column for column in columns if isinstance(column, str)][:5]
        example = names[0] if names else "text"
        raise TypeError(
            f"{name} must be an iterable of strings, not {type(values).__name__}: pass one column, such as "
            f"[{example!r}]. Its columns: {', '.join(names)}"
        )


def positive(value: Any, name: str) -> int:
    """An integer >= 1, such as a batch size, a length or a number of threads.

    Raises:
        TypeError: not an integer; booleans do not count.
        ValueError: smaller than 1.
    """
    number = _integer(value, name)
    if number < 1:
        raise ValueError(f"{name} must be >= 1, got {number}")
    return number


def not_negative(value: Any, name: str) -> int:
    """An integer >= 0.

    Raises:
        TypeError: not an integer; booleans do not count.
        ValueError: negative.
    """
    number = _integer(value, name)
    if number < 0:
        raise ValueError(f"{name} must be >= 0, got {number}")
    return number


def workers(parallel: Any) -> int | None:
    """`parallel` as in FastEmbed: None, 0 (one worker per CPU core) or a number of workers.

    Raises:
        TypeError: neither None nor an integer.
        ValueError: negative.
    """
    if parallel is None:
        return None
    number = _integer(parallel, "parallel")
    if number < 0:
        raise ValueError(f"parallel must be None, 0 (one worker per CPU core) or a number of workers, got {number}")
    return number


def batching(batch_size: Any, parallel: Any) -> tuple[int, int | None]:
    """Checked `batch_size` and `parallel`.

    Raises:
        TypeError: one is not an integer.
        ValueError: one is out of range.
    """
    return positive(batch_size, "batch_size"), workers(parallel)


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not bool")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None


def _each_pair(items: Iterator[Any], name: str) -> Iterator[tuple[str, str]]:
    for position, item in enumerate(items):
        row = hasattr(item, "__array__") or isinstance(item, Sequence)  # an array of strings, a tuple or a list
        if isinstance(item, str) or not row or len(item) != 2:
            raise TypeError(f"{name}[{position}] must be a pair of strings, not {type(item).__name__}")
        yield text(item[0], f"{name}[{position}][0]"), text(item[1], f"{name}[{position}][1]")


def _each(items: Iterator[Any], name: str) -> Iterator[str]:
    for position, item in enumerate(items):
        yield text(item, f"{name}[{position}]")
