"""Decoders: what their configurations say in several ways, and what is computed for one token only."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from support.checkpoints import EXPECTED, FIXTURES, build, copy_of, edit_config, inputs_of, load, read_tensors

from fastrank import graph
from fastrank.errors import ModelLoadError

CAUSAL = ("gemma3_classifier", "qwen2_logit_score", "qwen3", "qwen3_classifier", "qwen3_logit_score")
ONE_TOKEN = {
    "gemma3_classifier": "sequence-classification",
    "qwen2_logit_score": "logit-score",
    "qwen3_classifier": "sequence-classification",
    "qwen3_logit_score": "logit-score",
}


def config_of(name):
    return json.loads((FIXTURES / name / "config.json").read_text())


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_model_sees_nothing_of_what_follows(name):
    feeds = inputs_of(EXPECTED[name]["longest"])
    (states,) = load(FIXTURES / name).run(None, feeds)
    feeds["input_ids"][:, 20:] = 7
    (others,) = load(FIXTURES / name).run(None, feeds)
    np.testing.assert_allclose(others[:, :20], states[:, :20], rtol=0, atol=1e-6)
    assert np.abs(others[:, 20:] - states[:, 20:]).max() > 0.1


@pytest.mark.parametrize("name", ["gemma3_bidirectional", "qwen2_bidirectional"])
def test_a_bidirectional_model_sees_what_follows(name):
    feeds = inputs_of(EXPECTED[name]["longest"])
    (states,) = load(FIXTURES / name).run(None, feeds)
    feeds["input_ids"][:, -1] = 7
    assert np.abs(load(FIXTURES / name).run(None, feeds)[0][:, 0] - states[:, 0]).max() > 1e-3


@pytest.mark.parametrize("name", ["qwen2_logit_score", "qwen3", "qwen3_classifier"])
def test_old_configurations_say_the_same(name, tmp_path):
    folder = copy_of(name, tmp_path)
    expected = build(folder)
    edit_config(folder, layer_types=...)
    assert build(folder) == expected
    edit_config(folder, rope_parameters=..., rope_theta=config_of(name)["rope_parameters"]["rope_theta"])
    assert build(folder) == expected
    edit_config(folder, rope_theta=123.0)
    assert build(folder) != expected


@pytest.mark.parametrize("name", ["gemma3_bidirectional", "gemma3_classifier"])
def test_old_configurations_of_gemma_say_the_same(name, tmp_path):
    folder = copy_of(name, tmp_path)
    expected = build(folder)
    edit_config(folder, rope_parameters=...)  # whose values are the defaults
    assert build(folder) == expected
    edit_config(folder, rope_theta=1e6, rope_local_base_freq=1e4)
    assert build(folder) == expected
    edit_config(folder, layer_types=..., sliding_window_pattern=..., _sliding_window_pattern=...)
    for field in ("sliding_window_pattern", "_sliding_window_pattern"):
        edit_config(folder, **{field: 2})
        assert build(folder) == expected
        edit_config(folder, **{field: 3})
        assert build(folder) != expected
        edit_config(folder, **{field: ...})
    edit_config(folder, layer_types=config_of(name)["layer_types"], rope_local_base_freq=5.0)
    assert build(folder) != expected


def test_the_width_of_a_head_has_the_default_of_its_architecture(tmp_path):
    folder = copy_of("qwen2_bidirectional", tmp_path)
    expected = build(folder)
    edit_config(folder, head_dim=8)
    assert build(folder) == expected
    folder = copy_of("qwen3", tmp_path / "qwen3")
    edit_config(folder, head_dim=...)
    with pytest.raises(
        ModelLoadError, match=r"q_proj.weight' has the shape \[64, 32\]; config.json asks for \[512, 32\]"
    ):
        build(folder)


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("gemma3_bidirectional", {"attn_logit_softcapping": 50.0}, "'attn_logit_softcapping' is 50.0; supported: None"),
        ("gemma3_bidirectional", {"final_logit_softcapping": 30.0}, "'final_logit_softcapping' is 30.0; supported: "),
        (
            "gemma3_bidirectional",
            {"rope_scaling": {"factor": 8.0}},
            "'rope_scaling' is {'factor': 8.0}; supported: None",
        ),
        ("gemma3_bidirectional", {"is_causal": False}, "'is_causal' is False; supported: True"),
        (
            "gemma3_bidirectional",
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}},
            "'rope_parameters.full_attention.rope_type' is 'linear'; supported: 'default'",
        ),
        ("qwen3", {"num_key_value_heads": 3}, "'num_key_value_heads' is 3; num_attention_heads 4 is not a multiple"),
        ("qwen3", {"head_dim": 7}, "'head_dim' is 7; the width of a head, 7, must be even"),
        ("qwen3", {"hidden_act": "laplace"}, "'hidden_act' is 'laplace'; supported: "),
        ("qwen3", {"rope_scaling": {"type": "dynamic", "factor": 4}}, ".type' is 'dynamic'; supported: "),
        ("qwen3", {"rope_parameters": {"rope_type": "longrope"}}, ".rope_type' is 'longrope'; supported: "),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn"}}, "'rope_parameters.factor' is missing; rope_type 'yarn'"),
        ("qwen3", {"layer_types": ["full_attention"]}, "expected 2 entries, one per layer"),
        (
            "qwen3",
            {"layer_types": ["chunked_attention"] * 2},
            "expected a list of: 'full_attention', 'sliding_attention'",
        ),
        ("qwen3", {"layer_types": ["sliding_attention"] * 2}, "use_sliding_window is false"),
        ("qwen3", {"is_causal": "no"}, "'is_causal' is 'no'; supported: True, False"),
        (
            "qwen3",
            {"auto_map": {"AutoModel": "code.Model"}},
            "code of its own; state in config.json whether it is causal",
        ),
        (
            "qwen2_bidirectional",
            {"attention_bias": True},
            "'attention_bias' is True; fastrank does not know this field",
        ),
    ],
)
def test_a_bad_field_is_named(name, fields, says, tmp_path):
    folder = copy_of(name, tmp_path)
    edit_config(folder, **fields)
    with pytest.raises(ModelLoadError) as caught:
        build(folder)
    assert str(caught.value).startswith(f"{folder / 'config.json'}: field ")
    assert says in str(caught.value)


def test_a_model_with_code_of_its_own_that_says_how_it_attends_is_used(tmp_path):
    folder = copy_of("qwen2_bidirectional", tmp_path)
    expected = build(folder)
    edit_config(folder, auto_map={"AutoModel": "modeling_qwen.Qwen2Model"})
    assert build(folder) == expected


# -- heads that read one token --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "head"), ONE_TOKEN.items())
def test_the_last_layer_is_computed_for_one_token(name, head):
    """Of queries and what follows; keys and values are of all tokens."""
    model = onnx.load_model_from_string(build(FIXTURES / name, head))
    last = f"layers.{config_of(name)['num_hidden_layers'] - 1}."
    gemms = [node for node in model.graph.node if node.op_type == "Gemm" and last in node.input[1]]
    products = {node.input[1]: node.output[0] for node in gemms}
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in products.values())
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(FIXTURES / name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    case = EXPECTED[name]["padded"]
    values = session.run(list(products.values()), inputs_of(case))
    rows = dict(zip(products, map(len, values), strict=True))
    batch, length = np.shape(case["input_ids"])
    assert len(rows) == 7
    for weight, count in rows.items():
        assert count == (batch * length if ".k_proj." in weight or ".v_proj." in weight else batch), weight


def test_a_score_is_that_of_one_token_where_there_is_no_other():
    name = "qwen3_logit_score"
    case = inputs_of(EXPECTED[name]["padded"])

    def score(yes, no):
        model = graph.build(FIXTURES / name, "logit-score", score_tokens=(yes, no))
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(FIXTURES / name))
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(None, case)[0]

    np.testing.assert_allclose(score(9, None) - score(4, None), score(9, 4), rtol=0, atol=1e-5)
    table = np.frombuffer(read_tensors(FIXTURES / name)["model.embed_tokens.weight"][2], "<f4").reshape(64, 32)
    states = load(FIXTURES / name).run(None, case)[0]
    last = states[np.arange(len(states)), case["attention_mask"].sum(axis=1) - 1]
    np.testing.assert_allclose(score(9, None), last @ table[9][:, None], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tokens", [(64, 4), (9, 64), (-1, 4), (9, -1)])
def test_a_score_of_a_token_that_does_not_exist_is_refused(tokens):
    with pytest.raises(ModelLoadError, match=r"the score reads token (64|-1), and the vocabulary has 64"):
        graph.build(FIXTURES / "qwen3_logit_score", "logit-score", score_tokens=tokens)


def test_a_score_needs_its_tokens():
    with pytest.raises(ModelLoadError, match="the head 'logit-score' needs score_tokens"):
        graph.build(FIXTURES / "qwen3_logit_score", "logit-score")


def test_an_untied_output_embedding_must_be_there(tmp_path):
    folder = copy_of("qwen3_logit_score", tmp_path)
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(ModelLoadError, match=r"no tensor 'lm_head\.weight'"):
        build(folder, "logit-score")


@pytest.mark.parametrize("pad", [None, 7])
def test_a_classifier_reads_the_last_token_that_is_not_the_padding_id(pad, tmp_path):
    """As transformers; texts may end with the id, which some tokenizers append."""
    folder = copy_of("qwen3_classifier", tmp_path)
    edit_config(folder, pad_token_id=pad)
    ids = np.array([[9, 11, 12, 7, 7]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    (found,) = load(folder, "sequence-classification").run(None, feeds)
    states = load(folder).run(None, feeds)[0]
    weight = np.frombuffer(read_tensors(folder)["score.weight"][2], "<f4").reshape(3, 32)
    np.testing.assert_allclose(found[0], weight @ states[0, 2 if pad else 4], rtol=0, atol=1e-5)


# -- what runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CAUSAL)
def test_onnxruntime_fuses_every_rms_norm(name, tmp_path):
    load(FIXTURES / name, optimized=tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node]
    layers = config_of(name)["num_hidden_layers"]
    norms = layers * {"gemma3": 6, "qwen2": 2, "qwen3": 4}[name.split("_")[0]] + 1
    fused = kinds.count("SimplifiedLayerNormalization") + kinds.count("SkipSimplifiedLayerNormalization")
    assert fused == norms
    assert "ReduceMean" not in kinds


@pytest.mark.parametrize("name", CAUSAL)
def test_keys_and_values_are_not_copied_for_every_query_head(name):
    kinds = {node.op_type for node in onnx.load_model_from_string(build(FIXTURES / name)).graph.node}
    assert not kinds & {"Expand", "Tile"}
