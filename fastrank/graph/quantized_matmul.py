"""Int8 matrix multiplication: per-channel weight scales, dynamically quantized activations.

An activation gets one scale per token, or one scale per tensor. Per-token scales (arXiv:2206.01861 calls them
token-wise) keep a token's result independent of the rest of the batch and the error small; one scale per tensor saves a
pass over the product. Channels that are always large are scaled down before quantization, and their weights up:
SmoothQuant (Xiao et al. 2022, arXiv:2211.10438).

The checkpoint holds, for a weight [out, in]:

    {weight}          I8  [in, out]   quantized and transposed, as MatMulIntegerToFloat takes it
    {weight}.scale    F32 [out]
    {weight}.smooth   F32 [in]        multiplies the activation; only where SmoothQuant applies

and for an embedding table, {table}.rows I8 [rows, width] and {table}.rows.scale F32 [rows].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrank.graph import onnx_proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph

TRIAL_ANSWER = 64 * 255 * 127.0
_HUGE = 3e38
_TINY = 1e-12  # the scale of a row of zeros must not be 0


def product(graph: Graph, x: str, weight: str, bias: list[str], size_in: int, size_out: int) -> str:
    """`x @ weight.T + bias` with an int8 weight of the checkpoint: float32 [rows, in] to float32 [rows, out].

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    # Weights that multiply the same activation share its smoothing, so it is quantized once.
    quantized, scale, zero = graph.once(f"int8 {x}", lambda: _quantized(graph, x, weight, size_in))
    int8, weight_scale = graph.int8(weight, size_in, size_out), graph.weight(f"{weight}.scale", size_out)
    if not graph.activations.per_token:
        return _matmul(graph, quantized, int8, scale, weight_scale, zero, "", *bias)
    y = graph.op("Mul", _matmul(graph, quantized, int8, graph.scalar(1.0), weight_scale, zero), scale)
    return graph.op("Add", y, *bias) if bias else y


def _matmul(graph: Graph, *inputs: str) -> str:
    return graph.op("MatMulIntegerToFloat", *inputs, domain=onnx_proto.ONNXRUNTIME)


def _quantized(graph: Graph, x: str, weight: str, size: int) -> tuple[str, str, str]:
    """An activation as uint8, its scale (float32 [rows, 1], or a scalar) and its zero point (a scalar)."""
    if graph.has(f"{weight}.smooth"):
        x = graph.op("Mul", x, graph.weight(f"{weight}.smooth", size))
    if not graph.activations.per_token:
        quantized, scale, zero = graph.ops("DynamicQuantizeLinear", 3, x)
        return quantized, scale, zero
    qmax = graph.activations.qmax
    largest = graph.op("ReduceMax", graph.op("Abs", x), axes=[1], keepdims=0)
    scales = graph.op("Mul", graph.op("Max", largest, graph.scalar(_TINY)), graph.scalar(1 / qmax))
    # QuantizeLinear wants a zero point per row: scales / huge is always 0, so every row gets qmax + 1.
    zeros = graph.op("QuantizeLinear", scales, graph.scalar(_HUGE), graph.uint8(qmax + 1))
    quantized = graph.op("QuantizeLinear", x, scales, zeros, axis=0)
    return quantized, graph.op("Unsqueeze", scales, graph.integers(1)), graph.uint8(qmax + 1)


def trial(graph: Graph) -> None:
    """Write a product whose every element is `TRIAL_ANSWER`, unless the CPU adds pairs of products in 16 bits.

    Its only input is `input_ids`, int64 [1, 1], and must be 255: a constant would be folded, by another kernel.
    """
    x = graph.op("Cast", graph.input("input_ids", onnx_proto.INT64, [1, 1]), to=onnx_proto.UINT8)
    weight = graph.op("Cast", graph.op("Expand", graph.integer(127), graph.integers(64, 64)), to=onnx_proto.INT8)
    sums = graph.op("MatMulInteger", graph.op("Expand", x, graph.integers(64, 64)), weight)
    graph.output("sums", graph.op("Cast", sums, to=onnx_proto.FLOAT), onnx_proto.FLOAT, [64, 64])
