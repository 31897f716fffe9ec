"""Combine several rankings of the same documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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
