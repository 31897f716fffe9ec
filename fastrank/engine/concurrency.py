"""Worker threads: batches side by side, and the next window tokenized ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
R = TypeVar("R")


class SideBySide:
    """A `map` over so many threads. onnxruntime lets go of the interpreter lock, so they do run side by side."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[list[int]], R], batches: Sequence[list[int]]) -> Iterable[R]:
        """Results in the order of `batches`."""
        if len(batches) == 1 or self._workers == 1:
            return map(function, batches)
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # a query in a new process needs none

            self._pool = ThreadPoolExecutor(self._workers, "fastrank")
        return self._pool.map(function, batches)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def one_by_one(function: Callable[[T], R], items: Iterator[T]) -> Generator[tuple[T, R], None, None]:
    """Each item with what the function makes of it."""
    for item in items:
        yield item, function(item)


def ahead(function: Callable[[T], R], items: Iterator[T]) -> Generator[tuple[T, R], None, None]:
    """The same, but while an item is in use a thread makes that of the next, which this thread has taken before."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "fastrank-ahead") as thread:
        make: Callable[[], R] | None = None
        item = next(items, None)
        while item is not None:
            made = make() if make else function(item)
            following = next(items, None)
            make = None if following is None else thread.submit(function, following).result
            yield item, made
            item = following
