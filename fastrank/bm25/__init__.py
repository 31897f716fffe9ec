"""BM25 without a model or a download.

In: texts. Out: term ids and weights equal to FastEmbed's (`BM25`), or the best documents of an index (`BM25Index`).

Names are loaded when they are first used, because they need numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastrank.bm25.languages import LANGUAGES

if TYPE_CHECKING:
    from fastrank.bm25.explanation import BM25Explanation
    from fastrank.bm25.index import BM25Index
    from fastrank.bm25.weights import BM25, Stemmer

__all__ = ["BM25", "LANGUAGES", "BM25Explanation", "BM25Index", "Stemmer"]

_HOMES = {"BM25": "weights", "BM25Explanation": "explanation", "BM25Index": "index", "Stemmer": "weights"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
