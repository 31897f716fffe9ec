"""Several rankings of the same documents as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def reciprocal_rank_fusion(rankings: Iterable[Sequence[int]], k: int = 60) -> list[tuple[int, float]]:
    """Documents by the sum of 1 / (k + rank) over the rankings that have them; ranks start at 1.

    It needs no scores that compare, and what stands high in several rankings wins. Cormack, Clarke and Buettcher, 2009.

    Args:
        rankings: document numbers, best first; a ranking need not have all.
        k: how much lower ranks count.

    Returns:
        (document, score), best first; equal scores in the order of document numbers.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, document in enumerate(ranking, 1):
            scores[document] = scores.get(document, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
