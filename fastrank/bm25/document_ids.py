"""The ids that callers give documents: integers or strings, one column a segment."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray


class Strings(NamedTuple):
    """Strings in two arrays, which can be memory-mapped."""

    text: NDArray[np.uint8]  # UTF-8, one string after the other
    ends: NDArray[np.int64]  # (strings,): where each ends in `text`

    def __len__(self) -> int:
        return len(self.ends)


DocumentIds: TypeAlias = "NDArray[np.int64] | Strings"
Id: TypeAlias = "int | str"


def checked(value: Any, name: str) -> Id:
    """One id.

    Raises:
        TypeError: it is neither a string nor an integer.
        ValueError: the integer has more than 64 bits, or the string a lone surrogate.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} has a lone surrogate, which no file can hold: {value!r}") from None
        return str(value)
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer or a string, not bool")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer or a string, not {type(value).__name__}") from None
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{name} must have at most 64 bits, got {number}")
    return number


def each(ids: Any, name: str) -> Iterator[Id]:
    """One id or several, checked one by one."""
    several = isinstance(ids, Iterable) and not isinstance(ids, (str, bytes))
    for position, value in enumerate(ids if several else [ids]):
        yield checked(value, f"{name}[{position}]")


def column(ids: Sequence[Id]) -> DocumentIds:
    """A column of ids that are all integers or all strings."""
    if not ids or isinstance(ids[0], int):
        return np.array(ids, np.int64)
    encoded = [str(each).encode() for each in ids]
    return Strings(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(each) for each in encoded]))


def taken(ids: DocumentIds, positions: NDArray[np.int64]) -> NDArray[Any]:
    """The ids at these positions: int64, or objects that are strings."""
    if not isinstance(ids, Strings):
        return ids[positions]
    found = np.empty(len(positions), object)
    for number, position in enumerate(positions.tolist()):
        start = int(ids.ends[position - 1]) if position else 0
        found[number] = ids.text[start : ids.ends[position]].tobytes().decode()
    return found


def selected(ids: DocumentIds, kept: NDArray[np.bool_]) -> DocumentIds:
    """The column without the rows that `kept` (rows,) says are dropped."""
    if not isinstance(ids, Strings):
        return ids[kept]
    sizes = np.diff(ids.ends, prepend=0)
    return Strings(ids.text[np.repeat(kept, sizes)], np.cumsum(sizes[kept]))


def joined(columns: Iterable[DocumentIds]) -> DocumentIds:
    """One column of several of the same kind."""
    parts = list(columns)
    strings = [each for each in parts if isinstance(each, Strings)]
    if not strings:
        return np.concatenate([each for each in parts if not isinstance(each, Strings)])
    bases = np.cumsum([0, *(len(each.text) for each in strings)]).tolist()
    ends = [each.ends + base for each, base in zip(strings, bases, strict=False)]
    return Strings(np.concatenate([each.text for each in strings]), np.concatenate(ends))


def check(ids: DocumentIds) -> None:
    """What `taken` relies on, for ids of a file.

    Raises:
        ValueError: the arrays contradict each other, or are not UTF-8.
    """
    if isinstance(ids, Strings):
        ends = ids.ends
        if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != len(ids.text):
            raise ValueError("its document ids do not fit together")
        whole = ids.text.tobytes().decode()
        starts = ends[:-1][ends[:-1] < len(ids.text)]
        if not whole.isascii() and (ids.text[starts] & 0xC0 == 0x80).any():
            raise ValueError("its document ids are cut inside a character")
