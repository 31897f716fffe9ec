"""The layers of BERT and its descendants: each sum with what went in is followed by a LayerNorm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from fastrank.graph import blocks
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph


class Names(NamedTuple):
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


class Look(NamedTuple):
    """The tokens that look at the others in one layer: all of a text, or its first only.

    Attributes:
        states: Theirs, float32 [batch * asking, hidden].
        bias: Added to their scores; broadcast to [batch, heads, asking, sequence]. Empty: nothing is.
        shape: [batch, asking, heads, width], for `Reshape`.
        text_shape: The same of all tokens.
        only_first: Which of the two.
    """

    states: str
    bias: str
    shape: str
    text_shape: str
    only_first: bool


Layer: TypeAlias = Callable[[str, int, Look], tuple[str, str]]
"""From all states, float32 [batch * sequence, hidden], a layer's number and a look: the new states of the tokens that
look, and their attention probabilities, float32 [batch, heads, asking, sequence]."""


def layers(
    graph: Graph,
    x: str,
    input_ids: str,
    attention_mask: str,
    *,
    sizes: Sizes,
    layer: Layer | None = None,
    distance_bias: str = "",
) -> Encoded:
    """All layers.

    Args:
        graph: Receives the nodes.
        x: Normalized embeddings, float32 [batch * sequence, hidden].
        input_ids: The input, int64 [batch, sequence].
        attention_mask: The input, int64 [batch, sequence].
        sizes: The encoder's.
        layer: Writes one layer; None: BERT's.
        distance_bias: What else to add to the scores of all layers, float32 [1, heads, sequence, sequence].

    Returns:
        The encoder, of which the last layer is yet to be written.

    Raises:
        ModelLoadError: A tensor is missing or not as expected; the calls of the result raise it too.
    """
    write = layer or partial(bert_layer, graph, sizes=sizes)
    width = sizes.hidden // sizes.heads
    bias = distance_bias
    if not graph.unpadded:
        bias = blocks.score_bias(graph, blocks.padding_mask(graph, attention_mask))
        bias = graph.op("Add", bias, distance_bias) if distance_bias else bias
    shape = blocks.text_shape(graph, input_ids, sizes.heads, width)
    last = sizes.layers - 1
    for number in range(last):
        x, _ = write(x, number, Look(x, bias, shape, shape, only_first=False))

    def first_token() -> str:
        first = blocks.first_token(graph, x, input_ids, sizes.hidden)
        first_bias = bias and graph.op("Slice", bias, graph.integers(0), graph.integers(1), graph.integers(2))
        first_shape = graph.integers(-1, 1, sizes.heads, width)
        return write(x, last, Look(first, first_bias, first_shape, shape, only_first=True))[0]

    return Encoded(
        input_ids,
        attention_mask,
        sizes,
        all_tokens=lambda: write(x, last, Look(x, bias, shape, shape, only_first=False)),
        first_token=first_token,
    )


def bert_layer(graph: Graph, x: str, number: int, look: Look, *, sizes: Sizes, names: Names = BERT) -> tuple[str, str]:
    """A `Layer` of BERT, by whatever names."""
    prefix, hidden = f"{names.layer}.{number}.", sizes.hidden
    x, attention = attend(graph, x, prefix, look, sizes=sizes, names=names)
    wide = blocks.linear(graph, x, prefix + names.wide, hidden, sizes.intermediate)
    wide = blocks.ACTIVATIONS[sizes.activation](graph, wide)
    narrow = blocks.linear(graph, wide, prefix + names.narrow, sizes.intermediate, hidden)
    return add_and_norm(graph, narrow, x, prefix + names.narrow_norm, sizes), attention


def attend(
    graph: Graph,
    x: str,
    prefix: str,
    look: Look,
    *,
    sizes: Sizes,
    names: Names = BERT,
    query_norm: str = "",
    key_norm: str = "",
) -> tuple[str, str]:
    """The first half of a layer: the states after attention, normalized, and the attention probabilities.

    `query_norm` and `key_norm` name norms, if there are any, of the projected queries and keys, over all heads.
    """
    hidden, epsilon = sizes.hidden, sizes.epsilon
    query = blocks.linear(graph, look.states, prefix + names.query, hidden, hidden)
    key, value = (blocks.linear(graph, x, prefix + part, hidden, hidden) for part in (names.key, names.value))
    if query_norm:
        query = blocks.layer_norm(graph, query, prefix + query_norm, hidden, epsilon)
    if key_norm:
        key = blocks.layer_norm(graph, key, prefix + key_norm, hidden, epsilon)
    mixed, attention = blocks.attention(
        graph,
        graph.op("Reshape", query, look.shape),
        graph.op("Reshape", key, look.text_shape),
        graph.op("Reshape", value, look.text_shape),
        bias=look.bias,
        width=hidden // sizes.heads,
        heads=sizes.heads,
    )
    mixed = blocks.linear(graph, mixed, prefix + names.mixed, hidden, hidden)
    return add_and_norm(graph, mixed, look.states, prefix + names.mixed_norm, sizes), attention


def add_and_norm(graph: Graph, x: str, went_in: str, name: str, sizes: Sizes) -> str:
    """The LayerNorm of a sum, float32 [rows, hidden]."""
    return blocks.layer_norm(graph, graph.op("Add", x, went_in), name, sizes.hidden, sizes.epsilon)
