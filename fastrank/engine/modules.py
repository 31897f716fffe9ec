"""The modules after a transformer (pooling, Dense, LayerNorm, Normalize), computed in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fastrank.engine import pooling
from fastrank.engine.batching import Batch
from fastrank.engine.pooling import Floats
from fastrank.errors import ModelLoadError
from fastrank.graph.safetensors import Tensor, read_float32, read_header
from fastrank.models.modules import Dense, LayerNorm, Pooled, Step, WeightedLayers

Function: TypeAlias = Callable[[Floats], Floats]


def head(modules: Pooled) -> pooling.Pooling:
    """(texts, tokens, hidden) -> (texts, dim), float32; a final Normalize is left to the caller.

    With `modules.layers`, (texts, tokens, layers, hidden).

    Raises:
        ModelLoadError: weights of a module are missing or damaged; at a run, what pooling returns has another width
            than the files say.
    """
    pool = _concatenated([pooling.POOLINGS[name] for name in modules.poolings])
    before, after = function(modules.token_steps), function(modules.steps)
    layers = _layers(modules.layers) if modules.layers else _identity

    def run(output: Floats, batch: Batch) -> Floats:
        output = layers(output)
        if modules.token_steps:
            output = before(output.reshape(-1, output.shape[-1])).reshape(*output.shape[:-1], -1)
        rows = pool(output, batch)
        if modules.width not in (None, rows.shape[1]):
            raise ModelLoadError(
                f"Pooling returns {rows.shape[1]} features per text; the model's files say {modules.width}"
            )
        return after(rows)

    return run


def function(steps: Sequence[Step]) -> Function:
    """The modules one after the other, (rows, features) -> (rows, features of the last).

    Raises:
        ModelLoadError: weights of a module are missing or damaged.
    """
    functions = [_function(step) for step in steps]

    def run(rows: Floats) -> Floats:
        for each in functions:
            rows = each(rows)
        return rows

    return run


def table(folder: Path) -> Floats:
    """The weights of a SparseStaticEmbedding, one a token of the vocabulary: float32 (vocabulary,).

    Raises:
        ModelLoadError: they are missing or damaged.
    """
    return _Weights(folder).vector("weight")


def _concatenated(pools: list[pooling.Pooling]) -> pooling.Pooling:
    if len(pools) == 1:
        return pools[0]
    return lambda output, batch: np.concatenate([pool(output, batch) for pool in pools], axis=1)


def _layers(layers: WeightedLayers) -> Function:
    """(texts, tokens, layers, hidden) -> (texts, tokens, hidden): the weighted mean of some layers."""
    weights = _Weights(layers.folder).read("layer_weights", (layers.last + 1 - layers.start,))
    total = weights.sum()

    def run(output: Floats) -> Floats:
        if output.shape[2] != layers.last + 1:
            raise ModelLoadError(
                f"{layers.folder} averages {layers.last} layers; the transformer has {output.shape[2] - 1}"
            )
        averaged: Floats = np.einsum("l,btlh->bth", weights, output[:, :, layers.start :]) / total
        return averaged

    return run


def _function(step: Step) -> Function:
    if isinstance(step, Dense):
        return _dense(step)
    return _layer_norm(step) if isinstance(step, LayerNorm) else pooling.unit


def _dense(dense: Dense) -> Function:
    weights, shape = _Weights(dense.folder), (dense.out_features, dense.in_features)
    weight = weights.read("linear.weight", shape).T
    bias = weights.read("linear.bias", shape[:1]) if dense.bias else np.float32(0)
    activation = _ACTIVATIONS[dense.activation]

    def project(rows: Floats) -> Floats:
        return activation(rows @ weight + bias)

    if not dense.residual:
        return project
    if shape[0] == shape[1]:
        return lambda rows: project(rows) + rows
    residual = weights.read("residual.weight", shape).T
    return lambda rows: project(rows) + rows @ residual


def _layer_norm(norm: LayerNorm) -> Function:
    weights = _Weights(norm.folder)
    weight, bias = weights.read("norm.weight", (norm.size,)), weights.read("norm.bias", (norm.size,))

    def normalize(rows: Floats) -> Floats:
        centred = rows - rows.mean(axis=1, keepdims=True)
        scaled: Floats = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))
        return scaled * weight + bias

    return normalize


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


def _elu(rows: Floats) -> Floats:
    return np.where(rows > 0, rows, np.expm1(np.minimum(rows, np.float32(0))))


def _selu(rows: Floats) -> Floats:
    """Klambauer et al. 2017, arXiv:1706.02515."""
    alpha, scale = np.float32(1.6732632423543772), np.float32(1.0507009873554805)
    negative = alpha * np.expm1(np.minimum(rows, np.float32(0)))
    return scale * np.where(rows > 0, rows, negative)


def _sigmoid(rows: Floats) -> Floats:
    values: Floats = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * rows))  # does not overflow
    return values


def _softplus(rows: Floats) -> Floats:
    return np.logaddexp(rows, np.float32(0))


def _hardsigmoid(rows: Floats) -> Floats:
    values: Floats = np.clip(rows / np.float32(6) + np.float32(0.5), 0, 1).astype(np.float32)
    return values


_ACTIVATIONS: dict[str, Function] = {
    "celu": _elu,  # the same where alpha is 1
    "elu": _elu,
    "gelu": _gelu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda rows: rows * _hardsigmoid(rows),
    "hardtanh": lambda rows: np.clip(rows, np.float32(-1), np.float32(1)),
    "identity": _identity,
    "leaky_relu": lambda rows: np.where(rows > 0, rows, np.float32(0.01) * rows),
    "mish": lambda rows: rows * np.tanh(_softplus(rows)),
    "relu": lambda rows: np.maximum(rows, np.float32(0)),
    "relu6": lambda rows: np.clip(rows, np.float32(0), np.float32(6)),
    "selu": _selu,
    "sigmoid": _sigmoid,
    "silu": lambda rows: rows * _sigmoid(rows),
    "softplus": _softplus,
    "softsign": lambda rows: rows / (1 + np.abs(rows)),
    "tanh": np.tanh,
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
        tensor = self._tensor(name)
        if tensor.shape != shape:
            raise ModelLoadError(f"{self._path}: {name} has the shape {tensor.shape}; config.json asks for {shape}")
        return read_float32(name, tensor)

    def vector(self, name: str) -> Floats:
        """A tensor of one dimension, of any size."""
        tensor = self._tensor(name)
        if len(tensor.shape) != 1 or not tensor.shape[0]:
            raise ModelLoadError(f"{self._path}: {name} has the shape {tensor.shape}; one size is expected")
        return read_float32(name, tensor)

    def _tensor(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ModelLoadError(f"{self._path} has no tensor {name}")
        return self._tensors[name]
