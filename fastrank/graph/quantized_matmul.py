"""Matrix products with quantized weights: 8 bits with quantized activations, or 4 bits.

In 8 bits a weight has a scale per output channel, and activations are quantized as they come: one scale per token, or
one per tensor. Per-token scales (arXiv:2206.01861 calls them token-wise) keep a token's result independent of the rest
of the batch and the error small; one scale per tensor saves a pass over the product. Channels that are always large are
scaled down before quantization, and their weights up: SmoothQuant (Xiao et al. 2022, arXiv:2211.10438).

Activations are unsigned. Signed weights are fastest with VNNI and on ARM. x86 CPUs without VNNI multiply those in pairs
whose sums saturate at 16 bits; unsigned weights (128 more, which is their zero point) they widen first, so that sums
are exact.

In 4 bits a weight has a scale and a zero point per block of `BLOCK` inputs, as in llama.cpp's Q4_1, and the operator
multiplies by it block by block: for memory, not for speed.

The checkpoint holds, for a weight [out, in] in 8 bits:

    {weight}          I8 or U8  [in, out]   quantized and transposed, as MatMulIntegerToFloat takes it
    {weight}.scale    F32 [out]
    {weight}.smooth   F32 [in]              multiplies the activation; only where SmoothQuant applies

in 4 bits, where `blocks` is in / BLOCK, rounded up:

    {weight}.int4     U8  [out, blocks, BLOCK / 2]   two to a byte, the first in the lower half, as MatMulNBits takes it
    {weight}.scale    F32 [out * blocks]
    {weight}.zero     U8  [out * ((blocks + 1) // 2)]   two to a byte, row by row
    {weight}.smooth   as above

and for an embedding table, {table}.rows I8 [rows, width] and {table}.rows.scale F32 [rows].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.graph import onnx_proto
from fastrank.graph.builder import INT4

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastrank.graph.builder import Graph

TRIAL_ANSWER = 64 * 255 * 127.0
BLOCK: Final = 32  # of inputs that share a scale in 4 bits: with 128 of them, errors are 1.8 times as large
_QMAX: Final = 127
_HUGE = 3e38
_TINY = 1e-12  # the scale of a row of zeros must not be 0


def form(graph: Graph, weight: str) -> Callable[[Graph, str, str, list[str], int, int], str] | None:
    """How to multiply by a weight of the checkpoint, if it is quantized: `product` or `int4_product`."""
    if graph.is_int8(weight):
        return product
    return int4_product if graph.is_int4(weight) else None


def product(graph: Graph, x: str, weight: str, bias: list[str], size_in: int, size_out: int) -> str:
    """`x @ weight.T + bias` with an 8-bit weight of the checkpoint: float32 [rows, in] to float32 [rows, out].

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    # Weights that multiply the same activation share its smoothing, so it is quantized once.
    quantized, scale, zero = graph.once(f"int8 {x}", lambda: _quantized(graph, _smoothed(graph, x, weight, size_in)))
    int8, weight_scale = graph.int8(weight, size_in, size_out), graph.weight(f"{weight}.scale", size_out)
    weight_zero = graph.uint8(_QMAX + 1) if graph.is_unsigned(weight) else ""
    if not graph.activations.per_token:
        return _matmul(graph, quantized, int8, scale, weight_scale, zero, weight_zero, *bias)
    y = _matmul(graph, quantized, int8, graph.scalar(1.0), weight_scale, zero, *filter(None, [weight_zero]))
    y = graph.op("Mul", y, scale)
    return graph.op("Add", y, *bias) if bias else y


def int4_product(graph: Graph, x: str, weight: str, bias: list[str], size_in: int, size_out: int) -> str:
    """As `product`, with a 4-bit weight; activations are as `ActivationQuantization.of_int4` says.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    blocks = -(-size_in // BLOCK)
    y = graph.op(
        "MatMulNBits",
        graph.once(f"smoothed {x}", lambda: _smoothed(graph, x, weight, size_in)),
        graph.int8(weight + INT4, size_out, blocks, BLOCK // 2),
        graph.weight(f"{weight}.scale", size_out * blocks),
        graph.int8(f"{weight}.zero", size_out * ((blocks + 1) // 2)),
        domain=onnx_proto.ONNXRUNTIME,
        K=size_in,
        N=size_out,
        bits=4,
        block_size=BLOCK,
        accuracy_level=4 if graph.activations.of_int4 else 0,
    )
    return graph.op("Add", y, *bias) if bias else y


def _matmul(graph: Graph, *inputs: str) -> str:
    return graph.op("MatMulIntegerToFloat", *inputs, domain=onnx_proto.ONNXRUNTIME)


def _smoothed(graph: Graph, x: str, weight: str, size: int) -> str:
    return graph.op("Mul", x, graph.weight(f"{weight}.smooth", size)) if graph.has(f"{weight}.smooth") else x


def _quantized(graph: Graph, x: str) -> tuple[str, str, str]:
    """An activation as uint8, its scale (float32 [rows, 1], or a scalar) and its zero point (a scalar)."""
    if not graph.activations.per_token:
        quantized, scale, zero = graph.ops("DynamicQuantizeLinear", 3, x)
        return quantized, scale, zero
    zero = graph.uint8(_QMAX + 1)
    largest = graph.reduce_max(graph.op("Abs", x), 1)
    scales = graph.op("Mul", graph.op("Max", largest, graph.scalar(_TINY)), graph.scalar(1 / _QMAX))
    # QuantizeLinear wants a zero point per row: scales / huge is always 0, so every row gets 128.
    zeros = graph.quantize(scales, graph.scalar(_HUGE), zero)
    quantized = graph.quantize(x, scales, zeros, axis=0)
    return quantized, graph.op("Reshape", scales, graph.integers(-1, 1)), zero


def trial(graph: Graph) -> None:
    """Write a product whose every element is `TRIAL_ANSWER`, unless the CPU adds pairs of products in 16 bits.

    Its only input is `input_ids`, int64 [1, 1], and must be 255: a constant would be folded, by another kernel.
    """
    x = graph.op("Cast", graph.input("input_ids", onnx_proto.INT64, [1, 1]), to=onnx_proto.UINT8)
    weight = graph.op("Cast", graph.op("Expand", graph.integer(127), graph.integers(64, 64)), to=onnx_proto.INT8)
    sums = graph.op("MatMulInteger", graph.op("Expand", x, graph.integers(64, 64)), weight)
    graph.output("sums", graph.op("Cast", sums, to=onnx_proto.FLOAT), onnx_proto.FLOAT, [64, 64])
