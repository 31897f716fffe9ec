"""NomicBERT (Nussbaum et al. 2024, arXiv:2402.01613): BERT with rotary positions and a gated feed-forward block.

Equal to transformers' models; and to the modeling code of nomic-ai/nomic-bert-2048, whose configurations use the field
names of GPT-2 and may ask for biases, for feed-forward blocks without gates, and for a mixture of experts
(nomic-embed-text-v2, Nussbaum and Duderstadt 2025, arXiv:2502.07972).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from fastrank.graph import blocks, heads, onnx_proto, post_norm, rotary
from fastrank.graph.architectures import bert
from fastrank.graph.encoded import Encoded, Sizes

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config

_GATES: Final = {"geglu": "gelu", "swiglu": "silu"}
_PLAIN: Final = "gelu"  # of the models' own code: two layers without a gate
_PREFIXES: Final = ("nomic_bert.", "bert.")  # of transformers, and of the models' own code

sequence_classification = bert.sequence_classification


def encoder(graph: Graph, config: Config) -> Encoded:
    """Write the encoder; its inputs are int64 `input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence].

    Nothing in the graph limits the length of a sequence; the model was trained up to `max_trained_positions`.

    Raises:
        ModelLoadError: The configuration or a tensor is missing or not as expected.
    """
    graph.prefix = next((prefix for prefix in _PREFIXES if graph.has_any(prefix)), _PREFIXES[0])
    _refuse_unsupported(config)
    size = _sizes(graph, config)
    ids, mask, x = bert.embeddings(graph, config, size, size.hidden, positions=False, norm="emb_ln")
    positions = graph.op("Unsqueeze", blocks.position_ids(graph, ids), graph.integers(1))
    cos_sin = rotary.cos_sin(graph, positions, _rotation(config, size))
    layer = partial(_layer, graph, ids=ids, cos_sin=cos_sin, size=size, config=config)
    return post_norm.layers(graph, x, ids, mask, sizes=size, layer=layer)


def _refuse_unsupported(config: Config) -> None:
    for field in ("prenorm", "parallel_block", "causal", "rotary_emb_interleaved"):
        config.choice(field, [False], default=False)
    for field in ("rotary_emb_scale_base", "rotary_scaling_factor"):
        config.choice(field, [None])
    config.choice("rotary_emb_fraction", [1.0, 1], default=1.0)
    for field in ("expert_choice_router", "moe_normalize_expert_weights"):
        config.choice(field, [False], default=False)
    config.choice("num_shared_experts", [0], default=0)
    if _has_experts(config) and _is_gated(config):
        raise config.error("activation_function", f"a mixture of experts is supported with {_PLAIN!r} only")


def _has_experts(config: Config) -> bool:
    return config.integer("moe_every_n_layers", default=0, low=0, high=1_000) > 0


def _is_gated(config: Config) -> bool:
    return config.first("activation_function", "hidden_act") == "hidden_act" or (
        config.choice("activation_function", [*_GATES, _PLAIN]) != _PLAIN
    )


def _sizes(graph: Graph, config: Config) -> Sizes:
    hidden, count = config.width_and_heads(
        config.first("n_embd", "hidden_size"), config.first("n_head", "num_attention_heads")
    )
    if hidden // count % 2:
        raise config.error(
            config.first("n_head", "num_attention_heads"), f"the width of a head, {hidden // count}, must be even"
        )
    config.choice("head_dim", [hidden // count], default=hidden // count)
    multiple = config.integer("pad_vocab_size_multiple", default=1)
    function = config.first("activation_function", "hidden_act")
    kinds = [*_GATES, _PLAIN] if function == "activation_function" else ["silu", "gelu"]
    kind = config.choice(function, kinds, default="silu")
    first = "fc11" if _is_gated(config) else "fc1"
    return Sizes(
        hidden=hidden,
        intermediate=graph.rows(f"encoder.layers.0.mlp.{first}.weight"),  # `n_inner`, rounded up in some checkpoints
        layers=config.integer(config.first("n_layer", "num_hidden_layers"), high=1_000),
        heads=count,
        vocabulary=-(-config.integer("vocab_size") // multiple) * multiple,
        positions=config.integer(config.first("n_positions", "max_position_embeddings"), default=2048),
        epsilon=config.number(config.first("layer_norm_epsilon", "layer_norm_eps"), default=1e-12),
        activation=_GATES.get(kind, kind),
    )


def _rotation(config: Config, size: Sizes) -> rotary.Rotation:
    section = rotary.section(config)
    old = config.number("rotary_emb_base", default=1_000, low=1, high=1e12)
    theta = section.number("rope_theta", old, low=1, high=1e12)
    return rotary.rotation(config, section, size.hidden // size.heads, theta, size.positions)


def _layer(
    graph: Graph,
    x: str,
    number: int,
    queries: post_norm.Queries,
    *,
    ids: str,
    cos_sin: rotary.CosSin,
    size: Sizes,
    config: Config,
) -> tuple[str, str]:
    name, hidden = f"encoder.layers.{number}", size.hidden
    bias = _has_bias(config, "qkv_proj_bias")
    query, key, value = graph.split(blocks.linear(graph, x, f"{name}.attn.Wqkv", hidden, 3 * hidden, bias=bias), 3)
    if queries.only_first:  # at position 0, where the rotation is the identity
        query = graph.op("Reshape", blocks.first_token(graph, query, ids, hidden), queries.shape)
    else:
        query = rotary.apply(graph, graph.op("Reshape", query, queries.shape), cos_sin)
    mixed, attention = blocks.attention(
        graph,
        query,
        rotary.apply(graph, graph.op("Reshape", key, queries.text_shape), cos_sin),
        graph.op("Reshape", value, queries.text_shape),
        mask=queries.mask,
        heads=size.heads,
        width=hidden // size.heads,
    )
    mixed = blocks.linear(graph, mixed, f"{name}.attn.out_proj", hidden, hidden, bias=bias)
    x = post_norm.add_and_norm(graph, mixed, queries.states, f"{name}.norm1", size)
    if not _is_gated(config):
        every = config.integer("moe_every_n_layers", default=0, low=0, high=1_000)
        write = _experts if every and number % every == 1 % every else _plain_feed_forward
    else:
        write = _feed_forward
    fed = write(graph, x, f"{name}.mlp", size=size, config=config)
    return post_norm.add_and_norm(graph, fed, x, f"{name}.norm2", size), attention


def _feed_forward(graph: Graph, x: str, name: str, *, size: Sizes, config: Config) -> str:
    """A gated linear unit (Shazeer 2020, arXiv:2002.05202)."""
    bias = _has_bias(config, "mlp_fc1_bias")
    inner, gate = (
        blocks.linear(graph, x, f"{name}.{part}", size.hidden, size.intermediate, bias=bias)
        for part in ("fc11", "fc12")
    )
    gated = graph.op("Mul", inner, blocks.ACTIVATIONS[size.activation](graph, gate))
    bias = _has_bias(config, "mlp_fc2_bias")
    return blocks.linear(graph, gated, f"{name}.fc2", size.intermediate, size.hidden, bias=bias)


def _plain_feed_forward(graph: Graph, x: str, name: str, *, size: Sizes, config: Config) -> str:
    bias = _has_bias(config, "mlp_fc1_bias")
    inner = blocks.linear(graph, x, f"{name}.fc1", size.hidden, size.intermediate, bias=bias)
    inner = blocks.ACTIVATIONS[size.activation](graph, inner)
    bias = _has_bias(config, "mlp_fc2_bias")
    return blocks.linear(graph, inner, f"{name}.fc2", size.intermediate, size.hidden, bias=bias)


def _experts(graph: Graph, x: str, name: str, *, size: Sizes, config: Config) -> str:
    """A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538): each token goes through a few feed-forward blocks.

    Their outputs are weighted by the router's probabilities among all experts, which are not normalized anew. An expert
    computes only the tokens that chose it. int8 leaves the experts in float.
    """
    hidden, inner, count = size.hidden, size.intermediate, config.integer("num_experts", default=8, high=1_000)
    chosen_by_each = config.integer("moe_top_k", default=1, high=count)
    scores = blocks.linear(graph, x, f"{name}.router.layer", hidden, count, bias=False, float32=True)
    values, experts = graph.ops(
        "TopK", 2, graph.op("Softmax", scores, axis=-1), graph.integers(chosen_by_each), axis=-1
    )
    total = graph.op("ConstantOfShape", graph.op("Shape", x))
    for number in range(count):
        chosen = graph.op("Cast", graph.op("Equal", experts, graph.integer(number)), to=onnx_proto.FLOAT)
        probabilities = graph.op("ReduceSum", graph.op("Mul", values, chosen), graph.integers(1), keepdims=1)
        rows = graph.op("NonZero", graph.op("ReduceMax", chosen, axes=[1], keepdims=0))
        rows = graph.op("Squeeze", rows, graph.integers(0))
        up, down = (
            graph.weight_rows(f"{name}.experts.mlp.{part}", number * inner, inner, count * inner, hidden)
            for part in ("w1", "w2")
        )
        states = graph.op("Gemm", graph.op("Gather", x, rows), up, transB=1)
        states = graph.op("Gemm", blocks.ACTIVATIONS[size.activation](graph, states), down)
        weighted = graph.op("Mul", graph.to_float32(states), graph.op("Gather", probabilities, rows))
        total = graph.op("ScatterND", total, graph.op("Unsqueeze", rows, graph.integers(1)), weighted, reduction="add")
    return graph.op("Add", graph.to_compute_dtype(total), graph.weight(f"{name}.experts.bias", hidden))


def _has_bias(config: Config, field: str) -> bool:
    """Transformers' models have no biases and no such field; in the models' own code the default is True."""
    return config.flag(field, default=config.first("n_embd", "hidden_size") == "n_embd")


def masked_lm(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write `logits`, float32 [batch, sequence, vocabulary]: transformers' `NomicBertForMaskedLM`.

    Raises:
        ModelLoadError: A tensor is missing or not as expected.
    """
    size, name = encoded.sizes, "cls.predictions"
    # The models' own code has one switch for the feed-forward blocks and this head; transformers' head has biases.
    bias = config.flag("mlp_fc1_bias", default=True)
    x = blocks.linear(graph, encoded.all_tokens()[0], f"{name}.transform.dense", size.hidden, size.hidden, bias=bias)
    x = blocks.ACTIVATIONS[size.activation](graph, x)
    x = blocks.layer_norm(graph, x, f"{name}.transform.layer_norm", size.hidden, size.epsilon)
    heads.word_logits(
        graph,
        config,
        encoded,
        x,
        size.hidden,
        decoder=f"{name}.decoder",
        bias=f"{name}.bias" if bias else None,
        embeddings=bert.WORDS,
    )
