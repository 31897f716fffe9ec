"""Analyzers for BM25 that misbehave, in a module that worker processes can import."""

import os
import time


def words(text):
    """Words; but `fail` raises, `die` kills the process, and `sleep` takes its time."""
    found = text.split()
    if "fail" in found:
        raise LookupError(f"cannot analyse {text!r}")
    if "die" in found:
        os._exit(7)
    if "sleep" in found:
        time.sleep(0.05)
    return found


class Unloadable:
    """An analyzer that no worker can load."""

    def __call__(self, text):
        return text.split()

    def __setstate__(self, state):
        raise LookupError("cannot be loaded here")

    def __getstate__(self):
        return {"some": "state"}
