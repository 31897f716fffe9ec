"""Graphs written from checkpoints: what they compute, what they touch, and what is refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fastrank.errors import ModelLoadError
from fastrank.graph import SUPPORTED, build
from fastrank.graph.safetensors import read_header

FIXTURES = Path(__file__).parent.parent / "fixtures" / "graph"
NAMES = sorted(folder.name for folder in FIXTURES.iterdir())
EXPECTED = {name: json.loads((FIXTURES / name / "expected.json").read_text()) for name in NAMES}
CASES = [(name, case) for name in NAMES for case in EXPECTED[name]]


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of the tiny BERT, to be damaged."""
    return Path(shutil.copytree(FIXTURES / "bert", tmp_path / "checkpoint", copy_function=shutil.copyfile))


def load(folder):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return onnxruntime.InferenceSession(build(folder), options, providers=["CPUExecutionProvider"])


def inputs_of(case, rows=slice(None), width=None):
    return {k: np.array(v, np.int64)[rows, :width] for k, v in case.items() if k != "last_hidden_state"}


def run(session, feeds):
    (hidden,) = session.run(["last_hidden_state"], feeds)
    return hidden


def edit_config(folder, **fields):
    path = folder / "config.json"
    values = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def read_tensors(folder):
    data = (folder / "model.safetensors").read_bytes()
    return {
        name: (tensor.dtype, tensor.shape, data[tensor.offset : tensor.offset + tensor.length])
        for name, tensor in read_header(folder / "model.safetensors").items()
    }


def write_tensors(folder, tensors, pad=0):
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + pad)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_equals_transformers(name, case):
    expected = np.array(EXPECTED[name][case]["last_hidden_state"], np.float32)
    hidden = run(load(FIXTURES / name), inputs_of(EXPECTED[name][case]))
    assert hidden.dtype == np.float32
    assert hidden.shape == expected.shape
    np.testing.assert_allclose(hidden, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    session = load(FIXTURES / name)
    case = EXPECTED[name]["padded"]
    together = run(session, inputs_of(case))
    for row, mask in enumerate(case["attention_mask"]):
        length = sum(mask)
        alone = run(session, inputs_of(case, slice(row, row + 1), length))
        np.testing.assert_allclose(together[row, :length], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_longer_than_the_positions_fails(name):
    session = load(FIXTURES / name)
    feeds = {k: np.repeat(v[:, :1], v.shape[1] + 1, axis=1) for k, v in inputs_of(EXPECTED[name]["longest"]).items()}
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        session.run(None, feeds)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_checker_accepts(name, tmp_path):
    folder = Path(shutil.copytree(FIXTURES / name, tmp_path / "copy", copy_function=shutil.copyfile))
    (folder / "model.onnx").write_bytes(build(folder))
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    model = onnx.load(folder / "model.onnx")
    assert [entry.version for entry in model.opset_import] == [17]
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    tensors = read_tensors(folder)
    weights = [key for key in stored if key in tensors]
    assert len(weights) == 5 + 16 * 2
    for key in weights:
        np.testing.assert_array_equal(stored[key], np.frombuffer(tensors[key][2], "<f4").reshape(tensors[key][1]))


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


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_weights_are_cast(checkpoint, dtype):
    def half(raw):
        values = np.frombuffer(raw, "<f4")
        if dtype == "F16":
            return values.astype("<f2").tobytes(), values.astype("<f2").astype("<f4").tobytes()
        kept = values.view("<u4") >> 16
        return kept.astype("<u2").tobytes(), (kept << 16).astype("<u4").tobytes()

    tensors = read_tensors(checkpoint)
    feeds = inputs_of(EXPECTED["bert"]["padded"])
    write_tensors(checkpoint, {name: ("F32", shape, half(raw)[1]) for name, (_, shape, raw) in tensors.items()})
    rounded = run(load(checkpoint), feeds)
    write_tensors(checkpoint, {name: (dtype, shape, half(raw)[0]) for name, (_, shape, raw) in tensors.items()})
    np.testing.assert_allclose(run(load(checkpoint), feeds), rounded, rtol=0, atol=1e-5)


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
        ("model_type", "gpt2", "'gpt2'; supported: 'bert', 'camembert', 'roberta', 'xlm-roberta'"),
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
        ("hidden_act", "swish", "is 'swish'; supported: 'gelu', 'gelu_new'"),
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


def test_a_padding_id_outside_the_vocabulary_is_refused(tmp_path):
    folder = Path(shutil.copytree(FIXTURES / "roberta", tmp_path / "copy", copy_function=shutil.copyfile))
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


@pytest.mark.parametrize("name", sorted(read_tensors(FIXTURES / "bert")))
def test_every_tensor_is_required_with_its_shape(checkpoint, name):
    tensors = read_tensors(checkpoint)
    dtype, shape, raw = tensors[name]
    write_tensors(checkpoint, tensors | {name: (dtype, [1, *shape], raw)})
    with pytest.raises(ModelLoadError) as caught:
        build(checkpoint)
    assert f"tensor {name!r} has the shape {[1, *shape]}; config.json asks for {list(shape)}" in str(caught.value)
    del tensors[name]
    write_tensors(checkpoint, tensors)
    with pytest.raises(ModelLoadError) as caught:
        build(checkpoint)
    assert f"no tensor {name!r}, with or without the prefix 'bert.'" in str(caught.value)


def test_a_weight_of_integers_is_refused(checkpoint):
    tensors = read_tensors(checkpoint)
    name = "encoder.layer.1.output.dense.weight"
    tensors[name] = ("I8", tensors[name][1], tensors[name][2][::4])
    write_tensors(checkpoint, tensors)
    with pytest.raises(ModelLoadError, match=rf"tensor '{name}' has the dtype I8; supported: F32, F16, BF16"):
        build(checkpoint)


def test_every_supported_type_builds(checkpoint):
    for model_type in SUPPORTED:
        edit_config(checkpoint, model_type=model_type)
        assert b"last_hidden_state" in build(checkpoint)
