"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), XLM-R and CamemBERT, equal to transformers' models without pooler.

BERT but for two things: token types are not an input (all are 0), and positions are counted over the tokens that
are not padding, from `pad_token_id + 1`; padding has position `pad_token_id`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrank.graph import bert, proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.config import Config


def encoder(graph: Graph, config: Config) -> str:
    """Write the encoder; its inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    A sequence longer than `max_position_embeddings - pad_token_id - 1` makes the run fail.

    Returns:
        The hidden states of the last layer, float32 [batch, sequence, hidden].

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "roberta."
    size = bert.sizes(config)
    pad = config.integer("pad_token_id", default=1, low=0, high=size.vocabulary - 1)
    ids, mask = (graph.input(name, proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    words = graph.lookup("embeddings.word_embeddings.weight", ids, size.vocabulary, size.hidden)
    kind = graph.lookup("embeddings.token_type_embeddings.weight", graph.integer(0), size.types, size.hidden)
    numbers = position_ids(graph, ids, pad)
    positions = graph.lookup("embeddings.position_embeddings.weight", numbers, size.positions, size.hidden)
    embedded = graph.op("Add", graph.op("Add", words, kind), positions)
    return bert.layers(graph, embedded, ids, mask, size)


def position_ids(graph: Graph, input_ids: str, pad: int) -> str:
    """Count the tokens that are not padding, as `create_position_ids_from_input_ids`: int64 [batch, sequence].

    Padding is told by its id, not by the attention mask, as transformers does.
    """
    is_pad = graph.op("Equal", input_ids, graph.integer(pad))
    real = graph.op("Cast", graph.op("Not", is_pad), to=proto.INT64)
    counted = graph.op("Mul", graph.op("CumSum", real, graph.integer(1)), real)
    return graph.op("Add", counted, graph.integer(pad))
