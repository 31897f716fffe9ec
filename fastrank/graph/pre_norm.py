"""The layers of Llama and its descendants (Qwen, Gemma): RMSNorm before each block, rotary positions, grouped heads.

Causal models see the tokens before, bidirectional ones all; layers of type "sliding_attention" only those nearby.
"""

from __future__ import annotations

import functools
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from fastrank.graph import blocks, query_blocks, rotary, windows
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"


class Design(NamedTuple):
    """What the architectures differ in.

    Attributes:
        sizes: As of every encoder; `heads` are those of the queries.
        kv_heads: Heads of keys and values; each serves the same number of query heads (Ainslie et al. 2023,
            arXiv:2305.13245).
        width: Dimensions of one head.
        scale: Multiplies the attention scores.
        causal: Whether tokens see only themselves and the tokens before.
        layer_types: `FULL` or `SLIDING`, per layer.
        window: How far sliding layers see: causal ones this many tokens, with the token itself; bidirectional ones this
            many to each side.
        rotations: Rotary frequencies by layer type.
        qkv_bias: Whether the projections of queries, keys and values have biases.
        output_bias: Whether the projection of the attention output has a bias.
        qk_norm: Whether queries and keys are normalized per head.
        norm_offset: Added to the weights of every RMSNorm.
        mlp_bias: Whether the feed-forward blocks have biases.
        output_norms: Whether the outputs of attention and feed-forward block are normalized too.
    """

    sizes: Sizes
    kv_heads: int
    width: int
    scale: float
    causal: bool
    layer_types: list[str]
    window: int
    rotations: Mapping[str, rotary.Rotation]
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norm_offset: float = 0.0
    output_norms: bool = False


class _Text(NamedTuple):
    """What all layers share of the batch.

    Attributes:
        kv_shape: [batch, sequence, kv_heads, width], for `Reshape`.
        cos_sin: By layer type, of all positions.
    """

    kv_shape: str
    cos_sin: Mapping[str, rotary.CosSin]


class _Queries(NamedTuple):
    """The tokens for which a layer computes new states: all tokens of a text, or one.

    Attributes:
        rows: Their rows in [batch * sequence], int64 [batch]; empty: all.
        shape: [batch, queries, heads, width], for `Reshape`.
        attend: By layer type: writes attention, from queries, keys and values to the output before its projection and
            the probabilities, or "", as `blocks.grouped_attention` has them.
        cos_sin: By layer type, of the queries' positions.
        sees: By layer type, where tokens may have nothing to attend to: 0 for those, else 1; float32
            [batch * queries, 1].
    """

    rows: str
    shape: str
    attend: Mapping[str, Callable[[str, str, str], tuple[str, str]]]
    cos_sin: Mapping[str, rotary.CosSin]
    sees: Mapping[str, str] = MappingProxyType({})


def head_sizes(config: Config, default_width: int | None = None) -> tuple[int, int, int]:
    """The numbers of query heads and of key-value heads, and the width of a head (default: hidden size / heads).

    Raises:
        ModelLoadError: A field is missing or absurd, or query heads cannot be shared out evenly.
    """
    count = config.integer("num_attention_heads", high=10_000)
    kv_heads = config.integer("num_key_value_heads", default=count, high=10_000)
    if count % kv_heads:
        raise config.error("num_key_value_heads", f"num_attention_heads {count} is not a multiple of it")
    equal_parts = config.width_and_heads("hidden_size", "num_attention_heads")[0] // count if not default_width else 0
    width = config.integer("head_dim", default=default_width or equal_parts, high=10_000)
    if width % 2:
        raise config.error("head_dim", f"the width of a head, {width}, must be even")
    return count, kv_heads, width


def listed_layer_types(config: Config, default: list[str]) -> list[str]:
    """The field `layer_types`.

    Raises:
        ModelLoadError: It does not name a known type for every layer.
    """
    listed = config.choices("layer_types", [FULL, SLIDING], default)
    if len(listed) != len(default):
        raise config.error("layer_types", f"expected {len(default)} entries, one per layer")
    return listed


def rotation(config: Config, width: int, positions: int) -> rotary.Rotation:
    """The rotation: of a section of newer configurations, of fields of their own in older ones.

    Raises:
        ModelLoadError: As `rotary.rotation`.
    """
    section = rotary.section(config)
    old = config.number("rope_theta", 10_000, low=1, high=1e12)
    theta = section.number("rope_theta", old, low=1, high=1e12)
    return rotary.rotation(config, section, width, theta, positions)


def layers(graph: Graph, x: str, input_ids: str, attention_mask: str, design: Design) -> Encoded:
    """Write all layers but the last, which the head has written for the tokens it needs, and the final norm.

    Args:
        graph: Receives the nodes.
        x: Embeddings, float32 [batch * sequence, hidden].
        input_ids: The input, int64 [batch, sequence].
        attention_mask: The input, int64 [batch, sequence].
        design: The architecture's.

    Raises:
        ModelLoadError: A tensor is missing or not as expected; the calls of the result raise it too.
    """
    size, last = design.sizes, design.sizes.layers - 1
    kinds = dict.fromkeys(design.layer_types)
    keys = blocks.position_ids(graph, input_ids)
    column = graph.op("Unsqueeze", keys, graph.integers(1))
    visible = "" if graph.unpadded else blocks.padding_mask(graph, attention_mask, axes=(1, 2, 3))
    seen = partial(_seen, graph, design, keys, visible)
    whole = partial(_whole, graph, design=design)
    cos_sin = {kind: rotary.cos_sin(graph, column, design.rotations[kind]) for kind in kinds}
    text = _Text(blocks.text_shape(graph, input_ids, design.kv_heads, design.width), cos_sin)
    shape = blocks.text_shape(graph, input_ids, size.heads, design.width)
    if graph.in_blocks:
        ways = {kind: _in_blocks(graph, design, input_ids, attention_mask, keys, kind) for kind in kinds}
        attend = {kind: way.attend for kind, way in ways.items()}
        sees = {kind: way.sees for kind, way in ways.items() if way.sees}
    else:
        masks = {kind: seen(column, kind) for kind in kinds}
        attend = {kind: partial(whole, bias=_bias(graph, masks[kind])) for kind in kinds}
        sees = {kind: blocks.sees(graph, masks[kind]) for kind in kinds if kind == SLIDING and graph.hidden_count}
    every = _Queries("", shape, attend, cos_sin, sees)
    for number in range(last):
        x, _ = _layer(graph, x, number, every, text, design)

    def finish(queries: _Queries) -> tuple[str, str]:
        states, probabilities = _layer(graph, x, last, queries, text, design)
        return _norm(graph, states, "norm", design), probabilities

    def all_tokens() -> tuple[str, str]:
        states, probabilities = finish(every)
        if not probabilities:
            return states, ""
        length = graph.op("Shape", input_ids, start=1, end=2)
        square = graph.op("Concat", graph.integers(-1, size.heads), length, length, axis=0)
        return states, graph.op("Reshape", probabilities, square)

    def token_at(positions: str) -> str:
        kind = design.layer_types[last]
        position = graph.op("Unsqueeze", positions, graph.integers(1))
        angles = rotary.cos_sin(graph, position, design.rotations[kind])
        one = _Queries(
            blocks.rows_of(graph, input_ids, positions),
            graph.integers(-1, 1, size.heads, design.width),
            {
                kind: partial(
                    whole, bias=_bias(graph, seen(graph.op("Unsqueeze", position, graph.integers(2, 3, 4)), kind))
                )
            },
            {kind: rotary.CosSin(*(graph.op("Unsqueeze", part, graph.integers(1)) for part in angles))},
        )
        return finish(one)[0]

    return Encoded(
        input_ids,
        attention_mask,
        size,
        all_tokens=all_tokens,
        first_token=lambda: token_at(graph.op("Expand", graph.integer(0), graph.op("Shape", input_ids, end=1))),
        token_at=token_at,
    )


def _whole(graph: Graph, query: str, key: str, value: str, *, design: Design, bias: str) -> tuple[str, str]:
    heads = _heads(design)
    return blocks.grouped_attention(graph, query, key, value, bias=bias, **heads._asdict())


def _heads(design: Design) -> query_blocks.Heads:
    return query_blocks.Heads(design.kv_heads, design.sizes.heads // design.kv_heads, design.width, design.scale)


class _Way(NamedTuple):
    """`_Queries.attend` and `sees` of a layer type."""

    attend: Callable[[str, str, str], tuple[str, str]]
    sees: str = ""


def _in_blocks(graph: Graph, design: Design, input_ids: str, attention_mask: str, positions: str, kind: str) -> _Way:
    """How all tokens of a layer of this type attend, a block of queries at a time; without probabilities."""
    sizes = _heads(design)
    if kind == SLIDING:
        before = design.window - 1 if design.causal else design.window
        within = windows.windows(graph, input_ids, attention_mask, before, 0 if design.causal else design.window)
        return _Way(
            lambda query, key, value: (windows.attention(graph, query, key, value, sizes, within), ""), within.sees
        )
    heads, width = design.sizes.heads, design.width
    if not design.causal:
        mask = "" if graph.unpadded else blocks.key_bias(graph, attention_mask, heads)

        def fused(query: str, key: str, value: str) -> tuple[str, str]:
            if design.kv_heads != heads:
                each = graph.integers(1, 1, 1, heads // design.kv_heads, 1)
                key, value = (
                    graph.op("Expand", graph.op("Unsqueeze", x, graph.integers(3)), each) for x in (key, value)
                )
                key, value = (graph.op("Reshape", x, graph.integers(0, 0, heads, width)) for x in (key, value))
            return blocks.fused_attention(
                graph, query, key, value, keys=mask, scale=design.scale, heads=heads, width=width
            ), ""

        return _Way(fused)
    visible = "" if graph.unpadded else blocks.padding_mask(graph, attention_mask)

    def bias(block: query_blocks.Block) -> str:
        first, one = graph.integers(0), graph.integers(1)
        seen = graph.op("LessOrEqual", graph.op("Slice", positions, first, block.keys), block.queries)
        if visible:
            seen = graph.op("And", graph.op("Slice", visible, first, block.keys, graph.integers(3)), seen)
            seen = graph.op("Unsqueeze", seen, one)
        return blocks.score_bias(graph, seen)

    return _Way(
        lambda query, key, value: (
            query_blocks.attention(graph, query, key, value, sizes, bias=bias, causal=True),
            "",
        )
    )


def _bias(graph: Graph, seen: str) -> str:
    """What is added to attention scores; empty: nothing."""
    return blocks.score_bias(graph, seen) if seen else ""


def _seen(graph: Graph, design: Design, keys: str, visible: str, queries: str, kind: str) -> str:
    """Which tokens those at positions `queries`, [..., 1], may attend to: bool; empty: all.

    `keys` are all positions, [sequence]; `visible` is the padding mask or empty.
    """
    masks = [visible] if visible else []
    if design.causal:
        masks.append(graph.op("LessOrEqual", keys, queries))
        if kind == SLIDING:
            masks.append(graph.op("Greater", keys, graph.op("Sub", queries, graph.integer(design.window))))
    elif kind == SLIDING:
        distances = graph.op("Abs", graph.op("Sub", queries, keys))
        masks.append(graph.op("LessOrEqual", distances, graph.integer(design.window)))
    if not masks:
        return ""
    return functools.reduce(partial(graph.op, "And"), masks)


def _layer(graph: Graph, x: str, number: int, queries: _Queries, text: _Text, design: Design) -> tuple[str, str]:
    """The new states of the queries, and their attention probabilities, [batch, kv_heads, group, queries, sequence]."""
    name = f"layers.{number}"
    normed = _norm(graph, x, f"{name}.input_layernorm", design)
    attended, probabilities = _attention(graph, normed, number, queries, text, design)
    if design.output_norms:
        attended = _norm(graph, attended, f"{name}.post_attention_layernorm", design)
    x = graph.op("Add", _of_queries(graph, x, queries), attended)
    before = "pre_feedforward_layernorm" if design.output_norms else "post_attention_layernorm"
    fed = _feed_forward(graph, _norm(graph, x, f"{name}.{before}", design), f"{name}.mlp", design)
    if design.output_norms:
        fed = _norm(graph, fed, f"{name}.post_feedforward_layernorm", design)
    return graph.op("Add", x, fed), probabilities


def _of_queries(graph: Graph, x: str, queries: _Queries) -> str:
    if not queries.rows:
        return x
    selected = graph.op("Gather", x, queries.rows)
    if x in graph.normed:
        graph.normed.add(selected)
    return selected


def _norm(graph: Graph, x: str, name: str, design: Design, size: int | None = None) -> str:
    size, epsilon = size or design.sizes.hidden, design.sizes.epsilon
    return blocks.rms_norm(graph, x, name, size, epsilon, offset=design.norm_offset)


def _attention(graph: Graph, x: str, number: int, queries: _Queries, text: _Text, design: Design) -> tuple[str, str]:
    name, kind, size = f"layers.{number}.self_attn", design.layer_types[number], design.sizes
    asking = _of_queries(graph, x, queries)

    def project(states: str, part: str, heads: int, shape: str) -> str:
        wide = heads * design.width
        return graph.op(
            "Reshape",
            blocks.linear(graph, states, f"{name}.{part}_proj", size.hidden, wide, bias=design.qkv_bias),
            shape,
        )

    query = project(asking, "q", size.heads, queries.shape)
    key, value = (project(x, part, design.kv_heads, text.kv_shape) for part in "kv")
    if design.qk_norm:
        query, key = (
            _norm(graph, states, f"{name}.{part}_norm", design, design.width)
            for states, part in ((query, "q"), (key, "k"))
        )
    attended, probabilities = queries.attend[kind](
        rotary.apply(graph, query, queries.cos_sin[kind]), rotary.apply(graph, key, text.cos_sin[kind]), value
    )
    if kind in queries.sees:
        attended = graph.op("Mul", attended, graph.to_compute_dtype(queries.sees[kind]))
    wide = size.heads * design.width
    return blocks.linear(graph, attended, f"{name}.o_proj", wide, size.hidden, bias=design.output_bias), probabilities


def _feed_forward(graph: Graph, x: str, name: str, design: Design) -> str:
    """A gated linear unit (Shazeer 2020, arXiv:2002.05202)."""
    size, bias = design.sizes, design.mlp_bias
    gate, up = (
        blocks.linear(graph, x, f"{name}.{part}_proj", size.hidden, size.intermediate, bias=bias)
        for part in ("gate", "up")
    )
    gated = graph.op("Mul", blocks.ACTIVATIONS[size.activation](graph, gate), up)
    return blocks.linear(graph, gated, f"{name}.down_proj", size.intermediate, size.hidden, bias=bias)
