"""What the integrations that search a database themselves share: found rows, and checks of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, TypeAlias

from fastrank import inputs
from fastrank.fusion import reciprocal_rank_fusion

Method: TypeAlias = Literal["hybrid", "dense", "words"]

Ranking: TypeAlias = Callable[[str, int], list[tuple[int, float]]]

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


class Search(NamedTuple):
    """A search, checked: what `search` of the integrations is given.

    Attributes:
        query: a text.
        k: how many rows are wanted.
        method: one of METHODS.
        depth: how many rows of each method are fused.
    """

    query: str
    k: int
    method: Method
    depth: int

    def run(self, words: Ranking, dense: Ranking) -> list[tuple[int, float]]:
        """The best `k` rows as (id, score), best first; hybrid: both rankings by reciprocal rank fusion.

        Args:
            words: ranks rows for a query and a number of rows by their words.
            dense: the same by their vectors.
        """
        if self.method == "hybrid":
            rankings = [ranking(self.query, self.depth) for ranking in (words, dense)]
            return reciprocal_rank_fusion([[number for number, _ in each] for each in rankings])[: self.k]
        return (words if self.method == "words" else dense)(self.query, self.k)


def search(query: str, k: int, method: Method, candidates: int) -> Search:
    """A search, of checked arguments.

    Raises:
        TypeError: the query is no string.
        ValueError: `k` or `candidates` is below 1, or `method` is none of METHODS.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    query, k = inputs.text(query, "query"), inputs.positive(k, "k")
    return Search(query, k, method, max(k, inputs.positive(candidates, "candidates")))
