"""ELECTRA (Clark et al. 2020, arXiv:2003.10555), equal to transformers' models.

BERT whose embeddings may be narrower than its layers, and with other heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrank.graph import blocks, heads, post_norm
from fastrank.graph.architectures import bert

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded
    from fastrank.models.config import Config


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence].

    A sequence longer than `max_position_embeddings` makes the run fail.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "electra."
    size, width = bert.sizes(config), embedding_width(config)
    ids, mask, x = bert.embeddings(graph, config, size, width)
    if width != size.hidden:
        x = blocks.linear(graph, x, "embeddings_project", width, size.hidden)
    return post_norm.layers(graph, x, ids, mask, sizes=size)


def embedding_width(config: Config) -> int:
    """The field `embedding_size`.

    Raises:
        ModelLoadError: It is not a size.
    """
    return config.integer("embedding_size", default=128, high=100_000)


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `ElectraForMaskedLM`, the generator.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    size, width, name = encoded.sizes, embedding_width(config), "generator_predictions"
    x = blocks.linear(graph, encoded.all_tokens()[0], f"{name}.dense", size.hidden, width)
    x = blocks.gelu(graph, x)  # whatever `hidden_act` says
    x = blocks.layer_norm(graph, x, f"{name}.LayerNorm", width, size.epsilon)
    decoder = "generator_lm_head"
    heads.word_logits(graph, config, encoded, x, width, decoder=decoder, bias=f"{decoder}.bias", embeddings=bert.WORDS)


def sequence_classification(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001
    """Write `logits`, float32 [batch, labels]: transformers' `ElectraForSequenceClassification`.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    hidden = encoded.sizes.hidden
    pooled = blocks.linear(graph, encoded.first_token(), "classifier.dense", hidden, hidden)
    heads.label_logits(graph, blocks.gelu(graph, pooled), "classifier.out_proj", hidden)
