"""The heads that architectures share. A head writes the outputs of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrank.graph import blocks, onnx_proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded
    from fastrank.models.config import Config


def hidden_states(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001 - every head has this signature
    """Write the output `last_hidden_state`, float32 [batch, sequence, hidden]."""
    _hidden_states(graph, encoded, encoded.all_tokens()[0])


def layer_states(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001
    """Write `layer_states`, float32 [batch, sequence, layers + 1, hidden]: transformers' `hidden_states`.

    The states before each layer and after the last: what sentence-transformers' WeightedLayerPooling averages.
    """
    size = encoded.sizes
    states = [graph.op("Unsqueeze", x, graph.integers(1)) for x in (*encoded.before_layers, encoded.all_tokens()[0])]
    shape = blocks.text_shape(graph, encoded.input_ids, len(states), size.hidden)
    stacked = graph.op("Reshape", graph.op("Concat", *states, axis=1), shape)
    graph.output("layer_states", stacked, onnx_proto.FLOAT, ["batch", "sequence", len(states), size.hidden])


def attention(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001
    """Write `last_hidden_state`, and `attention`, float32 [batch, heads, sequence, sequence].

    The attention probabilities are those of the last layer, transformers' `attentions[-1]`, which BM42 turns into token
    weights. Rows are queries, columns keys; each row sums to 1, columns of padding are 0.
    """
    rows, probabilities = encoded.all_tokens()
    _hidden_states(graph, encoded, rows)
    graph.output("attention", probabilities, onnx_proto.FLOAT, ["batch", encoded.sizes.heads, "sequence", "sequence"])


def _hidden_states(graph: Graph, encoded: Encoded, rows: str) -> None:
    hidden = encoded.sizes.hidden
    states = graph.op("Reshape", rows, blocks.text_shape(graph, encoded.input_ids, hidden))
    graph.output("last_hidden_state", states, onnx_proto.FLOAT, ["batch", "sequence", hidden])


def mean(graph: Graph, encoded: Encoded, x: str, size: int, *, float32: bool = False) -> str:
    """The mean of a text's tokens, without padding: [batch * sequence, size] to [batch, size].

    In the compute dtype, or `float32` if `x` is.
    """
    states = graph.op(
        "Reshape", x if float32 else graph.to_float32(x), blocks.text_shape(graph, encoded.input_ids, size)
    )
    mask = graph.op("Cast", encoded.attention_mask, to=onnx_proto.FLOAT)
    weighted = graph.op("Mul", states, graph.op("Unsqueeze", mask, graph.integers(2)))
    total = graph.op("ReduceSum", weighted, graph.integers(1), keepdims=0)
    average = graph.op("Div", total, graph.op("ReduceSum", mask, graph.integers(1), keepdims=1))
    return average if float32 else graph.to_compute_dtype(average)


def label_logits(graph: Graph, x: str, name: str, size: int, *, bias: bool = True) -> None:
    """Write the output `logits`, float32 [batch, labels], from float32 [batch, size] and a linear layer's name.

    The number of labels is the number of rows of the weight; configurations spell it in several ways or omit it.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    labels = graph.rows(f"{name}.weight")
    graph.output(
        "logits",
        blocks.linear(graph, x, name, size, labels, bias=bias, float32=True),
        onnx_proto.FLOAT,
        ["batch", labels],
    )


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
        encoded: The encoder's result.
        x: The transformed hidden states, float32 [batch * sequence, size].
        size: Input features of the decoder.
        decoder: The name of the last linear layer; absent where it is tied to the word embeddings.
        bias: The name of its bias, which some checkpoints store as `{decoder}.bias`; or None.
        embeddings: The name of the word embeddings.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    vocabulary = encoded.sizes.vocabulary
    weight = f"{decoder}.weight"
    if config.flag("tie_word_embeddings", default=True) and not graph.has(weight):
        weight = embeddings
    if bias is not None and graph.has(f"{decoder}.bias"):  # transformers 5 ties the two only where one is missing
        bias = f"{decoder}.bias"
    logits = blocks.product(graph, x, weight, bias, size, vocabulary, bias_alias=f"{decoder}.bias")
    logits = graph.op("Reshape", logits, blocks.text_shape(graph, encoded.input_ids, vocabulary))
    graph.output("logits", logits, onnx_proto.FLOAT, ["batch", "sequence", vocabulary])
