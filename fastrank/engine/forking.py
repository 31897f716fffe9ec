"""A process that is forked while it loads a model: the fork waits until the load is done."""

from __future__ import annotations

import os
import threading

_MOST_SECONDS = 10.0  # that a fork waits: a load may be a long download


class _Gate:
    """Loads may happen in many threads at a time, but not while the process is forked.

    A child that is forked while another thread imports a module, or is inside onnxruntime or the dynamic linker, has
    locks that nobody will release.
    """

    def __init__(self) -> None:
        self.renew()

    def __enter__(self) -> None:
        with self._free:
            self._loads += 1

    def __exit__(self, *_error: object) -> None:
        with self._free:
            self._loads -= 1
            self._free.notify_all()

    def close(self) -> None:
        """Before a fork: wait for the loads that are under way, and let none begin."""
        self._free.acquire()
        self._free.wait_for(lambda: not self._loads, _MOST_SECONDS)

    def open(self) -> None:
        """After a fork, in the parent."""
        self._free.release()

    def renew(self) -> None:
        """Begin without loads; after a fork, in the child, as the lock is the parent's."""
        self._loads = 0
        self._free = threading.Condition()


no_fork = _Gate()
"""Hold this while a model is loaded: `with no_fork: ...`."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=no_fork.close, after_in_parent=no_fork.open, after_in_child=no_fork.renew)
