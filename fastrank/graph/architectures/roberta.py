"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), XLM-R and CamemBERT, equal to transformers' models.

BERT with two differences: token types are no input (all are 0), and positions count the tokens that are not padding,
from `pad_token_id + 1`; padding has position `pad_token_id`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrank.graph import blocks, heads, onnx_proto, post_norm
from fastrank.graph.architectures import bert

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded
    from fastrank.models.config import Config


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    A sequence longer than `max_position_embeddings - pad_token_id - 1` makes the run fail.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "roberta."
    size = bert.sizes(config)
    pad = config.integer("pad_token_id", default=1, low=0, high=size.vocabulary - 1)
    types = config.integer("type_vocab_size", default=2)
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    words = graph.lookup(bert.WORDS, ids, size.vocabulary, size.hidden)
    type_zero = graph.lookup(bert.TYPES, graph.integer(0), types, size.hidden)
    numbers = position_ids(graph, ids, pad)
    positions = graph.lookup("embeddings.position_embeddings.weight", numbers, size.positions, size.hidden)
    x = graph.op("Add", graph.op("Add", words, type_zero), positions)
    x = graph.op("Reshape", x, graph.integers(-1, size.hidden))
    x = blocks.layer_norm(graph, x, "embeddings.LayerNorm", size.hidden, size.epsilon)
    return post_norm.layers(graph, x, ids, mask, sizes=size)


def position_ids(graph: Graph, input_ids: str, pad: int) -> str:
    """Transformers' `create_position_ids_from_input_ids`: int64 [batch, sequence].

    As there, padding is recognized by its id, not by the attention mask.
    """
    is_pad = graph.op("Equal", input_ids, graph.integer(pad))
    is_text = graph.op("Cast", graph.op("Not", is_pad), to=onnx_proto.INT64)
    counted = graph.op("Mul", graph.op("CumSum", is_text, graph.integer(1)), is_text)
    return graph.op("Add", counted, graph.integer(pad))


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `RobertaForMaskedLM` and its copies.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    size = encoded.sizes
    x = blocks.linear(graph, encoded.all_tokens()[0], "lm_head.dense", size.hidden, size.hidden)
    x = blocks.gelu(graph, x)  # whatever `hidden_act` says
    x = blocks.layer_norm(graph, x, "lm_head.layer_norm", size.hidden, size.epsilon)
    heads.word_logits(
        graph, config, encoded, x, size.hidden, decoder="lm_head.decoder", bias="lm_head.bias", embeddings=bert.WORDS
    )


def sequence_classification(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001
    """Write `logits`, float32 [batch, labels]: transformers' `RobertaForSequenceClassification` and its copies.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    hidden = encoded.sizes.hidden
    pooled = blocks.linear(graph, encoded.first_token(), "classifier.dense", hidden, hidden)
    heads.label_logits(graph, graph.op("Tanh", pooled), "classifier.out_proj", hidden)
