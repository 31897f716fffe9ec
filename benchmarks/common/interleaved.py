"""Arms of a comparison in turn in one process, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, TypeAlias

Arms: TypeAlias = Mapping[str, Callable[[], Any]]


def seconds(
    arms: Arms, rounds: int, *, pause: float = 0.0, check: Callable[[str, Any], None] | None = None
) -> dict[str, list[float]]:
    """The seconds of every call, by arm; every other round runs the arms backwards.

    Args:
        arms: what to call, by name.
        rounds: calls of each arm.
        pause: seconds before each call, for threads of the arm before that still spin.
        check: gets the name and the result of each call, outside the time that counts.
    """
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        names = list(arms)
        for name in names if number % 2 else names[::-1]:
            time.sleep(pause)
            start = time.perf_counter()
            result = arms[name]()
            found[name].append(time.perf_counter() - start)
            if check is not None:
                check(name, result)
            del result
    return found


def version(distribution: str) -> str:
    """The installed version of a package, or that there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
