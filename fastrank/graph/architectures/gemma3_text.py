"""Gemma 3 (arXiv:2503.19786), text only, equal to transformers' models: causal, or bidirectional as EmbeddingGemma.

Unlike Qwen: RMSNorms multiply by 1 + weight and also follow each block, most layers slide, and each kind of layer has
its own rotary base.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from fastrank.errors import ModelLoadError
from fastrank.graph import blocks, decoder_heads, onnx_proto, pre_norm, rotary
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

WITHOUT_HEADS: Final = ("layer-states",)
IGNORED_FIELDS: Final[frozenset[str]] = frozenset()
IN_INT4: Final = True

sequence_classification = decoder_heads.sequence_classification


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the layers; the inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    Nothing in the graph limits the length of a sequence; the models were made for `max_position_embeddings`.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected, or the graph is to compute in
            float16, which the models' activations overflow.
    """
    if graph.half:
        raise ModelLoadError(f"{config.path}: Gemma's activations overflow float16; run it with precision='fp32'")
    graph.prefix = "model."
    design = _design(config)
    size = design.sizes
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    x = graph.lookup(decoder_heads.WORDS, ids, size.vocabulary, size.hidden)
    x = graph.op("Mul", x, graph.scalar(math.sqrt(size.hidden)))
    x = graph.op("Reshape", x, graph.integers(-1, size.hidden))
    return pre_norm.layers(graph, x, ids, mask, design)


def _design(config: Config) -> pre_norm.Design:
    for field in ("attn_logit_softcapping", "final_logit_softcapping", "rope_scaling"):
        config.choice(field, [None])
    config.choice("is_causal", [True], default=True)
    count, kv_heads, width = pre_norm.head_sizes(config, 256)
    sizes = Sizes(
        hidden=config.integer("hidden_size", high=100_000),
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers", high=1_000),
        heads=count,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=131_072),
        epsilon=config.number("rms_norm_eps", default=1e-6),
        activation=config.choice("hidden_activation", blocks.ACTIVATIONS, default="gelu_pytorch_tanh"),
    )
    bidirectional = config.flag("use_bidirectional_attention", default=False)
    window = config.integer("sliding_window", default=4096)
    bias = config.flag("attention_bias", default=False)
    return pre_norm.Design(
        sizes=sizes,
        kv_heads=kv_heads,
        width=width,
        scale=config.number("query_pre_attn_scalar", 256, low=1, high=1e6) ** -0.5,
        causal=not bidirectional,
        layer_types=_layer_types(config, sizes.layers),
        window=window // 2 if bidirectional else window,  # to each side
        rotations={
            pre_norm.FULL: _rotation(config, pre_norm.FULL, "rope_theta", 1e6, width),
            pre_norm.SLIDING: _rotation(config, pre_norm.SLIDING, "rope_local_base_freq", 1e4, width),
        },
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        norm_offset=1.0,
        output_norms=True,
    )


def _layer_types(config: Config, layers: int) -> list[str]:
    """The type of every layer: as listed, else every sixth (or as the pattern says) is full."""
    every = config.integer(config.first("sliding_window_pattern", "_sliding_window_pattern"), default=6)
    default = [pre_norm.SLIDING if (n + 1) % every else pre_norm.FULL for n in range(layers)]
    return pre_norm.listed_layer_types(config, default)


def _rotation(config: Config, kind: str, old_field: str, default: float, width: int) -> rotary.Rotation:
    """The rotary base is in a section of newer configurations, in a field of its own in older ones."""
    section = config.section("rope_parameters").section(kind)
    section.choice("rope_type", ["default"], default="default")
    section.choice("partial_rotary_factor", [1, 1.0], default=1)
    old = config.number(old_field, default, low=1, high=1e12)
    return rotary.Rotation(rotary.frequencies(width, section.number("rope_theta", old, low=1, high=1e12)))
