"""Small vectors: fewer numbers (Matryoshka), smaller numbers (float16, 8 bits, 1 bit), and search in them.

Values equal those of sentence-transformers 6.2's `quantize_embeddings`. Shakir, Aarsen and Lee 2024, Binary and Scalar
Embedding Quantization (huggingface.co/blog/embedding-quantization); Kusupati et al. 2022, Matryoshka Representation
Learning (arXiv:2205.13147).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrank import inputs

Floats: TypeAlias = NDArray[np.float32]
Ranges: TypeAlias = "ArrayLike | Literal['unit'] | None"

DTYPES = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
UNIT = "unit"
_LEVELS = 255
_BITS = np.array([number.bit_count() for number in range(256)], np.uint8)
_LENGTH_TOLERANCE = 1e-3  # float16 graphs normalize to that


def truncate(vectors: ArrayLike, dim: int, *, normalize: bool | None = None, layer_norm: bool = False) -> Floats:
    """The first `dim` numbers of each vector.

    Args:
        vectors: (dim,), (vectors, dim) or of more axes; float.
        dim: how many are kept, >= 1.
        normalize: whether the shorter vectors are L2-normalized. None: if all of these are.
        layer_norm: whether each vector gets mean 0 and variance 1 before that, as nomic-embed-text-v1.5 wants it.

    Raises:
        ValueError: the vectors have fewer numbers.
    """
    rows = np.asarray(vectors, np.float32)
    wanted = inputs.positive(dim, "dim")
    if wanted > rows.shape[-1]:
        raise ValueError(f"truncate_dim={wanted} is more than the {rows.shape[-1]} dimensions of the vectors")
    if normalize is None:
        lengths = np.linalg.norm(rows, axis=-1)
        normalize = bool(np.all(np.abs(lengths - 1) < _LENGTH_TOLERANCE))
    if layer_norm:
        rows = rows - rows.mean(axis=-1, keepdims=True)
        rows = rows / np.sqrt((rows**2).mean(axis=-1, keepdims=True) + np.float32(1e-5))
    short = rows[..., :wanted].copy()  # a view would keep the rest alive
    if normalize:
        short /= np.maximum(np.linalg.norm(short, axis=-1, keepdims=True), np.float32(1e-12))
    return short


def calibrate(vectors: ArrayLike | Iterable[ArrayLike]) -> Floats:
    """The least and the greatest value of each dimension in a sample of vectors, for "int8" and "uint8".

    A thousand vectors of texts like those to come are a good sample; values outside of the ranges are clipped later.

    Args:
        vectors: (vectors, dim), or an iterable of vectors (dim,) or of token vectors (tokens, dim).

    Returns:
        float32 (2, dim).

    Raises:
        ValueError: there are fewer than two vectors, or their sizes differ.
    """
    parts = [np.atleast_2d(np.asarray(each, np.float32)) for each in vectors]  # type: ignore[union-attr]
    rows = np.concatenate(parts or [np.zeros((0, 0), np.float32)])
    if len(rows) < 2:
        raise ValueError(f"ranges need a sample of at least two vectors, and better a thousand; got {len(rows)}")
    return np.stack([rows.min(axis=0), rows.max(axis=0)]).astype(np.float32)


def quantize(vectors: ArrayLike, dtype: str, ranges: Ranges = None) -> NDArray[Any]:
    """The vectors in another type of numbers.

    "int8" and "uint8": 256 steps from the least to the greatest value of each dimension; with `ranges="unit"`
    `round(127 * x)`, and "uint8" that plus 128, which needs no sample and keeps cosines, but uses few of the 256 steps.
    "ubinary": the signs, eight a byte, the first highest; "binary" that minus 128.

    Args:
        vectors: (dim,), (vectors, dim) or (tokens, dim); float.
        dtype: one of `DTYPES`.
        ranges: (2, dim), as `calibrate` returns them. None: those of these vectors, which then cannot be compared with
            vectors quantized by others. The other types need none.

    Returns:
        An array of the same shape; of "binary" and "ubinary" the last axis has dim / 8 bytes, rounded up.

    Raises:
        ValueError: there is no such type, or the vectors are no floats, or the ranges have another shape.
    """
    rows = np.asarray(vectors)
    if rows.dtype.kind != "f":
        raise ValueError(f"vectors to quantize must be floats, not {rows.dtype}")
    if dtype not in DTYPES:
        raise ValueError(f"output_dtype must be one of {', '.join(map(repr, DTYPES))}, not {dtype!r}")
    if dtype in ("float32", "float16"):
        return rows.astype(dtype)
    if dtype in ("binary", "ubinary"):
        packed: NDArray[Any] = np.packbits(rows > 0, axis=-1)
        return packed if dtype == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    if isinstance(ranges, str):
        _check_word(ranges)
        levels = np.clip(np.rint(rows * 127), -128, 127) + 128
    else:
        starts, steps = _steps(calibrate(rows) if ranges is None else check_ranges(ranges, rows.shape[-1]))
        levels = np.clip(np.floor((rows - starts) / steps), 0, _LEVELS)
    values: NDArray[Any] = levels.astype(np.uint8) if dtype == "uint8" else (levels - 128).astype(np.int8)
    return values


def dequantize(values: ArrayLike, dim: int, ranges: Ranges = None) -> Floats:
    """What is left of vectors after `quantize`: float32 (..., dim); of signs 1 and -1.

    Args:
        values: what `quantize` returned.
        dim: the size of the vectors before.
        ranges: as for `quantize`; not for signs and floats.

    Raises:
        ValueError: the shape fits no type, or ranges are missing.
    """
    rows = np.asarray(values)
    if rows.dtype.kind == "f" and rows.shape[-1] == dim:
        return rows.astype(np.float32)
    if rows.dtype not in (np.dtype(np.int8), np.dtype(np.uint8)):
        raise ValueError(f"values must be float, int8 or uint8 of {dim} dimensions, not {rows.dtype}")
    if rows.shape[-1] == -(-dim // 8) and dim > 1:
        return np.unpackbits(_bits(rows), axis=-1, count=dim).astype(np.float32) * 2 - 1
    if rows.shape[-1] != dim:
        raise ValueError(f"values of {rows.shape[-1]} dimensions do not come from vectors of {dim}")
    levels = rows.astype(np.float32) + (128 if rows.dtype == np.int8 else 0)
    if ranges is None:
        raise ValueError("int8 and uint8 values need the ranges that they were made with")
    if isinstance(ranges, str):
        _check_word(ranges)
        return (levels - 128) / np.float32(127)
    starts, steps = _steps(check_ranges(ranges, dim))
    return levels * steps + starts


def rescore(
    query: ArrayLike,
    vectors: ArrayLike,
    positions: ArrayLike | None = None,
    k: int | None = None,
    *,
    ranges: Ranges = None,
) -> tuple[NDArray[np.int64], Floats]:
    """Candidates ordered anew, by the dot product of the query in float32 and what is left of their vectors.

    Args:
        query: float (dim,).
        vectors: of the documents, in any of the types of `quantize`; an array, also a memory-mapped one.
        positions: (candidates,): the rows to score. None: all.
        k: at most so many are returned. None: all.
        ranges: that int8 or uint8 vectors were made with.

    Returns:
        (positions, best first, and their scores); equal scores keep the order of the candidates.

    Raises:
        ValueError: shapes do not match.
    """
    asked = np.asarray(query, np.float32)
    if asked.ndim != 1:
        raise ValueError(f"query must have the shape (dim,), not {asked.shape}")
    rows: Any = np.asanyarray(vectors)
    if rows.ndim != 2:
        raise ValueError(f"vectors must have the shape (documents, dim), not {rows.shape}")
    found = np.arange(len(rows)) if positions is None else np.asarray(positions, np.int64)
    scores = dequantize(rows[found], len(asked), ranges) @ asked
    order = np.argsort(-scores, kind="stable")[: None if k is None else inputs.positive(k, "k")]
    return found[order], scores[order]


def search(
    query: ArrayLike,
    vectors: ArrayLike,
    k: int = 10,
    *,
    ranges: Ranges = None,
    oversample: int = 4,
    rescore_with: ArrayLike | None = None,
) -> tuple[NDArray[np.int64], Floats]:
    """The nearest documents: signs first by Hamming distance, then `k * oversample` of them by `rescore`.

    Args:
        query: float (dim,).
        vectors: of the documents; those of 8 bits or more are all scored by `rescore`.
        k: how many are returned, at most.
        ranges: that int8 or uint8 vectors were made with.
        oversample: how many candidates the first step finds for each result.
        rescore_with: vectors of the same documents in another type (int8, on disk), to order candidates by.

    Returns:
        (positions, best first, and their scores).

    Raises:
        ValueError: shapes do not match, or a number is out of range.
    """
    asked, rows = np.asarray(query, np.float32), np.asanyarray(vectors)
    wanted = inputs.positive(k, "k") * inputs.positive(oversample, "oversample")
    if rows.ndim == 2 and rows.dtype.kind in "iu" and asked.ndim == 1 and rows.shape[1] == -(-len(asked) // 8):
        apart = _BITS[np.bitwise_xor(_bits(rows), np.packbits(asked > 0))].sum(axis=1, dtype=np.int64)
        candidates: NDArray[np.int64] | None = np.argsort(apart, kind="stable")[:wanted]
    elif rescore_with is None:
        candidates = None
    else:
        candidates = rescore(asked, rows, None, wanted, ranges=ranges)[0]
    return rescore(asked, rows if rescore_with is None else rescore_with, candidates, k, ranges=ranges)


def check_ranges(ranges: ArrayLike, dim: int | None) -> Floats:
    """Ranges as float32 (2, dim).

    Raises:
        ValueError: the shape is another, a value is not finite, or a least one is above the greatest.
    """
    rows = np.asarray(ranges, np.float32)
    if rows.ndim != 2 or len(rows) != 2 or (dim is not None and rows.shape[1] != dim):
        raise ValueError(f"ranges must have the shape (2, {dim or 'dim'}), not {rows.shape}")
    if not np.isfinite(rows).all() or (rows[0] > rows[1]).any():
        raise ValueError("ranges must be finite: the least value of each dimension, then the greatest")
    return rows


def _check_word(ranges: str) -> None:
    if ranges != UNIT:
        raise ValueError(f"ranges must be an array of the shape (2, dim), or 'unit', not {ranges!r}")


def _steps(ranges: Floats) -> tuple[Floats, Floats]:
    starts = ranges[0]
    steps = (ranges[1] - starts) / np.float32(_LEVELS)
    return starts, np.where(steps == 0, np.float32(1), steps)


def _bits(packed: NDArray[Any]) -> NDArray[np.uint8]:
    """Signs as uint8, also of "binary"."""
    return packed if packed.dtype == np.uint8 else packed.view(np.uint8) ^ np.uint8(0x80)
