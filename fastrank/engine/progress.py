"""Progress bars of the library's calls, for those who ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def bar(name: str, total: int | None) -> Any:
    """A bar on standard error: texts done, the rate, and the time left where the total is known."""
    from tqdm.auto import tqdm  # only where it is wanted

    return tqdm(desc=name, total=total, unit="text")


def shown(results: Iterator[T], name: str, total: int | None) -> Iterator[T]:
    """The results, with a bar while they are read."""
    with bar(name, total) as drawn:
        for result in results:
            yield result
            drawn.update()
