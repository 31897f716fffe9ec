"""Work done ahead in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def one_by_one(function: Callable[[T], R], items: Iterator[T]) -> Generator[tuple[T, R], None, None]:
    """Each item with the function's result for it."""
    for item in items:
        yield item, function(item)


def ahead(function: Callable[[T], R], items: Iterator[T]) -> Generator[tuple[T, R], None, None]:
    """The same; while an item is in use, a thread computes the result for the next, which this thread has fetched."""
    for item in items:
        result = function(item)
        break
    else:
        return
    for following in items:
        computed = _Computed(function, following)
        try:
            yield item, result
        finally:
            computed.wait()
        item, result = following, computed.result()
    yield item, result


class _Computed(Generic[R]):
    """A function's result, computed in a thread of its own."""

    def __init__(self, function: Callable[[T], R], item: T) -> None:
        self._function: Callable[[], R] = lambda: function(item)
        self._results: list[R] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="fastrank-ahead", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads, or Python is ending
            self._thread = None

    def wait(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            self._thread.join()

    def result(self) -> R:
        """The result, after `wait`."""
        if self._thread is None:
            return self._function()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised where the result is wanted
            self._error = error
