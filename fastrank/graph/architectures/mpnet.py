"""MPNet (Song et al. 2020, arXiv:2004.09297), equal to transformers' models.

RoBERTa without token types, whose scores also depend on how far apart two tokens are; the heads are RoBERTa's.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, onnx_proto
from fastrank.graph.architectures import bert, post_norm, roberta

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded
    from fastrank.models.config import Config

NAMES: Final = post_norm.Names(
    layer="encoder.layer",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    mixed="attention.attn.o",
    mixed_norm="attention.LayerNorm",
    wide="intermediate.dense",
    narrow="output.dense",
    narrow_norm="output.LayerNorm",
)
_PAD: Final = 1  # for positions, whatever `pad_token_id` says
_BUCKETS: Final = 32  # half of them for each direction; transformers reads no other number
_FARTHEST: Final = 128


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    A sequence longer than `max_position_embeddings - 2` makes the run fail.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "mpnet."
    size = bert.sizes(config)
    config.choice("relative_attention_num_buckets", [_BUCKETS], default=_BUCKETS)
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    words = graph.lookup(bert.WORDS, ids, size.vocabulary, size.hidden)
    numbers = roberta.position_ids(graph, ids, _PAD)
    positions = graph.lookup("embeddings.position_embeddings.weight", numbers, size.positions, size.hidden)
    x = graph.op("Reshape", graph.op("Add", words, positions), graph.integers(-1, size.hidden))
    x = blocks.layer_norm(graph, x, "embeddings.LayerNorm", size.hidden, size.epsilon)
    bias = _distance_bias(graph, ids, size.heads)
    layer = partial(post_norm.bert_layer, graph, sizes=size, names=NAMES)
    return post_norm.layers(graph, x, ids, mask, sizes=size, layer=layer, distance_bias=bias)


def _distance_bias(graph: Graph, input_ids: str, heads: int) -> str:
    """What the distance of two tokens adds to their score, float32 [1, heads, sequence, sequence]."""
    table = graph.weight("encoder.relative_attention_bias.weight", _BUCKETS, heads, exact=True)
    rows = graph.integers(*(_bucket(distance) for distance in range(-_FARTHEST, _FARTHEST + 1)))
    by_distance = graph.op("Gather", table, rows)
    places = blocks.places(graph, input_ids)
    distances = graph.op("Sub", places, graph.op("Unsqueeze", places, graph.integers(1)))
    distances = graph.op("Clip", distances, graph.integer(-_FARTHEST), graph.integer(_FARTHEST))
    biases = graph.op("Gather", by_distance, graph.op("Add", distances, graph.integer(_FARTHEST)))
    return graph.op("Unsqueeze", graph.op("Transpose", biases, perm=[2, 0, 1]), graph.integers(0))


def _bucket(distance: int) -> int:
    """The row for a distance (Raffel et al. 2019, arXiv:1910.10683): one for each below 8, then ever wider ranges."""
    offset = _BUCKETS // 2 if distance > 0 else 0
    far, exact = abs(distance), _BUCKETS // 4
    if far >= exact:
        far = exact + int(math.log(far / exact) / math.log(_FARTHEST / exact) * exact)
    return offset + min(far, _BUCKETS // 2 - 1)
