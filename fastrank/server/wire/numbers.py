"""Vectors as bytes and small integers, in the types that clients ask for."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrank.server.wire.calls import Floats
from fastrank.server.wire.errors import ApiError, Kind

TYPES = {name: name for name in ("float", "int8", "uint8", "binary", "ubinary")}
MOST_DIMENSIONS = 16_384  # that a vector is padded to with zeros


def typed(rows: Floats, kind: str) -> NDArray[Any]:
    """The vectors as one of `TYPES`.

    int8 is `round(127 x)`, uint8 that plus 128; ubinary packs the signs of eight numbers into a byte, the first
    highest, and binary is that minus 128.
    """
    if kind == "float":
        return np.ascontiguousarray(rows, np.float32)
    if kind in ("binary", "ubinary"):
        packed = np.packbits(rows > 0, axis=1)
        return packed if kind == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    small = np.clip(np.rint(rows * 127), -128, 127).astype(np.int16)
    return small.astype(np.int8) if kind == "int8" else (small + 128).astype(np.uint8)


def encoded(row: NDArray[Any]) -> str:
    """The bytes of a vector in base64, little-endian."""
    return base64.b64encode(row.astype(row.dtype.newbyteorder("<"), copy=False).tobytes()).decode("ascii")


def normalized(rows: Floats) -> Floats:
    """The vectors, L2-normalized; a zero vector stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths), np.float32)


def fitted(rows: Floats, dimensions: int | None, filled: int | None) -> Floats:
    """The vectors with as many dimensions as asked for: truncated and normalized again, or padded with zeros.

    Args:
        rows: (texts, dim).
        dimensions: asked for; None: `filled`, else all there are.
        filled: the most dimensions to fill up to, as for aliases; None: there is no filling up. Zeros change no dot
            product, cosine or distance.

    Raises:
        ApiError: fewer than 1, or more than there can be.
    """
    have = rows.shape[1]
    wanted = dimensions if dimensions is not None else have
    most = max(have, filled or 0)
    if not 1 <= wanted <= most:
        raise ApiError(Kind.INVALID, f"dimensions must be from 1 to {most}, got {wanted}", "dimensions")
    if wanted < have:
        return normalized(rows[:, :wanted])
    if wanted > have:
        return np.pad(rows, ((0, 0), (0, wanted - have)))
    return rows
