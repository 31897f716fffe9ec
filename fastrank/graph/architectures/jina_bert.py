"""JinaBERT, version 2 (Günther et al. 2023, arXiv:2310.19923): BERT with ALiBi and a gated feed-forward block.

Equal to the modeling code of jinaai/jina-bert-implementation and, where a checkpoint has norms of queries and keys, of
jinaai/jina-bert-v2-qk-post-norm. Their configurations call themselves "bert".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, onnx_proto, post_norm
from fastrank.graph.architectures import bert

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded, Sizes
    from fastrank.models.config import Config

masked_lm = bert.masked_lm
sequence_classification = bert.sequence_classification

WITHOUT_HEADS: Final = ("layer-states",)

_GATES: Final = {"geglu": blocks.gelu, "reglu": blocks.relu}


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence].

    Nothing in the graph limits the length of a sequence; the models were made for `max_position_embeddings`.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = "bert."
    size = bert.sizes(config, positions="alibi")
    gate = config.choice("feed_forward_type", _GATES)
    ids, mask, x = bert.embeddings(graph, config, size, size.hidden, positions=False)
    normed = any(graph.has(f"encoder.layer.{number}.mlp.up_gated_layer.weight") for number in range(size.layers))
    layer = partial(_normed_layer if normed else _layer, graph, size=size, gate=gate)
    slopes = graph.op("Reshape", graph.floats([-slope for slope in _slopes(size.heads)]), graph.integers(1, -1, 1, 1))
    alibi = partial(_alibi, graph, blocks.position_ids(graph, ids), slopes)
    return post_norm.layers(graph, x, ids, mask, sizes=size, layer=layer, bias_of=alibi)


def _alibi(graph: Graph, positions: str, slopes: str, queries: str) -> str:
    """Attention biases that fall linearly with distance, float32 [1, heads, queries, sequence].

    Press et al. 2021, arXiv:2108.12409, in both directions. `queries` are positions too, int64 [queries, 1].
    """
    distances = graph.op("Abs", graph.op("Sub", positions, queries))
    return graph.op("Mul", graph.op("Cast", distances, to=onnx_proto.FLOAT), slopes)


def _slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n) ... for n heads; for other n, the paper's code interleaves those of 2n."""
    power = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (number + 1) / power) for number in range(power)]
    return slopes if power == heads else slopes + _slopes(2 * power)[0::2][: heads - power]


def _layer(graph: Graph, x: str, number: int, queries: post_norm.Queries, *, size: Sizes, gate: str) -> tuple[str, str]:
    prefix = f"encoder.layer.{number}."
    x, attention = post_norm.attend(graph, x, prefix, queries, sizes=size)
    left, right = _gate_and_up(graph, x, f"{prefix}mlp.gated_layers", size)
    gated = graph.op("Mul", _GATES[gate](graph, left), right)
    down = blocks.linear(graph, gated, f"{prefix}mlp.wo", size.intermediate, size.hidden)
    return post_norm.add_and_norm(graph, down, x, f"{prefix}mlp.layernorm", size), attention


def _normed_layer(
    graph: Graph, x: str, number: int, queries: post_norm.Queries, *, size: Sizes, gate: str
) -> tuple[str, str]:
    prefix, norms = f"encoder.layer.{number}.", "attention.self.layer_norm"
    x, attention = post_norm.attend(
        graph, x, prefix, queries, sizes=size, query_norm=f"{norms}_q", key_norm=f"{norms}_k"
    )
    x = post_norm.add_and_norm(graph, x, queries.states, f"{prefix}layer_norm_1", size)
    left, right = _gate_and_up(graph, x, f"{prefix}mlp.up_gated_layer", size)
    gated = graph.op("Mul", left, _GATES[gate](graph, right))
    down = blocks.linear(graph, gated, f"{prefix}mlp.down_layer", size.intermediate, size.hidden)
    return post_norm.add_and_norm(graph, down, x, f"{prefix}layer_norm_2", size), attention


def _gate_and_up(graph: Graph, x: str, name: str, size: Sizes) -> list[str]:
    """The two halves of a gated linear unit (Shazeer 2020, arXiv:2002.05202), float32 [rows, intermediate] each."""
    return graph.split(blocks.linear(graph, x, name, size.hidden, 2 * size.intermediate, bias=False), 2)
