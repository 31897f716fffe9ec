"""BERT (Devlin et al. 2018, arXiv:1810.04805), equal to transformers' `BertModel` and the heads named below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, heads, onnx_proto, post_norm
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

WORDS: Final = "embeddings.word_embeddings.weight"
TYPES: Final = "embeddings.token_type_embeddings.weight"


def sizes(config: Config, positions: str = "absolute") -> Sizes:
    """Read and check the fields that BERT and its descendants share.

    Args:
        config: The checkpoint's configuration.
        positions: The value that `position_embedding_type` must have, if it is there.

    Raises:
        ModelLoadError: A field is missing, invalid, or asks for something unsupported, such as relative positions or a
            decoder.
    """
    config.choice("position_embedding_type", [positions], default=positions)
    config.choice("is_decoder", [False], default=False)
    hidden, count = config.width_and_heads("hidden_size", "num_attention_heads")
    return Sizes(
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers", high=1_000),
        heads=count,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings"),
        epsilon=config.number("layer_norm_eps", default=1e-12),
        activation=config.choice("hidden_act", blocks.ACTIVATIONS, default="gelu"),
    )


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence].

    A sequence longer than `max_position_embeddings` makes the run fail.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "bert."
    size = sizes(config)
    ids, mask, x = embeddings(graph, config, size, size.hidden)
    return post_norm.layers(graph, x, ids, mask, sizes=size)


def embeddings(
    graph: Graph, config: Config, size: Sizes, width: int, *, positions: bool = True, norm: str = "embeddings.LayerNorm"
) -> tuple[str, str, str]:
    """Write the inputs and the normalized sum of word, type and (unless `positions` is false) position embeddings.

    Returns:
        `input_ids` and `attention_mask`, int64 [batch, sequence]; the embeddings, float32 [batch * sequence, width].

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    ids, mask, types = (
        graph.input(name, onnx_proto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    words = graph.lookup(WORDS, ids, size.vocabulary, width)
    count = config.integer("type_vocab_size", default=2)
    x = graph.op("Add", words, graph.lookup(TYPES, types, count, width))
    if positions:
        x = graph.op("Add", x, first_positions(graph, ids, size.positions, width))
    x = graph.op("Reshape", x, graph.integers(-1, width))
    return ids, mask, blocks.layer_norm(graph, x, norm, width, size.epsilon)


def first_positions(graph: Graph, input_ids: str, positions: int, width: int) -> str:
    """The embeddings of positions 0, 1, 2 ..., float32 [sequence, width].

    Raises:
        ModelLoadError: The tensor is missing or not as expected.
    """
    table = graph.weight("embeddings.position_embeddings.weight", positions, width)
    # Not Range and Gather: onnxruntime rewrites those to a Slice that it then refuses.
    length = graph.op("Shape", input_ids, start=1, end=2)
    return graph.op("Slice", table, graph.integers(0), length, graph.integers(0))


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `BertForMaskedLM`, as in SPLADE.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    size, name = encoded.sizes, "cls.predictions"
    x = blocks.linear(graph, encoded.all_tokens()[0], f"{name}.transform.dense", size.hidden, size.hidden)
    x = blocks.ACTIVATIONS[size.activation](graph, x)
    x = blocks.layer_norm(graph, x, f"{name}.transform.LayerNorm", size.hidden, size.epsilon)
    heads.word_logits(
        graph, config, encoded, x, size.hidden, decoder=f"{name}.decoder", bias=f"{name}.bias", embeddings=WORDS
    )


def sequence_classification(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001
    """Write `logits`, float32 [batch, labels]: transformers' `BertForSequenceClassification`, as in cross-encoders.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    hidden = encoded.sizes.hidden
    pooled = blocks.linear(graph, encoded.first_token(), "pooler.dense", hidden, hidden)
    heads.label_logits(graph, graph.op("Tanh", pooled), "classifier", hidden)
