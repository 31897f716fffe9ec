"""DeBERTa v2 and v3 (He et al. 2020, arXiv:2006.03654; 2021, arXiv:2111.09543), equal to transformers' models.

BERT whose attention scores also compare contents with relative positions, and relative positions with contents.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from fastrank.graph import blocks, heads, onnx_proto, post_norm, rotary
from fastrank.graph.architectures import bert
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

IGNORED_FIELDS: Final = frozenset({"cls_dropout", "legacy", "pooler_hidden_act", "pooler_hidden_size"})
"""Dropout, and what heads read."""

_CONTENT_TO_POSITION, _POSITION_TO_CONTENT = "c2p", "p2c"
_FALLING, _RISING, _FROM_FIRST = "falling", "rising", "from first"


class _Relative(NamedTuple):
    """How relative positions enter the attention scores.

    Attributes:
        embeddings: One row per bucket of distances, float32 [2 * span, hidden].
        normed: Whether the rows are normalized before use.
        by_distance: Rows for the distances -reach to reach, int64 [2 * reach + 1].
        reach: Farther distances have the rows of these.
        kinds: Which comparisons there are: "c2p", "p2c".
        shared: Whether they use the projections of keys and queries; else they have their own.
        length: The length of the texts, int64 [1].
    """

    embeddings: str
    normed: bool
    by_distance: str
    reach: int
    kinds: frozenset[str]
    shared: bool
    length: str


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    A model with token types has a third, `token_type_ids`. A sequence longer than `max_position_embeddings` makes the
    run fail where positions are embedded (`position_biased_input`); else nothing in the graph limits it.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "deberta."
    _refuse_unsupported(config)
    size = _sizes(config)
    ids, mask, x = _embeddings(graph, config, size)
    relative = _relative(graph, config, size, ids)
    layer = partial(_layer, graph, size=size, relative=relative)
    visible = "" if graph.unpadded else _both_visible(graph, mask)
    return post_norm.layers(graph, x, ids, mask, sizes=size, layer=layer, visible=visible)


def _refuse_unsupported(config: Config) -> None:
    config.choice("relative_attention", [True], default=False)
    config.choice("conv_kernel_size", [0], default=0)


def _sizes(config: Config) -> Sizes:
    hidden, count = config.width_and_heads("hidden_size", "num_attention_heads")
    config.choice("attention_head_size", [hidden // count], default=hidden // count)
    return Sizes(
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers", high=1_000),
        heads=count,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=512, high=100_000),
        epsilon=config.number("layer_norm_eps", default=1e-7),
        activation=config.choice("hidden_act", blocks.ACTIVATIONS, default="gelu"),
    )


def _embedding_size(config: Config, size: Sizes) -> int:
    return config.integer("embedding_size", default=size.hidden, high=100_000)


def _embeddings(graph: Graph, config: Config, size: Sizes) -> tuple[str, str, str]:
    """The inputs `input_ids` and `attention_mask`, and the normalized embeddings, 0 for padding: [rows, hidden]."""
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    width, types = _embedding_size(config, size), config.integer("type_vocab_size", default=0, low=0)
    x = graph.lookup(bert.WORDS, ids, size.vocabulary, width)
    if config.flag("position_biased_input", default=True):
        x = graph.op("Add", x, bert.first_positions(graph, ids, size.positions, width))
    if types:
        type_ids = graph.input("token_type_ids", onnx_proto.INT64, ["batch", "sequence"])
        x = graph.op("Add", x, graph.lookup(bert.TYPES, type_ids, types, width))
    x = graph.op("Reshape", x, graph.integers(-1, width))
    if width != size.hidden:
        x = blocks.linear(graph, x, "embeddings.embed_proj", width, size.hidden, bias=False)
    x = blocks.layer_norm(graph, x, "embeddings.LayerNorm", size.hidden, size.epsilon)
    if not graph.unpadded:
        kept = graph.op("Cast", mask, to=onnx_proto.FLOAT)
        x = graph.op("Mul", x, graph.to_compute_dtype(graph.op("Reshape", kept, graph.integers(-1, 1))))
    return ids, mask, x


def _both_visible(graph: Graph, attention_mask: str) -> str:
    """Padding is not attended to and attends to nothing: bool [batch, 1, sequence, sequence]."""
    is_text = graph.op("Cast", attention_mask, to=onnx_proto.BOOL)
    rows, columns = (graph.op("Unsqueeze", is_text, graph.integers(*axes)) for axes in ((1, 3), (1, 2)))
    return graph.op("And", rows, columns)


def _relative(graph: Graph, config: Config, size: Sizes, input_ids: str) -> _Relative:
    farthest = config.integer("max_relative_positions", default=-1, low=-1, high=100_000)
    farthest = farthest if farthest > 0 else size.positions
    buckets = config.integer("position_buckets", default=-1, low=-1, high=100_000)
    span = buckets if buckets > 0 else farthest
    rows = _rows_by_distance(buckets, farthest)
    return _Relative(
        graph.weight("encoder.rel_embeddings.weight", 2 * span, size.hidden),
        "layer_norm" in config.string("norm_rel_ebd", default="none").lower().split("|"),
        graph.integers(*rows),
        reach=len(rows) // 2,
        kinds=_kinds(config),
        shared=config.flag("share_att_key", default=False),
        length=graph.op("Shape", input_ids, start=1, end=2),
    )


def _kinds(config: Config) -> frozenset[str]:
    """The field `pos_att_type`: a list, or in older configurations a string such as "p2c|c2p"."""
    known = [_CONTENT_TO_POSITION, _POSITION_TO_CONTENT]
    if config.is_text("pos_att_type"):
        listed = [kind.strip() for kind in config.string("pos_att_type").lower().split("|")]
        if not set(listed) <= set(known):
            raise config.error("pos_att_type", f"supported: {', '.join(known)}")
        return frozenset(listed)
    return frozenset(config.choices("pos_att_type", known, []))


def _rows_by_distance(buckets: int, farthest: int) -> list[int]:
    """The rows of the relative embeddings for the distances -n to n; beyond n, the rows are those of n."""
    span = buckets if buckets > 0 else farthest
    rows = [span]
    while (rows[0], rows[-1]) != (0, 2 * span - 1) and len(rows) < 4 * (farthest + span):
        distance = _bucket(len(rows) // 2 + 1, buckets, farthest)
        rows = [max(span - distance, 0), *rows, min(span + distance, 2 * span - 1)]
    return rows


def _bucket(distance: int, buckets: int, farthest: int) -> int:
    """Transformers' `make_log_bucket_position` of a distance above 0: each its own up to half of them, then log-wide.

    In float32 as there, because the result is rounded up.
    """
    middle = buckets // 2
    if buckets <= 0 or distance <= middle:
        return distance
    f = rotary.float32
    ratio = f(f(math.log(f(distance / middle))) / f(math.log(f((farthest - 1) / middle))))
    return math.ceil(f(ratio * (middle - 1))) + middle


def _layer(
    graph: Graph, x: str, number: int, queries: post_norm.Queries, *, size: Sizes, relative: _Relative
) -> tuple[str, str]:
    prefix = f"encoder.layer.{number}."
    attended, probabilities = _attention(graph, x, f"{prefix}attention.self", queries, size, relative)
    attended = blocks.linear(graph, attended, f"{prefix}attention.output.dense", size.hidden, size.hidden)
    x = post_norm.add_and_norm(graph, attended, queries.states, f"{prefix}attention.output.LayerNorm", size)
    return post_norm.feed_forward(graph, x, prefix, sizes=size), probabilities


def _attention(
    graph: Graph, x: str, name: str, queries: post_norm.Queries, size: Sizes, relative: _Relative
) -> tuple[str, str]:
    """The output before its projection, [batch * queries, hidden]; the probabilities, [batch, heads, queries, keys]."""
    hidden, width = size.hidden, size.hidden // size.heads
    query = blocks.linear(graph, queries.states, f"{name}.query_proj", hidden, hidden)
    query = graph.op("Reshape", query, queries.shape)
    key, value = (blocks.linear(graph, x, f"{name}.{part}_proj", hidden, hidden) for part in ("key", "value"))
    key, value = (graph.op("Reshape", states, queries.text_shape) for states in (key, value))
    scale = graph.scalar((width * (1 + len(relative.kinds))) ** -0.5)
    query, key = (graph.op("Transpose", states, perm=[0, 2, 1, 3]) for states in (graph.op("Mul", query, scale), key))
    scores = graph.to_float32(graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2])))
    positions = partial(_positions, graph, relative, name, size)
    if _CONTENT_TO_POSITION in relative.kinds:
        keys = partial(positions, "key_proj" if relative.shared else "pos_key_proj")
        scores = graph.op("Add", scores, _content_to_position(graph, query, queries, relative, keys))
    if _POSITION_TO_CONTENT in relative.kinds:
        asking = partial(positions, "query_proj" if relative.shared else "pos_query_proj")
        term = _position_to_content(graph, graph.op("Mul", key, scale), queries, relative, asking)
        scores = graph.op("Add", scores, term)
    probabilities = graph.op(
        "Softmax", graph.op("Add", scores, queries.mask.bias) if queries.mask.bias else scores, axis=-1
    )
    values = graph.op("Transpose", value, perm=[0, 2, 1, 3])
    attended = graph.op("MatMul", graph.to_compute_dtype(probabilities), values)
    attended = graph.op("Transpose", attended, perm=[0, 2, 1, 3])
    return graph.op("Reshape", attended, graph.integers(-1, hidden)), probabilities


def _content_to_position(
    graph: Graph, query: str, queries: post_norm.Queries, relative: _Relative, positions: Callable[[str], str]
) -> str:
    """Of query i and key j: the query's content with the key's relative position i - j."""
    if queries.only_first:
        products = graph.op("MatMul", query, graph.op("Transpose", positions(_FROM_FIRST), perm=[0, 2, 3, 1]))
        return graph.to_float32(products)
    by_distance = graph.op("MatMul", query, graph.op("Transpose", positions(_FALLING), perm=[0, 2, 3, 1]))
    return _shifted(graph, graph.to_float32(by_distance), relative)


def _position_to_content(
    graph: Graph, key: str, queries: post_norm.Queries, relative: _Relative, positions: Callable[[str], str]
) -> str:
    """Of query i and key j: the key's content with the query's relative position, which is also looked up by i - j."""
    if queries.only_first:
        products = graph.op("Mul", key, graph.op("Transpose", positions(_FROM_FIRST), perm=[0, 2, 1, 3]))
        products = graph.to_float32(products)
        return graph.op("Unsqueeze", graph.op("ReduceSum", products, graph.integers(3), keepdims=0), graph.integers(2))
    by_distance = graph.op("MatMul", key, graph.op("Transpose", positions(_RISING), perm=[0, 2, 3, 1]))
    shifted = _shifted(graph, graph.to_float32(by_distance), relative)
    return graph.op("Transpose", shifted, perm=[0, 1, 3, 2])


def _positions(graph: Graph, relative: _Relative, name: str, size: Sizes, part: str, distances: str) -> str:
    """Projected relative embeddings for a range of distances (see `_rows`): [1, distances, heads, width].

    All rows are projected before those of the text's distances are gathered: onnxruntime does that once, when it loads
    the model. int8 graphs are run as they are, so they project only what a text needs.
    """
    rows = graph.once(f"relative rows {distances}", lambda: _rows(graph, relative, distances))
    # 4-D, although the 1 could be left out: onnxruntime 1.32 crashes when it optimizes a float16 MatMul of 4-D by 3-D.
    shape = graph.integers(1, -1, size.heads, size.hidden // size.heads)

    def project(embeddings: str) -> str:
        # The weights of keys and queries are quantized for the text's states, which they multiply too.
        hidden, record = size.hidden, not relative.shared
        projected = blocks.linear(graph, embeddings, f"{name}.{part}", hidden, hidden, record=record)
        return graph.op("Reshape", projected, shape)

    def normed(embeddings: str) -> str:
        if not relative.normed:
            return embeddings
        return blocks.layer_norm(graph, embeddings, "encoder.LayerNorm", size.hidden, size.epsilon)

    if graph.in_int8:
        needed = graph.once(f"relative {distances}", lambda: normed(graph.op("Gather", relative.embeddings, rows)))
        return project(graph.op("Identity", needed))  # each layer quantizes it in its own way
    every = graph.once("relative", lambda: normed(relative.embeddings))
    return graph.op("Gather", project(every), rows, axis=1)


def _rows(graph: Graph, relative: _Relative, distances: str) -> str:
    """Rows of the relative embeddings, int64, for the distances of a text of n tokens.

    `_FALLING`: n - 1 to -n. `_RISING`: 1 - n to n. `_FROM_FIRST`: 0 to 1 - n.
    """
    length, one = graph.op("Squeeze", relative.length), graph.integer(1)
    less = graph.op("Neg", length)
    start, end, step = {
        _FALLING: (graph.op("Sub", length, one), graph.op("Sub", less, one), graph.integer(-1)),
        _RISING: (graph.op("Add", less, one), graph.op("Add", length, one), one),
        _FROM_FIRST: (graph.integer(0), less, graph.integer(-1)),
    }[distances]
    clipped = graph.op(
        "Clip", graph.op("Range", start, end, step), graph.integer(-relative.reach), graph.integer(relative.reach)
    )
    return graph.op("Gather", relative.by_distance, graph.op("Add", clipped, graph.integer(relative.reach)))


def _shifted(graph: Graph, x: str, relative: _Relative) -> str:
    """Select column `n - 1 + j - i` of row i: [batch, heads, n, 2n] to [batch, heads, n, n].

    Without the first n - 1 numbers and with rows shorter by one, each row begins one column earlier than the one above:
    the relative shift of Transformer-XL (Dai et al. 2019, arXiv:1901.02860), which moves memory only.
    """
    before = graph.op("Sub", relative.length, graph.integers(1))
    flat = graph.op("Reshape", x, graph.integers(0, 0, -1))
    flat = graph.op("Slice", flat, before, graph.integers(-1), graph.integers(2))
    shape = graph.op("Concat", graph.integers(0, 0), relative.length, graph.integers(-1), axis=0)
    return graph.op("Slice", graph.op("Reshape", flat, shape), graph.integers(0), relative.length, graph.integers(3))


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `DebertaV2ForMaskedLM`, of either kind.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    size, legacy = encoded.sizes, config.flag("legacy", default=True)
    width = _embedding_size(config, size) if legacy else size.hidden
    name = "cls.predictions" if legacy else "lm_predictions.lm_head"
    transform = f"{name}.transform" if legacy else name
    x = blocks.linear(graph, encoded.all_tokens()[0], f"{transform}.dense", size.hidden, width)
    x = blocks.ACTIVATIONS[size.activation](graph, x)
    x = blocks.layer_norm(graph, x, f"{transform}.LayerNorm", width, size.epsilon)
    decoder, bias = f"{name}.decoder", f"{name}.bias"
    heads.word_logits(graph, config, encoded, x, width, decoder=decoder, bias=bias, embeddings=bert.WORDS)


def sequence_classification(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, labels]: transformers' `DebertaV2ForSequenceClassification`.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    hidden = encoded.sizes.hidden
    config.choice("pooler_hidden_size", [hidden], default=hidden)
    activation = config.choice("pooler_hidden_act", blocks.ACTIVATIONS, default="gelu")
    pooled = blocks.linear(graph, encoded.first_token(), "pooler.dense", hidden, hidden)
    heads.label_logits(graph, blocks.ACTIVATIONS[activation](graph, pooled), "classifier", hidden)
