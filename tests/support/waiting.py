"""How long a test waits for what runs beside it: child processes, threads, servers.

Limits suit a machine that does nothing else. `FASTRANK_TEST_PATIENCE=4` makes each four times as long, for a busy one.
"""

import os
import time

PATIENCE = float(os.environ.get("FASTRANK_TEST_PATIENCE", "1"))


def patience(seconds):
    """A limit in seconds, longer where the environment says that the machine is slow."""
    return seconds * PATIENCE


def wait_until(condition, seconds=30, interval=0.02):
    """Wait until `condition()` is true and return its value; the test fails after `seconds` of patience."""
    deadline = time.monotonic() + patience(seconds)
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience(seconds):g} s in vain"
        time.sleep(interval)
    return value
