"""The building blocks of transformers: linear layers, norms, activations, masks, attention.

Hidden states are 2-D, [batch * sequence, hidden], because Gemm takes no other shape.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from fastrank.graph import onnx_proto, quantized_matmul, query_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastrank.graph.builder import Graph

_MASKED: Final = -3.4028234663852886e38  # the lowest float32, as transformers: rows of nothing but padding stay finite
_HIDDEN: Final = -1e30  # absorbs every score it is added to, and may be scaled


def linear(
    graph: Graph,
    x: str,
    name: str,
    size_in: int,
    size_out: int,
    *,
    bias: bool = True,
    float32: bool = False,
    record: bool = True,
) -> str:
    """The linear layer stored as `{name}.weight` and `{name}.bias`; see `product`."""
    biases = f"{name}.bias" if bias else None
    return product(graph, x, f"{name}.weight", biases, size_in, size_out, float32=float32, record=record)


def product(
    graph: Graph,
    x: str,
    weight: str,
    bias: str | None,
    size_in: int,
    size_out: int,
    *,
    bias_alias: str = "",
    float32: bool = False,
    record: bool = True,
) -> str:
    """`x @ weight.T + bias`: [rows, size_in] to [rows, size_out]. Every matrix product with a weight goes through here.

    Args:
        graph: Receives the nodes.
        x: float32 [rows, size_in].
        weight: The name of a tensor of the checkpoint, [size_out, size_in] as torch stores it.
        bias: The name of a tensor of the checkpoint, [size_out]; or None.
        size_in: Input features.
        size_out: Output features.
        bias_alias: Another name under which checkpoints store the bias.
        float32: Compute in float32 even in half precision: for the few numbers that are the result.
        record: Whether int8 quantization is to see this product; false where the weight multiplies another value too.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    quantized = quantized_matmul.form(graph, weight)
    weights = "" if quantized else graph.weight(weight, size_out, size_in, float32=float32)
    biases = [graph.weight(bias, size_out, alias=bias_alias, float32=float32)] if bias is not None else []
    if quantized:
        return quantized(graph, x, weight, biases, size_in, size_out)
    if float32:
        x = graph.to_float32(x)
    elif record:
        graph.record_matmul(x, weight)
    # Gemm takes the weight as stored. Transpose and MatMul are no faster and copy it when the session is created.
    return graph.op("Gemm", x, weights, *biases, transB=1)


def layer_norm(graph: Graph, x: str, name: str, size: int, epsilon: float, *, bias: bool = True) -> str:
    """Layer normalization over the last axis (Ba et al. 2016); old checkpoints call the weights gamma and beta.

    In half precision, mean and variance are float32: the operator's `stash_type`.
    """
    weight = graph.weight(f"{name}.weight", size, alias=f"{name}.gamma")
    biases = [graph.weight(f"{name}.bias", size, alias=f"{name}.beta")] if bias else []
    normed = graph.op("LayerNormalization", x, weight, *biases, axis=-1, epsilon=epsilon)
    graph.normed.add(normed)
    return normed


def rms_norm(graph: Graph, x: str, name: str, size: int, epsilon: float, *, offset: float = 0.0) -> str:
    """`x / sqrt(mean(x^2) + epsilon) * (weight + offset)` over the last axis (Zhang and Sennrich 2019).

    In half precision it is float32, as in transformers. onnxruntime fuses the nodes into SimplifiedLayerNormalization;
    int8 graphs, which it does not optimize, are written with that operator.
    """
    weight = graph.weight(f"{name}.weight", size, float32=True)
    weight = graph.op("Add", weight, graph.scalar(offset, float32=True)) if offset else weight
    if graph.in_int8:
        normed = graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=epsilon)
    else:
        x = graph.to_float32(x)
        mean = graph.op("ReduceMean", graph.op("Pow", x, graph.scalar(2.0, float32=True)), axes=[-1])
        root = graph.op("Sqrt", graph.op("Add", mean, graph.scalar(epsilon, float32=True)))
        normed = graph.to_compute_dtype(graph.op("Mul", graph.op("Div", x, root), weight))
    graph.normed.add(normed)
    return normed


def gelu(graph: Graph, x: str) -> str:
    """`x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016), in the order that onnxruntime fuses into Gelu."""
    if graph.in_int8:  # whose rounding error is 40 times that of the tanh approximation, which takes 3/4 of the time
        return graph.op("FastGelu", x, domain=onnx_proto.ONNXRUNTIME)
    erf = graph.op("Erf", graph.op("Div", x, graph.scalar(math.sqrt(2))))
    return graph.op("Mul", graph.op("Mul", x, graph.op("Add", erf, graph.scalar(1.0))), graph.scalar(0.5))


def gelu_tanh(graph: Graph, x: str) -> str:
    """The tanh approximation of gelu, in the order that onnxruntime fuses into FastGelu."""
    cubed = graph.op("Mul", graph.op("Pow", x, graph.scalar(3.0)), graph.scalar(0.044715))
    inner = graph.op("Mul", graph.op("Add", x, cubed), graph.scalar(math.sqrt(2 / math.pi)))
    outer = graph.op("Add", graph.op("Tanh", inner), graph.scalar(1.0))
    return graph.op("Mul", graph.op("Mul", x, graph.scalar(0.5)), outer)


def silu(graph: Graph, x: str) -> str:
    """`x * sigmoid(x)` (Hendrycks and Gimpel 2016); the gate of SwiGLU."""
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def relu(graph: Graph, x: str) -> str:
    """`max(x, 0)`."""
    return graph.op("Relu", x)


def quick_gelu(graph: Graph, x: str) -> str:
    """`x * sigmoid(1.702 x)`."""
    return graph.op("Mul", x, graph.op("Sigmoid", graph.op("Mul", x, graph.scalar(1.702))))


def relu_squared(graph: Graph, x: str) -> str:
    """`max(x, 0)^2` (So et al. 2021, arXiv:2109.08668)."""
    positive = graph.op("Relu", x)
    return graph.op("Mul", positive, positive)


def mish(graph: Graph, x: str) -> str:
    """`x * tanh(log(1 + exp(x)))` (Misra 2019, arXiv:1908.08681)."""
    return graph.op("Mul", x, graph.op("Tanh", graph.op("Softplus", x)))


def tanh(graph: Graph, x: str) -> str:
    """The hyperbolic tangent."""
    return graph.op("Tanh", x)


ACTIVATIONS: Final[dict[str, Callable[[Graph, str], str]]] = {
    "gelu": gelu,
    "gelu_accurate": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_python": gelu,
    "gelu_pytorch_tanh": gelu_tanh,
    "mish": mish,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "relu2": relu_squared,
    "silu": silu,
    "swish": silu,
    "tanh": tanh,
}
"""The supported values of `hidden_act`, by transformers' names."""


def padding_mask(graph: Graph, attention_mask: str, axes: tuple[int, ...] = (1, 2)) -> str:
    """Which tokens may be attended to: bool [batch, 1, 1, sequence] (1 at `axes`), from int64 [batch, sequence]."""
    return graph.op("Unsqueeze", graph.op("Cast", attention_mask, to=onnx_proto.BOOL), graph.integers(*axes))


def score_bias(graph: Graph, visible: str) -> str:
    """An additive attention mask, float32 of the shape of `visible`: 0 where it is true, else the lowest float."""
    return graph.op("Where", visible, graph.scalar(0.0, float32=True), graph.scalar(_MASKED, float32=True))


def sees(graph: Graph, visible: str) -> str:
    """0 for tokens that may attend to none, else 1: float32 [batch * sequence, 1].

    `visible` is bool [batch, 1 ..., sequence, keys]. The attention of such tokens is 0, as that of torch's
    `scaled_dot_product_attention`; a softmax over lowest floats would be the mean of all tokens. What fills queries up
    is of this kind, where a sliding layer does not reach back to the last word.
    """
    some = graph.op("ReduceMax", graph.op("Cast", visible, to=onnx_proto.FLOAT), axes=[-1], keepdims=1)
    return graph.op("Reshape", some, graph.integers(-1, 1))


def text_shape(graph: Graph, input_ids: str, *sizes: int) -> str:
    """The shape [batch, sequence, *sizes], for `Reshape`."""
    return graph.op("Concat", graph.op("Shape", input_ids), graph.integers(*sizes), axis=0)


def position_ids(graph: Graph, input_ids: str) -> str:
    """0, 1, 2 ..., int64 [sequence]."""
    length = graph.op("Gather", graph.op("Shape", input_ids), graph.integer(1))
    return graph.op("Range", graph.integer(0), length, graph.integer(1))


def first_token(graph: Graph, x: str, input_ids: str, size: int) -> str:
    """The first token of every text: [batch * sequence, size] to [batch, size]."""
    x = graph.op("Reshape", x, text_shape(graph, input_ids, size))
    return graph.op("Gather", x, graph.integer(0), axis=1)


def rows_of(graph: Graph, input_ids: str, positions: str) -> str:
    """The rows, in [batch * sequence], of one token per text at `positions`: int64 [batch]."""
    batch, length = (graph.op("Gather", graph.op("Shape", input_ids), graph.integer(axis)) for axis in (0, 1))
    texts = graph.op("Range", graph.integer(0), batch, graph.integer(1))
    return graph.op("Add", graph.op("Mul", texts, length), positions)


class Mask(NamedTuple):
    """What the scores of queries are changed by, in one of three ways.

    Attributes:
        bias: Added to all scores; float32, broadcast to [batch, heads, queries, sequence]. Empty: one of the others.
        keys: Added to the scores of each key: see `key_bias`. Empty: nothing.
        by_block: Writes what is added to the scores of a block of queries; for all tokens of a text.
    """

    bias: str = ""
    keys: str = ""
    by_block: query_blocks.Bias | None = None


def key_bias(graph: Graph, attention_mask: str, heads: int) -> str:
    """0 for tokens that may be attended to, else -1e30: float32 [batch, sequence, heads, 1], for `attention`."""
    visible = padding_mask(graph, attention_mask, axes=(2, 3))
    bias = graph.op("Where", visible, graph.scalar(0.0, float32=True), graph.scalar(_HIDDEN, float32=True))
    return graph.op("Expand", bias, graph.integers(1, 1, heads, 1))


def attention(graph: Graph, query: str, key: str, value: str, *, mask: Mask, heads: int, width: int) -> tuple[str, str]:
    """Multi-head scaled dot-product attention (Vaswani et al. 2017).

    Args:
        graph: Receives the nodes.
        query: [batch, queries, heads, width], projected.
        key: [batch, sequence, heads, width], projected.
        value: As `key`.
        mask: Of the scaled scores.
        heads: Number of heads.
        width: Dimensions of one head.

    Returns:
        The output before its projection, [batch * queries, heads * width]; and the attention probabilities, float32
        [batch, heads, queries, sequence], or "" where the mask has no `bias`.
    """
    scale = 1 / math.sqrt(width)
    if mask.by_block:
        of_all = query_blocks.Heads(heads, 1, width, scale)
        return query_blocks.attention(graph, query, key, value, of_all, bias=mask.by_block, causal=False), ""
    if not mask.bias:
        return fused_attention(graph, query, key, value, keys=mask.keys, scale=scale, heads=heads, width=width), ""
    rows, values = (graph.op("Transpose", x, perm=[0, 2, 1, 3]) for x in (query, value))
    columns = graph.op("Transpose", key, perm=[0, 2, 3, 1])
    if graph.half:  # scale before the product, which might overflow
        scaled = graph.op("MatMul", graph.op("Mul", rows, graph.scalar(scale)), columns)
    else:
        scaled = graph.op("Mul", graph.op("MatMul", rows, columns), graph.scalar(scale))
    probabilities = graph.op("Softmax", graph.op("Add", graph.to_float32(scaled), mask.bias), axis=-1)
    mixed = graph.op("MatMul", graph.to_compute_dtype(probabilities), values)
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.op("Reshape", mixed, graph.integers(-1, heads * width)), probabilities


def grouped_attention(
    graph: Graph,
    query: str,
    key: str,
    value: str,
    *,
    bias: str,
    scale: float,
    kv_heads: int,
    group: int,
    width: int,
) -> tuple[str, str]:
    """Attention in which every head of keys and values serves a group of query heads; none is copied.

    Args:
        graph: Receives the nodes.
        query: [batch, queries, kv_heads * group, width], projected and rotated.
        key: [batch, sequence, kv_heads, width], projected and rotated.
        value: As `key`, not rotated.
        bias: Added to the scores: float32, broadcast to [batch, kv_heads, group, queries, sequence]. Empty: no bias.
        scale: Multiplies the scores.
        kv_heads: Number of heads of keys and values.
        group: Number of query heads that share one of them.
        width: Dimensions of one head.

    Returns:
        The output before its projection, [batch * queries, kv_heads * group * width]; and the attention probabilities,
        float32 [batch, kv_heads, group, queries, sequence].
    """
    scaled = graph.op("Mul", query, graph.scalar(scale))
    rows = graph.op("Reshape", scaled, graph.integers(0, 0, kv_heads, group, width))
    rows = graph.op("Transpose", rows, perm=[0, 2, 3, 1, 4])
    key, value = (graph.op("Reshape", x, graph.integers(0, 0, kv_heads, 1, width)) for x in (key, value))
    columns = graph.op("Transpose", key, perm=[0, 2, 3, 4, 1])
    scores = graph.to_float32(graph.op("MatMul", rows, columns))
    probabilities = graph.op("Softmax", graph.op("Add", scores, bias) if bias else scores, axis=-1)
    values = graph.op("Transpose", value, perm=[0, 2, 3, 1, 4])
    attended = graph.op("MatMul", graph.to_compute_dtype(probabilities), values)
    attended = graph.op("Transpose", attended, perm=[0, 3, 1, 2, 4])
    return graph.op("Reshape", attended, graph.integers(-1, kv_heads * group * width)), probabilities


def fused_attention(
    graph: Graph, query: str, key: str, value: str, *, keys: str, scale: float, heads: int, width: int
) -> str:
    """`attention` without a `bias`, a block of scores at a time (FlashAttention, Dao et al. 2022, arXiv:2205.14135).

    onnxruntime's operator takes blocks only where it is given no mask. So the mask is one more dimension of a head: 1
    in every query, and in a key what is to be added to its scores.
    """
    if keys:
        ones = graph.op("Concat", graph.op("Shape", query, end=3), graph.integers(1), axis=0)
        query = graph.op("Concat", query, graph.op("Expand", graph.scalar(1.0), ones), axis=3)
        key = graph.op("Concat", key, keys, axis=3)
    wide = width + 1 if keys else width
    flat = [graph.op("Reshape", x, graph.integers(0, 0, heads * wide)) for x in (query, key)]
    flat.append(graph.op("Reshape", value, graph.integers(0, 0, heads * width)))
    mixed = graph.op(
        "MultiHeadAttention",
        *flat,
        domain=onnx_proto.ONNXRUNTIME,
        num_heads=heads,
        scale=scale,
    )
    return graph.op("Reshape", mixed, graph.integers(-1, heads * width))
