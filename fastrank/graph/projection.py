"""The head of ColBERT (Khattab and Zaharia 2020, arXiv:2004.12832): hidden states to short, L2-normalized vectors.

Its linear layer lies in the checkpoint itself (`linear.weight`, as ColBERT saves it), or in folders of its own that
`modules.json` lists (Dense of PyLate and of sentence-transformers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.errors import ModelLoadError
from fastrank.graph import blocks, onnx_proto
from fastrank.graph.safetensors import read_header
from fastrank.models.config import Config
from fastrank.models.modules import Dense
from fastrank.models.sentence_transformers import dense_modules

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded

LINEAR: Final = "linear"
_EPSILON: Final = 1e-12  # torch.nn.functional.normalize

_ACTIVATIONS: Final[dict[str, Callable[[Graph, str], str]]] = {
    "celu": lambda graph, x: graph.op("Elu", x),  # the same where alpha is 1
    "elu": lambda graph, x: graph.op("Elu", x),
    "gelu": blocks.gelu,
    "hardsigmoid": lambda graph, x: _clipped(graph, _hardsigmoid(graph, x), 0.0, 1.0),
    "hardswish": lambda graph, x: graph.op("Mul", x, _clipped(graph, _hardsigmoid(graph, x), 0.0, 1.0)),
    "hardtanh": lambda graph, x: _clipped(graph, x, -1.0, 1.0),
    "identity": lambda _graph, x: x,
    "leaky_relu": lambda graph, x: graph.op("Max", x, graph.op("Mul", x, graph.scalar(0.01))),
    "mish": lambda graph, x: graph.op("Mul", x, graph.op("Tanh", graph.op("Softplus", x))),
    "relu": blocks.relu,
    "relu6": lambda graph, x: _clipped(graph, x, 0.0, 6.0),
    "selu": lambda graph, x: graph.op("Selu", x),
    "sigmoid": lambda graph, x: graph.op("Sigmoid", x),
    "silu": lambda graph, x: graph.op("Mul", x, graph.op("Sigmoid", x)),
    "softplus": lambda graph, x: graph.op("Softplus", x),
    "softsign": lambda graph, x: graph.op("Softsign", x),
    "tanh": lambda graph, x: graph.op("Tanh", x),
}
"""Those of `engine.modules`, by the names that `models.sentence_transformers` gives them."""


def _clipped(graph: Graph, x: str, low: float, high: float) -> str:
    return graph.op("Min", graph.op("Max", x, graph.scalar(low)), graph.scalar(high))


def _hardsigmoid(graph: Graph, x: str) -> str:
    return graph.op("Add", graph.op("Mul", x, graph.scalar(1 / 6)), graph.scalar(0.5))


def token_vectors(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write the output `token_vectors`, float32 [batch, sequence, dim]: projected and L2-normalized.

    Raises:
        ModelLoadError: There is no linear layer, or a file or tensor of one is not as expected.
    """
    x, size = encoded.all_tokens()[0], encoded.sizes.hidden
    layers = [] if graph.has(f"{LINEAR}.weight") else dense_modules(config.path.parent)
    if graph.has(f"{LINEAR}.weight"):
        dim = graph.rows(f"{LINEAR}.weight")
        x, size = blocks.linear(graph, x, LINEAR, size, dim, bias=graph.has(f"{LINEAR}.bias"), float32=True), dim
    elif not layers:
        raise ModelLoadError(
            f"{config.path.parent}: neither has model.safetensors a tensor {LINEAR}.weight nor modules.json a Dense, "
            "one of which makes ColBERT's token vectors"
        )
    for dense in layers:
        x, size = _dense(graph, x, dense, size), dense.out_features
    if layers:
        x = graph.to_float32(x)
    length = graph.op("ReduceL2", x, axes=[-1], keepdims=1)
    unit = graph.op("Div", x, graph.op("Max", length, graph.scalar(_EPSILON, float32=True)))
    vectors = graph.op("Reshape", unit, blocks.text_shape(graph, encoded.input_ids, size))
    graph.output("token_vectors", vectors, onnx_proto.FLOAT, ["batch", "sequence", size])


def _dense(graph: Graph, x: str, dense: Dense, size: int) -> str:
    """One Dense module: [rows, size] to [rows, out_features]."""
    if dense.in_features != size:
        raise ModelLoadError(
            f"{dense.folder / 'config.json'}: field 'in_features' is {dense.in_features}; the module before it "
            f"returns {size} features"
        )
    path = dense.folder / "model.safetensors"
    tensors = read_header(path)

    def product(name: str, *, bias: bool) -> str:
        terms = [graph.copied(path, tensors, f"{name}.weight", dense.out_features, size)]
        if bias:
            terms.append(graph.copied(path, tensors, f"{name}.bias", dense.out_features))
        return graph.op("Gemm", x, *terms, transB=1)

    projected = _ACTIVATIONS[dense.activation](graph, product("linear", bias=dense.bias))
    if dense.residual:
        same = size == dense.out_features
        projected = graph.op("Add", projected, x if same else product("residual", bias=False))
    return projected
