"""Graphs written from checkpoints: what they compute, what they touch, and what is refused."""

import functools
import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from support.checkpoints import (
    EXPECTED,
    FIXTURES,
    HEADS,
    NAMES,
    OUTPUTS,
    build,
    copy_of,
    edit_config,
    heads_of,
    inputs_of,
    load,
    read_tensors,
    write_tensors,
)

from fastrank.errors import ModelLoadError
from fastrank.graph import OUTPUT, model_types, supported_heads

OF_HEADS = (
    *("bert.pooler.", "classifier.", "cls.", "decoder.", "dense.", "generator_", "gte.pooler.", "head.", "lm_head."),
    *("lm_predictions.", "nomic_bert.pooler.", "pooler.", "pre_", "score.", "vocab_"),
)
WINDOWED = ("deberta", "gemma3", "qwen2")
UNLIMITED = (
    *("deberta_v", "eurobert", "gemma3", "gte", "jina_bert", "modernbert", "mt5", "new", "nomic_bert", "qwen", "t5"),
)
"""Their positions are no table, but for one DeBERTa's."""


def type_of(name):
    """The key of a fixture in the table of architectures."""
    if name.startswith("jina_bert"):
        return "jina_bert"  # whose configurations say "bert"
    return json.loads((FIXTURES / name / "config.json").read_text())["model_type"]


CASES = [(name, head, case) for name, head in HEADS for case in EXPECTED[name]]


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of the tiny BERT, to be damaged."""
    return copy_of("bert", tmp_path)


@functools.cache
def loaded(name, head):
    """The session of a fixture, which no test changes."""
    return load(FIXTURES / name, head)


def run(session, feeds):
    (hidden,) = session.run(["last_hidden_state"], feeds)
    return hidden


def cut(name, values, length):
    """One text's values, without those of its padding."""
    if name == "attention":
        return values[:, :length, :length]
    return values[:length] if values.ndim == 2 or name == "token_weights" else values


@pytest.mark.parametrize(("name", "head", "case"), CASES)
def test_equals_transformers(name, head, case):
    session = loaded(name, head)
    results = session.run(None, inputs_of(EXPECTED[name][case]))
    assert [value.name for value in session.get_outputs()] == OUTPUTS[head]
    for output, result, value in zip(OUTPUTS[head], results, session.get_outputs(), strict=True):
        expected = np.array(EXPECTED[name][case][output], np.float32)
        assert result.dtype == np.float32
        assert result.shape == expected.shape
        assert all(isinstance(size, str) or size == n for size, n in zip(value.shape, result.shape, strict=True))
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_padding_changes_nothing(name, head):
    session = loaded(name, head)
    case = EXPECTED[name]["padded"]
    together = session.run(None, inputs_of(case))
    for row, mask in enumerate(case["attention_mask"]):
        length = sum(mask)
        alone = session.run(None, inputs_of(case, slice(row, row + 1), length))
        for output, one, all_ in zip(OUTPUTS[head], alone, together, strict=True):
            np.testing.assert_allclose(cut(output, all_[row], length), one[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_without_padding_no_mask_is_needed(name, head):
    session = load(FIXTURES / name, head, unpadded=True)
    case = EXPECTED[name]["padded"]
    for row, mask in enumerate(case["attention_mask"]):
        alone = inputs_of(case, slice(row, row + 1), sum(mask))
        twice = {key: np.concatenate([values, values]) for key, values in alone.items()}
        found = session.run(None, twice)
        for value, expected in zip(found, loaded(name, head).run(None, alone), strict=True):
            np.testing.assert_allclose(value, np.concatenate([expected, expected]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, head, case in CASES if head == "masked-lm"])
def test_splade_vectors_equal_those_of_transformers(name, case):
    feeds = inputs_of(EXPECTED[name][case])
    (logits,) = loaded(name, "masked-lm").run(None, feeds)
    weights = np.log1p(np.maximum(logits.astype(np.float64), 0)) * feeds["attention_mask"][..., None]
    np.testing.assert_allclose(weights.max(axis=1), EXPECTED[name][case]["splade"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "head", "case"), [case for case in CASES if case[1] == "attention"])
def test_attention_is_a_distribution_over_the_text(name, head, case):
    feeds = inputs_of(EXPECTED[name][case])
    attention = loaded(name, head).run(["attention"], feeds)[0]
    np.testing.assert_allclose(attention.sum(axis=-1), 1, rtol=0, atol=1e-5)
    for row, mask in enumerate(feeds["attention_mask"]):
        asks = mask == 1 if name.startswith(WINDOWED) else slice(None)  # padding may see padding only
        if mask.any():
            assert not attention[row][:, asks][..., mask == 0].any()


@pytest.mark.parametrize("name", NAMES)
def test_colbert_projects_the_hidden_states(name, tmp_path):
    folder = copy_of(name, tmp_path)
    tensors = read_tensors(folder)
    hidden = np.array(EXPECTED[name]["one"]["last_hidden_state"]).shape[-1]
    weight = np.random.default_rng(0).normal(size=(8, hidden)).astype("<f4")
    write_tensors(folder, {**tensors, "linear.weight": ("F32", weight.shape, weight.tobytes())})
    session = load(folder, "colbert")
    for case in EXPECTED[name].values():
        feeds = inputs_of(case)
        (found,) = session.run(["token_vectors"], feeds)
        projected = np.array(case["last_hidden_state"], np.float32) @ weight.T
        expected = projected / np.linalg.norm(projected, axis=-1, keepdims=True)
        seen = feeds["attention_mask"] == 1
        np.testing.assert_allclose(found[seen], expected[seen], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(UNLIMITED) or "deberta_v2_" in name])
def test_longer_than_the_positions_fails(name):
    session = loaded(name, "encoder")
    feeds = {k: np.repeat(v[:, :1], v.shape[1] + 1, axis=1) for k, v in inputs_of(EXPECTED[name]["longest"]).items()}
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        session.run(None, feeds)


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_onnx_checker_accepts(name, head, tmp_path):
    folder = copy_of(name, tmp_path)
    (folder / "model.onnx").write_bytes(build(folder, head))
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    (folder / "model.onnx").write_bytes(build(folder, head, plain=True))
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    model = onnx.load(folder / "model.onnx")
    assert [entry.version for entry in model.opset_import] == [17]
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    tensors = read_tensors(folder)
    weights = stored.keys() & tensors.keys()
    for key in weights:
        np.testing.assert_array_equal(stored[key], np.frombuffer(tensors[key][2], "<f4").reshape(tensors[key][1]))
    parts = {key.split("[")[0] for key in stored.keys() - weights}  # of weights of which a part is used at a time
    idle = tensors.keys() - weights - parts
    if head == next(heads_of(name)):  # the head that it was saved with
        assert not idle or name == "xlm_roberta_with_head"
    assert all(key.startswith(OF_HEADS) for key in idle)


def test_inputs_and_outputs_are_declared():
    model = onnx.load_model_from_string(build(FIXTURES / "bert"))
    assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [value.name for value in onnx.load_model_from_string(build(FIXTURES / "roberta")).graph.input] == [
        "input_ids",
        "attention_mask",
    ]
    (output,) = model.graph.output
    dims = [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim]
    assert (output.name, dims) == ("last_hidden_state", ["batch", "sequence", 32])


def test_the_same_checkpoint_gives_the_same_bytes():
    assert build(FIXTURES / "bert") == build(FIXTURES / "bert")
    assert len(build(FIXTURES / "bert")) < 20_000


def test_onnxruntime_fuses_the_activations(tmp_path):
    for name, fused in {"bert": "Gelu", "bert_with_head": "FastGelu"}.items():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(FIXTURES / name))
        onnxruntime.InferenceSession(build(FIXTURES / name), options, providers=["CPUExecutionProvider"])
        model = onnx.load(tmp_path / "optimized.onnx", load_external_data=False)
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.count(fused) == 2


def test_a_read_only_folder_is_left_alone(checkpoint):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    checkpoint.chmod(0o500)
    try:
        run(load(checkpoint), inputs_of(EXPECTED["bert"]["two"]))
    finally:
        checkpoint.chmod(0o700)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
@pytest.mark.parametrize(("name", "head"), [(name, next(heads_of(name))) for name in NAMES])
def test_weights_of_other_precisions_are_cast(name, head, dtype, tmp_path):
    def half(raw):
        values = np.frombuffer(raw, "<f4")
        if dtype == "F64":
            return values.astype("<f8").tobytes(), raw
        if dtype == "F16":
            return values.astype("<f2").tobytes(), values.astype("<f2").astype("<f4").tobytes()
        kept = values.view("<u4") >> 16
        return kept.astype("<u2").tobytes(), (kept << 16).astype("<u4").tobytes()

    folder = copy_of(name, tmp_path)
    tensors = read_tensors(folder)
    feeds = inputs_of(EXPECTED[name]["padded"])
    write_tensors(folder, {name: ("F32", shape, half(raw)[1]) for name, (_, shape, raw) in tensors.items()})
    rounded = load(folder, head).run(None, feeds)
    write_tensors(folder, {name: (dtype, shape, half(raw)[0]) for name, (_, shape, raw) in tensors.items()})
    for result, expected in zip(load(folder, head).run(None, feeds), rounded, strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_unaligned_data_and_old_names_are_read(checkpoint):
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in read_tensors(checkpoint).items()
    }
    assert "embeddings.LayerNorm.gamma" in tensors
    write_tensors(checkpoint, tensors, pad=3)
    case = EXPECTED["bert"]["padded"]
    np.testing.assert_allclose(run(load(checkpoint), inputs_of(case)), case["last_hidden_state"], rtol=0, atol=1e-5)


def test_missing_optional_fields_take_the_defaults_of_transformers(checkpoint):
    edit_config(checkpoint, layer_norm_eps=..., hidden_act=..., type_vocab_size=..., is_decoder=None, pad_token_id=...)
    case = EXPECTED["bert"]["two"]
    np.testing.assert_allclose(run(load(checkpoint), inputs_of(case)), case["last_hidden_state"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (
            "model_type",
            "gpt2",
            "'gpt2'; supported: 'bert', 'camembert', ",
        ),
        ("model_type", ..., "missing; supported: 'bert'"),
        ("model_type", ["bert"], "supported: 'bert'"),
        ("hidden_size", ..., "missing; expected an integer"),
        ("hidden_size", "32", "is '32'; expected an integer"),
        ("hidden_size", 32.0, "expected an integer"),
        ("hidden_size", True, "expected an integer"),
        ("hidden_size", 10**30, "expected an integer"),
        ("num_attention_heads", 5, "hidden_size 32 is not a multiple of it"),
        ("num_attention_heads", 0, "expected an integer from 1"),
        ("num_hidden_layers", -1, "expected an integer from 1"),
        ("num_hidden_layers", 10**9, "expected an integer from 1 to 1000"),
        ("intermediate_size", None, "expected an integer"),
        ("vocab_size", {}, "expected an integer"),
        ("max_position_embeddings", [40], "expected an integer"),
        ("type_vocab_size", 0, "expected an integer"),
        ("layer_norm_eps", float("nan"), "expected a number"),
        ("layer_norm_eps", "1e-12", "expected a number"),
        ("layer_norm_eps", 10**400, "expected a number"),
        ("hidden_act", "laplace", "is 'laplace'; supported: 'gelu', 'gelu_accurate'"),
        ("position_embedding_type", "relative_key", "supported: 'absolute'"),
        ("is_decoder", True, "supported: False"),
    ],
)
def test_a_bad_field_is_named(checkpoint, field, value, says):
    edit_config(checkpoint, **{field: value})
    with pytest.raises(ModelLoadError) as caught:
        build(checkpoint)
    assert f"{checkpoint / 'config.json'}: field {field!r} is " in str(caught.value)
    assert says in str(caught.value)


def test_every_product_with_a_weight_is_a_gemm():
    for name, head in HEADS:
        graph = onnx.load_model_from_string(build(FIXTURES / name, head)).graph
        weights = {item.name for item in graph.initializer if item.external_data}
        for node in graph.node:
            assert node.op_type != "MatMul" or not weights.intersection(node.input), (name, head, node)


def test_a_vocabulary_is_rounded_up_as_nomic_does_it(tmp_path):
    folder = copy_of("nomic_bert_masked_lm", tmp_path)
    expected = build(folder)
    edit_config(folder, vocab_size=60, pad_vocab_size_multiple=16)
    assert build(folder) == expected


@pytest.fixture
def modern(tmp_path):
    """A copy of the tiny ModernBERT, to be damaged."""
    return copy_of("modernbert_cls", tmp_path)


def test_old_configurations_of_modernbert_say_the_same(modern):
    expected = build(modern)
    edit_config(modern, layer_types=..., rope_parameters=...)
    assert build(modern) == expected  # all fields have these values by default
    edit_config(modern, global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=10000.0)
    assert build(modern) == expected
    for field, value in {"global_attn_every_n_layers": 2, "global_rope_theta": 1e4, "local_rope_theta": 2e4}.items():
        edit_config(modern, **{field: value})
        assert build(modern) != expected, field
        expected = build(modern)


@pytest.mark.parametrize("field", ["local_attention", "layer_types", "rope_parameters"])
def test_what_is_local_in_modernbert_matters(modern, field):
    changed = {
        "local_attention": 10,
        "layer_types": ["full_attention"] * 4,
        "rope_parameters": {"sliding_attention": {"rope_theta": 5.0}},
    }
    edit_config(modern, **{field: changed[field]})
    case = EXPECTED["modernbert_cls"]["longest"]
    assert np.abs(run(load(modern), inputs_of(case)) - case["last_hidden_state"]).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"layer_types": ["full_attention"]}, "field 'layer_types' is ['full_attention']; expected 4 entries"),
        ({"layer_types": ["chunked"] * 4}, "expected a list of: 'full_attention', 'sliding_attention'"),
        ({"layer_types": "full_attention"}, "expected a list of"),
        ({"layer_types": [["full_attention"]] * 4}, "expected a list of"),
        ({"global_attn_every_n_layers": 0}, "expected an integer from 1"),
        ({"local_attention": -1}, "expected an integer from 2"),
        ({"rope_scaling": {"type": "linear"}}, "field 'rope_scaling' is {'type': 'linear'}; supported: None"),
        ({"rope_parameters": 7}, "field 'rope_parameters' is 7; expected an object"),
        ({"rope_parameters": {"full_attention": []}}, "field 'rope_parameters.full_attention' is []; expected an"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "field 'rope_parameters.full_attention.rope_type' is 'yarn'; supported: 'default'",
        ),
        (
            {"rope_parameters": {"sliding_attention": {"rope_theta": 0}}},
            "field 'rope_parameters.sliding_attention.rope_theta' is 0; expected a number of at least 1",
        ),
        ({"num_attention_heads": 32}, "the width of a head, 1, must be even"),
        ({"norm_bias": "yes"}, "field 'norm_bias' is 'yes'; supported: True, False"),
        ({"hidden_activation": "laplace"}, "field 'hidden_activation' is 'laplace'; supported: 'gelu'"),
        ({"classifier_activation": "laplace"}, "field 'classifier_activation' is 'laplace'; supported: 'gelu'"),
        ({"classifier_pooling": "max"}, "field 'classifier_pooling' is 'max'; supported: 'cls', 'mean'"),
    ],
)
def test_a_bad_field_of_modernbert_is_named(modern, fields, says):
    edit_config(modern, **fields)
    with pytest.raises(ModelLoadError) as caught:
        build(modern, "sequence-classification")
    assert str(caught.value).startswith(f"{modern / 'config.json'}: field ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "field", "value", "says"),
    [
        ("electra_masked_lm", "embedding_size", 0, "is 0; expected an integer from 1"),
        ("electra_masked_lm", "is_decoder", True, "is True; supported: False"),
        ("distilbert_masked_lm", "dim", ..., "is missing; expected an integer"),
        ("distilbert_masked_lm", "n_heads", 5, "is 5; dim 32 is not a multiple of it"),
        ("distilbert_masked_lm", "activation", "laplace", "is 'laplace'; supported: 'gelu'"),
        ("jina_bert_masked_lm", "feed_forward_type", "original", "is 'original'; supported: 'geglu', 'reglu'"),
        ("jina_bert_masked_lm", "feed_forward_type", ..., "is missing; supported: 'geglu', 'reglu'"),
        ("jina_bert_masked_lm", "position_embedding_type", "rope", "is 'rope'; supported: 'absolute', 'alibi'"),
        ("mpnet_masked_lm", "position_embedding_type", "alibi", "is 'alibi'; supported: 'absolute'"),
        ("mpnet_masked_lm", "relative_attention_num_buckets", 64, "is 64; supported: 32"),
        ("nomic_bert_masked_lm", "head_dim", 16, "is 16; supported: 8"),
        ("nomic_bert_masked_lm", "hidden_act", "laplace", "is 'laplace'; supported: 'silu', 'gelu'"),
        ("nomic_bert_masked_lm", "hidden_size", ..., "is missing; expected an integer"),
        ("nomic_bert_masked_lm", "num_attention_heads", 32, "is 32; the width of a head, 1, must be even"),
        ("nomic_bert_masked_lm", "rope_parameters", [], "is []; expected an object"),
        (
            "nomic_bert_old_masked_lm",
            "activation_function",
            "laplace",
            "is 'laplace'; supported: 'geglu', 'swiglu', 'gelu'",
        ),
        ("nomic_bert_old_masked_lm", "moe_normalize_expert_weights", True, "is True; supported: False"),
        ("nomic_bert_old_masked_lm", "expert_choice_router", True, "is True; supported: False"),
        ("nomic_bert_old_masked_lm", "num_shared_experts", 1, "is 1; supported: 0"),
        ("nomic_bert_old_masked_lm", "n_head", 5, "is 5; n_embd 32 is not a multiple of it"),
        ("nomic_bert_old_masked_lm", "prenorm", True, "is True; supported: False"),
        ("nomic_bert_old_masked_lm", "rotary_emb_fraction", 0.5, "is 0.5; supported: 1.0, 1"),
        ("nomic_bert_old_masked_lm", "rotary_scaling_factor", 2, "is 2; supported: None"),
        ("bert_masked_lm", "tie_word_embeddings", "yes", "is 'yes'; supported: True, False"),
        ("gte_masked_lm", "num_attention_heads", 32, "is 32; the width of a head, 1, must be even"),
        ("gte_masked_lm", "type_vocab_size", -1, "is -1; expected an integer from 0"),
        ("new_masked_lm", "layer_norm_type", "rms_norm", "is 'rms_norm'; supported: 'layer_norm'"),
        ("new_masked_lm", "position_embedding_type", "absolute", "is 'absolute'; supported: 'rope'"),
        ("new_masked_lm", "logn_attention_scale", True, "is True; supported: False"),
        ("new_masked_lm", "logn_attention_clip1", True, "is True; supported: False"),
        ("new_masked_lm", "rope_scaling", "ntk", "is 'ntk'; expected an object"),
    ],
)
def test_a_bad_field_of_other_models_is_named(tmp_path, name, field, value, says):
    folder = copy_of(name, tmp_path)
    edit_config(folder, **{field: value})
    with pytest.raises(ModelLoadError) as caught:
        build(folder, "masked-lm")
    assert str(caught.value).startswith(f"{folder / 'config.json'}: field {field!r} {says}")


def test_a_padding_id_outside_the_vocabulary_is_refused(tmp_path):
    folder = copy_of("roberta", tmp_path)
    edit_config(folder, pad_token_id=64)
    with pytest.raises(ModelLoadError, match="field 'pad_token_id' is 64; expected an integer from 0 to 63"):
        build(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe\xff", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"", "not valid JSON"),
    ],
)
def test_a_config_that_is_not_json_is_refused(checkpoint, content, says):
    (checkpoint / "config.json").write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        build(checkpoint)
    assert f"{checkpoint / 'config.json'}: {says}" in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(ModelLoadError, match=f"{name}: there is no such file"):
        build(checkpoint)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_does_not_hang(checkpoint, name):
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    with pytest.raises(ModelLoadError, match=f"{name}: there is no such file"):
        build(checkpoint)


def test_a_huge_config_is_not_read(checkpoint):
    with (checkpoint / "config.json").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelLoadError, match=r"config\.json: larger than"):
        build(checkpoint)


@pytest.mark.parametrize(("name", "head"), [(name, next(heads_of(name))) for name in NAMES])
def test_every_tensor_is_required_with_its_shape(name, head, tmp_path):
    folder = copy_of(name, tmp_path)
    tensors = read_tensors(folder)
    graph = onnx.load_model_from_string(build(folder, head)).graph
    needed = [item.name for item in graph.initializer if item.name in tensors]
    assert needed
    for key in needed:
        dtype, shape, raw = tensors[key]
        write_tensors(folder, tensors | {key: (dtype, [1, *shape], raw)})
        with pytest.raises(ModelLoadError) as caught:
            build(folder, head)
        says = rf"tensor {key!r} has the shape {[1, *shape]}; "
        assert re.search(re.escape(says) + r"(config\.json asks for \[|expected 2 sizes)", str(caught.value))
        write_tensors(folder, {other: value for other, value in tensors.items() if other != key})
        with pytest.raises(ModelLoadError, match=r"no tensor '.*', with or without the prefix '[a-z_]+\.'") as caught:
            build(folder, head)
        assert key.endswith(str(caught.value).split("'")[1])


def test_a_head_that_was_not_saved_is_named(checkpoint):
    with pytest.raises(ModelLoadError) as caught:
        build(checkpoint, "masked-lm")
    assert str(caught.value) == (
        f"{checkpoint / 'model.safetensors'}: no tensor 'cls.predictions.transform.dense.weight', with or without the "
        "prefix 'bert.'; the head 'masked-lm' needs it, and the checkpoint was saved as ['BertModel']"
    )
    edit_config(checkpoint, architectures=["x" * 100_000] * 10)
    with pytest.raises(ModelLoadError, match=r"'pooler\.dense\.weight', with or without") as caught:
        build(checkpoint, "sequence-classification")
    assert len(str(caught.value)) < 1000


def test_an_unknown_head_is_refused(checkpoint):
    with pytest.raises(ModelLoadError) as caught:
        build(checkpoint, "next-sentence")
    assert str(caught.value) == (
        f"{checkpoint / 'config.json'}: no head 'next-sentence' for the model type 'bert'; "
        "supported: 'encoder', 'token-states', 'layer-states', 'attention', 'colbert', 'masked-lm', "
        "'sequence-classification'"
    )


def test_a_decoder_of_its_own_is_used(tmp_path):
    folder = copy_of("bert_masked_lm", tmp_path)
    tensors = read_tensors(folder)
    dtype, shape, raw = tensors["bert.embeddings.word_embeddings.weight"]
    twice = (2 * np.frombuffer(raw, "<f4")).tobytes()
    bias = tensors.pop("cls.predictions.bias")
    tensors |= {
        "cls.predictions.decoder.weight": (dtype, shape, twice),
        "cls.predictions.decoder.bias": (dtype, bias[1], bytes(len(bias[2]))),
    }
    write_tensors(folder, tensors)
    case = EXPECTED["bert_masked_lm"]["padded"]
    shift = np.frombuffer(bias[2], "<f4")
    (logits,) = load(folder, "masked-lm").run(None, inputs_of(case))
    np.testing.assert_allclose(logits / 2 + shift, case["logits"], rtol=0, atol=1e-5)


def test_an_untied_decoder_must_be_there(tmp_path):
    folder = copy_of("bert_masked_lm", tmp_path)
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(ModelLoadError, match=r"no tensor 'cls\.predictions\.decoder\.weight'"):
        build(folder, "masked-lm")


@pytest.mark.parametrize("shape", [[], [0, 32]])
def test_a_classifier_without_labels_is_refused(tmp_path, shape):
    folder = copy_of("bert_with_head", tmp_path)
    tensors = read_tensors(folder) | {"classifier.weight": ("F32", shape, b"" if shape else bytes(4))}
    write_tensors(folder, tensors)
    with pytest.raises(ModelLoadError, match=r"tensor 'classifier\.weight' has the shape \[.*\], which has no rows"):
        build(folder, "sequence-classification")


def test_a_weight_of_integers_is_refused(checkpoint):
    tensors = read_tensors(checkpoint)
    name = "encoder.layer.1.output.dense.weight"
    tensors[name] = ("I8", tensors[name][1], tensors[name][2][::4])
    write_tensors(checkpoint, tensors)
    with pytest.raises(ModelLoadError, match=rf"tensor '{name}' has the dtype I8; supported: F32, F16, BF16, F64"):
        build(checkpoint)


def test_only_the_architecture_that_is_needed_is_imported():
    """Others would cost a new process time."""
    program = (
        "import sys; from pathlib import Path; from fastrank import graph\n"
        f"graph.build(Path({str(FIXTURES / 'distilbert_masked_lm')!r}), 'masked-lm')\n"
        "print(sorted(name.split('.')[-1] for name in sys.modules if name.startswith('fastrank.graph.architectures.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['bert', 'distilbert']"


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_the_output_of_a_head_is_named(name, head):
    assert OUTPUT[head] in [value.name for value in loaded(name, head).get_outputs()]


_OF_TOKENS = [(name, head) for name in NAMES for head in ("colbert", "token-states")]  # see late interaction
_OF_LAYERS = [  # see test_config_fields.py
    (case["model"], case["head"])
    for case in json.loads((FIXTURES.parent / "config_fields.json").read_text())["cases"]
    if case["head"] == "layer-states"
]


def test_every_supported_head_has_a_fixture():
    tested = {(type_of(name), head) for name, head in [*HEADS, *_OF_TOKENS, *_OF_LAYERS]}
    copies = {  # written by the same functions
        "camembert": "roberta",
        "deberta-v2": "deberta_v2",
        "mt5": "t5",
        "new": "gte",
        "qwen2": "qwen3",
        "xlm-roberta": "roberta",
    }
    tested = {(copies.get(model_type, model_type), head) for model_type, head in tested}
    supported = {
        (copies.get(model_type, model_type), head)
        for model_type in model_types()
        for head in supported_heads(model_type)
    }
    supported.remove(("model2vec", "encoder"))  # see test_static.py
    assert supported == tested
