"""From a checkpoint to the same in int8: once a model, in about a second, with numpy.

Weights are rounded to 8 bits, signed, by a scale an output; large tables, such as those of words, by a scale a row; all
else is copied as it is. So the new file stands alone and has about a quarter of the bytes. What is smoothed, and why:
see `graph.quantized_matmul`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

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
from fastrank.graph.safetensors import read_float32, read_header

VERSION = 2  # of what is made here: part of the file's name, so that a newer one is made anew
_LEVELS = 127
_LARGE_TABLE = 1000  # rows, as those of words, and of positions where a model has thousands
_ROWS = 4096  # of a table that are float32 at a time
_LEAST = 1e-5  # what a channel is taken to reach: none may be 0

Tensors: TypeAlias = "dict[str, tuple[str, NDArray[Any]]]"  # by name: dtype, as safetensors calls it, and values


def file_name(head: str) -> str:
    """What the int8 checkpoint for a head of `graph.build` is called."""
    return f"int8-{head}-{VERSION}.safetensors"


def is_made(name: str) -> bool:
    """Whether a file is called like a checkpoint that was made here, by any version."""
    return re.fullmatch(r"int8-[a-z-]+-\d+\.safetensors", name) is not None


def is_whole(path: Path) -> bool:
    """Whether an int8 checkpoint is all there, as far as its header says."""
    try:
        return bool(read_header(path))
    except ModelLoadError:
        return False


def quantize(checkpoint: Path, head: str, tokenizer: Tokenizer, target: Path, threads: int | None = None) -> None:
    """Write a checkpoint in int8, as far as `head` needs it, to the file `target`.

    `checkpoint` is the safetensors file or the index of its shards; config.json lies beside it.

    Raises:
        ModelLoadError: the checkpoint cannot be used.
        OSError: `target` cannot be written.
    """
    recipe = graph.recipe(checkpoint.parent, head)
    weights = {name for group in recipe.matmul_groups for name in group}
    made: Tensors = {}
    for name, tensor in recipe.tensors.items():
        if name in recipe.embedding_tables and (tensor.shape[0] >= _LARGE_TABLE or name in weights):
            rows, scale = _rounded_table(name, tensor)
            made |= {f"{name}.rows": ("I8", rows), f"{name}.rows.scale": ("F32", scale)}
        elif name not in weights:
            made[name] = "F32", read_float32(name, tensor)  # cast once, not at every run
    smoothing = _smoothing(recipe, lambda: _ranges(checkpoint, recipe, tokenizer, threads))
    for group in recipe.matmul_groups:
        for name in group:
            weight = read_float32(name, recipe.tensors[name])
            if group in smoothing:
                weight = weight / smoothing[group]
                made[f"{name}.smooth"] = "F32", smoothing[group]
            rows, scale = _rounded(weight)
            made |= {name: ("I8", rows.T), f"{name}.scale": ("F32", scale)}
    _write(made, target)


def _smoothing(recipe: graph.Recipe, ranges: Callable[[], Floats]) -> dict[tuple[str, ...], Floats]:
    """By site: what to multiply each channel of its value by, so that value and weights are equally hard to round.

    SmoothQuant (Xiao et al. 2022, arXiv:2211.10438) with a strength of 0.5.
    """
    if not recipe.smoothed_groups:
        return {}
    sizes = [recipe.tensors[site[0]].shape[1] for site in recipe.smoothed_groups]
    largest = np.split(ranges(), np.cumsum(sizes)[:-1])
    found = {}
    for site, of_values in zip(recipe.smoothed_groups, largest, strict=True):
        of_weights = np.max([np.abs(read_float32(name, recipe.tensors[name])).max(axis=0) for name in site], axis=0)
        found[site] = np.sqrt(np.maximum(of_weights, _LEAST) / np.maximum(of_values, _LEAST)).astype(np.float32)
    return found


def _ranges(checkpoint: Path, recipe: graph.Recipe, tokenizer: Tokenizer, threads: int | None) -> Floats:
    """The largest magnitude of each channel of the values that are smoothed, over some texts of all kinds."""
    texts = packaged_text("fastrank.engine", "calibration.txt").splitlines()
    session = Session(Model(checkpoint, lambda: recipe.graph), Options(threads, cuda=False))
    tokens = tokenizer.encode(texts)
    batches = (collate(tokens, [position], tokenizer.pad_id) for position in range(len(texts)))
    return functools.reduce(np.maximum, (session.run(batch, graph.RANGES) for batch in batches))


def _rounded(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[rows, columns] as int8, and the scale of each row."""
    scale = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-12)) / np.float32(_LEVELS)
    with np.errstate(invalid="ignore"):  # damaged weights: the first run says so
        return np.rint(weight / scale[:, None]).astype(np.int8), scale


def _rounded_table(name: str, tensor: graph.Tensor) -> tuple[NDArray[np.int8], Floats]:
    """The same of a large one, a part at a time: in float32 it may have a gigabyte."""
    starts = range(0, tensor.shape[0], _ROWS)
    rows, scales = zip(*(_rounded(read_float32(name, tensor, slice(at, at + _ROWS))) for at in starts), strict=True)
    return np.concatenate(rows), np.concatenate(scales)


def _write(tensors: Tensors, target: Path) -> None:
    """A safetensors file. Wide items go first, so that all are aligned."""
    order = sorted(tensors, key=lambda name: -tensors[name][1].itemsize)
    header, end = {}, 0
    for name in order:
        dtype, values = tensors[name]
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [end, end := end + values.nbytes]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name][1]).data)
