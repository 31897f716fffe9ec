"""MPNet (Song et al. 2020, arXiv:2004.09297), equal to transformers' models.

RoBERTa without token types and with a relative position bias; the heads are RoBERTa's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, onnx_proto, post_norm, relative_bias
from fastrank.graph.architectures import bert, roberta

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded
    from fastrank.models.config import Config

NAMES: Final = post_norm.Names(
    layer="encoder.layer",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)
_PAD: Final = 1  # of positions; transformers ignores `pad_token_id` here
_BUCKETS: Final = 32  # half of them for each direction; transformers reads the field but supports only this


masked_lm = roberta.masked_lm
sequence_classification = roberta.sequence_classification


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
    position_ids = roberta.position_ids(graph, ids, _PAD)
    positions = graph.lookup("embeddings.position_embeddings.weight", position_ids, size.positions, size.hidden)
    x = graph.op("Reshape", graph.op("Add", words, positions), graph.integers(-1, size.hidden))
    x = blocks.layer_norm(graph, x, "embeddings.LayerNorm", size.hidden, size.epsilon)
    bias = relative_bias.relative_bias(graph, "encoder.relative_attention_bias.weight", ids, size.heads, _BUCKETS)
    layer = partial(post_norm.bert_layer, graph, sizes=size, names=NAMES)
    return post_norm.layers(graph, x, ids, mask, sizes=size, layer=layer, distance_bias=bias)
