"""From a checkpoint to int8 weights: once per model, in about a second, with numpy.

Weights become signed int8 with one scale per output channel; large embedding tables get one scale per row; everything
else is copied unchanged. The new file needs no other and has about a quarter of the size. For what is smoothed, and
why, see `graph.quantized_matmul`.
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

VERSION = 2  # of the int8 file's format: part of its name, so that a new version makes a new file
_LEVELS = 127
_LARGE_TABLE = 1000  # rows: word embeddings, and position embeddings where a model has thousands
_ROWS = 4096  # of a table converted at a time
_LEAST = 1e-5  # lower bound of a channel's magnitude: it must not be 0

Tensors: TypeAlias = "dict[str, tuple[str, NDArray[Any]]]"  # by name: dtype, as safetensors calls it, and values


def file_name(head: str) -> str:
    """The file name of the int8 checkpoint for a head of `graph.build`."""
    return f"int8-{head}-{VERSION}.safetensors"


def is_made(name: str) -> bool:
    """Whether a file name is that of an int8 checkpoint, of any version."""
    return re.fullmatch(r"int8-[a-z-]+-\d+\.safetensors", name) is not None


def is_whole(path: Path) -> bool:
    """Whether an int8 checkpoint is complete, judged by its header."""
    try:
        return bool(read_header(path))
    except ModelLoadError:
        return False


def quantize(checkpoint: Path, head: str, tokenizer: Tokenizer, target: Path, threads: int | None = None) -> None:
    """Write the int8 form of a checkpoint, with the tensors that `head` needs, to the file `target`.

    `checkpoint` is the safetensors file or the index of its shards; config.json is in the same folder.

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
        factors[group] = np.sqrt(np.maximum(of_weights, _LEAST) / np.maximum(of_values, _LEAST)).astype(np.float32)
    return factors


def _ranges(checkpoint: Path, recipe: graph.Recipe, tokenizer: Tokenizer, threads: int | None) -> Floats:
    """The largest magnitude of each smoothed channel over calibration texts of all kinds."""
    texts = packaged_text("fastrank.engine", "calibration.txt").splitlines()
    session = Session(Model(checkpoint, lambda: recipe.graph), Options(threads, cuda=False))
    tokens = tokenizer.encode(texts)
    batches = (collate(tokens, [position], tokenizer.pad_id) for position in range(len(texts)))
    return functools.reduce(np.maximum, (session.run(batch, graph.RANGES) for batch in batches))


def _rounded(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """(rows, columns) as int8, and the scale of each row."""
    scale = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-12)) / np.float32(_LEVELS)
    with np.errstate(invalid="ignore"):  # damaged weights: the first run says so
        return np.rint(weight / scale[:, None]).astype(np.int8), scale


def _rounded_table(name: str, tensor: graph.Tensor) -> tuple[NDArray[np.int8], Floats]:
    """The same for a large table, a part at a time: in float32 it may take a gigabyte."""
    starts = range(0, tensor.shape[0], _ROWS)
    rows, scales = zip(*(_rounded(read_float32(name, tensor, slice(at, at + _ROWS))) for at in starts), strict=True)
    return np.concatenate(rows), np.concatenate(scales)


def _write(tensors: Tensors, target: Path) -> None:
    """Write a safetensors file. Larger item sizes go first, so that all tensors are aligned."""
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
