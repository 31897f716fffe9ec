"""Rotary positions (Su et al. 2021, arXiv:2104.09864): query and key are turned by angles that grow with the place."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from fastrank.graph import onnx_proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph


class Rotation(NamedTuple):
    """Of the angles of every place, [sequence, 1, width / 2]."""

    cosines: str
    sines: str


def rotation(graph: Graph, places: str, width: int, theta: float) -> Rotation:
    """The angles of `places`, int64 [sequence, 1]; `theta` is the base of the wave lengths."""
    frequencies = [_float32(1 / _float32(theta ** _float32(even / width))) for even in range(0, width, 2)]
    row = graph.reals(f"frequencies_{theta!r}", frequencies)
    angles = graph.op("Mul", graph.op("Cast", places, to=onnx_proto.FLOAT), row)
    angles = graph.op("Unsqueeze", angles, graph.integers(1))
    return Rotation(graph.rough(graph.op("Cos", angles)), graph.rough(graph.op("Sin", angles)))


def rotate(graph: Graph, x: str, by: Rotation) -> str:
    """Turn each pair of dimensions (n, n + width / 2) by its angle; [batch, sequence, heads, width] to the same."""
    left, right = graph.split(x, 2)
    turned_left = graph.op("Sub", graph.op("Mul", left, by.cosines), graph.op("Mul", right, by.sines))
    turned_right = graph.op("Add", graph.op("Mul", right, by.cosines), graph.op("Mul", left, by.sines))
    return graph.op("Concat", turned_left, turned_right, axis=-1)


def _float32(value: float) -> float:
    """Rounded as torch rounds: at position 8,000 a last digit of the frequency turns the angle by 0.0005."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
