"""The encoder of T5 (Raffel et al. 2019, arXiv:1910.10683) and mT5, equal to transformers' `T5EncoderModel`.

RMSNorm before each block, no position embeddings but a relative bias that all layers share, scores that are not scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.errors import ModelLoadError
from fastrank.graph import blocks, onnx_proto, relative_bias
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

WITHOUT_HEADS: Final = ("layer-states",)
IGNORED_FIELDS: Final = frozenset(
    {
        "dense_act_fn",  # follows from feed_forward_proj
        "dropout_rate",
        "initializer_factor",
        "is_encoder_decoder",
        "is_gated_act",  # follows from feed_forward_proj
        "n_positions",
        "num_decoder_layers",
        "output_past",
        "scale_decoder_outputs",
    }
)
"""What concerns the decoder, training, or another field says."""

_PREFIX: Final = "transformer."


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    Nothing in the graph limits the length of a sequence.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected, or the graph is to compute in
            float16, which the models' activations overflow.
    """
    if graph.half:
        raise ModelLoadError(f"{config.path}: T5's activations overflow float16; run it with precision='fp32'")
    graph.prefix = _PREFIX
    config.choice("is_decoder", [False], default=False)
    size, width = _sizes(config), config.integer("d_kv", default=64, high=10_000)
    gated, activation = _feed_forward_kind(config)
    size = size._replace(activation=activation)
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    x = graph.lookup(_words(graph), ids, size.vocabulary, size.hidden)
    x = graph.op("Reshape", x, graph.integers(-1, size.hidden))
    bias = _bias(graph, config, ids, mask, size)
    shape, probabilities = blocks.text_shape(graph, ids, size.heads, width), ""
    for number in range(size.layers):
        name = f"encoder.block.{number}.layer"
        normed = blocks.rms_norm(graph, x, f"{name}.0.layer_norm", size.hidden, size.epsilon)
        attended, probabilities = _attention(graph, normed, f"{name}.0.SelfAttention", bias, shape, size, width)
        x = graph.op("Add", x, attended)
        normed = blocks.rms_norm(graph, x, f"{name}.1.layer_norm", size.hidden, size.epsilon)
        x = graph.op("Add", x, _feed_forward(graph, normed, f"{name}.1.DenseReluDense", size, gated=gated))

    def all_tokens() -> tuple[str, str]:
        length = graph.op("Shape", ids, start=1, end=2)
        square = graph.op("Concat", graph.integers(-1, size.heads), length, length, axis=0)
        states = blocks.rms_norm(graph, x, "encoder.final_layer_norm", size.hidden, size.epsilon)
        return states, graph.op("Reshape", probabilities, square)

    return Encoded(
        ids,
        mask,
        size,
        all_tokens=all_tokens,
        first_token=lambda: blocks.first_token(graph, all_tokens()[0], ids, size.hidden),
    )


def _sizes(config: Config) -> Sizes:
    return Sizes(
        hidden=config.integer("d_model", high=100_000),
        intermediate=config.integer("d_ff"),
        layers=config.integer("num_layers", high=1_000),
        heads=config.integer("num_heads", high=10_000),
        vocabulary=config.integer("vocab_size"),
        positions=0,
        epsilon=config.number("layer_norm_epsilon", default=1e-6),
        activation="",
    )


def _feed_forward_kind(config: Config) -> tuple[bool, str]:
    """Whether the feed-forward blocks are gated, and their activation, by transformers' names."""
    kinds = {"relu": (False, "relu"), "gated-gelu": (True, "gelu_new"), "gated-silu": (True, "silu")}
    default = "gated-gelu" if config.choice("model_type", ["t5", "mt5"]) == "mt5" else "relu"
    gated, activation = kinds[config.choice("feed_forward_proj", kinds, default=default)]
    return gated, activation


def _words(graph: Graph) -> str:
    """The word embeddings, which decoder and encoder share; some files of encoders name them after the encoder."""
    shared, own = "shared.weight", "encoder.embed_tokens.weight"
    has_own = graph.has_any(own, _PREFIX + own) and not graph.has_any(shared, _PREFIX + shared)
    return own if has_own else shared


def _bias(graph: Graph, config: Config, ids: str, mask: str, size: Sizes) -> str:
    """The relative bias and the padding mask, float32 [batch or 1, heads, 1, sequence, sequence]."""
    buckets = config.integer("relative_attention_num_buckets", default=32, low=4, high=10_000)
    farthest = config.integer("relative_attention_max_distance", default=128, low=2, high=100_000)
    name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    bias = relative_bias.relative_bias(graph, name, ids, size.heads, buckets, farthest)
    bias = graph.op("Unsqueeze", bias, graph.integers(2))
    if graph.unpadded:
        return bias
    return graph.op("Add", bias, blocks.score_bias(graph, blocks.padding_mask(graph, mask, axes=(1, 2, 3))))


def _attention(graph: Graph, x: str, name: str, bias: str, shape: str, size: Sizes, width: int) -> tuple[str, str]:
    inner = size.heads * width
    query, key, value = (
        graph.op("Reshape", blocks.linear(graph, x, f"{name}.{part}", size.hidden, inner, bias=False), shape)
        for part in "qkv"
    )
    attended, probabilities = blocks.grouped_attention(
        graph, query, key, value, bias=bias, scale=1.0, kv_heads=size.heads, group=1, width=width
    )
    return blocks.linear(graph, attended, f"{name}.o", inner, size.hidden, bias=False), probabilities


def _feed_forward(graph: Graph, x: str, name: str, size: Sizes, *, gated: bool) -> str:
    """A gated linear unit (Shazeer 2020, arXiv:2002.05202) since version 1.1; before, two layers."""
    hidden, inner = size.hidden, size.intermediate
    first = blocks.linear(graph, x, f"{name}.wi_0" if gated else f"{name}.wi", hidden, inner, bias=False)
    states = blocks.ACTIVATIONS[size.activation](graph, first)
    if gated:
        states = graph.op("Mul", states, blocks.linear(graph, x, f"{name}.wi_1", hidden, inner, bias=False))
    return blocks.linear(graph, states, f"{name}.wo", inner, hidden, bias=False)
