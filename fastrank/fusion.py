"""Combine several rankings of the same documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Fused(NamedTuple):
    """A document in several rankings.

    Attributes:
        document: its number.
        score: the sum of the parts.
        ranks: in each ranking, from 1; None: it is not in this one.
        parts: 1 / (k + rank) of each ranking, 0.0 where it is not.
    """

    document: int
    score: float
    ranks: tuple[int | None, ...]
    parts: tuple[float, ...]


def reciprocal_rank_fusion(rankings: Iterable[Sequence[int]], k: int = 60) -> list[tuple[int, float]]:
    """Documents by the sum of 1 / (k + rank) over all rankings that contain them; ranks start at 1.

    Needs no comparable scores; documents ranked high by several rankings win. Cormack, Clarke and Buettcher, 2009.

    Args:
        rankings: document numbers, best first. Rankings may contain different documents.
        k: larger values reduce the lead of the first ranks.

    Returns:
        (document, score) pairs, best first; ties in the order of document numbers.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, document in enumerate(ranking, 1):
            scores[document] = scores.get(document, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def explain_fusion(rankings: Iterable[Sequence[int]], k: int = 60) -> list[Fused]:
    """`reciprocal_rank_fusion` with the ranks that were fused; arguments and order are the same."""
    listed = [list(ranking) for ranking in rankings]
    ranks = [{document: rank for rank, document in reversed(list(enumerate(ranking, 1)))} for ranking in listed]
    found = []
    for document, score in reciprocal_rank_fusion(listed, k):
        own = tuple(of.get(document) for of in ranks)
        found.append(Fused(document, score, own, tuple(0.0 if rank is None else 1 / (k + rank) for rank in own)))
    return found
