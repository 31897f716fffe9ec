"""The end of Python: native code must not be running in another thread when memory is taken from under it."""

from __future__ import annotations

import atexit
import os
import threading

_MOST_SECONDS = 60.0  # that the end of Python waits


class _NativeCalls:
    """Calls of onnxruntime and tokenizers that are under way; hold this around each.

    A background thread that comes back from one once Python has ended is ended by the system in the middle of C++ or
    Rust code, which aborts the process. So the end waits for those under way, and refuses new ones.
    """

    def __init__(self) -> None:
        self.ending = False
        self.renew()

    def renew(self) -> None:
        """Begin without calls; in a forked child, the parent's threads are not there."""
        self._count = 0
        self._done = threading.Condition()

    def __enter__(self) -> None:
        with self._done:
            self.refuse()
            self._count += 1

    def __exit__(self, *_error: object) -> None:
        with self._done:
            self._count -= 1
            if self.ending:
                self._done.notify_all()

    def refuse(self) -> None:
        """At the end of Python only its main thread may still run models (in functions registered with `atexit`).

        Raises:
            RuntimeError: this is another thread, and Python is ending.
        """
        if self.ending and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Python is shutting down: no more texts are run in background threads")

    def finish(self) -> None:
        """Before Python ends: let no call begin, and wait for those under way."""
        with self._done:
            self.ending = True
            self._done.wait_for(lambda: not self._count, _MOST_SECONDS)


native_calls = _NativeCalls()
atexit.register(native_calls.finish)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=native_calls.renew)
