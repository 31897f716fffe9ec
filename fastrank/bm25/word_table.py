"""Ids of a whole batch of words at once, where their bytes are known already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 16  # of a word in a table

_SPACE = 0x20
_PADDING = b" " * (MAX_BYTES + 1)  # so that 16 bytes can be read from every word on
_MAX_SLOT_BITS = 18  # 6 MB
_MASKS = np.array([(1 << (8 * size)) - 1 for size in range(9)], np.uint64)  # keep the first bytes of eight
_LOW, _HIGH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd, with bits all over

Keys = NDArray[np.uint64]


class Words(NamedTuple):
    """The words of a text and what a table knows of them."""

    starts: NDArray[np.intp]  # (words,): first byte
    stops: NDArray[np.intp]  # (words,): byte after the last
    ids: NDArray[np.int64]  # (words,)
    unknown: NDArray[np.intp]  # which of them have no id here


class WordTable:
    """A hash table of words of up to 16 bytes, compared byte by byte; it never changes, so threads may share it.

    A slot holds one word: of several, the first. The others are unknown.

    Args:
        ids: of words, those seen first first. Words contain neither spaces nor zero bytes.
    """

    def __init__(self, ids: Mapping[bytes, int]) -> None:
        bits = min(_MAX_SLOT_BITS, max(8, (4 * len(ids)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._low, self._high = np.zeros(1 << bits, np.uint64), np.zeros(1 << bits, np.uint64)
        words = [word for word in ids if len(word) <= MAX_BYTES][::-1]  # the last of equal slots stays
        padded = b"".join(word.ljust(MAX_BYTES, b"\0") for word in words)
        keys = np.frombuffer(padded, "<u8").reshape(-1, 2).astype(np.uint64)
        slots = self._slots(keys[:, 0], keys[:, 1])
        self._low[slots], self._high[slots] = keys[:, 0], keys[:, 1]
        self._ids = np.zeros(1 << bits, np.int64)
        self._ids[slots] = [ids[word] for word in words]

    def find(self, text: bytes) -> Words:
        """The words of a text that are separated by spaces only."""
        padded = text + _PADDING
        is_word = np.frombuffer(padded, np.uint8) != _SPACE
        edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
        if is_word[0]:
            edges = np.append(0, edges)
        starts, stops = edges[::2], edges[1::2]
        sizes = stops - starts
        eights = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))  # eight bytes from each byte on
        low = eights[starts] & _MASKS[np.minimum(sizes, 8)]
        high = np.zeros_like(low)
        long = np.flatnonzero(sizes > 8)
        high[long] = eights[starts[long] + 8] & _MASKS[np.minimum(sizes[long] - 8, 8)]
        slots = self._slots(low, high)
        known = (self._low[slots] == low) & (self._high[slots] == high) & (sizes <= MAX_BYTES)
        return Words(starts, stops, self._ids[slots], np.flatnonzero(~known))

    def _slots(self, low: Keys, high: Keys) -> NDArray[np.intp]:
        return (((low * _LOW) ^ (high * _HIGH)) >> self._shift).astype(np.intp)
