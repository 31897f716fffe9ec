"""Whether two methods differ by more than chance, on the same queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 22  # signs in memory


class Comparison(NamedTuple):
    """Two methods on the same queries.

    Attributes:
        difference: mean of the first method less that of the second.
        p: how often a difference at least as large, in either direction, comes about by chance alone.
        better: queries for which the first is better.
        worse: queries for which the second is.
        equal: queries for which they are equal.
    """

    difference: float
    p: float
    better: int
    worse: int
    equal: int


def compare(first: Mapping[str, float], second: Mapping[str, float], rounds: int = 10_000, seed: int = 0) -> Comparison:
    """The paired randomisation test, two-sided: which of the two methods a value is of is left to a coin, per query.

    Smucker, Allan and Carterette, 2007. With 2**n <= `rounds` ways to toss, n queries that differ, all of them are
    counted, and p is exact; else p = (1 + as large a difference) / (1 + rounds), of random ways from a fixed seed.

    Args:
        first: query id -> the metric of one method.
        second: query id -> that of the other.
        rounds: random ways to toss.
        seed: of the random numbers; equal seeds give equal results.

    Raises:
        ValueError: the queries are not the same, there are none, or `rounds` is below 1.
    """
    if first.keys() != second.keys():
        lone = min(first.keys() ^ second.keys())
        raise ValueError(f"Two methods are compared on the same queries: only one of them has {lone!r}")
    if not first:
        raise ValueError("No queries to compare two methods on")
    if rounds < 1:
        raise ValueError(f"rounds must be >= 1, got {rounds}")
    differences = np.array([first[query] - second[query] for query in first], np.float64)
    differing = differences[differences != 0]
    observed = abs(differing.sum())
    least = observed - 1e-12 * max(1.0, np.abs(differing).sum())  # sums in another order differ by rounding
    extreme = tossed = 0
    exact = len(differing) < 60 and 2 ** len(differing) <= rounds
    for signs in _all(len(differing)) if exact else _random(len(differing), rounds, seed):
        extreme += int(np.count_nonzero(np.abs(signs @ differing) >= least))
        tossed += len(signs)
    return Comparison(
        float(differences.mean()),
        extreme / tossed if exact else (extreme + 1) / (tossed + 1),
        int((differences > 0).sum()),
        int((differences < 0).sum()),
        int((differences == 0).sum()),
    )


def _all(count: int) -> Iterator[NDArray[np.int8]]:
    """Every way to give `count` differences a sign: (ways, count)."""
    bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    yield (1 - 2 * bits).astype(np.int8)


def _random(count: int, rounds: int, seed: int) -> Iterator[NDArray[np.int8]]:
    dice = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // count)
    for start in range(0, rounds, at_once):
        shape = min(at_once, rounds - start), count
        yield (1 - 2 * dice.integers(0, 2, shape, np.int8)).astype(np.int8)
