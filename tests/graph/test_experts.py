"""NomicBERT's mixture of experts: where its weights lie, and how few of them a token needs."""

import numpy as np
import onnx
import pytest
from support.checkpoints import EXPECTED, build, copy_of, edit_config, inputs_of, load, read_tensors, write_tensors

from fastrank.errors import ModelLoadError

NAME = "nomic_bert_experts"
WEIGHTS = [f"encoder.layers.1.mlp.experts.mlp.{part}" for part in ("w1", "w2")]


@pytest.fixture
def folder(tmp_path):
    return copy_of(NAME, tmp_path)


def test_experts_are_read_where_they_lie(folder):
    """No copy of them is made: each is a run of rows of the checkpoint's tensor."""
    (folder / "model.onnx").write_bytes(build(folder))
    graph = onnx.load(folder / "model.onnx").graph
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    for name in WEIGHTS:
        _, shape, raw = read_tensors(folder)[name]
        parts = [stored[f"{name}[{start}:{start + 48}]"] for start in range(0, 4 * 48, 48)]
        np.testing.assert_array_equal(np.concatenate(parts), np.frombuffer(raw, "<f4").reshape(shape))
        assert name not in stored


@pytest.mark.parametrize("name", WEIGHTS)
def test_experts_of_another_shape_or_missing_are_refused(folder, name):
    tensors = read_tensors(folder)
    dtype, shape, raw = tensors[name]
    write_tensors(folder, tensors | {name: (dtype, [shape[0] // 2, shape[1] * 2], raw)})
    with pytest.raises(ModelLoadError, match=r"has the shape \[96, 64\]; config\.json asks for \[192, 32\]"):
        build(folder)
    write_tensors(folder, {other: value for other, value in tensors.items() if other != name})
    with pytest.raises(ModelLoadError, match=f"no tensor '{name}'"):
        build(folder)


def test_an_expert_that_no_token_chooses_is_left_out(folder):
    """Its weights may be NaN."""
    tensors = read_tensors(folder)
    case = inputs_of(EXPECTED[NAME]["one"])
    (expected,) = load(folder).run(None, case)
    unused = []
    for expert in range(4):
        damaged = {}
        for name in WEIGHTS:
            dtype, shape, raw = tensors[name]
            values = np.frombuffer(raw, "<f4").reshape(4, 48, 32).copy()
            values[expert] = np.nan
            damaged[name] = (dtype, shape, values.tobytes())
        write_tensors(folder, tensors | damaged)
        unused.append(np.array_equal(load(folder).run(None, case)[0], expected))
    assert sorted(unused) == [False, False, True, True]  # one token, two experts of four


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_experts": 3}, "config.json asks for [3, 32]"),
        ({"moe_top_k": 5}, "field 'moe_top_k' is 5; expected an integer from 1 to 4"),
        (
            {"activation_function": "swiglu"},
            "field 'activation_function' is 'swiglu'; a mixture of experts is",
        ),
    ],
)
def test_a_bad_field_is_named(folder, fields, says):
    edit_config(folder, **fields)
    with pytest.raises(ModelLoadError) as caught:
        build(folder)
    assert says in str(caught.value)
