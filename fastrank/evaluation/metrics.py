"""What a ranking and a similarity are worth. The definitions of trec_eval, which BEIR and MTEB use through pytrec_eval.

A ranking is a list of document ids, best first; judgements are document id -> relevance. Relevance of 0 or less, and no
judgement, are both "not relevant".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log2

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFAULT = ("ndcg@10", "mrr@10", "recall@100")


def ranked(scores: Iterable[tuple[float, str]], k: int) -> list[tuple[float, str]]:
    """The best `k` of (score, document id), best first.

    Equal scores are ordered as in trec_eval: the id that is last in the alphabet (by code point) comes first.
    """
    return sorted(scores, reverse=True)[:k]


def ndcg(ranking: Sequence[str], judged: Mapping[str, int], k: int = 10) -> float:
    """Normalised discounted cumulative gain: the gain is the relevance itself, the discount log2(rank + 1).

    The ideal ranking has all relevant documents, also those that are not in the corpus.
    """
    best = _discounted(sorted(judged.values(), reverse=True)[:k])
    return _discounted(judged.get(document, 0) for document in ranking[:k]) / best if best else 0.0


def reciprocal_rank(ranking: Sequence[str], judged: Mapping[str, int], k: int = 10) -> float:
    """1 / rank of the first relevant document, 0 if it is not among the first `k`."""
    ranks = (rank for rank, document in enumerate(ranking[:k], 1) if judged.get(document, 0) > 0)
    return 1 / next(ranks, float("inf"))


def recall(ranking: Sequence[str], judged: Mapping[str, int], k: int = 100) -> float:
    """The share of relevant documents among the first `k`."""
    relevant = {document for document, relevance in judged.items() if relevance > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def per_query(
    run: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]], names: Sequence[str] = DEFAULT
) -> dict[str, dict[str, float]]:
    """Metric -> query id -> value, for all judged queries; a query without a ranking or a relevant document has 0.

    Args:
        run: query id -> document ids, best first.
        qrels: query id -> document id -> relevance.
        names: "ndcg@k", "mrr@k", "recall@k", for any k.

    Raises:
        ValueError: no such metric.
    """
    functions = [(name, *metric(name)) for name in names]
    return {
        name: {query: function(run.get(query, ()), judged, k) for query, judged in qrels.items()}
        for name, function, k in functions
    }


def evaluate(
    run: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]], names: Sequence[str] = DEFAULT
) -> dict[str, float]:
    """Metric -> mean over all judged queries; arguments and errors as `per_query`."""
    return {name: sum(values.values()) / len(values) for name, values in per_query(run, qrels, names).items()}


def metric(name: str) -> tuple[Callable[[Sequence[str], Mapping[str, int], int], float], int]:
    """The function of a metric, and its k.

    Raises:
        ValueError: no such metric.
    """
    kind, _, k = name.partition("@")
    if kind not in _METRICS or not k.isascii() or not k.isdecimal() or int(k) < 1:
        raise ValueError(f"There is no metric {name!r}; there are {', '.join(f'{each}@k' for each in _METRICS)}")
    return _METRICS[kind], int(k)


_METRICS = {"ndcg": ndcg, "mrr": reciprocal_rank, "recall": recall}


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Raises:
        ValueError: fewer than two values, different numbers of them, or all equal: there is no correlation.
    """
    a, b = (_ranks(np.asarray(values, np.float64)) for values in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} values cannot be correlated with {len(b)}")
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    if spread == 0:
        raise ValueError("Values that are all equal have no correlation")
    return float(a @ b) / spread


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError("A correlation needs a list of finite numbers")
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    ranks: NDArray[np.float64] = mean_rank[which]
    return ranks


def _discounted(gains: Iterable[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, 1) if gain > 0)
