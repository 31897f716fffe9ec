"""A lock between processes. It saves bandwidth; correctness rests on unique staging folders and atomic renames."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastrank.store.layout import make_folders

_PAUSE = 0.1

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    _BUSY: tuple[type[OSError], ...] = (PermissionError,)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    _BUSY = (BlockingIOError,)


@contextmanager
def exclusive(path: Path, patience: float) -> Iterator[bool]:
    """Hold the lock. Yields False where the file system has no locks.

    The operating system frees it when its holder ends, however it ends; so the file itself stays and is never stale.

    Raises:
        TimeoutError: another process held it for `patience` seconds.
    """
    make_folders(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _acquire(descriptor, path, time.monotonic() + patience)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, deadline: float) -> bool:
    while True:
        try:
            _try_lock(descriptor)
        except _BUSY:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"Another process has held {path} too long. If none is downloading this model, delete that file."
                ) from None
            time.sleep(_PAUSE)
        except OSError:  # network file systems without locks
            return False
        else:
            return True
