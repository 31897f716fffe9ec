"""Attention of tokens that see only those near them, for a block of queries at a time.

Each block is multiplied by the window of keys that its queries may see, all blocks in one batched product. So work and
memory grow with length times window, not with the square of the length (the chunks of Longformer, Beltagy et al. 2020,
arXiv:2004.05150, without their overlap). A text that fits in one window is one block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastrank.graph import blocks, onnx_proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.query_blocks import Heads


class Windows(NamedTuple):
    """How the tokens of a batch are cut into blocks, the same for all its texts.

    Attributes:
        length: Tokens of a text, int64 [1].
        blocks: The number of blocks, int64 [1].
        block: Queries of a block, int64 [1].
        filling: How many queries the last block lacks, int64 [1].
        keys: The positions that each block sees, int64 [blocks, window].
        bias: Added to scores, float32 [batch or 1, blocks, 1, 1, block, window].
        sees: 0 for tokens that see none, else 1: float32 [batch * sequence, 1].
    """

    length: str
    blocks: str
    block: str
    filling: str
    keys: str
    bias: str
    sees: str


def windows(graph: Graph, input_ids: str, attention_mask: str, before: int, after: int) -> Windows:
    """Cut texts into blocks whose tokens see so many tokens before and after themselves."""
    reach = before + after
    most = max(64, min(256, reach // 2))
    length, one = graph.op("Shape", input_ids, start=1, end=2), graph.integers(1)
    fits = graph.op("LessOrEqual", length, graph.integers(most + reach))
    block = graph.op("Where", fits, length, graph.integers(most))
    count = graph.op("Div", graph.op("Sub", graph.op("Add", length, block), one), block)
    window = graph.op("Min", length, graph.op("Add", block, graph.integers(reach)))
    filled = graph.op("Mul", count, block)
    first = graph.op("Mul", _range(graph, count), block)
    last_start = graph.op("Squeeze", graph.op("Sub", length, window))
    start = graph.op("Clip", graph.op("Sub", first, graph.integers(before)), graph.integer(0), last_start)
    keys = graph.op("Add", graph.op("Unsqueeze", start, one), _range(graph, window))
    queries = graph.op("Reshape", _range(graph, filled), graph.op("Concat", count, block, graph.integers(1), axis=0))
    ahead = graph.op("Sub", graph.op("Unsqueeze", keys, one), queries)
    near = graph.op(
        "And",
        graph.op("LessOrEqual", ahead, graph.integer(after)),
        graph.op("GreaterOrEqual", ahead, graph.integer(-before)),
    )
    if graph.unpadded:
        visible = graph.op("Unsqueeze", near, graph.integers(0))
    else:
        kept = graph.op("Gather", graph.op("Cast", attention_mask, to=onnx_proto.BOOL), keys, axis=1)
        visible = graph.op("And", near, graph.op("Unsqueeze", kept, graph.integers(2)))
    sees = ""
    if graph.hidden_count:
        some = graph.op("ReduceMax", graph.op("Cast", visible, to=onnx_proto.FLOAT), axes=[-1], keepdims=0)
        some = graph.op("Reshape", some, graph.op("Concat", graph.integers(-1), filled, axis=0))
        sees = graph.op("Reshape", graph.op("Slice", some, graph.integers(0), length, one), graph.integers(-1, 1))
    bias = blocks.score_bias(graph, graph.op("Unsqueeze", visible, graph.integers(2, 3)))
    return Windows(length, count, block, graph.op("Sub", filled, length), keys, bias, sees)


def attention(graph: Graph, query: str, key: str, value: str, heads: Heads, within: Windows) -> str:
    """Attention within windows; arguments and result as `query_blocks.attention` has them."""
    kv_heads, group, width, scale = heads
    wide = heads.total
    scaled = graph.op("Mul", query, graph.scalar(scale))
    filling = graph.op("Concat", graph.integers(0, 0, 0, 0, 0), within.filling, graph.integers(0, 0), axis=0)
    shape = graph.op(
        "Concat", graph.integers(0), within.blocks, within.block, graph.integers(kv_heads, group, width), axis=0
    )
    rows = graph.op("Reshape", graph.op("Pad", scaled, filling), shape)
    rows = graph.op("Transpose", rows, perm=[0, 1, 3, 4, 2, 5])
    columns = graph.op("Transpose", graph.op("Gather", key, within.keys, axis=1), perm=[0, 1, 3, 4, 2])
    values = graph.op("Transpose", graph.op("Gather", value, within.keys, axis=1), perm=[0, 1, 3, 2, 4])
    columns, values = (graph.op("Unsqueeze", x, graph.integers(3)) for x in (columns, values))
    scores = graph.op("Add", graph.op("MatMul", rows, columns), within.bias)
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), values)
    mixed = graph.op("Transpose", mixed, perm=[0, 1, 4, 2, 3, 5])
    mixed = graph.op(
        "Reshape", mixed, graph.op("Concat", graph.integers(0), graph.integers(-1), graph.integers(wide), axis=0)
    )
    mixed = graph.op("Slice", mixed, graph.integers(0), within.length, graph.integers(1))
    return graph.op("Reshape", mixed, graph.integers(-1, wide))


def _range(graph: Graph, count: str) -> str:
    """0, 1, 2 ..., from a number in one dimension."""
    return graph.op("Range", graph.integer(0), graph.op("Squeeze", count), graph.integer(1))
