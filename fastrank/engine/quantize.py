"""From a checkpoint to 8-bit or 4-bit weights: once per model, with numpy; in 8 bits in about a second.

Weights become integers, in 8 bits with one scale per output channel, in 4 bits with a scale and a zero point per
block; large embedding tables get one scale per row in 8 bits; everything else is copied unchanged. The new file needs
no other. For what is smoothed, and why, see `graph.quantized_matmul`. How near the result is to the checkpoint is
measured on the calibration texts, and the file says it.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank import graph
from fastrank.engine.batching import collate
from fastrank.engine.options import Options
from fastrank.engine.pooling import Floats
from fastrank.engine.session import Model, Session
from fastrank.engine.tokenizer import Tokenizer
from fastrank.environment import packaged_text
from fastrank.errors import ModelLoadError
from fastrank.graph.builder import INT4
from fastrank.graph.quantized_matmul import BLOCK
from fastrank.graph.safetensors import read_bytes, read_float32, read_header, read_metadata

INT8, UINT8, IN_INT4 = "int8", "uint8", "int4"
VERSION = 2  # of the file's format: part of its name, so that a new version makes a new file
_LEVELS = 127
_LARGE_TABLE = 1000  # rows: word embeddings, and position embeddings where a model has thousands
_ROWS = 4096  # of a table converted at a time
_LEAST = 1e-5  # lower bound of a channel's magnitude: it must not be 0
_SHRUNK = (1.0, 0.9, 0.8)  # ranges tried for a block in 4 bits: its extremes may be worth cutting off

Piece: TypeAlias = "tuple[str, str, NDArray[Any]]"  # a tensor: name, dtype as safetensors calls it, values


class Nearness(NamedTuple):
    """How near a quantized model's token states are to the float32 ones, over the calibration texts.

    Attributes:
        mean: cosine over all tokens.
        least: of a token.
    """

    mean: float
    least: float


def file_name(head: str, form: str = INT8) -> str:
    """The file name of the quantized checkpoint for a head of `graph.build`: form is `INT8`, `UINT8` or `IN_INT4`."""
    return f"{form}-{head}-{VERSION}.safetensors"


def form_of(name: str) -> str | None:
    """The form of a quantized checkpoint of any version, by its file name; None: it is not one."""
    found = re.fullmatch(r"(u?int8|int4)-[a-z-]+-\d+\.safetensors", name)
    return found[1] if found else None


def is_whole(path: Path) -> bool:
    """Whether an int8 checkpoint is complete, judged by its header."""
    try:
        return bool(read_header(path))
    except ModelLoadError:
        return False


def nearness(path: Path) -> Nearness | None:
    """What was measured when a quantized checkpoint was made; None: it is of a version that did not measure."""
    found = read_metadata(path)
    try:
        return Nearness(float(found["cosine"]), float(found["least"]))
    except (KeyError, ValueError):
        return None


def quantize(
    checkpoint: Path, head: str, tokenizer: Tokenizer, target: Path, threads: int | None = None, form: str = INT8
) -> None:
    """Write a quantized form of a checkpoint, with the tensors that `head` needs, to the file `target`.

    `checkpoint` is the safetensors file or the index of its shards; config.json is in the same folder.

    Raises:
        ModelLoadError: the checkpoint cannot be used.
        OSError: `target` cannot be written.
    """
    recipe = graph.recipe(checkpoint.parent, head)
    smoothing = _smoothing(recipe, lambda: _ranges(checkpoint, recipe, tokenizer, threads))
    header = write(_quantized(recipe, smoothing, form), target, recipe.tensors)
    header.write(target, _measured(checkpoint, target, tokenizer, threads, form))
    return_memory()


def change_sign(source: Path, target: Path) -> None:
    """Write the `UINT8` form of an `INT8` checkpoint to the file `target`, or the other way round.

    Raises:
        ModelLoadError: `source` cannot be read.
        OSError: `target` cannot be written.
    """
    header = read_header(source)
    other = {"I8": "U8", "U8": "I8"}

    def tensors() -> Iterator[Piece]:
        for name, tensor in header.items():
            if f"{name}.scale" in header and not name.endswith(".rows"):
                yield name, other[tensor.dtype], shifted(read_bytes(name, tensor))
            elif tensor.dtype in other:
                yield name, tensor.dtype, read_bytes(name, tensor)
            else:
                yield name, tensor.dtype, read_float32(name, tensor)

    write(tensors(), target, header).write(target, nearness(source))


def _quantized(recipe: graph.Recipe, smoothing: dict[tuple[str, ...], Floats], form: str) -> Iterator[Piece]:
    """The tensors of the new file, one after the other: all of them together may take gigabytes."""
    weights = {name for group in recipe.matmul_groups for name in group}
    for name, tensor in recipe.tensors.items():
        if name in recipe.embedding_tables and (tensor.shape[0] >= _LARGE_TABLE or name in weights):
            rows, scale = rounded_table(name, tensor)
            yield f"{name}.rows", "I8", rows
            yield f"{name}.rows.scale", "F32", scale
        elif name not in weights:
            yield name, "F32", read_float32(name, tensor)  # cast once, not at every run
    for group in recipe.matmul_groups:
        for name in group:
            weight = read_float32(name, recipe.tensors[name])
            if group in smoothing:
                weight /= smoothing[group]
                yield f"{name}.smooth", "F32", smoothing[group]
            if form == IN_INT4:
                packed, scale, zero = in_blocks(weight)
                yield name + INT4, "U8", packed
                yield f"{name}.zero", "U8", zero
            else:
                rows, scale = rounded(weight)
                yield (name, "I8", rows.T) if form == INT8 else (name, "U8", shifted(rows.T))
            yield f"{name}.scale", "F32", scale


def _smoothing(recipe: graph.Recipe, ranges: Callable[[], Floats]) -> dict[tuple[str, ...], Floats]:
    """By matmul group: factors for each input channel, so that activations and weights are equally hard to quantize.

    SmoothQuant (Xiao et al. 2022, arXiv:2211.10438) with a strength of 0.5.
    """
    if not recipe.smoothed_groups:
        return {}
    sizes = [recipe.tensors[group[0]].shape[1] for group in recipe.smoothed_groups]
    largest = np.split(ranges(), np.cumsum(sizes)[:-1])
    factors = {}
    for group, of_values in zip(recipe.smoothed_groups, largest, strict=True):
        of_weights = np.max([np.abs(read_float32(name, recipe.tensors[name])).max(axis=0) for name in group], axis=0)
        factors[group] = smoothing_factors(of_weights, of_values)
    return factors


def smoothing_factors(of_weights: Floats, of_values: Floats) -> Floats:
    """What multiplies an activation and divides its weights, from the largest magnitudes of each channel."""
    return np.sqrt(np.maximum(of_weights, _LEAST) / np.maximum(of_values, _LEAST)).astype(np.float32)


def _ranges(checkpoint: Path, recipe: graph.Recipe, tokenizer: Tokenizer, threads: int | None) -> Floats:
    """The largest magnitude of each smoothed channel over calibration texts of all kinds."""
    session = Session(Model(checkpoint, lambda: recipe.graph), Options(threads, cuda=False))
    tokens = tokenizer.encode(texts())
    batches = (collate(tokens, [position], tokenizer.pad_id) for position in range(len(tokens)))
    return functools.reduce(np.maximum, (session.run(batch, graph.RANGES) for batch in batches))


def _measured(checkpoint: Path, made: Path, tokenizer: Tokenizer, threads: int | None, form: str) -> Nearness | None:
    """How near the states of an encoder are; None: the architecture has no states of tokens."""
    folder, options = checkpoint.parent, Options(threads, cuda=False)
    if "encoder" not in graph.supported_heads(graph.model_type(folder)):
        return None
    tokens = tokenizer.encode(texts())
    batches = [collate(tokens, [position], tokenizer.pad_id) for position in range(len(tokens))]
    activations = graph.ActivationQuantization(of_int4=form == IN_INT4)
    builds = (
        (checkpoint, functools.partial(graph.build, folder)),
        (made, functools.partial(graph.build, folder, weights=made, activations=activations)),
    )
    states = []
    for path, build in builds:  # one after the other, so that only one of them is in memory
        session = Session(Model(path, build), options)
        states.append([session.run(batch, graph.OUTPUT["encoder"])[0] for batch in batches])
        del session
    cosines = np.concatenate([cosine(*pair) for pair in zip(*states, strict=True)])
    return Nearness(float(cosines.mean()), float(cosines.min()))


def cosine(one: Floats, other: Floats) -> NDArray[np.float64]:
    """The cosine of each row to that of the other; 0 where one has no direction."""
    first, second = (each.astype(np.float64) for each in (one, other))
    with np.errstate(invalid="ignore"):
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        cosines: NDArray[np.float64] = (first * second).sum(axis=-1) / np.where(lengths > 0, lengths, 1)
    return cosines


def return_memory() -> None:
    """Let glibc return to the system what the sessions in float32 have freed: it keeps two thirds of it otherwise."""
    import ctypes

    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def texts() -> list[str]:
    """The calibration texts, of many kinds."""
    return packaged_text("fastrank.engine", "calibration.txt").splitlines()


def rounded(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """(rows, columns) as int8, and the scale of each row."""
    scale = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-12)) / np.float32(_LEVELS)
    with np.errstate(invalid="ignore"):  # damaged weights: the first run says so
        return np.rint(weight / scale[:, None]).astype(np.int8), scale


def rounded_table(name: str, tensor: graph.Tensor) -> tuple[NDArray[np.int8], Floats]:
    """The same for a large table, a part at a time: in float32 it may take a gigabyte."""
    starts = range(0, tensor.shape[0], _ROWS)
    rows, scales = zip(*(rounded(read_float32(name, tensor, slice(at, at + _ROWS))) for at in starts), strict=True)
    return np.concatenate(rows), np.concatenate(scales)


def shifted(values: NDArray[Any]) -> NDArray[np.uint8]:
    """From signed bytes to unsigned ones with 128 as their zero point, and back; as bits."""
    return np.ascontiguousarray(values).view(np.uint8) ^ np.uint8(128)


def in_blocks(weight: Floats) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8]]:
    """(rows, columns) in 4 bits, the scale and the zero point of each block, as `graph.quantized_matmul` lays them out.

    Of a few ranges, each block takes the one whose squared error is least.
    """
    rows, columns = weight.shape
    blocks = -(-columns // BLOCK)
    values = np.pad(weight, ((0, 0), (0, blocks * BLOCK - columns))).reshape(rows, blocks, BLOCK)
    low, high = (np.minimum(values.min(axis=2), 0), np.maximum(values.max(axis=2), 0))
    best = np.full((rows, blocks), np.inf, np.float32)
    scale, zero = np.ones_like(best), np.zeros_like(best)
    with np.errstate(invalid="ignore"):  # damaged weights: the first run says so
        for part in _SHRUNK:
            scales = np.maximum((high - low) * np.float32(part / 15), np.float32(1e-12))
            zeros = np.clip(np.rint(-low * np.float32(part) / scales), 0, 15)
            steps = _steps(values, scales, zeros)
            errors = np.square((steps - zeros[..., None]) * scales[..., None] - values).sum(axis=2)
            better = errors < best
            best, scale, zero = (
                np.where(better, new, old) for new, old in ((errors, best), (scales, scale), (zeros, zero))
            )
        steps = _steps(values, scale, zero)
    return _in_pairs(steps), scale.ravel(), _in_pairs(np.pad(zero, ((0, 0), (0, blocks % 2)))).ravel()


def _in_pairs(values: Floats) -> NDArray[np.uint8]:
    """Two numbers below 16 to a byte, the first in the lower half."""
    with np.errstate(invalid="ignore"):
        numbers = values.astype(np.uint8)
    pairs: NDArray[np.uint8] = numbers[..., 0::2] | numbers[..., 1::2] << np.uint8(4)
    return pairs


def _steps(values: Floats, scales: Floats, zeros: Floats) -> Floats:
    steps: Floats = np.clip(np.rint(values / scales[..., None]) + zeros[..., None], 0, 15)
    return steps


def write(tensors: Iterator[Piece], target: Path, names: Iterable[str]) -> _Header:
    """Write a safetensors file as its tensors come; `names` are those they are made from, at most four of each.

    Bytes go to the file at once; what is wider is little, and follows, so that it is aligned. The header stands first,
    in more room than it needs.
    """
    room = sum(4 * (len(name) + 130) for name in names) + 200
    header = _Header({}, room - room % 8)
    wider: list[Piece] = []
    end = 0

    def place(name: str, dtype: str, values: NDArray[Any]) -> None:
        nonlocal end
        file.write(np.ascontiguousarray(values).data)
        header.entries[name] = {
            "dtype": dtype,
            "shape": values.shape,
            "data_offsets": [end, end := end + values.nbytes],
        }

    with target.open("wb") as file:
        file.seek(8 + header.room)
        for name, dtype, values in tensors:
            if values.itemsize == 1:
                place(name, dtype, values)
            else:
                wider.append((name, dtype, values))
        if end % 8:
            place("padding", "U8", np.zeros(-end % 8, np.uint8))
        for name, dtype, values in sorted(wider, key=lambda piece: -piece[2].itemsize):
            place(name, dtype, values)
    header.write(target)
    return header


class _Header(NamedTuple):
    """Of a file that is being made: its tensors, and the bytes that it has in the file."""

    entries: dict[str, Any]
    room: int

    def write(self, target: Path, near: Nearness | None = None) -> None:
        """Write it, with what was measured, into the file whose tensors are written."""
        facts = {"cosine": f"{near.mean:.5f}", "least": f"{near.least:.5f}"} if near else {}
        text = json.dumps({"__metadata__": facts, **self.entries}).encode()
        with target.open("rb+") as file:
            file.write(self.room.to_bytes(8, "little") + text.ljust(self.room))
