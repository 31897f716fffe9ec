"""The path of a text: gate, tokens, schedule, session, head, order. One loaded model is shared by all threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fastrank import processors, store
from fastrank.errors import OutputError
from fastrank.heads import Floats, Head
from fastrank.schedule import WINDOW, Batch, collate, plan, windows
from fastrank.session import Options, Session
from fastrank.tokenizer import Tokenizer

RunAll: TypeAlias = "Callable[[Callable[[Batch], Floats], Sequence[Batch]], Iterable[Floats]]"


@dataclass(frozen=True)
class Pipeline:
    """A loaded model."""

    folder: Path
    tokenizer: Tokenizer
    session: Session
    head: Head
    output: str | None = None

    def run(self, texts: Iterator[str], batch_size: int, workers: int | None) -> Iterator[Floats]:
        """One row for each text, in order.

        Texts are read ahead by a window, never more, so memory stays flat over endless iterators. What comes before an
        error in the iterator is delivered before the error is raised.

        Raises:
            OutputError: the model returned NaN or infinity for a text.
        """
        with _side_by_side(self._workers(workers)) as run_all:
            start = 0
            for window in windows(texts, max(WINDOW, batch_size)):
                if window.items:
                    yield from self._window(window.items, start, batch_size, run_all)
                if window.error:
                    raise window.error
                start += len(window.items)

    def token_count(self, texts: Iterator[str], batch_size: int) -> int:
        """Tokens of all texts after truncation, special ones included."""
        total = 0
        for window in windows(texts, batch_size):
            if window.error:
                raise window.error
            total += sum(len(tokens.ids) for tokens in self.tokenizer.encode(window.items))
        return total

    def _workers(self, asked: int | None) -> int:
        """`parallel` of the public methods: None is what measured best, 0 one a processor."""
        return self.session.workers if asked is None else asked or processors.available()

    def _window(self, texts: list[str], start: int, batch_size: int, run_all: RunAll) -> Iterator[Floats]:
        tokens = self.tokenizer.encode(texts)
        batches = plan([len(each.ids) for each in tokens], self.session.budget, batch_size)
        wide = len(batches) == 1
        turn = itertools.count()  # batches take turns on the devices
        rows: list[Floats] = [np.empty(0, np.float32)] * len(texts)

        def run(batch: Batch) -> Floats:
            found = self.head(self.session.run(batch, self.output, wide=wide, device=next(turn)), batch)
            _check_finite(found, batch, start)
            return found

        padded = [collate(tokens, positions, self.tokenizer.pad_id) for positions in batches]
        for positions, found in zip(batches, run_all(run, padded), strict=True):
            for position, row in zip(positions, found, strict=True):
                rows[position] = row
        yield from rows


class LazyPipeline:
    """A pipeline that is loaded once, under a lock, when it is first needed; and closed when told so."""

    def __init__(self, load: Callable[[], Pipeline]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: Pipeline | None = None
        self._closed = False

    def get(self) -> Pipeline:
        """The loaded pipeline.

        Raises:
            RuntimeError: it was closed.
        """
        if (loaded := self._loaded) is not None:
            return loaded
        with self._lock:
            if self._closed:
                raise RuntimeError("This model is closed. Make a new one.")
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def close(self) -> None:
        """Let go of the model's memory. Iterators that are running finish."""
        with self._lock:
            self._closed, self._loaded = True, None


@contextmanager
def _side_by_side(workers: int) -> Iterator[RunAll]:
    """A `map` over so many threads. onnxruntime lets go of the interpreter lock, so they do run side by side."""
    pools: list[ThreadPoolExecutor] = []

    def run_all(function: Callable[[Batch], Floats], batches: Sequence[Batch]) -> Iterable[Floats]:
        if len(batches) == 1 or workers == 1:
            return map(function, batches)
        if not pools:
            pools.append(ThreadPoolExecutor(workers, "fastrank"))
        return pools[0].map(function, batches)

    try:
        yield run_all
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _check_finite(rows: Floats, batch: Batch, start: int) -> None:
    finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if not finite.all():
        position = start + batch.positions[int(np.argmin(finite))]
        raise OutputError(f"The model returned NaN or infinity for documents[{position}]. Its weights may be damaged.")


def load(
    files: store.ModelFiles, head: Head, options: Options, *, max_length: int | None, output: str | None
) -> Pipeline:
    """A model's files as a pipeline."""
    tokenizer = Tokenizer(files.folder, max_length)
    return Pipeline(files.folder, tokenizer, Session(files.folder, files.model, options), head, output)
