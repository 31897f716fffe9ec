"""The layers of BERT and its descendants: each sum with what went in is followed by a LayerNorm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph


@dataclass(frozen=True)
class Names:
    """How a checkpoint calls the parts of a layer."""

    layer: str
    query: str
    key: str
    value: str
    mixed: str
    mixed_norm: str
    wide: str
    narrow: str
    narrow_norm: str


BERT: Final = Names(
    layer="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    mixed="attention.output.dense",
    mixed_norm="attention.output.LayerNorm",
    wide="intermediate.dense",
    narrow="output.dense",
    narrow_norm="output.LayerNorm",
)


def layers(graph: Graph, x: str, input_ids: str, attention_mask: str, *, sizes: Sizes, names: Names = BERT) -> Encoded:
    """All layers, from normalized embeddings, float32 [batch * sequence, hidden].

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    bias = blocks.score_bias(graph, blocks.padding_mask(graph, attention_mask))
    shape = blocks.text_shape(graph, input_ids, sizes.heads, sizes.hidden // sizes.heads)
    attention = ""
    for number in range(sizes.layers):
        x, attention = _layer(graph, x, f"{names.layer}.{number}.", bias=bias, shape=shape, sizes=sizes, names=names)
    return Encoded(x, attention, input_ids, attention_mask, sizes)


def _layer(graph: Graph, x: str, prefix: str, *, bias: str, shape: str, sizes: Sizes, names: Names) -> tuple[str, str]:
    hidden = sizes.hidden
    query, key, value = (
        blocks.linear(graph, x, prefix + part, hidden, hidden) for part in (names.query, names.key, names.value)
    )
    mixed, attention = blocks.attention(
        graph, query, key, value, bias=bias, shape=shape, size=hidden, heads=sizes.heads
    )
    mixed = blocks.linear(graph, mixed, prefix + names.mixed, hidden, hidden)
    x = blocks.layer_norm(graph, graph.op("Add", mixed, x), prefix + names.mixed_norm, hidden, sizes.epsilon)
    wide = blocks.linear(graph, x, prefix + names.wide, hidden, sizes.intermediate)
    wide = blocks.ACTIVATIONS[sizes.activation](graph, wide)
    narrow = blocks.linear(graph, wide, prefix + names.narrow, sizes.intermediate, hidden)
    x = blocks.layer_norm(graph, graph.op("Add", narrow, x), prefix + names.narrow_norm, hidden, sizes.epsilon)
    return x, attention
