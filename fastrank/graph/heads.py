"""What stands on an encoder, as far as architectures share it. A head writes the outputs of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrank.graph import blocks, proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.config import Config
    from fastrank.graph.encoded import Encoded


def hidden_states(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001 - heads are called alike
    """Write the output `last_hidden_state`, float32 [batch, sequence, hidden]."""
    graph.output("last_hidden_state", states(graph, encoded), proto.FLOAT, ["batch", "sequence", encoded.sizes.hidden])


def attention(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `last_hidden_state`, and `attention`, float32 [batch, heads, sequence, sequence].

    The latter are the probabilities of the last layer, which BM42 makes weights of: transformers' `attentions[-1]`.
    A row is a token that looks, a column one that is looked at; each row sums to 1, columns of padding are 0.
    """
    hidden_states(graph, config, encoded)
    count = encoded.sizes.heads
    graph.output("attention", encoded.attention, proto.FLOAT, ["batch", count, "sequence", "sequence"])


def states(graph: Graph, encoded: Encoded) -> str:
    """The last hidden states, float32 [batch, sequence, hidden]."""
    shape = blocks.text_shape(graph, encoded.input_ids, encoded.sizes.hidden)
    return graph.op("Reshape", encoded.rows, shape)


def first_token(graph: Graph, encoded: Encoded) -> str:
    """The last hidden states of every text's first token, float32 [batch, hidden]."""
    return graph.op("Gather", states(graph, encoded), graph.integer(0), axis=1)


def mean(graph: Graph, encoded: Encoded) -> str:
    """The mean of the last hidden states of a text's tokens, without padding, float32 [batch, hidden]."""
    mask = graph.op("Cast", encoded.attention_mask, to=proto.FLOAT)
    weights = graph.op("Unsqueeze", mask, graph.integers(2))
    total = graph.op("ReduceSum", graph.op("Mul", states(graph, encoded), weights), graph.integers(1), keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", mask, graph.integers(1), keepdims=1))


def label_logits(graph: Graph, x: str, name: str, size: int) -> None:
    """Write the output `logits`, float32 [batch, labels], from float32 [batch, size] and a linear layer's name.

    The number of labels is that of the layer's rows: configurations say it in several ways or not at all.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    labels = graph.rows(f"{name}.weight")
    graph.output("logits", blocks.linear(graph, x, name, size, labels), proto.FLOAT, ["batch", labels])


def word_logits(
    graph: Graph,
    config: Config,
    encoded: Encoded,
    x: str,
    size: int,
    *,
    decoder: str,
    bias: str | None,
    embeddings: str,
) -> None:
    """Write the output `logits`, float32 [batch, sequence, vocabulary].

    Args:
        graph: Receives the nodes.
        config: Says whether the decoder may be tied to the word embeddings.
        encoded: From the encoder.
        x: The transformed hidden states, float32 [batch * sequence, size].
        size: See `x`.
        decoder: The name of the last linear layer. A checkpoint that ties it to the embeddings stores it once.
        bias: The name of its bias, which some checkpoints store as `{decoder}.bias`; None: it has none.
        embeddings: The name of the word embeddings.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    vocabulary = encoded.sizes.vocabulary
    weight = f"{decoder}.weight"
    if config.flag("tie_word_embeddings", default=True) and not graph.has(weight):
        weight = embeddings
    shift = graph.weight(bias, vocabulary, alias=f"{decoder}.bias") if bias else None
    logits = blocks.affine(graph, x, graph.weight(weight, vocabulary, size), shift)
    logits = graph.op("Reshape", logits, blocks.text_shape(graph, encoded.input_ids, vocabulary))
    graph.output("logits", logits, proto.FLOAT, ["batch", "sequence", vocabulary])
