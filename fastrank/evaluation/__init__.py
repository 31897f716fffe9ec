"""How well documents are found: test collections, metrics, and whether two methods differ by more than chance.

In: a folder in BEIR's layout and a model. Out: rankings, metrics of each query, a p-value.

>>> from fastrank import TextEmbedding
>>> from fastrank.evaluation import compare, dense, evaluate, load
>>> scifact = load("scifact")
>>> found = dense(TextEmbedding("sentence-transformers/all-MiniLM-L6-v2"), scifact)
>>> evaluate(found.rankings, scifact.qrels)
{'ndcg@10': 0.64..., 'mrr@10': 0.60..., 'recall@100': 0.92...}

Names are loaded when they are first used, because they need numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrank.evaluation.beir import DataError, Dataset, load
    from fastrank.evaluation.methods import Outcome, bm25, dense, hybrid, reranked, sparse
    from fastrank.evaluation.metrics import evaluate, per_query
    from fastrank.evaluation.runs import read_run, write_run
    from fastrank.evaluation.significance import Comparison, compare

__all__ = [
    "Comparison",
    "DataError",
    "Dataset",
    "Outcome",
    "bm25",
    "compare",
    "dense",
    "evaluate",
    "hybrid",
    "load",
    "per_query",
    "read_run",
    "reranked",
    "sparse",
    "write_run",
]

_HOMES = {
    "Comparison": "significance",
    "DataError": "beir",
    "Dataset": "beir",
    "Outcome": "methods",
    "bm25": "methods",
    "compare": "significance",
    "dense": "methods",
    "evaluate": "metrics",
    "hybrid": "methods",
    "load": "beir",
    "per_query": "metrics",
    "read_run": "runs",
    "reranked": "methods",
    "sparse": "methods",
    "write_run": "runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
