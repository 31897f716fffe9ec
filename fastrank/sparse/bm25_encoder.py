"""BM25 behind `SparseTextEmbedding`: batches, and processes if several are wanted. Imports no model machinery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.bm25 import BM25
from fastrank.engine import cpu
from fastrank.engine.batching import WINDOW, Window, windows
from fastrank.sparse.embedding import SparseEmbedding

Vectors: TypeAlias = Iterator[SparseEmbedding]
_Packed: TypeAlias = "tuple[NDArray[np.int64], NDArray[Any], list[int]]"


class BM25Encoder:
    """BM25. It holds the interpreter lock, so several workers are processes; only numbers come back from them."""

    def __init__(self, bm25: BM25) -> None:
        self.bm25 = bm25
        self._closed = False

    def documents(self, texts: Iterator[str], batch_size: int, workers: int | None) -> Vectors:
        """One vector for each document: int64 ids, float64 values."""
        return self._vectors(partial(_documents, self._open()), texts, batch_size, workers)

    def queries(self, texts: Iterator[str], batch_size: int, workers: int | None) -> Vectors:
        """One vector for each query: int64 ids, int64 ones."""
        return self._vectors(partial(_queries, self._open()), texts, batch_size, workers)

    def token_count(self, texts: Iterator[str], batch_size: int) -> int:
        """Words of all texts, stop words included."""
        del batch_size
        return self._open().token_count(texts)

    def load(self) -> None:
        """Nothing is left to load."""

    def info(self) -> dict[str, Any]:
        """How the model runs."""
        return {"file": "none: BM25 is arithmetic", "runs together": "a process a processor if parallel=0"}

    def close(self) -> None:
        """Nothing is freed, but as with other models new calls raise RuntimeError."""
        self._closed = True

    def _open(self) -> BM25:
        if self._closed:
            raise RuntimeError("This model is closed. Make a new one.")
        return self.bm25

    def _vectors(
        self, function: Callable[[list[str]], _Packed], texts: Iterator[str], batch_size: int, workers: int | None
    ) -> Vectors:
        count = 1 if workers is None else workers or cpu.available()
        errors: list[Exception] = []
        ahead = _items(windows(texts, max(WINDOW, batch_size)), errors)
        for ids, values, ends in _side_by_side(function, ahead, count):
            for start, end in zip(chain([0], ends), ends, strict=False):
                yield SparseEmbedding(values=values[start:end], indices=ids[start:end])
        if errors:
            raise errors[0]


def _side_by_side(
    function: Callable[[list[str]], _Packed], texts: Iterator[list[str]], workers: int
) -> Iterator[_Packed]:
    first = list(islice(texts, 0 if workers == 1 else 2))
    texts = chain(first, texts)
    if len(first) < 2:
        return map(function, texts)
    from fastrank.engine.processes import ordered_map  # multiprocessing takes 15 ms to import

    return ordered_map(function, texts, workers)


def _items(ahead: Iterator[Window[str]], errors: list[Exception]) -> Iterator[list[str]]:
    """The windows' texts; an error that ended them is put aside, to be raised after their results."""
    for window in ahead:
        yield window.items
        if window.error:
            errors.append(window.error)


def _documents(bm25: BM25, texts: list[str]) -> _Packed:
    return _packed(bm25.documents(texts))


def _queries(bm25: BM25, texts: list[str]) -> _Packed:
    return _packed(bm25.queries(texts))


def _packed(vectors: list[tuple[NDArray[np.int64], NDArray[Any]]]) -> _Packed:
    """Many small arrays as two large ones, which travel between processes far cheaper."""
    if not vectors:
        return np.empty(0, np.int64), np.empty(0), []
    ids, values = zip(*vectors, strict=True)
    return np.concatenate(ids), np.concatenate(values), np.cumsum([len(each) for each in ids]).tolist()
