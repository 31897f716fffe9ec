"""EuroBERT (Boizard et al. 2025, arXiv:2503.05500), equal to transformers' models: a Llama that sees the whole text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, decoder_heads, heads, onnx_proto, pre_norm
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

WITHOUT_HEADS: Final = ("layer-states",)
IGNORED_FIELDS: Final = frozenset(
    {"bos_token", "classifier_pooling", "clf_pooling", "eos_token", "mask_token", "pad_token", "pretraining_tp"}
)
"""Special tokens, and what the classifier reads; `pretraining_tp` computes the same in slices."""


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
    count, kv_heads, width = pre_norm.head_sizes(config)
    sizes = Sizes(
        hidden=config.integer("hidden_size", high=100_000),
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers", high=1_000),
        heads=count,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=8192),
        epsilon=config.number("rms_norm_eps", default=1e-5),
        activation=config.choice("hidden_act", blocks.ACTIVATIONS, default="silu"),
    )
    bias = config.flag("attention_bias", default=False)
    return pre_norm.Design(
        sizes=sizes,
        kv_heads=kv_heads,
        width=width,
        scale=width**-0.5,
        causal=False,
        layer_types=[pre_norm.FULL] * sizes.layers,
        window=0,
        rotations={pre_norm.FULL: pre_norm.rotation(config, width, sizes.positions)},
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=config.flag("mlp_bias", default=False),
    )


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `EuroBertForMaskedLM`.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    bias = "lm_head.bias" if config.flag("mlp_bias", default=False) else None
    tied = config.flag("tie_word_embeddings", default=False)
    x, hidden = encoded.all_tokens()[0], encoded.sizes.hidden
    words = decoder_heads.WORDS if tied else decoder_heads.LM_HEAD
    heads.word_logits(graph, config, encoded, x, hidden, decoder="lm_head", bias=bias, embeddings=words)


def sequence_classification(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, labels]: transformers' `EuroBertForSequenceClassification`.

    With the poolings "mean" and "late", the logits of a text without tokens are NaN.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    size = encoded.sizes
    field = config.first("clf_pooling", "classifier_pooling")
    pooling = config.choice(field, ["bos", "mean", "late"], default="late")
    if pooling == "bos":
        states = encoded.first_token()
    elif pooling == "mean":
        states = heads.mean(graph, encoded, encoded.all_tokens()[0], size.hidden)
    else:
        states = encoded.all_tokens()[0]
    states = blocks.gelu(graph, blocks.linear(graph, states, "dense", size.hidden, size.hidden))
    if pooling != "late":
        heads.label_logits(graph, states, "classifier", size.hidden)
        return
    labels = graph.rows("classifier.weight")
    each = blocks.linear(graph, states, "classifier", size.hidden, labels, float32=True)
    logits = heads.mean(graph, encoded, each, labels, float32=True)
    graph.output("logits", logits, onnx_proto.FLOAT, ["batch", labels])
