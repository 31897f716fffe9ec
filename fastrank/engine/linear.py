"""Linear layers over token states, whose weights lie beside a model or in its checkpoint, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastrank.engine.pooling import Floats
from fastrank.errors import ModelLoadError
from fastrank.graph import checkpoint
from fastrank.graph.safetensors import read_float32
from fastrank.models import torch_file
from fastrank.models.token_heads import TokenHead

Linear: TypeAlias = Callable[[Floats], Floats]

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def linear(head: TokenHead) -> Linear:
    """The function (..., hidden) -> (..., outputs), float32; weights are cast to that.

    Raises:
        ModelLoadError: the weights are missing or damaged, or have other shapes; at a run, states have another size.
    """
    weight, bias = _of_checkpoint(head) if head.path.is_dir() else _of_torch(head)
    if weight.ndim != 2 or weight.shape[0] != head.outputs or bias.shape != (head.outputs,):
        raise ModelLoadError(
            f"{head.path}: weight and bias have the shapes {weight.shape} and {bias.shape}; expected are "
            f"({head.outputs}, hidden) and ({head.outputs},)"
        )
    columns = np.ascontiguousarray(weight.T)

    def run(states: Floats) -> Floats:
        if states.shape[-1] != len(columns):
            raise ModelLoadError(f"{head.path} takes states of {len(columns)} features, not {states.shape[-1]}")
        values: Floats = states @ columns + bias
        return values

    return run


def _of_torch(head: TokenHead) -> tuple[Floats, Floats]:
    tensors = torch_file.read_header(head.path)
    if tensors.keys() != {"weight", "bias"}:
        raise ModelLoadError(f"{head.path} has the tensors {', '.join(tensors)}; a linear layer has weight and bias")
    return _read(head, tensors["weight"]), _read(head, tensors["bias"])


def _read(head: TokenHead, tensor: torch_file.TorchTensor) -> Floats:
    values = np.frombuffer(torch_file.read_bytes(head.path, tensor), _DTYPES[tensor.dtype]).reshape(tensor.shape)
    if tensor.dtype == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    floats: Floats = values.astype(np.float32)
    return floats


def _of_checkpoint(head: TokenHead) -> tuple[Floats, Floats]:
    found = checkpoint.read(head.path)
    names = "classifier.weight", "classifier.bias"
    if missing := [name for name in names if name not in found.tensors]:
        raise ModelLoadError(f"{found.path} has no tensor {missing[0]}, which would weigh the tokens")
    weight, bias = (read_float32(name, found.tensors[name]) for name in names)
    return weight, bias
