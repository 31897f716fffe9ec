"""A progress bar for bytes that arrive: tqdm where bars are wanted, nothing (and no import) where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastrank import environment


@contextmanager
def bar(title: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Yields a function to be called with the number of bytes that came."""
    if not environment.progress():
        yield lambda _count: None
        return
    from tqdm.auto import tqdm

    with tqdm(
        desc=title, total=total, initial=done, unit="B", unit_scale=True, unit_divisor=1024, leave=False
    ) as shown:
        yield shown.update
