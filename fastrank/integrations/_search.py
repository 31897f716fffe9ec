"""What the integrations that search a database themselves share: found rows, and checks of their arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

from fastrank import inputs
from fastrank.fusion import reciprocal_rank_fusion

Method: TypeAlias = Literal["hybrid", "dense", "words"]

METHODS = ("hybrid", "dense", "words")


class Hit(NamedTuple):
    """A row that was found.

    Attributes:
        id: of the row.
        text: its text.
        score: higher is better; of the method that was asked for.
    """

    id: int
    text: str
    score: float


def table_name(name: str) -> str:
    """A name for a table, checked.

    Raises:
        ValueError: it has other characters than letters, digits and "_", or begins with a digit.
    """
    if not name.isascii() or not name.isidentifier():
        raise ValueError(f"name must be letters, digits and '_', and not begin with a digit, got {name!r}")
    return name


def rows(texts: str | Iterable[str], ids: Iterable[int] | None) -> tuple[list[str], list[int] | None]:
    """Texts and their ids, checked.

    Raises:
        TypeError: a text is no string, or an id no integer.
        ValueError: there are more or fewer ids than texts, or one is given twice.
    """
    listed = list(inputs.texts(texts, "texts"))
    if ids is None:
        return listed, None
    numbers = list(ids)
    if len(numbers) != len(listed):
        raise ValueError(f"{len(listed)} texts need as many ids, got {len(numbers)}")
    for position, number in enumerate(numbers):
        if type(number) is not int:
            raise TypeError(f"ids[{position}] must be an integer, not {type(number).__name__}")
    if len(set(numbers)) < len(numbers):
        raise ValueError("An id is given twice")
    return listed, numbers


def fused(rankings: Sequence[Sequence[int]], k: int) -> list[tuple[int, float]]:
    """The best `k` ids of several rankings by reciprocal rank fusion."""
    return reciprocal_rank_fusion(rankings)[:k]


def check_method(method: str) -> None:
    """Raise an error for a method that there is not.

    Raises:
        ValueError: it is none of METHODS.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
