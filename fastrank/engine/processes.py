"""A `map` over processes, for work that holds the GIL. Models do not need it: onnxruntime releases the GIL."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_function: Callable[[Any], Any]  # of a worker process; set once, so that it need not travel with every item


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """`map(function, items)` over `workers` processes, reading at most two items per worker ahead.

    `function` is sent to each worker once. An error in a worker is raised here as it is; if a worker is killed,
    `BrokenProcessPool` is raised at once. Leaving the iterator early ends the workers, and so does the end of this
    process, even by a signal. Workers are spawned, so scripts need the usual `if __name__ == "__main__":`. Everything
    runs in this process where the system has no semaphores (AWS Lambda), in a worker of a multiprocessing.Pool (it may
    have no children), and once Python is ending.
    """
    if multiprocessing.current_process().daemon:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # workers inherit what `_interrupts_wait` blocks
    try:
        pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(function,))
    except (OSError, NotImplementedError):
        yield from map(function, items)
        return
    ahead: deque[Future[Any]] = deque()
    try:
        for number, item in enumerate(items):
            try:
                with _interrupts_wait() if number < workers else contextlib.nullcontext():
                    ahead.append(pool.submit(_work, item))
            except RuntimeError:  # Python is ending
                if ahead:
                    raise
                yield function(item)
                yield from map(function, items)
                return
            if len(ahead) >= 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back while a worker starts: it comes when the pool is able to end its workers.

    The worker is started with SIGINT blocked, so that it has no traceback of its own before `_start` ignores it.
    """
    before = signal.getsignal(signal.SIGINT)
    holds = callable(before) and threading.current_thread() is threading.main_thread()
    arrived: list[tuple[int, FrameType | None]] = []
    if holds:
        signal.signal(signal.SIGINT, lambda number, frame: arrived.append((number, frame)))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if sys.platform != "win32" else None
    try:
        yield
    finally:
        if sys.platform != "win32" and mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if holds and callable(before):
            signal.signal(signal.SIGINT, before)
            if arrived:
                before(*arrived[0])


def _start(function: Callable[[Any], Any]) -> None:
    global _function  # noqa: PLW0603
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _work(item: Any) -> Any:
    return _function(item)
