"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108), equal to transformers' models.

BERT without token types and pooler, with other names for everything.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, heads, onnx_proto, post_norm
from fastrank.graph.architectures import bert
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

NAMES: Final = post_norm.Names(
    layer="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
)


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    A sequence longer than `max_position_embeddings` makes the run fail.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "distilbert."
    hidden, count = config.width_and_heads(
        config.one_of("dim", "hidden_size"), config.one_of("n_heads", "num_attention_heads")
    )
    size = Sizes(
        hidden=hidden,
        intermediate=config.integer("hidden_dim"),
        layers=config.integer(config.one_of("n_layers", "num_hidden_layers"), high=1_000),
        heads=count,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings"),
        epsilon=1e-12,
        activation=config.choice("activation", blocks.ACTIVATIONS, default="gelu"),
    )
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    words = graph.lookup(bert.WORDS, ids, size.vocabulary, hidden)
    x = graph.op("Add", words, bert.first_positions(graph, ids, size.positions, hidden))
    x = graph.op("Reshape", x, graph.integers(-1, hidden))
    x = blocks.layer_norm(graph, x, "embeddings.LayerNorm", hidden, size.epsilon)
    layer = partial(post_norm.bert_layer, graph, sizes=size, names=NAMES)
    return post_norm.layers(graph, x, ids, mask, sizes=size, layer=layer)


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `DistilBertForMaskedLM`.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    size, decoder = encoded.sizes, "vocab_projector"
    x = blocks.linear(graph, encoded.all_tokens()[0], "vocab_transform", size.hidden, size.hidden)
    x = blocks.ACTIVATIONS[size.activation](graph, x)
    x = blocks.layer_norm(graph, x, "vocab_layer_norm", size.hidden, size.epsilon)
    heads.word_logits(
        graph, config, encoded, x, size.hidden, decoder=decoder, bias=f"{decoder}.bias", embeddings=bert.WORDS
    )


def sequence_classification(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001
    """Write `logits`, float32 [batch, labels]: transformers' `DistilBertForSequenceClassification`.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    hidden = encoded.sizes.hidden
    pooled = blocks.linear(graph, encoded.first_token(), "pre_classifier", hidden, hidden)
    heads.label_logits(graph, blocks.relu(graph, pooled), "classifier", hidden)
