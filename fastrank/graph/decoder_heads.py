"""The heads of decoders: they read one token of a text, so the last layer is computed for that token only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.errors import ModelLoadError
from fastrank.graph import blocks, heads, onnx_proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded
    from fastrank.models.config import Config

WORDS: Final = "embed_tokens.weight"
LM_HEAD: Final = "lm_head.weight"


def sequence_classification(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, labels]: transformers' `Qwen3ForSequenceClassification` and its like.

    As there, the last token whose id is not `pad_token_id` is read.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    seen = graph.op("Cast", encoded.attention_mask, to=onnx_proto.BOOL)
    if config.has("pad_token_id"):
        pad = config.integer("pad_token_id", low=0)
        seen = graph.op("And", seen, graph.op("Not", graph.op("Equal", encoded.input_ids, graph.integer(pad))))
    states = _token_at(encoded, _last(graph, encoded, seen))
    heads.label_logits(graph, states, "score", encoded.sizes.hidden, bias=False)


def logit_score(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, 1]: how much more likely the next token is "yes" than "no", in log-odds.

    Equal to sentence-transformers' `LogitScore` on the causal language model. Only the two tokens' rows of the output
    embedding are read.

    Raises:
        ModelLoadError: A tensor is missing or not as expected, or the tokens are not in the vocabulary.
    """
    if graph.score_tokens is None:
        raise ModelLoadError(f"{config.path}: the head 'logit-score' needs score_tokens, the ids of yes and no")
    size = encoded.sizes
    seen = graph.op("Cast", encoded.attention_mask, to=onnx_proto.BOOL)
    states = graph.to_float32(_token_at(encoded, _last(graph, encoded, seen)))
    true_id, false_id = graph.score_tokens
    for token in (true_id, false_id or 0):
        if not 0 <= token < size.vocabulary:
            raise ModelLoadError(
                f"{config.path}: the score reads token {token}, and the vocabulary has {size.vocabulary}"
            )
    tied = config.flag("tie_word_embeddings", default=False) and not graph.has(LM_HEAD)
    table = WORDS if tied else LM_HEAD

    def row(token: int) -> str:
        return graph.to_float32(graph.lookup(table, graph.integers(token), size.vocabulary, size.hidden))

    weight = row(true_id) if false_id is None else graph.op("Sub", row(true_id), row(false_id))
    graph.output("logits", graph.op("Gemm", states, weight, transB=1), onnx_proto.FLOAT, ["batch", 1])


def _last(graph: Graph, encoded: Encoded, seen: str) -> str:
    """The position of the last token that is `seen`, bool [batch, sequence]; 0 if none is: int64 [batch]."""
    positions = graph.op("Where", seen, blocks.position_ids(graph, encoded.input_ids), graph.integer(0))
    return graph.op("ReduceMax", positions, axes=[1], keepdims=0)


def _token_at(encoded: Encoded, positions: str) -> str:
    if encoded.token_at is None:
        raise TypeError("only decoders have heads that read one token")
    return encoded.token_at(positions)
