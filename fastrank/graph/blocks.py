"""The parts that transformer encoders share.

Hidden states are kept 2-D, [batch * sequence, hidden]: that is what Gemm takes; the rest does not care.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from fastrank.graph import onnx_proto, quantized_matmul

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastrank.graph.builder import Graph

_MASKED: Final = -3.4028234663852886e38  # the lowest float32, as transformers: a row of padding only stays finite


def linear(
    graph: Graph, x: str, name: str, size_in: int, size_out: int, *, bias: bool = True, exact: bool = False
) -> str:
    """A linear layer stored as `{name}.weight` and `{name}.bias`; see `product`."""
    return product(graph, x, f"{name}.weight", f"{name}.bias" if bias else None, size_in, size_out, exact=exact)


def product(
    graph: Graph,
    x: str,
    weight: str,
    bias: str | None,
    size_in: int,
    size_out: int,
    *,
    bias_alias: str = "",
    exact: bool = False,
) -> str:
    """`x @ weight.T + bias`: [rows, size_in] to [rows, size_out]. Every product with a weight is written here.

    Args:
        graph: Receives the nodes.
        x: float32 [rows, size_in].
        weight: The name of a tensor of the checkpoint, [size_out, size_in] as torch stores it.
        bias: The name of a tensor of the checkpoint, [size_out]; None: there is none.
        size_in: See above.
        size_out: See above.
        bias_alias: Another name that checkpoints give to `bias`.
        exact: In float32, whatever the graph computes in: for the few numbers that are the result.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    in_int8 = graph.is_int8(weight)
    factor = "" if in_int8 else graph.weight(weight, size_out, size_in, exact=exact)
    shift = [graph.weight(bias, size_out, alias=bias_alias, exact=exact)] if bias is not None else []
    if in_int8:
        return quantized_matmul.product(graph, x, weight, shift, size_in, size_out)
    if exact:
        x = graph.exact(x)
    else:
        graph.multiplied(x, weight)
    # Gemm takes the weight as it is stored. Transpose and MatMul run no faster and copy it when the session is made.
    return graph.op("Gemm", x, factor, *shift, transB=1)


def layer_norm(graph: Graph, x: str, name: str, size: int, epsilon: float, *, bias: bool = True) -> str:
    """Layer normalization over the last axis (Ba et al. 2016); gamma and beta are names of old checkpoints.

    Of float16, mean and variance are float32: the operator's `stash_type`.
    """
    scale = graph.weight(f"{name}.weight", size, alias=f"{name}.gamma")
    shift = [graph.weight(f"{name}.bias", size, alias=f"{name}.beta")] if bias else []
    return graph.op("LayerNormalization", x, scale, *shift, axis=-1, epsilon=epsilon)


def gelu(graph: Graph, x: str) -> str:
    """`x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016), in the order that onnxruntime fuses to one Gelu."""
    if graph.in_int8:  # rounds forty times coarser than this approximation, which takes 3/4 of the time
        return graph.op("FastGelu", x, domain=onnx_proto.ONNXRUNTIME)
    erf = graph.op("Erf", graph.op("Div", x, graph.real(math.sqrt(2))))
    return graph.op("Mul", graph.op("Mul", x, graph.op("Add", erf, graph.real(1.0))), graph.real(0.5))


def gelu_tanh(graph: Graph, x: str) -> str:
    """The tanh approximation of gelu, in the order that onnxruntime fuses to one FastGelu."""
    cubed = graph.op("Mul", graph.op("Pow", x, graph.real(3.0)), graph.real(0.044715))
    inner = graph.op("Mul", graph.op("Add", x, cubed), graph.real(math.sqrt(2 / math.pi)))
    outer = graph.op("Add", graph.op("Tanh", inner), graph.real(1.0))
    return graph.op("Mul", graph.op("Mul", x, graph.real(0.5)), outer)


def silu(graph: Graph, x: str) -> str:
    """`x * sigmoid(x)` (Hendrycks and Gimpel 2016); the gate of SwiGLU."""
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def relu(graph: Graph, x: str) -> str:
    """`max(x, 0)`."""
    return graph.op("Relu", x)


ACTIVATIONS: Final[dict[str, Callable[[Graph, str], str]]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
}
"""The values of `hidden_act` that are supported, by the names of transformers."""


def padding_mask(graph: Graph, attention_mask: str) -> str:
    """Which tokens may be attended to: bool [batch, 1, 1, sequence], from int64 [batch, sequence]."""
    return graph.op("Unsqueeze", graph.op("Cast", attention_mask, to=onnx_proto.BOOL), graph.integers(1, 2))


def score_bias(graph: Graph, seen: str) -> str:
    """What to add to attention scores: 0 where `seen` is true, else the lowest float; the shape is that of `seen`.

    float32, always.
    """
    return graph.op("Where", seen, graph.real(0.0, exact=True), graph.real(_MASKED, exact=True))


def text_shape(graph: Graph, input_ids: str, *sizes: int) -> str:
    """The shape [batch, sequence, *sizes], for `Reshape`."""
    return graph.op("Concat", graph.op("Shape", input_ids), graph.integers(*sizes), axis=0)


def places(graph: Graph, input_ids: str) -> str:
    """0, 1, 2 ... for the tokens of a text, int64 [sequence]."""
    length = graph.op("Gather", graph.op("Shape", input_ids), graph.integer(1))
    return graph.op("Range", graph.integer(0), length, graph.integer(1))


def first_token(graph: Graph, x: str, input_ids: str, size: int) -> str:
    """Every text's first token: [batch * sequence, size] to [batch, size]."""
    x = graph.op("Reshape", x, text_shape(graph, input_ids, size))
    return graph.op("Gather", x, graph.integer(0), axis=1)


def attention(graph: Graph, query: str, key: str, value: str, *, bias: str, heads: int, width: int) -> tuple[str, str]:
    """Scaled dot-product attention of several heads (Vaswani et al. 2017).

    Args:
        graph: Receives the nodes.
        query: [batch, asking, heads, width], already projected.
        key: [batch, sequence, heads, width], already projected.
        value: As `key`.
        bias: Added to the scaled scores; float32, broadcast to [batch, heads, asking, sequence]. Empty: nothing is.
        heads: How many.
        width: Of one head.

    Returns:
        The mixed values, [batch * asking, heads * width], not yet projected; and the probabilities they were mixed
        by, float32 [batch, heads, asking, sequence], or "" where nothing is added to the scores.
    """
    if not bias:
        return _fused_attention(graph, query, key, value, heads=heads, width=width), ""
    rows, values = (graph.op("Transpose", x, perm=[0, 2, 1, 3]) for x in (query, value))
    columns = graph.op("Transpose", key, perm=[0, 2, 3, 1])
    scale = graph.real(1 / math.sqrt(width))
    if graph.half:  # which has less room for products than for factors
        scaled = graph.op("MatMul", graph.op("Mul", rows, scale), columns)
    else:
        scaled = graph.op("Mul", graph.op("MatMul", rows, columns), scale)
    probabilities = graph.op("Softmax", graph.op("Add", graph.exact(scaled), bias), axis=-1)
    mixed = graph.op("MatMul", graph.rough(probabilities), values)
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.op("Reshape", mixed, graph.integers(-1, heads * width)), probabilities


def _fused_attention(graph: Graph, query: str, key: str, value: str, *, heads: int, width: int) -> str:
    """The mixed values of `attention`, a block of the scores at a time (Dao et al. 2022, arXiv:2205.14135)."""
    flat = [graph.op("Reshape", x, graph.integers(0, 0, heads * width)) for x in (query, key, value)]
    mixed = graph.op("MultiHeadAttention", *flat, domain=onnx_proto.ONNXRUNTIME, num_heads=heads)
    return graph.op("Reshape", mixed, graph.integers(-1, heads * width))
