"""BM25 behind `SparseTextEmbedding`: batches and, on request, worker processes. Loads no model code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise
from typing import Any

from fastrank.bm25 import BM25
from fastrank.bm25.weights import Vectors
from fastrank.engine import cpu
from fastrank.engine.batching import WINDOW, Window, windows
from fastrank.sparse.embedding import SparseEmbedding


class BM25Encoder:
    """BM25 as an encoder. It runs in Python, so its workers are processes; they return arrays."""

    def __init__(self, bm25: BM25) -> None:
        self.bm25 = bm25
        self._closed = False

    def documents(self, texts: Iterator[str], batch_size: int, workers: int | None) -> Iterator[SparseEmbedding]:
        """One vector per document: int64 ids, float64 values."""
        return _vectors(self._open().document_vectors, texts, batch_size, workers)

    def queries(self, texts: Iterator[str], batch_size: int, workers: int | None) -> Iterator[SparseEmbedding]:
        """One vector per query: int64 ids, int64 ones."""
        return _vectors(self._open().query_vectors, texts, batch_size, workers)

    def token_count(self, texts: Iterator[str], batch_size: int) -> int:
        """Number of words in all texts, stop words included."""
        del batch_size
        return self._open().token_count(texts)

    def load(self) -> None:
        """Nothing to load: BM25 has no files."""

    def info(self) -> dict[str, Any]:
        """How the model runs."""
        return {"file": "none: BM25 needs no model", "batching": "one process; parallel=0: one per CPU"}

    def close(self) -> None:
        """Nothing to free; new calls raise RuntimeError, as with other models."""
        self._closed = True

    def _open(self) -> BM25:
        if self._closed:
            raise RuntimeError("This model is closed. Make a new one.")
        return self.bm25


def _vectors(
    encode: Callable[[list[str]], Vectors], texts: Iterator[str], batch_size: int, workers: int | None
) -> Iterator[SparseEmbedding]:
    processes = 1 if workers is None else workers or cpu.available()
    errors: list[Exception] = []
    batches = _batches(windows(texts, max(WINDOW, batch_size)), errors)
    for ids, values, ends in _map(encode, batches, processes):
        for start, end in pairwise([0, *ends]):
            yield SparseEmbedding(values=values[start:end], indices=ids[start:end])
    if errors:
        raise errors[0]


def _map(encode: Callable[[list[str]], Vectors], batches: Iterator[list[str]], processes: int) -> Iterator[Vectors]:
    """The vectors of each batch, in order; in this process if one is enough."""
    first = list(islice(batches, 0 if processes == 1 else 2))
    batches = chain(first, batches)
    if len(first) < 2:
        return map(encode, batches)
    try:
        from fastrank.engine.processes import ordered_map  # multiprocessing takes 15 ms to import
    except RuntimeError:  # first imported while Python is ending
        return map(encode, batches)
    return ordered_map(encode, batches, processes)


def _batches(ahead: Iterator[Window[str]], errors: list[Exception]) -> Iterator[list[str]]:
    """The texts of each window; an error that ends them is set aside, to be raised after their results."""
    for window in ahead:
        yield window.items
        if window.error:
            errors.append(window.error)
