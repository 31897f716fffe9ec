"""Attention for a block of queries at a time, where scores have a bias of every pair of tokens.

So the scores in memory grow with the length of a text, not with its square. Short texts are one block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph

_SCORES: Final = 1 << 22  # of a block: 16 MB in float32
_LEAST: Final = 64  # queries of a block, however long the text: a product of fewer rows is slower


class Heads(NamedTuple):
    """The heads of attention, as `blocks.grouped_attention` has them."""

    kv_heads: int
    group: int
    width: int
    scale: float

    @property
    def total(self) -> int:
        """Query heads times their width."""
        return self.kv_heads * self.group * self.width


class Block(NamedTuple):
    """A block of queries, and the keys that it may see.

    Attributes:
        queries: Their positions, int64 [block, 1].
        keys: The number of keys, from the first: int64 [1].
    """

    queries: str
    keys: str


Bias: TypeAlias = Callable[[Block], str]
"""What is added to the scores of a block: float32, broadcast to [batch, kv_heads, group, block, keys]."""


def attention(graph: Graph, query: str, key: str, value: str, heads: Heads, *, bias: Bias, causal: bool) -> str:
    """Attention of all tokens of a text.

    Args:
        graph: Receives the nodes.
        query: [batch, sequence, kv_heads * group, width], projected and rotated.
        key: [batch, sequence, kv_heads, width], projected and rotated.
        value: As `key`, not rotated.
        heads: Their sizes, and by what scores are multiplied.
        bias: Writes what is added to the scores of a block.
        causal: Whether no token sees one that follows, so that those keys are left out.

    Returns:
        The output before its projection, [batch * sequence, kv_heads * group * width].
    """
    kv_heads, group, width, scale = heads
    wide = heads.total
    length, block, count = graph.once("blocks of queries", lambda: _sizes(graph, query, kv_heads * group))
    filling = graph.op("Sub", graph.op("Mul", count, block), length)
    filling = graph.op("Concat", graph.integers(0, 0, 0, 0, 0), filling, graph.integers(0, 0), axis=0)
    rows = graph.op("Pad", graph.op("Mul", query, graph.scalar(scale)), filling)
    rows = graph.op("Reshape", rows, graph.integers(0, 0, kv_heads, group, width))
    rows = graph.op("Transpose", rows, perm=[0, 2, 3, 1, 4])
    key, value = (graph.op("Unsqueeze", x, graph.integers(3)) for x in (key, value))
    columns, values = (graph.op("Transpose", x, perm=[0, 2, 3, *axes]) for x, axes in ((key, (4, 1)), (value, (1, 4))))
    steps = graph.op("Range", graph.integer(0), graph.op("Squeeze", block), graph.integer(1))
    steps = graph.op("Unsqueeze", steps, graph.integers(1))

    def of_block(number: str) -> str:
        start = graph.op("Mul", number, block)
        end = graph.op("Add", start, block)
        keys = graph.op("Min", end, length) if causal else length
        asking = graph.op("Slice", rows, start, end, graph.integers(3))
        left, right = columns, values
        if causal:
            left, right = (
                graph.op("Slice", x, graph.integers(0), keys, graph.integers(axis))
                for x, axis in ((columns, 4), (values, 3))
            )
        scores = graph.op("Add", graph.op("MatMul", asking, left), bias(Block(graph.op("Add", steps, start), keys)))
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), right)
        return graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 3, 1, 2, 4]), graph.integers(0, 0, wide))

    mixed = graph.op("Transpose", graph.loop(graph.op("Squeeze", count), of_block), perm=[1, 0, 2, 3])
    mixed = graph.op("Reshape", mixed, graph.op("Concat", graph.integers(0, -1, wide), axis=0))
    mixed = graph.op("Slice", mixed, graph.integers(0), length, graph.integers(1))
    return graph.op("Reshape", mixed, graph.integers(-1, wide))


def _sizes(graph: Graph, query: str, heads: int) -> tuple[str, str, str]:
    """The length of texts, queries of a block, and the number of blocks: int64 [1] each."""
    batch, length = (graph.op("Shape", query, start=axis, end=axis + 1) for axis in (0, 1))
    scores = graph.op("Mul", graph.op("Mul", batch, length), graph.integers(heads))
    block = graph.op("Max", graph.op("Div", graph.integers(_SCORES), scores), graph.integers(_LEAST))
    block = graph.op("Min", block, length)
    count = graph.op("Div", graph.op("Sub", graph.op("Add", length, block), graph.integers(1)), block)
    return length, block, count
