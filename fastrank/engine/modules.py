"""The modules after a transformer (pooling, Dense, LayerNorm, Normalize), computed in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fastrank.engine import pooling
from fastrank.engine.batching import Batch
from fastrank.engine.pooling import Floats
from fastrank.errors import ModelLoadError
from fastrank.graph.safetensors import Tensor, read_float32, read_header
from fastrank.models.config import Config
from fastrank.models.sentence_transformers import (
    _LIST,
    _POOLINGS,
    _WIDEST,
    Module,
    _pooling,
    _read,
    hidden_size,
    listed,
)

Step: TypeAlias = Callable[[Floats], Floats]
_LIMIT = "sentence_bert_config.json"


@dataclass(frozen=True)
class Chain:
    """The modules after the transformer, as one head.

    Attributes:
        head: (texts, length, hidden) -> (texts, dim), float32; a closing Normalize left out.
        dim: how many numbers a row has; None if no file says so.
        normalize: whether a Normalize closes the list.
    """

    head: pooling.Pooling
    dim: int | None
    normalize: bool


def chain(folder: Path) -> Chain:
    """What a folder puts on its transformer.

    Raises:
        ModelLoadError: a file is missing or damaged, or a module or setting is one that is not known here.
    """
    first, *rest = listed(folder) or [Module("", folder)]
    if first.kind == "StaticEmbedding":
        return _chain(folder, ["mean"], None, rest)
    if first.kind != "Transformer" or not rest or rest[0].kind != "Pooling":
        raise ModelLoadError(f"{folder / _LIST} does not begin with Transformer and Pooling")
    modes, width = _pooling(rest[0].folder)
    return _chain(folder, modes, (width or hidden_size(folder) or 0) * len(modes) or None, rest[1:])


def _chain(folder: Path, modes: list[str], dim: int | None, rest: list[Module]) -> Chain:
    """Poolings, which give rows of `dim` numbers, and the modules after them."""
    normalize = bool(rest) and rest[-1].kind == "Normalize"
    pool, stated, steps = _joined(modes), dim, []
    for kind, place in rest[: -1 if normalize else None]:
        step, dim = _step(kind, place, dim)
        steps.append(step)

    def head(output: Floats, batch: Batch) -> Floats:
        rows = pool(output, batch)
        if stated not in (None, rows.shape[1]):
            raise ModelLoadError(f"{folder}: pooling gives {rows.shape[1]} numbers a text, its files say {stated}")
        for step in steps:
            rows = step(rows)
        return rows

    return Chain(head, dim, normalize)


def _joined(modes: list[str]) -> pooling.Pooling:
    pools = [pooling.POOLINGS[_POOLINGS[mode]] for mode in modes]
    if len(pools) == 1:
        return pools[0]
    return lambda output, batch: np.concatenate([pool(output, batch) for pool in pools], axis=1)


def _step(kind: str, folder: Path, width: int | None) -> tuple[Step, int | None]:
    """A module as a function over rows of `width` numbers, and how many numbers its rows have."""
    if kind == "Dense":
        return _dense(folder, width)
    if kind == "LayerNorm":
        return _layer_norm(folder, width)
    if kind == "Normalize":
        return pooling.unit, width
    if kind == "Dropout":  # for training only
        return _identity, width
    raise ModelLoadError(
        f"{folder.parent / _LIST}: unknown module {kind!r:.100}; known are Pooling, Dense, LayerNorm, Normalize, "
        "Dropout"
    )


def _dense(folder: Path, width: int | None) -> tuple[Step, int]:
    path = folder / "config.json"
    config, fields = Config.read(path), _read(path)
    config.choice("use_residual", [False], default=False)
    config.choice("module_input_name", ["sentence_embedding"], "sentence_embedding")
    inner, outer = (config.integer(field, high=_WIDEST) for field in ("in_features", "out_features"))
    if width not in (None, inner):
        raise config.error("in_features", f"what comes before gives {width} numbers")
    name = str(fields.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.nn.") else None
    if activation is None:
        known = ", ".join(f"torch.nn.{each}" for each in _ACTIVATIONS)
        raise ModelLoadError(f"{path}: activation {name!r:.200}; known are {known}")
    weights = _Weights(folder)
    weight = weights.read("linear.weight", (outer, inner)).T
    biased = config.flag("bias", default=True)
    bias = weights.read("linear.bias", (outer,)) if biased else np.zeros(outer, np.float32)
    return lambda rows: activation(rows @ weight + bias), outer


def _layer_norm(folder: Path, width: int | None) -> tuple[Step, int]:
    size = Config.read(folder / "config.json").integer("dimension", width, high=_WIDEST)
    weights = _Weights(folder)
    weight, bias = weights.read("norm.weight", (size,)), weights.read("norm.bias", (size,))

    def norm(rows: Floats) -> Floats:
        centred = rows - rows.mean(axis=1, keepdims=True)
        scaled: Floats = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))
        return scaled * weight + bias

    return norm, size


def _identity(rows: Floats) -> Floats:
    return rows


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
    "Identity": _identity,
    "ReLU": lambda rows: np.maximum(rows, np.float32(0)),
    "Tanh": np.tanh,
}


class _Weights:
    """The tensors of a module's folder, read as float32."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "model.safetensors"
        if not self._path.is_file() and (folder / "pytorch_model.bin").is_file():
            raise ModelLoadError(
                f"{folder} has its weights in pytorch_model.bin only, a pickle, which runs code when it is read. "
                "fastrank reads safetensors: save the model anew with sentence-transformers 3 or later"
            )
        self._tensors: dict[str, Tensor] = read_header(self._path)

    def read(self, name: str, shape: tuple[int, ...]) -> Floats:
        """A tensor, which must have this shape."""
        if name not in self._tensors:
            raise ModelLoadError(f"{self._path} has no tensor {name}")
        tensor = self._tensors[name]
        if tensor.shape != shape:
            raise ModelLoadError(f"{self._path}: {name} has the shape {tensor.shape}; config.json asks for {shape}")
        return read_float32(name, tensor)
