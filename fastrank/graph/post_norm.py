"""The layers of BERT and its descendants: each sum with what went in is followed by a LayerNorm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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


def layers(
    graph: Graph,
    x: str,
    input_ids: str,
    attention_mask: str,
    *,
    sizes: Sizes,
    names: Names = BERT,
    distance_bias: str = "",
) -> Encoded:
    """All layers.

    Args:
        graph: Receives the nodes.
        x: Normalized embeddings, float32 [batch * sequence, hidden].
        input_ids: The input, int64 [batch, sequence].
        attention_mask: The input, int64 [batch, sequence].
        sizes: The encoder's.
        names: The checkpoint's.
        distance_bias: What else to add to the scores of all layers, float32 [1, heads, sequence, sequence].

    Returns:
        The encoder, of which the last layer is yet to be written.

    Raises:
        ModelLoadError: A tensor is missing or not as expected; the calls of the result raise it too.
    """
    width = sizes.hidden // sizes.heads
    bias = blocks.score_bias(graph, blocks.padding_mask(graph, attention_mask))
    if distance_bias:
        bias = graph.op("Add", bias, distance_bias)
    shape = blocks.text_shape(graph, input_ids, sizes.heads, width)
    layer = partial(_layer, graph, shape=shape, sizes=sizes, names=names)
    last = sizes.layers - 1
    for number in range(last):
        x, _ = layer(x, x, number, bias=bias, query_shape=shape)

    def first_token() -> str:
        first = blocks.first_token(graph, x, input_ids, sizes.hidden)
        first_bias = graph.op("Slice", bias, graph.integers(0), graph.integers(1), graph.integers(2))
        first_shape = graph.integers(-1, 1, sizes.heads, width)
        return layer(x, first, last, bias=first_bias, query_shape=first_shape)[0]

    return Encoded(
        input_ids,
        attention_mask,
        sizes,
        all_tokens=lambda: layer(x, x, last, bias=bias, query_shape=shape),
        first_token=first_token,
    )


def _layer(
    graph: Graph,
    x: str,
    asking: str,
    number: int,
    *,
    bias: str,
    shape: str,
    query_shape: str,
    sizes: Sizes,
    names: Names,
) -> tuple[str, str]:
    """One layer's states of the tokens `asking`, a selection of `x` or all of it; and its attention probabilities."""
    prefix, hidden = f"{names.layer}.{number}.", sizes.hidden
    query = blocks.linear(graph, asking, prefix + names.query, hidden, hidden)
    key, value = (blocks.linear(graph, x, prefix + part, hidden, hidden) for part in (names.key, names.value))
    mixed, attention = blocks.attention(
        graph,
        graph.op("Reshape", query, query_shape),
        graph.op("Reshape", key, shape),
        graph.op("Reshape", value, shape),
        bias=bias,
        width=hidden // sizes.heads,
        heads=sizes.heads,
    )
    mixed = blocks.linear(graph, mixed, prefix + names.mixed, hidden, hidden)
    x = blocks.layer_norm(graph, graph.op("Add", mixed, asking), prefix + names.mixed_norm, hidden, sizes.epsilon)
    wide = blocks.linear(graph, x, prefix + names.wide, hidden, sizes.intermediate)
    wide = blocks.ACTIVATIONS[sizes.activation](graph, wide)
    narrow = blocks.linear(graph, wide, prefix + names.narrow, sizes.intermediate, hidden)
    x = blocks.layer_norm(graph, graph.op("Add", narrow, x), prefix + names.narrow_norm, hidden, sizes.epsilon)
    return x, attention
