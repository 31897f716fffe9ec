"""What a sentence-transformers folder puts on top of its transformer: Pooling, Dense, LayerNorm, Normalize.

A model there is a list of modules (`modules.json`), each with a folder of its own. Those after the transformer are
small products over one vector a text, done here in numpy. Reimers & Gurevych, 2019; sentence-transformers 6.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank import heads
from fastrank.errors import ModelLoadError
from fastrank.graph.safetensors import read_header
from fastrank.heads import Floats
from fastrank.schedule import Batch

Step: TypeAlias = Callable[[Floats], Floats]

_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last-token"}
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
_DTYPES = {"F32": "<f4", "F16": "<f2"}


def chain(folder: Path) -> heads.Pooling:
    """The modules after the transformer as one head: (texts, length, hidden) -> (texts, dim), float32.

    Raises:
        ModelLoadError: a file is missing or damaged, or a module or setting is one that is not known here.
    """
    listed = _read(folder / "modules.json")
    if not isinstance(listed, list) or not listed:
        raise ModelLoadError(f"{folder / 'modules.json'} is no list of modules")
    try:
        kinds = [(str(row["type"]).rpartition(".")[2], str(row["path"])) for row in listed]
    except (TypeError, KeyError) as error:
        raise ModelLoadError(f"{folder / 'modules.json'}: a module without type or path") from error
    if kinds[0][0] != "Transformer" or len(kinds) < 2 or kinds[1][0] != "Pooling":  # noqa: PLR2004
        raise ModelLoadError(f"{folder / 'modules.json'} does not begin with Transformer and Pooling")
    pool = _pooling(_inside(folder, kinds[1][1]))
    steps = [_step(kind, _inside(folder, path)) for kind, path in kinds[2:]]

    def head(output: Floats, batch: Batch) -> Floats:
        rows = pool(output, batch)
        for step in steps:
            rows = step(rows)
        return rows

    return head


def _inside(folder: Path, path: str) -> Path:
    place = (folder / path).resolve()
    if folder.resolve() not in place.parents:
        raise ModelLoadError(f"{folder / 'modules.json'}: the path {path!r} leads out of the folder")
    return place


def _pooling(folder: Path) -> heads.Pooling:
    config = _read(folder / "config.json")
    mode = config.get("pooling_mode")
    if mode is None:
        active = [new for old, new in _OLD_POOLINGS.items() if config.get(old)]
        mode = active[0] if len(active) == 1 else active
    if mode not in _POOLINGS:
        raise ModelLoadError(f"{folder / 'config.json'}: pooling {mode!r}; known are {', '.join(_POOLINGS)}")
    return heads.POOLINGS[_POOLINGS[mode]]


def _step(kind: str, folder: Path) -> Step:
    if kind == "Dense":
        return _dense(folder)
    if kind == "LayerNorm":
        return _layer_norm(folder)
    if kind == "Normalize":
        return heads.unit
    raise ModelLoadError(
        f"{folder.parent / 'modules.json'}: unknown module {kind}; known are Dense, LayerNorm, Normalize"
    )


def _dense(folder: Path) -> Step:
    config = _read(folder / "config.json")
    if config.get("use_residual"):
        raise ModelLoadError(f"{folder / 'config.json'}: use_residual is not supported")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise ModelLoadError(f"{folder / 'config.json'}: activation {name!r}; known are {', '.join(_ACTIVATIONS)}")
    tensors, activation = _tensors(folder / "model.safetensors"), _ACTIVATIONS[name]
    weight = _tensor(tensors, "linear.weight", folder).T
    bias = (
        _tensor(tensors, "linear.bias", folder) if config.get("bias", True) else np.zeros(weight.shape[1], np.float32)
    )
    return lambda rows: activation(rows @ weight + bias)


def _layer_norm(folder: Path) -> Step:
    tensors = _tensors(folder / "model.safetensors")
    weight, bias = _tensor(tensors, "norm.weight", folder), _tensor(tensors, "norm.bias", folder)

    def norm(rows: Floats) -> Floats:
        centred = rows - rows.mean(axis=1, keepdims=True)
        scaled: Floats = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))
        return scaled * weight + bias

    return norm


def _gelu(rows: Floats) -> Floats:
    """Half of x * (1 + erf(x / sqrt 2)), with erf by Abramowitz & Stegun 7.1.26, to 1.5e-7; numpy has none."""
    scaled = np.abs(rows.astype(np.float64)) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * scaled)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - series * np.exp(-scaled * scaled), rows)
    values: Floats = (rows * (1 + erf) / 2).astype(np.float32)
    return values


_ACTIVATIONS: dict[str, Step] = {
    "GELU": _gelu,
    "Identity": lambda rows: rows,
    "ReLU": lambda rows: np.maximum(rows, np.float32(0)),
    "Tanh": np.tanh,
}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


def _tensors(path: Path) -> dict[str, Floats]:
    header = read_header(path)
    found = {}
    for name, tensor in header.items():
        if tensor.dtype not in _DTYPES:
            raise ModelLoadError(f"{path}: {name} is {tensor.dtype}; known are {', '.join(_DTYPES)}")
        values: NDArray[Any] = np.fromfile(
            path, _DTYPES[tensor.dtype], int(np.prod(tensor.shape)), offset=tensor.offset
        )
        found[name] = values.reshape(tensor.shape).astype(np.float32)
    return found


def _tensor(tensors: dict[str, Floats], name: str, folder: Path) -> Floats:
    if name not in tensors:
        raise ModelLoadError(f"{folder / 'model.safetensors'} has no tensor {name}")
    return tensors[name]
