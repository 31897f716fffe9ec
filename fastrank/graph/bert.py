"""BERT (Devlin et al. 2018, arXiv:1810.04805), equal to transformers' `BertModel` without its pooler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastrank.graph import blocks, proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.config import Config


@dataclass(frozen=True)
class Sizes:
    """What `config.json` says about the encoder, checked."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    activation: str


def sizes(config: Config) -> Sizes:
    """Read and check the fields that BERT and its descendants share.

    Raises:
        ModelLoadError: A field is missing, absurd or asks for something that is not written here, such as relative
            positions or a decoder.
    """
    config.choice("position_embedding_type", ["absolute"], default="absolute")
    config.choice("is_decoder", [False], default=False)
    hidden = config.integer("hidden_size", high=100_000)
    heads = config.integer("num_attention_heads", high=10_000)
    if hidden % heads:
        raise config.error("num_attention_heads", f"hidden_size {hidden} is not a multiple of it")
    return Sizes(
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers", high=1_000),
        heads=heads,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings"),
        types=config.integer("type_vocab_size", default=2),
        epsilon=config.number("layer_norm_eps", default=1e-12),
        activation=config.choice("hidden_act", blocks.ACTIVATIONS, default="gelu"),
    )


def encoder(graph: Graph, config: Config) -> str:
    """Write the encoder; its inputs are int64 `input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence].

    A sequence longer than `max_position_embeddings` makes the run fail.

    Returns:
        The hidden states of the last layer, float32 [batch, sequence, hidden].

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "bert."
    size = sizes(config)
    ids, mask, types = (
        graph.input(name, proto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    words = graph.lookup("embeddings.word_embeddings.weight", ids, size.vocabulary, size.hidden)
    kinds = graph.lookup("embeddings.token_type_embeddings.weight", types, size.types, size.hidden)
    table = graph.weight("embeddings.position_embeddings.weight", size.positions, size.hidden)
    # Not Range and Gather: onnxruntime rewrites those to a Slice that it then refuses.
    length = graph.op("Shape", ids, start=1, end=2)
    positions = graph.op("Slice", table, graph.integers(0), length, graph.integers(0))
    embedded = graph.op("Add", graph.op("Add", words, kinds), positions)
    return layers(graph, embedded, ids, mask, size)


def layers(graph: Graph, embedded: str, input_ids: str, attention_mask: str, size: Sizes) -> str:
    """What follows the sum of the embeddings: LayerNorm and all layers; [batch, sequence, hidden] to the same.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    bias = blocks.padding_bias(graph, attention_mask)
    shape = blocks.head_shape(graph, input_ids, size.heads, size.hidden)
    x = graph.op("Reshape", embedded, graph.integers(-1, size.hidden))
    x = blocks.layer_norm(graph, x, "embeddings.LayerNorm", size.hidden, size.epsilon)
    for number in range(size.layers):
        x = _layer(graph, x, f"encoder.layer.{number}", bias=bias, shape=shape, size=size)
    full = graph.op("Concat", graph.op("Shape", input_ids), graph.integers(size.hidden), axis=0)
    return graph.op("Reshape", x, full)


def _layer(graph: Graph, x: str, name: str, *, bias: str, shape: str, size: Sizes) -> str:
    query, key, value = (
        blocks.linear(graph, x, f"{name}.attention.self.{part}", size.hidden, size.hidden)
        for part in ("query", "key", "value")
    )
    mixed = blocks.attention(graph, query, key, value, bias=bias, shape=shape, size=size.hidden, heads=size.heads)
    mixed = blocks.linear(graph, mixed, f"{name}.attention.output.dense", size.hidden, size.hidden)
    x = graph.op("Add", mixed, x)
    x = blocks.layer_norm(graph, x, f"{name}.attention.output.LayerNorm", size.hidden, size.epsilon)
    wide = blocks.linear(graph, x, f"{name}.intermediate.dense", size.hidden, size.intermediate)
    wide = blocks.ACTIVATIONS[size.activation](graph, wide)
    narrow = blocks.linear(graph, wide, f"{name}.output.dense", size.intermediate, size.hidden)
    x = graph.op("Add", narrow, x)
    return blocks.layer_norm(graph, x, f"{name}.output.LayerNorm", size.hidden, size.epsilon)
