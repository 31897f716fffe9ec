"""Static embeddings: a token's vector is a row of a table, without context; a text's vector is their mean.

Two layouts: model2vec's (github.com/MinishLab/model2vec; potion), where tokens may share rows and have weights, and
that of sentence-transformers' `StaticEmbedding`. The mean is left to pooling, as with every encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, onnx_proto
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

SENTENCE_TRANSFORMERS: Final = "embedding.weight"
WITHOUT_HEADS: Final = ("attention", "colbert", "layer-states", "token-states")

_MODEL2VEC: Final = "embeddings"
_FLOATS: Final = {
    "F32": onnx_proto.FLOAT,
    "F16": onnx_proto.FLOAT16,
    "BF16": onnx_proto.BFLOAT16,
    "F64": onnx_proto.DOUBLE,
    "I8": onnx_proto.INT8,  # of model2vec, which keeps no scale
}
_INTEGERS: Final = {"I32": onnx_proto.INT32, "I64": onnx_proto.INT64}


def encoder(graph: Graph, config: Config) -> Encoded:  # noqa: ARG001 - the tensors tell everything
    """Write the lookup; its inputs are int64 `input_ids` and `attention_mask` (unused), both [batch, sequence].

    A token id outside the vocabulary, or a row of `mapping` outside the table, makes the run fail.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    table = SENTENCE_TRANSFORMERS if graph.has(SENTENCE_TRANSFORMERS) else _MODEL2VEC
    rows, width = graph.shape(table, 2)
    vocabulary = graph.shape("mapping", 1)[0] if graph.has("mapping") else rows
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    rows_of_tokens = graph.gather("mapping", ids, [vocabulary], _INTEGERS) if graph.has("mapping") else ids
    x = graph.op("Cast", graph.gather(table, rows_of_tokens, [rows, width], _FLOATS), to=onnx_proto.FLOAT)
    if graph.has("weights"):
        weights = graph.op("Cast", graph.gather("weights", ids, [vocabulary], _FLOATS), to=onnx_proto.FLOAT)
        x = graph.op("Mul", x, graph.op("Unsqueeze", weights, graph.integers(2)))
    x = graph.op("Reshape", x, graph.integers(-1, width))
    return Encoded(
        ids,
        mask,
        Sizes(width, intermediate=0, layers=0, heads=0, vocabulary=vocabulary, positions=0, epsilon=0, activation=""),
        all_tokens=lambda: (x, ""),  # no attention
        first_token=lambda: blocks.first_token(graph, x, ids, width),
    )
