"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864): queries and keys rotated by position."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from fastrank.graph import onnx_proto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastrank.graph.builder import Graph


class CosSin(NamedTuple):
    """Cosine and sine of every position's angles, [sequence, 1, width / 2] each."""

    cos: str
    sin: str


def frequencies(width: int, theta: float) -> list[float]:
    """`theta ** (-2n / width)` for n < width / 2, rounded to float32 as torch rounds.

    At position 8,000 a difference in the last digit of a frequency changes the angle by 0.0005.
    """
    return [float32(1 / float32(theta ** float32(even / width))) for even in range(0, width, 2)]


def ntk_frequencies(width: int, theta: float, factor: float) -> list[float]:
    """Frequencies for texts `factor` times as long as those of training (NTK scaling, https://kexue.fm/archives/9706).

    At every length, unlike transformers' dynamic NTK: as the modeling code of Alibaba-NLP/new-impl does it.
    """
    divisor = float32(factor ** (2 / width))
    return [float32(value / divisor) for value in frequencies(width, theta * factor)]


def cos_sin(graph: Graph, position_ids: str, frequencies: Sequence[float]) -> CosSin:
    """Cosines and sines of `position_ids`, int64 [sequence, 1], times each of `frequencies`."""
    angles = graph.op("Mul", graph.op("Cast", position_ids, to=onnx_proto.FLOAT), graph.floats(frequencies))
    angles = graph.op("Unsqueeze", angles, graph.integers(1))
    return CosSin(
        graph.to_compute_dtype(graph.op("Cos", angles)),
        graph.to_compute_dtype(graph.op("Sin", angles)),
    )


def apply(graph: Graph, x: str, position: CosSin) -> str:
    """Rotate each pair of dimensions (n, n + width / 2); [batch, sequence, heads, width] to the same shape."""
    left, right = graph.split(x, 2)
    rotated_left = graph.op("Sub", graph.op("Mul", left, position.cos), graph.op("Mul", right, position.sin))
    rotated_right = graph.op("Add", graph.op("Mul", right, position.cos), graph.op("Mul", left, position.sin))
    return graph.op("Concat", rotated_left, rotated_right, axis=-1)


def float32(value: float) -> float:
    """Round to float32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
