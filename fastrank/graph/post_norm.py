"""The layers of BERT and its descendants: each residual sum is followed by a LayerNorm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from fastrank.graph import blocks, query_blocks
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph


class Names(NamedTuple):
    """The names of a layer's parameters in a checkpoint."""

    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    output_norm: str


BERT: Final = Names(
    layer="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)


class Queries(NamedTuple):
    """The tokens for which a layer computes new states: all tokens of a text, or its first only.

    Attributes:
        states: Their states, float32 [batch * queries, hidden].
        mask: Of their attention scores.
        shape: [batch, queries, heads, width], for `Reshape`.
        text_shape: [batch, sequence, heads, width].
        only_first: Whether only the first token of every text is among them.
    """

    states: str
    mask: blocks.Mask
    shape: str
    text_shape: str
    only_first: bool


Layer: TypeAlias = Callable[[str, int, Queries], tuple[str, str]]
"""Writes one layer: from the states of all tokens, float32 [batch * sequence, hidden], the number of the layer and its
queries to the new states of the queries and their attention probabilities, [batch, heads, queries, sequence]."""


def layers(
    graph: Graph,
    x: str,
    input_ids: str,
    attention_mask: str,
    *,
    sizes: Sizes,
    layer: Layer | None = None,
    distance_bias: str = "",
    bias_of: Callable[[str], str] | None = None,
    visible: str = "",
) -> Encoded:
    """Write all layers but the last, which the head has written for the tokens it needs.

    Args:
        graph: Receives the nodes.
        x: Normalized embeddings, float32 [batch * sequence, hidden].
        input_ids: The input, int64 [batch, sequence].
        attention_mask: The input, int64 [batch, sequence].
        sizes: The encoder's.
        layer: Writes one layer; None: `bert_layer`.
        distance_bias: Added to the attention scores of every layer, float32 [1, heads, sequence, sequence].
        bias_of: Writes the same for tokens at some positions, int64 [queries, 1], where it is cheap: float32
            [1, heads, queries, sequence].
        visible: Which tokens may be attended to, bool [batch, 1, 1 or sequence, sequence]; empty: all but padding.

    Raises:
        ModelLoadError: A tensor is missing or not as expected; the calls of the result raise it too.
    """
    write = layer or partial(bert_layer, graph, sizes=sizes)
    width = sizes.hidden // sizes.heads
    mask, first_mask = _masks(graph, input_ids, attention_mask, sizes.heads, distance_bias, bias_of, visible)
    shape = blocks.text_shape(graph, input_ids, sizes.heads, width)
    last = sizes.layers - 1
    before = [x]
    for number in range(last):
        x, _ = write(x, number, Queries(x, mask, shape, shape, only_first=False))
        before.append(x)

    def first_token() -> str:
        first = blocks.first_token(graph, x, input_ids, sizes.hidden)
        first_shape = graph.integers(-1, 1, sizes.heads, width)
        return write(x, last, Queries(first, first_mask(), first_shape, shape, only_first=True))[0]

    return Encoded(
        input_ids,
        attention_mask,
        sizes,
        all_tokens=lambda: write(x, last, Queries(x, mask, shape, shape, only_first=False)),
        first_token=first_token,
        before_layers=tuple(before),
    )


def _masks(
    graph: Graph,
    input_ids: str,
    attention_mask: str,
    heads: int,
    distance_bias: str,
    bias_of: Callable[[str], str] | None,
    visible: str,
) -> tuple[blocks.Mask, Callable[[], blocks.Mask]]:
    """The mask of all tokens, and the one of the first, which is written if it is called."""
    if graph.in_blocks and bias_of is not None:
        padding = "" if graph.unpadded else blocks.score_bias(graph, blocks.padding_mask(graph, attention_mask))
        write = bias_of

        def bias_at(queries: str) -> str:
            return graph.op("Add", write(queries), padding) if padding else write(queries)

        def by_block(block: query_blocks.Block) -> str:
            return graph.op("Unsqueeze", bias_at(block.queries), graph.integers(2))

        return blocks.Mask(by_block=by_block), lambda: blocks.Mask(bias_at(graph.integers(0)))
    if bias_of is not None:
        positions = blocks.position_ids(graph, input_ids)
        distance_bias = bias_of(graph.op("Unsqueeze", positions, graph.integers(1)))
    if graph.in_blocks and not distance_bias and not visible:
        mask = blocks.Mask(keys="" if graph.unpadded else blocks.key_bias(graph, attention_mask, heads))
        return mask, lambda: mask
    bias = distance_bias
    if not graph.unpadded:
        bias = blocks.score_bias(graph, visible or blocks.padding_mask(graph, attention_mask))
        bias = graph.op("Add", bias, distance_bias) if distance_bias else bias
    first = (graph.integers(0), graph.integers(1), graph.integers(2))
    return blocks.Mask(bias), lambda: blocks.Mask(bias and graph.op("Slice", bias, *first))


def bert_layer(
    graph: Graph, x: str, number: int, queries: Queries, *, sizes: Sizes, names: Names = BERT
) -> tuple[str, str]:
    """A `Layer` of BERT; `names` maps its parameters."""
    prefix = f"{names.layer}.{number}."
    x, attention = attend(graph, x, prefix, queries, sizes=sizes, names=names)
    return feed_forward(graph, x, prefix, sizes=sizes, names=names), attention


def attend(
    graph: Graph,
    x: str,
    prefix: str,
    queries: Queries,
    *,
    sizes: Sizes,
    names: Names = BERT,
    query_norm: str = "",
    key_norm: str = "",
) -> tuple[str, str]:
    """The first half of a layer: the normalized states after attention, and the attention probabilities.

    `query_norm` and `key_norm` name LayerNorms of the projected queries and keys, over all heads; or are empty.
    """
    hidden, epsilon = sizes.hidden, sizes.epsilon
    query = blocks.linear(graph, queries.states, prefix + names.query, hidden, hidden)
    key, value = (blocks.linear(graph, x, prefix + part, hidden, hidden) for part in (names.key, names.value))
    if query_norm:
        query = blocks.layer_norm(graph, query, prefix + query_norm, hidden, epsilon)
    if key_norm:
        key = blocks.layer_norm(graph, key, prefix + key_norm, hidden, epsilon)
    attended, attention = blocks.attention(
        graph,
        graph.op("Reshape", query, queries.shape),
        graph.op("Reshape", key, queries.text_shape),
        graph.op("Reshape", value, queries.text_shape),
        mask=queries.mask,
        width=hidden // sizes.heads,
        heads=sizes.heads,
    )
    attended = blocks.linear(graph, attended, prefix + names.attention_output, hidden, hidden)
    return add_and_norm(graph, attended, queries.states, prefix + names.attention_norm, sizes), attention


def feed_forward(graph: Graph, x: str, prefix: str, *, sizes: Sizes, names: Names = BERT) -> str:
    """The second half of a layer, float32 [rows, hidden]."""
    up = blocks.linear(graph, x, prefix + names.up, sizes.hidden, sizes.intermediate)
    up = blocks.ACTIVATIONS[sizes.activation](graph, up)
    down = blocks.linear(graph, up, prefix + names.down, sizes.intermediate, sizes.hidden)
    return add_and_norm(graph, down, x, prefix + names.output_norm, sizes)


def add_and_norm(graph: Graph, x: str, residual: str, name: str, sizes: Sizes) -> str:
    """The LayerNorm of a residual sum, float32 [rows, hidden]."""
    return blocks.layer_norm(graph, graph.op("Add", x, residual), name, sizes.hidden, sizes.epsilon)
