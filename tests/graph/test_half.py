"""Graphs that compute in float16, twice: on the CPU, and by `onnx`'s reference.

onnxruntime's CPU provider has few such operators: it casts to float32 before them and may leave out casts in between.
The reference rounds after every operator, as a GPU does, and adds up in float16, which a GPU does not.
"""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from support.checkpoints import (
    EXPECTED,
    FIXTURES,
    HEADS,
    NAMES,
    OUTPUTS,
    build,
    copy_of,
    inputs_of,
    load,
    read_tensors,
    write_tensors,
)

from fastrank.errors import ModelLoadError
from fastrank.graph import blocks, onnx_proto
from fastrank.graph.builder import Graph

FOLDERS = FIXTURES.parent
COLBERTS = sorted(folder for folder in (FOLDERS / "late_interaction").iterdir())
STATIC = sorted(folder for folder in (FOLDERS / "static").iterdir())
OVERFLOWING = ("gemma3", "mt5", "t5")
HALF = [(name, head) for name, head in HEADS if not name.startswith(OVERFLOWING)]  # whose activations overflow
COSINE = 0.9999  # of every token's vector to that in float32
LOGITS = 0.02  # of logits of about 1


def cosines(found, expected):
    """Of all vectors of two arrays; those of 0 are left out."""
    found, expected = (np.asarray(each, np.float64).reshape(-1, each.shape[-1]) for each in (found, expected))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return (found * expected).sum(axis=1)[lengths > 0] / lengths[lengths > 0]


def inline(folder, head, tmp_path):
    """The graph with its weights beside it, checked and loaded by `onnx`."""
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / "model.onnx").write_bytes(build(folder, head, half=True))
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    return onnx.load(tmp_path / "model.onnx")


def strictly(model, feeds):
    """The outputs of a model every operator of which rounds."""
    with np.errstate(invalid="ignore"):  # the mean of no tokens
        return ReferenceEvaluator(model).run(None, feeds)


def check_near_transformers(name, head, run):
    for case in EXPECTED[name].values():
        for output, found in zip(OUTPUTS[head], run(inputs_of(case)), strict=True):
            expected = np.array(case[output], np.float32)
            assert found.dtype == np.float32
            if head in ("logit-score", "sequence-classification", "token-weights"):  # too few numbers for an angle
                np.testing.assert_allclose(found, expected, rtol=0, atol=LOGITS)
            else:
                assert cosines(found, expected).min() >= COSINE


@pytest.mark.parametrize(("name", "head"), HALF)
def test_every_architecture_and_head_is_near_transformers(name, head):
    session = load(FIXTURES / name, head, half=True)
    check_near_transformers(name, head, lambda feeds: session.run(None, feeds))


@pytest.mark.parametrize(("name", "head"), HALF)
def test_every_architecture_and_head_is_near_where_each_operator_rounds(name, head, tmp_path):
    if name == "nomic_bert_experts" and tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 18):
        pytest.skip("this onnx's reference evaluator loses the width of products without rows")
    model = inline(FIXTURES / name, head, tmp_path)
    check_near_transformers(name, head, lambda feeds: strictly(model, feeds))


@pytest.mark.parametrize("folder", COLBERTS, ids=lambda folder: folder.name)
def test_token_vectors_have_length_1_in_float32(folder):
    ids = np.array([[2, 9, 7, 11, 8, 3], [2, 5, 12, 3, 0, 0]])
    feeds = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    feeds = {value.name: feeds[value.name] for value in load(folder, "colbert").get_inputs()}
    (expected,) = load(folder, "colbert").run(None, feeds)
    (found,) = load(folder, "colbert", half=True).run(None, feeds)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    assert cosines(found, expected).min() >= COSINE
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("folder", STATIC, ids=lambda folder: folder.name)
def test_static_embeddings_are_rounded_and_no_more(folder):
    ids = np.array([[1, 5, 9, 2]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    (expected,) = load(folder).run(None, feeds)
    (found,) = load(folder, half=True).run(None, feeds)
    np.testing.assert_allclose(found, expected, rtol=2**-9, atol=1e-6)


@pytest.mark.parametrize(("name", "head"), HALF)
def test_onnx_accepts_the_graph_and_its_types(name, head, tmp_path):
    graph = onnx.shape_inference.infer_shapes(inline(FIXTURES / name, head, tmp_path), strict_mode=True).graph
    assert {value.type.tensor_type.elem_type for value in graph.output} == {TensorProto.FLOAT}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    kinds = {
        kind: {types.get(node.output[0]) for node in graph.node if node.op_type == kind} for kind in ("Gemm", "Softmax")
    }
    assert kinds["Gemm"] <= {TensorProto.FLOAT16, TensorProto.FLOAT, None}
    assert TensorProto.FLOAT16 in kinds["Gemm"]
    assert kinds["Softmax"] == {TensorProto.FLOAT}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_weights_are_cast_once_and_not_kept_twice(dtype, tmp_path):
    """On a CPU, onnxruntime adds casts back to float32, of which some versions keep the result; a GPU's need none."""
    folder = copy_of("bert", tmp_path)
    stored = {name: np.frombuffer(raw, "<f4").reshape(shape) for name, (_, shape, raw) in read_tensors(folder).items()}
    raw = {
        "F32": lambda values: values.tobytes(),
        "F16": lambda values: values.astype("<f2").tobytes(),
        "BF16": lambda values: (values.view("<u4") >> 16).astype("<u2").tobytes(),
    }
    write_tensors(folder, {name: (dtype, values.shape, raw[dtype](values)) for name, values in stored.items()})
    session = load(folder, half=True, optimized=tmp_path / "optimized.onnx")
    graph = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    sizes = {item.name: int(np.prod(item.dims)) for item in graph.initializer}
    used = {name: sizes.get(name) for node in graph.node for name in node.input if name in sizes}
    pooler = sum(values.size for name, values in stored.items() if name.startswith("pooler."))
    weights = sum(values.size for values in stored.values()) - pooler
    assert weights <= sum(used.values()) == sum(sizes.values()) < weights + 100  # and a few constants
    left = [
        node.input[0] for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16
    ]
    assert not sizes.keys() & left
    case = EXPECTED["bert"]["padded"]
    (found,) = session.run(None, inputs_of(case))
    assert cosines(found, np.array(case["last_hidden_state"])).min() >= (0.999 if dtype == "BF16" else COSINE)


def test_large_scores_do_not_overflow():
    """Products of query and key above 65,504, the largest float16; divided by the root of the width they are below."""
    graph = Graph(Path(), {}, half=True)
    shape = ["batch", "sequence", 2, 8]
    query, key, value = (
        graph.to_compute_dtype(graph.input(name, onnx_proto.FLOAT, shape)) for name in ("query", "key", "value")
    )
    mixed, _ = blocks.attention(
        graph, query, key, value, mask=blocks.Mask(graph.scalar(0.0, float32=True)), heads=2, width=8
    )
    graph.output("mixed", mixed, onnx_proto.FLOAT, ["rows", 16])
    large = np.full((1, 3, 2, 8), 120, np.float32)
    values = np.random.default_rng(0).normal(size=large.shape).astype(np.float32)
    (found,) = strictly(onnx.load_model_from_string(graph.to_bytes()), {"query": large, "key": large, "value": values})
    np.testing.assert_allclose(found, np.repeat(values.mean(axis=1).reshape(1, 16), 3, axis=0), atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_what_it_was(name):
    """No cast to float16 and no constant of it: half precision costs others nothing."""
    graph = onnx.load_model_from_string(build(FIXTURES / name)).graph
    assert not any(node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16 for node in graph.node)
    assert TensorProto.FLOAT16 not in {item.data_type for item in graph.initializer}


def test_float16_is_refused_where_activations_overflow():
    for name in ("gemma3_bidirectional", "mt5", "t5"):
        with pytest.raises(ModelLoadError, match="activations overflow float16; run it with precision='fp32'"):
            build(FIXTURES / name, half=True)
