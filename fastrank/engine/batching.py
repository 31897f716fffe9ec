"""Which texts run together: windows of look-ahead, cut into batches of similar length by a token budget.

Padding a short text to the length of a long one is work for nothing; on mixed corpora it is more than half of all work.
So texts are read ahead in windows, sorted by length inside a window, and cut so that `texts x longest` stays under
a budget of tokens. The caller puts results back in the order in which the texts came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

WINDOW_TOKENS = 131_072  # that run before the first result is given: 256 texts of 512; token vectors of 64 MB
WINDOW = 256  # texts read ahead at most (one batch, if that is more): leaves 2 % of padding on mixed corpora


class Tokens(NamedTuple):
    """One text (or pair) as token ids, not padded."""

    ids: NDArray[np.int32]  # (n,)
    types: NDArray[np.int32] | None = None  # (n,): 0 for the first text of a pair, 1 for the second; None: all 0
    attended: int | None = None  # so many of the first tokens are attended to; None: all


class Batch(NamedTuple):
    """Texts that run together, padded on the right to the longest of them."""

    positions: Sequence[int]  # of the texts in their window
    ids: NDArray[np.int64]  # (texts, longest)
    mask: NDArray[np.int64]  # (texts, longest): 1 for tokens, 0 for padding and what is not attended to
    types: NDArray[np.int64]  # (texts, longest)


@dataclass(frozen=True)
class Window(Generic[T]):
    """Some consecutive items, and the error that the caller's iterable raised after them, if it did."""

    items: list[T]
    error: Exception | None


def windows(items: Iterator[T], size: int) -> Iterator[Window[T]]:
    """Consecutive windows of at most `size` items. What came before an error is delivered before the error."""
    while True:
        window: list[T] = []
        error = None
        try:
            while len(window) < size:
                window.append(next(items))
        except StopIteration:
            pass
        except Exception as raised:  # noqa: BLE001 - raised again, after the items before it
            error = raised
        if window or error:
            yield Window(window, error)
        if error or len(window) < size:
            return


def spans(lengths: Sequence[int], most: int = WINDOW_TOKENS) -> Iterator[slice]:
    """Consecutive parts of at most so many tokens in all; a text that has more is a part of its own."""
    start = total = 0
    for position, length in enumerate(lengths):
        if total + length > most and position > start:
            yield slice(start, position)
            start, total = position, 0
        total += length
    if lengths:
        yield slice(start, len(lengths))


def plan(
    lengths: Sequence[int], budget: int, most: int, *, square: int | None = None, equal: bool = False
) -> list[list[int]]:
    """Positions grouped into batches: longest first, `texts x longest <= budget` tokens, at most `most` texts each.

    A text longer than the budget runs alone. Equal lengths keep their order, so the same input gives the same batches.
    `square`: also `texts x longest x longest <= square`, where the memory of attention counts.
    `equal`: only texts of the same length run together, so that there is no padding.
    """
    batches: list[list[int]] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda p: -lengths[p]):
        texts = len(batches[-1]) + 1 if batches else 0
        full = not texts or texts > most or texts * longest > budget
        full = full or (square is not None and texts * longest * longest > square)
        if full or (equal and lengths[position] != longest):
            batches.append([])
            longest = lengths[position]
        batches[-1].append(position)
    return batches


def step(length: int) -> int:
    """The length to pad to where shapes should repeat: one of 8 between powers of two, and a multiple of 8.

    That costs 5 % more tokens where lengths are mixed; above 64 tokens, 12 % at most. GPUs multiply fastest where sizes
    are multiples of 8, and memory and choice of kernel are kept by shape.
    """
    size = max(8, 1 << (length - 1).bit_length() >> 4)
    return -(-length // size) * size


def collate(tokens: Sequence[Tokens], positions: Sequence[int], pad_id: int, longest: int = 0) -> Batch:
    """The texts at `positions`, padded into one batch: to the longest of them, or to `longest` if that is more."""
    shape = len(positions), max(longest, *(len(tokens[p].ids) for p in positions))
    ids = np.full(shape, pad_id, np.int64)
    mask = np.zeros(shape, np.int64)
    types = np.zeros(shape, np.int64)
    for row, position in enumerate(positions):
        found = tokens[position]
        ids[row, : len(found.ids)] = found.ids
        mask[row, : len(found.ids) if found.attended is None else found.attended] = 1
        if found.types is not None:
            types[row, : len(found.ids)] = found.types
    return Batch(positions, ids, mask, types)
