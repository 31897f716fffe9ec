"""ModernBERT (Warner et al. 2024, arXiv:2412.13663), equal to transformers' models.

Unlike BERT: pre-norm layers, rotary positions, sliding-window attention in most layers, gated feed-forward blocks, and
few biases.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from fastrank.graph import blocks, heads, onnx_proto, query_blocks, rotary, windows
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

WITHOUT_HEADS: Final = ("layer-states",)
WORDS: Final = "embeddings.tok_embeddings.weight"
GLOBAL, LOCAL = "full_attention", "sliding_attention"


class _LayerType(NamedTuple):
    """What full and sliding layers differ in.

    Attributes:
        cos_sin: The rotary angles.
        mask: Of attention scores.
        within: What sliding layers see, where they are computed in blocks.
        sees: Where tokens may have nothing to attend to: 0 for those, else 1; float32 [batch * sequence, 1].
    """

    cos_sin: rotary.CosSin
    mask: blocks.Mask = blocks.Mask()
    within: windows.Windows | None = None
    sees: str = ""


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    Nothing in the graph limits the length of a sequence; the model was trained up to `max_position_embeddings`.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "model."
    size = _sizes(config)
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    norm = partial(_norm, config=config, size=size)
    x = graph.op("Reshape", graph.lookup(WORDS, ids, size.vocabulary, size.hidden), graph.integers(-1, size.hidden))
    x = norm(graph, x, "embeddings.norm")
    layer_types = _by_layer_type(graph, config, size, ids, mask)
    shape = blocks.text_shape(graph, ids, size.heads, size.hidden // size.heads)
    probabilities = ""
    for number, kind in enumerate(_layer_types(config, size.layers)):
        name = f"layers.{number}"
        normed = norm(graph, x, f"{name}.attn_norm") if number else x  # the embeddings are normalized already
        mixed, probabilities = _attention(
            graph, normed, f"{name}.attn", layer_types[kind], shape, config=config, size=size
        )
        x = graph.op("Add", x, mixed)
        fed = _feed_forward(graph, norm(graph, x, f"{name}.mlp_norm"), f"{name}.mlp", config=config, size=size)
        x = graph.op("Add", x, fed)
    return Encoded(
        ids,
        mask,
        size,
        all_tokens=lambda: (norm(graph, x, "final_norm"), probabilities),
        first_token=lambda: norm(graph, blocks.first_token(graph, x, ids, size.hidden), "final_norm"),
    )


def _sizes(config: Config) -> Sizes:
    hidden, count = config.width_and_heads("hidden_size", "num_attention_heads")
    if hidden // count % 2:
        raise config.error("num_attention_heads", f"the width of a head, {hidden // count}, must be even")
    return Sizes(
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers", high=1_000),
        heads=count,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=8192),
        epsilon=config.number("norm_eps", default=1e-5),
        activation=config.choice("hidden_activation", blocks.ACTIVATIONS, default="gelu"),
    )


def _layer_types(config: Config, layers: int) -> list[str]:
    """The type of every layer: as `layer_types` lists them, else one full layer in every few."""
    every = config.integer("global_attn_every_n_layers", default=3)
    listed = config.choices("layer_types", [GLOBAL, LOCAL], [LOCAL if n % every else GLOBAL for n in range(layers)])
    if len(listed) != layers:
        raise config.error("layer_types", f"expected {layers} entries, one per layer")
    return listed


def _rotation(config: Config, kind: str, old_field: str, default: float, width: int) -> rotary.Rotation:
    """The rotary base is in a section of newer configurations, in a field of its own in older ones."""
    config.choice("rope_scaling", [None])
    section = config.section("rope_parameters").section(kind)
    section.choice("rope_type", ["default"], default="default")
    old = config.number(old_field, default, low=1, high=1e12)
    return rotary.Rotation(rotary.frequencies(width, section.number("rope_theta", old, low=1, high=1e12)))


def _by_layer_type(
    graph: Graph, config: Config, size: Sizes, input_ids: str, attention_mask: str
) -> dict[str, _LayerType]:
    positions = blocks.position_ids(graph, input_ids)
    column = graph.op("Unsqueeze", positions, graph.integers(1))
    width = size.hidden // size.heads
    cos_sin = {
        kind: rotary.cos_sin(graph, column, _rotation(config, kind, field, default, width))
        for kind, field, default in ((GLOBAL, "global_rope_theta", 160_000), (LOCAL, "local_rope_theta", 10_000))
    }
    reach = _reach(config)
    if graph.in_blocks:
        within = windows.windows(graph, input_ids, attention_mask, reach, reach)
        keys = "" if graph.unpadded else blocks.key_bias(graph, attention_mask, size.heads)
        return {
            GLOBAL: _LayerType(cos_sin[GLOBAL], blocks.Mask(keys=keys)),
            LOCAL: _LayerType(cos_sin[LOCAL], within=within, sees=within.sees),
        }
    visible = "" if graph.unpadded else blocks.padding_mask(graph, attention_mask)
    near = graph.op("LessOrEqual", graph.op("Abs", graph.op("Sub", column, positions)), graph.integer(reach))
    seen = near if graph.unpadded else graph.op("And", visible, near)
    return {
        GLOBAL: _LayerType(
            cos_sin[GLOBAL], blocks.Mask() if graph.unpadded else blocks.Mask(blocks.score_bias(graph, visible))
        ),
        LOCAL: _LayerType(
            cos_sin[LOCAL],
            blocks.Mask(blocks.score_bias(graph, seen)),
            sees=blocks.sees(graph, seen) if graph.hidden_count else "",
        ),
    }


def _reach(config: Config) -> int:
    """How many tokens a sliding layer sees to each side; transformers lets `sliding_window` replace half the window."""
    window = config.integer("local_attention", default=128, low=2)
    return config.integer("sliding_window", default=window // 2)


def _attention(
    graph: Graph, x: str, name: str, layer_type: _LayerType, shape: str, *, config: Config, size: Sizes
) -> tuple[str, str]:
    bias, hidden = config.flag("attention_bias", default=False), size.hidden
    parts = graph.split(blocks.linear(graph, x, f"{name}.Wqkv", hidden, 3 * hidden, bias=bias), 3)
    query, key, value = (graph.op("Reshape", part, shape) for part in parts)
    query, key = (rotary.apply(graph, part, layer_type.cos_sin) for part in (query, key))
    width, probabilities = hidden // size.heads, ""
    if layer_type.within:
        each = query_blocks.Heads(size.heads, 1, width, width**-0.5)
        mixed = windows.attention(graph, query, key, value, each, layer_type.within)
    else:
        mixed, probabilities = blocks.attention(
            graph, query, key, value, mask=layer_type.mask, heads=size.heads, width=width
        )
    if layer_type.sees:
        mixed = graph.op("Mul", mixed, graph.to_compute_dtype(layer_type.sees))
    return blocks.linear(graph, mixed, f"{name}.Wo", hidden, hidden, bias=bias), probabilities


def _feed_forward(graph: Graph, x: str, name: str, *, config: Config, size: Sizes) -> str:
    """A gated linear unit (Shazeer 2020, arXiv:2002.05202)."""
    bias = config.flag("mlp_bias", default=False)
    inner, gate = graph.split(blocks.linear(graph, x, f"{name}.Wi", size.hidden, 2 * size.intermediate, bias=bias), 2)
    gated = graph.op("Mul", blocks.ACTIVATIONS[size.activation](graph, inner), gate)
    return blocks.linear(graph, gated, f"{name}.Wo", size.intermediate, size.hidden, bias=bias)


def _norm(graph: Graph, x: str, name: str, *, config: Config, size: Sizes) -> str:
    bias = config.flag("norm_bias", default=False)
    return blocks.layer_norm(graph, x, name, size.hidden, size.epsilon, bias=bias)


def _transform(graph: Graph, x: str, *, config: Config, size: Sizes) -> str:
    """Transformers' `ModernBertPredictionHead`, float32 [rows, hidden] to the same."""
    bias = config.flag("classifier_bias", default=False)
    activation = config.choice("classifier_activation", blocks.ACTIVATIONS, default="gelu")
    x = blocks.ACTIVATIONS[activation](
        graph, blocks.linear(graph, x, "head.dense", size.hidden, size.hidden, bias=bias)
    )
    return _norm(graph, x, "head.norm", config=config, size=size)


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `ModernBertForMaskedLM`.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    x = _transform(graph, encoded.all_tokens()[0], config=config, size=encoded.sizes)
    bias = "decoder.bias" if config.flag("decoder_bias", default=True) else None
    heads.word_logits(graph, config, encoded, x, encoded.sizes.hidden, decoder="decoder", bias=bias, embeddings=WORDS)


def sequence_classification(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, labels]: transformers' `ModernBertForSequenceClassification`.

    With `classifier_pooling` "mean", the logits of a text without tokens are NaN.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    if config.choice("classifier_pooling", ["cls", "mean"], default="cls") == "cls":
        pooled = encoded.first_token()
    else:
        pooled = heads.mean(graph, encoded, encoded.all_tokens()[0], encoded.sizes.hidden)
    pooled = _transform(graph, pooled, config=config, size=encoded.sizes)
    heads.label_logits(graph, pooled, "classifier", encoded.sizes.hidden)
