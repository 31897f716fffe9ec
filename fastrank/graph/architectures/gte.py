"""GTE (Zhang et al. 2024, arXiv:2407.19669; `model_type` "gte" and "new"): BERT with rotary positions and GEGLU.

Equal to transformers' models, and to the modeling code of Alibaba-NLP/new-impl, which packs projections and may scale
the rotary frequencies. Both layouts of tensors are read under either name.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from fastrank.graph import blocks, heads, onnx_proto, post_norm, rotary
from fastrank.graph.architectures import bert
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

IGNORED_FIELDS: Final = frozenset({"pack_qkv", "unpad_inputs", "use_memory_efficient_attention"})
"""Ways to store and to compute the same."""

sequence_classification = bert.sequence_classification

_PREFIXES: Final = ("new.", "gte.")


class _Layout(NamedTuple):
    """How a checkpoint names a layer's parts, and whether it stores projections of the same input as one."""

    layer: str
    attention: str
    attention_norm: str
    mlp_norm: str
    packed_attention: bool = False
    packed_mlp: bool = False


_NEW_IMPL: Final = _Layout("encoder.layer", "attention", "attn_ln", "mlp_ln")
_TRANSFORMERS: Final = _Layout("layers", "self_attn", "post_attention_layernorm", "post_mlp_layernorm")


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids` and `attention_mask`, both [batch, sequence].

    A model with two token types has a third, `token_type_ids`. Nothing in the graph limits the length of a sequence;
    the models were made for `max_position_embeddings`.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = next((prefix for prefix in _PREFIXES if graph.has_any(prefix)), _PREFIXES[0])
    _refuse_unsupported(config)
    size = _sizes(config)
    ids, mask, x = _embeddings(graph, config, size)
    positions = graph.op("Unsqueeze", blocks.position_ids(graph, ids), graph.integers(1))
    cos_sin = rotary.cos_sin(graph, positions, _rotation(config, size.hidden // size.heads))
    layer = partial(_layer, graph, ids=ids, cos_sin=cos_sin, size=size, layout=_layout(graph, size.layers))
    return post_norm.layers(graph, x, ids, mask, sizes=size, layer=layer)


def _layout(graph: Graph, layers: int) -> _Layout:
    layout = _NEW_IMPL if graph.has_any(_NEW_IMPL.layer, graph.prefix + _NEW_IMPL.layer) else _TRANSFORMERS
    names = [f"{layout.layer}.{number}" for number in range(layers)]
    return layout._replace(
        packed_attention=any(graph.has(f"{name}.{layout.attention}.qkv_proj.weight") for name in names),
        packed_mlp=any(graph.has(f"{name}.mlp.up_gate_proj.weight") for name in names),
    )


def _refuse_unsupported(config: Config) -> None:
    config.choice("layer_norm_type", ["layer_norm"], default="layer_norm")
    config.choice("position_embedding_type", ["rope"], default="rope")
    for field in ("logn_attention_scale", "logn_attention_clip1"):
        config.choice(field, [False], default=False)


def _sizes(config: Config) -> Sizes:
    hidden, count = config.width_and_heads("hidden_size", "num_attention_heads")
    if hidden // count % 2:
        raise config.error("num_attention_heads", f"the width of a head, {hidden // count}, must be even")
    config.choice("head_dim", [hidden // count], default=hidden // count)
    return Sizes(
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers", high=1_000),
        heads=count,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=8192),
        epsilon=config.number("layer_norm_eps", default=1e-12),
        activation=config.choice("hidden_act", blocks.ACTIVATIONS, default="gelu"),
    )


def _rotation(config: Config, width: int) -> rotary.Rotation:
    """The rotary frequencies: `rope_parameters` in newer configurations, `rope_theta` and `rope_scaling` in older."""
    is_new = config.choice("model_type", ["new", "gte"]) == "new"
    old_theta = config.number("rope_theta", 10_000 if is_new else 160_000, low=1, high=1e12)
    newer, older = config.section("rope_parameters"), config.section("rope_scaling")
    theta = newer.number("rope_theta", old_theta, low=1, high=1e12)
    section = newer if newer.has("rope_type") else older
    kind = section.choice(section.first("rope_type", "type"), ["default", "ntk"], default="default")
    section.choice("mixed_b", [None])
    section.choice("partial_rotary_factor", [1, 1.0], default=1)
    factor = section.number("factor", 1, low=1, high=1e6)
    found = rotary.ntk_frequencies(width, theta, factor) if kind == "ntk" else rotary.frequencies(width, theta)
    return rotary.Rotation(found)


def _embeddings(graph: Graph, config: Config, size: Sizes) -> tuple[str, str, str]:
    """The inputs `input_ids` and `attention_mask`, and the normalized embeddings, [batch * sequence, hidden]."""
    types = config.integer("type_vocab_size", default=1, low=0)
    if types > 1:
        return bert.embeddings(graph, config, size, size.hidden, positions=False)
    ids, mask = (graph.input(name, onnx_proto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask"))
    x = graph.lookup(bert.WORDS, ids, size.vocabulary, size.hidden)
    if types:
        x = graph.op("Add", x, graph.lookup(bert.TYPES, graph.integer(0), types, size.hidden))
    x = graph.op("Reshape", x, graph.integers(-1, size.hidden))
    return ids, mask, blocks.layer_norm(graph, x, "embeddings.LayerNorm", size.hidden, size.epsilon)


def _layer(
    graph: Graph,
    x: str,
    number: int,
    queries: post_norm.Queries,
    *,
    ids: str,
    cos_sin: rotary.CosSin,
    size: Sizes,
    layout: _Layout,
) -> tuple[str, str]:
    name, hidden = f"{layout.layer}.{number}", size.hidden
    attention = f"{name}.{layout.attention}"
    if layout.packed_attention:
        query, key, value = graph.split(blocks.linear(graph, x, f"{attention}.qkv_proj", hidden, 3 * hidden), 3)
    else:
        query, key, value = (blocks.linear(graph, x, f"{attention}.{part}_proj", hidden, hidden) for part in "qkv")
    if queries.only_first:  # at position 0, where the rotation is the identity
        query = graph.op("Reshape", blocks.first_token(graph, query, ids, hidden), queries.shape)
    else:
        query = rotary.apply(graph, graph.op("Reshape", query, queries.shape), cos_sin)
    attended, probabilities = blocks.attention(
        graph,
        query,
        rotary.apply(graph, graph.op("Reshape", key, queries.text_shape), cos_sin),
        graph.op("Reshape", value, queries.text_shape),
        mask=queries.mask,
        heads=size.heads,
        width=hidden // size.heads,
    )
    attended = blocks.linear(graph, attended, f"{attention}.o_proj", hidden, hidden)
    x = post_norm.add_and_norm(graph, attended, queries.states, f"{name}.{layout.attention_norm}", size)
    fed = _feed_forward(graph, x, f"{name}.mlp", size, packed=layout.packed_mlp)
    return post_norm.add_and_norm(graph, fed, x, f"{name}.{layout.mlp_norm}", size), probabilities


def _feed_forward(graph: Graph, x: str, name: str, size: Sizes, *, packed: bool) -> str:
    """A gated linear unit (Shazeer 2020, arXiv:2002.05202)."""
    hidden, inner = size.hidden, size.intermediate
    if packed:
        up, gate = graph.split(blocks.linear(graph, x, f"{name}.up_gate_proj", hidden, 2 * inner, bias=False), 2)
    else:
        up, gate = (
            blocks.linear(graph, x, f"{name}.{part}_proj", hidden, inner, bias=False) for part in ("up", "gate")
        )
    gated = graph.op("Mul", blocks.ACTIVATIONS[size.activation](graph, gate), up)
    return blocks.linear(graph, gated, f"{name}.down_proj", inner, hidden)


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `GteForMaskedLM`, or new-impl's.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    size, in_transformers = encoded.sizes, graph.has_any("lm_head.layer_norm.")
    x = blocks.linear(graph, encoded.all_tokens()[0], "lm_head.dense", size.hidden, size.hidden)
    x = blocks.gelu(graph, x) if in_transformers else blocks.ACTIVATIONS[size.activation](graph, x)
    norm = "lm_head.layer_norm" if in_transformers else "lm_head.norm"
    x = blocks.layer_norm(graph, x, norm, size.hidden, size.epsilon)
    decoder = "lm_head.decoder"
    heads.word_logits(
        graph, config, encoded, x, size.hidden, decoder=decoder, bias=f"{decoder}.bias", embeddings=bert.WORDS
    )


def token_weights(graph: Graph, config: Config, encoded: Encoded) -> None:  # noqa: ARG001
    """Write `token_weights`, float32 [batch, sequence]: the sparse head of gte-multilingual, `relu(classifier(x))`.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    states = encoded.all_tokens()[0]
    weights = blocks.relu(graph, blocks.linear(graph, states, "classifier", encoded.sizes.hidden, 1, float32=True))
    weights = graph.op("Reshape", weights, blocks.text_shape(graph, encoded.input_ids))
    graph.output("token_weights", weights, onnx_proto.FLOAT, ["batch", "sequence"])
