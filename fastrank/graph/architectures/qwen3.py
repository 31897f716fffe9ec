"""Qwen3 (arXiv:2505.09388) and Qwen2 (arXiv:2407.10671), equal to transformers' models.

Embedding models and rerankers: causal, or bidirectional where `is_causal` is false.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, decoder_heads, onnx_proto, pre_norm
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

WITHOUT_HEADS: Final = ("layer-states",)
IGNORED_FIELDS: Final[frozenset[str]] = frozenset()
IN_INT4: Final = True

sequence_classification = decoder_heads.sequence_classification
logit_score = decoder_heads.logit_score

_QWEN3_HEAD: Final = 128  # the default of `head_dim`


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the layers; the inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    Nothing in the graph limits the length of a sequence; the models were made for `max_position_embeddings`.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "model."
    design = _design(config)
    size = design.sizes
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    x = graph.lookup(decoder_heads.WORDS, ids, size.vocabulary, size.hidden)
    x = graph.op("Reshape", x, graph.integers(-1, size.hidden))
    return pre_norm.layers(graph, x, ids, mask, design)


def _design(config: Config) -> pre_norm.Design:
    is_qwen3 = config.choice("model_type", ["qwen2", "qwen3"]) == "qwen3"
    count, kv_heads, width = pre_norm.head_sizes(config, _QWEN3_HEAD if is_qwen3 else None)
    sizes = Sizes(
        hidden=config.integer("hidden_size", high=100_000),
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers", high=1_000),
        heads=count,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=32_768),
        epsilon=config.number("rms_norm_eps", default=1e-6),
        activation=config.choice("hidden_act", blocks.ACTIVATIONS, default="silu"),
    )
    layer_types, window = _layer_types(config, sizes.layers)
    bias = config.flag("attention_bias", default=False) if is_qwen3 else False
    return pre_norm.Design(
        sizes=sizes,
        kv_heads=kv_heads,
        width=width,
        scale=width**-0.5,
        causal=_is_causal(config),
        layer_types=layer_types,
        window=window,
        rotations=dict.fromkeys(layer_types, pre_norm.rotation(config, width, sizes.positions)),
        qkv_bias=bias or not is_qwen3,
        output_bias=bias,
        qk_norm=is_qwen3,
    )


def _is_causal(config: Config) -> bool:
    """The field `is_causal`, which transformers honours.

    A model with code of its own (`auto_map`) that has no such field may be of either kind.
    """
    if config.has("auto_map") and not config.has("is_causal"):
        raise config.error(
            "auto_map",
            "the model has code of its own; state in config.json whether it is causal: is_causal true or false",
        )
    return config.flag("is_causal", default=True)


def _layer_types(config: Config, layers: int) -> tuple[list[str], int]:
    """The type of every layer, and the window of the sliding ones."""
    slides = config.flag("use_sliding_window", default=False)
    window = config.integer("sliding_window", default=4096)
    full_layers = config.integer("max_window_layers", default=28, low=0)
    default = [pre_norm.SLIDING if slides and n >= full_layers else pre_norm.FULL for n in range(layers)]
    layer_types = pre_norm.listed_layer_types(config, default)
    if pre_norm.SLIDING in layer_types and not slides:
        raise config.error("layer_types", "use_sliding_window is false, so there can be no 'sliding_attention'")
    return layer_types, window
