"""The relative position bias of T5 (Raffel et al. 2019, arXiv:1910.10683), which MPNet has too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fastrank.graph import blocks

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph


def relative_bias(graph: Graph, name: str, input_ids: str, heads: int, buckets: int = 32, farthest: int = 128) -> str:
    """Write the bias of attention scores, float32 [1, heads, sequence, sequence].

    Args:
        graph: Receives the nodes.
        name: The table in the checkpoint, [buckets, heads].
        input_ids: The input, int64 [batch, sequence].
        heads: Number of heads.
        buckets: Rows of the table; half of them for each direction.
        farthest: Tokens farther apart share a row.

    Raises:
        ModelLoadError: The table is missing or not as expected.
    """
    table = graph.weight(name, buckets, heads, float32=True)
    rows = graph.integers(*(_bucket(distance, buckets, farthest) for distance in range(-farthest, farthest + 1)))
    by_distance = graph.op("Gather", table, rows)
    positions = blocks.position_ids(graph, input_ids)
    distances = graph.op("Sub", positions, graph.op("Unsqueeze", positions, graph.integers(1)))
    distances = graph.op("Clip", distances, graph.integer(-farthest), graph.integer(farthest))
    biases = graph.op("Gather", by_distance, graph.op("Add", distances, graph.integer(farthest)))
    return graph.op("Unsqueeze", graph.op("Transpose", biases, perm=[2, 0, 1]), graph.integers(0))


def _bucket(distance: int, buckets: int, farthest: int) -> int:
    """The row for a distance: one per distance up to a quarter of the buckets, then log-wide."""
    offset = buckets // 2 if distance > 0 else 0
    far, single = abs(distance), buckets // 4
    if far >= single:
        far = single + int(math.log(far / single) / math.log(farthest / single) * (buckets // 2 - single))
    return offset + min(far, buckets // 2 - 1)
