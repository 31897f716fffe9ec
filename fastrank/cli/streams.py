"""The process around a command: its standard streams, and the signals that end it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class SignalError(BaseException):
    """A signal that ends the process came. `status` is the exit status that shells give it: 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


class _Closed(io.TextIOBase):
    """Stands for a standard output that was closed when the process started: writing to it is an error."""

    def write(self, _text: str) -> int:
        raise OSError("standard output is closed. Redirect it to a file, or name one with --output")


def repair() -> None:
    """Make standard streams that are closed safe to use.

    Their descriptors are opened on the null device, so that no file opened later gets the number of one and the
    messages that are meant for it. Errors go nowhere then, never to standard output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), errors="replace", write_through=True)
    if sys.stdout is None:
        sys.stdout = _Closed()


def use_utf8() -> None:
    """Write UTF-8 to files and pipes: Windows' own encoding cannot write most texts."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="replace")


def flush() -> None:
    """Write what is buffered for standard output, or discard it if that fails: Python would try again at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_output()


def discard_output() -> None:
    """Discard what is buffered for standard output, whose reader has gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(null, sys.stdout.fileno())
    os.close(null)


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SignalError here, so that temporary files are removed before the process ends.

    Later ones are ignored while it cleans up. A signal that is ignored, as `nohup` does, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, signal.SIG_IGN)
        raise SignalError(number)

    taken = [each for each in _ENDING if signal.getsignal(each) is signal.SIG_DFL]
    for each in taken:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)
