"""Vectors as bytes and small integers, in the types that clients ask for."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrank.postprocess import quantization
from fastrank.server.wire.calls import Floats
from fastrank.server.wire.errors import ApiError, Kind

TYPES = {name: name for name in ("float", "int8", "uint8", "binary", "ubinary")}
MOST_DIMENSIONS = 16_384  # that a vector is padded to with zeros


def typed(rows: Floats, kind: str) -> NDArray[Any]:
    """The vectors as one of `TYPES`, as the library's `quantize` makes them with `ranges="unit"`."""
    if kind == "float":
        return np.ascontiguousarray(rows, np.float32)
    return quantization.quantize(rows, kind, quantization.UNIT if kind in ("int8", "uint8") else None)


def encoded(row: NDArray[Any]) -> str:
    """The bytes of a vector in base64, little-endian."""
    return base64.b64encode(row.astype(row.dtype.newbyteorder("<"), copy=False).tobytes()).decode("ascii")


def normalized(rows: Floats) -> Floats:
    """The vectors, L2-normalized; a zero vector stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths), np.float32)


def fitted(rows: Floats, dimensions: int | None, filled: int | None, *, layer_norm: bool = False) -> Floats:
    """The vectors with as many dimensions as asked for: truncated and normalized again, or padded with zeros.

    Args:
        rows: (texts, dim).
        dimensions: asked for; None: `filled`, else all there are.
        filled: the most dimensions to fill up to, as for aliases; None: there is no filling up. Zeros change no dot
            product, cosine or distance.
        layer_norm: as the library's `truncate` has it.

    Raises:
        ApiError: fewer than 1, or more than there can be.
    """
    have = rows.shape[1]
    wanted = dimensions if dimensions is not None else have
    most = max(have, filled or 0)
    if not 1 <= wanted <= most:
        raise ApiError(Kind.INVALID, f"dimensions must be from 1 to {most}, got {wanted}", "dimensions")
    if wanted < have:
        return quantization.truncate(rows, wanted, normalize=True, layer_norm=layer_norm)
    if wanted > have:
        return np.pad(rows, ((0, 0), (0, wanted - have)))
    return rows
