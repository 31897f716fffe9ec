"""Products in int8: 8-bit weights with a scale an output, activations rounded as they come.

An activation is rounded to 8 bits by a scale of its row (a token), or by one of all rows. A scale of its own keeps a
token's result apart from what else is in the batch, and errors small (arXiv:2206.01861 calls it token-wise); one scale
for all saves a pass over the product. Channels that are large by habit are made smaller before rounding, and their
weights larger: SmoothQuant (Xiao et al. 2022, arXiv:2211.10438).

The checkpoint holds, for a weight [out, in]:

    {weight}          I8  [in, out]   rounded, transposed: as the product wants it
    {weight}.scale    F32 [out]
    {weight}.smooth   F32 [in]        what to multiply the activation by; not everywhere

and for a table of which rows are looked up, {table}.rows I8 [rows, width] and {table}.rows.scale F32 [rows].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrank.graph import onnx_proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph

TRIAL_ANSWER = 64 * 255 * 127.0
_HUGE = 3e38
_TINY = 1e-12  # of a row of zeros: its scale must not be 0


def product(graph: Graph, x: str, weight: str, bias: list[str], size_in: int, size_out: int) -> str:
    """`x @ weight.T + bias` with a weight that is int8 in the checkpoint: float32 [rows, in] to float32 [rows, out].

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    # Values that several weights multiply were smoothed alike, so they are rounded once.
    rounded, scale, zero = graph.once(f"int8 {x}", lambda: _rounded(graph, x, weight, size_in))
    factors = graph.int8(weight, size_in, size_out), graph.weight(f"{weight}.scale", size_out)
    if not graph.rounding.each_row:
        return _multiplied(graph, rounded, factors[0], scale, factors[1], zero, "", *bias)
    y = graph.op("Mul", _multiplied(graph, rounded, factors[0], graph.real(1.0), factors[1], zero), scale)
    return graph.op("Add", y, *bias) if bias else y


def _multiplied(graph: Graph, *inputs: str) -> str:
    return graph.op("MatMulIntegerToFloat", *inputs, domain=onnx_proto.ONNXRUNTIME)


def _rounded(graph: Graph, x: str, weight: str, size: int) -> tuple[str, str, str]:
    """A value as uint8, with its scale (float32 [rows, 1], or a scalar) and zero point (a scalar)."""
    if graph.has(f"{weight}.smooth"):
        x = graph.op("Mul", x, graph.weight(f"{weight}.smooth", size))
    if not graph.rounding.each_row:
        rounded, scale, zero = graph.ops("DynamicQuantizeLinear", 3, x)
        return rounded, scale, zero
    levels = graph.rounding.levels
    largest = graph.op("ReduceMax", graph.op("Abs", x), axes=[1], keepdims=0)
    scales = graph.op("Mul", graph.op("Max", largest, graph.real(_TINY)), graph.real(1 / levels))
    # One zero point a row: no scale is large enough to move it.
    zeros = graph.op("QuantizeLinear", scales, graph.real(_HUGE), graph.octets(levels + 1))
    rounded = graph.op("QuantizeLinear", x, scales, zeros, axis=0)
    return rounded, graph.op("Unsqueeze", scales, graph.integers(1)), graph.octets(levels + 1)


def trial(graph: Graph) -> None:
    """Write a product of which every number is `TRIAL_ANSWER`, unless sums of two products do not fit 16 bits.

    Its only input is `input_ids`, int64 [1, 1], and must be 255: a constant would be computed ahead, by another kernel.
    """
    x = graph.op("Cast", graph.input("input_ids", onnx_proto.INT64, [1, 1]), to=onnx_proto.UINT8)
    factor = graph.op("Cast", graph.op("Expand", graph.integer(127), graph.integers(64, 64)), to=onnx_proto.INT8)
    found = graph.op("MatMulInteger", graph.op("Expand", x, graph.integers(64, 64)), factor)
    graph.output("sums", graph.op("Cast", found, to=onnx_proto.FLOAT), onnx_proto.FLOAT, [64, 64])
