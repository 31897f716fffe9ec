"""int8 of models that exist only as ONNX graphs: what is changed, what is refused, and where the result lies."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import support
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from support.tiny_models import IR_VERSION, tiny_pooled, write_model

from fastrank import (
    LateInteractionTextEmbedding,
    ModelLoadError,
    PoolingType,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
    graph,
)
from fastrank.engine import precision, quantize_onnx
from fastrank.engine import quantize as quantizing
from fastrank.engine.batching import Batch, Tokens
from fastrank.engine.options import Device, Options
from fastrank.engine.session import Model, Session, Use
from fastrank.graph import onnx_int8, onnx_reading
from fastrank.graph.safetensors import read_header

GRAPHS = support.FIXTURES / "graph"
OPSETS = (11, 13, 17, 18, 21)
WORDS, WIDTH = 1200, 32
IDS = np.array([[5, 6, 7, 8, 900], [9, 10, 11, 12, 1100]])


class Letters:
    """Stands for a tokenizer: a token a character."""

    pad_id = 0

    def encode(self, texts):
        return [
            Tokens(np.array([5 + ord(letter) * 9 % (WORDS - 5) for letter in text[:20]], np.int32)) for text in texts
        ]


def exported(opset=17, *, more=None, weights=np.float32):
    """As exporters write one: a table, a norm written out, products of three-dimensional states, biases, a residual.

    `more(nodes, initializers)` adds to it before the output.
    """
    dice = np.random.default_rng(0)

    def random(*shape):
        return dice.standard_normal(shape).astype(weights) / np.sqrt(shape[0]).astype(weights)

    scales = np.exp(dice.standard_normal(WIDTH)).astype(weights)  # some channels are always large
    initializers = {
        "words": random(WORDS, WIDTH),
        "weight": scales,
        "bias": random(WIDTH),
        "up": random(WIDTH, 48),
        "up_bias": random(48),
        "down": random(48, WIDTH),
        "narrow": random(WIDTH, 2),
        "two": np.array(2, weights),
        "epsilon": np.array(1e-5, weights),
    }
    axes = {"axes": [-1]} if opset < 18 else {}
    last = [] if opset < 18 else ["last"]
    if last:
        initializers["last"] = np.array([-1])
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["x"]),
        helper.make_node("ReduceMean", ["x", *last], ["mean"], **axes),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Pow", ["centred", "two"], ["squared"]),
        helper.make_node("ReduceMean", ["squared", *last], ["variance"], **axes),
        helper.make_node("Add", ["variance", "epsilon"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),
        helper.make_node("Div", ["centred", "root"], ["normal"]),
        helper.make_node("Mul", ["normal", "weight"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["normed"]),
        helper.make_node("MatMul", ["normed", "up"], ["wide"]),
        helper.make_node("Add", ["up_bias", "wide"], ["biased"]),
        helper.make_node("Relu", ["biased"], ["active"]),
        helper.make_node("MatMul", ["active", "down"], ["back"]),
        helper.make_node("Add", ["back", "normed"], ["states"]),
        helper.make_node("MatMul", ["states", "narrow"], ["scores"]),
    ]
    if more:
        more(nodes, initializers)
    else:
        nodes.append(helper.make_node("Identity", ["states"], ["out"]))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(weights))
    made = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])],
        [helper.make_tensor_value_info(name, kind, None) for name in ("out", "scores")],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION if opset < 21 else 10)


def save(model, folder, name="model.onnx"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def quantized(path, target, *, output=None, form=quantizing.INT8):
    quantize_onnx.quantize_onnx(path, Use(output, {}), Letters(), target, 1, form)
    return read_header(target)


def results(model, ids, output=None):
    ids = np.asarray(ids, np.int64)
    batch = Batch(range(len(ids)), ids, np.ones_like(ids), np.zeros_like(ids))
    return Session(model, Options(threads=1, cuda=Device.CPU)).run(batch, output)


def in_int8(made, *, per_token=True):
    return Model(made, lambda: onnx_int8.build(made, graph.ActivationQuantization(per_token=per_token)))


def alike(found, expected):
    found, expected = (np.asarray(each, np.float64).ravel() for each in (found, expected))
    return found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("form", ["int8", "uint8"])
def test_products_and_tables_of_every_opset(opset, form, tmp_path):
    path = save(exported(opset), tmp_path)
    stored = quantized(path, tmp_path / "made", form=form)
    byte = "I8" if form == "int8" else "U8"
    weights = {name: (tensor.dtype, tensor.shape) for name, tensor in stored.items() if f"{name}.scale" in stored}
    assert weights.pop("words.rows") == ("I8", (WORDS, WIDTH))
    assert sorted(weights.values()) == [(byte, (WIDTH, 48)), (byte, (48, WIDTH))]  # two scores stay as they are
    assert [tensor.shape for name, tensor in stored.items() if name.endswith(".smooth")] == [(WIDTH,)]
    assert (tmp_path / "made").stat().st_size < path.stat().st_size / 2
    assert not list(tmp_path.glob("made.*"))  # what onnxruntime wrote
    for per_token in (True, False):
        model = in_int8(tmp_path / "made", per_token=per_token)
        for output in (None, "out", "scores"):
            found, expected = (results(each, IDS, output) for each in (model, Model(path)))
            assert found.shape == expected.shape
            assert 0.999 < alike(found, expected) < 1
    assert not np.array_equal(results(model, IDS), results(Model(path), IDS))


def test_a_token_has_the_same_bits_alone_and_among_others(tmp_path):
    quantized(save(exported(), tmp_path), tmp_path / "made")
    model = in_int8(tmp_path / "made")
    together = results(model, IDS)
    for row in range(2):
        assert np.array_equal(results(model, IDS[row : row + 1])[0], together[row])


def test_how_near_it_is_was_measured(tmp_path):
    path = save(exported(), tmp_path)
    quantized(path, tmp_path / "made")
    near = quantizing.nearness(tmp_path / "made")
    tokens = Letters().encode(quantizing.texts())
    cosines = []
    for each in tokens:
        one, other = (results(model, each.ids[None])[0] for model in (Model(path), in_int8(tmp_path / "made")))
        cosines.append((one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1))
    cosines = np.concatenate(cosines)
    assert near.mean == pytest.approx(cosines.mean(), abs=1e-5)
    assert near.least == pytest.approx(cosines.min(), abs=1e-5)
    assert 0.99 < near.least < near.mean < 1


def test_of_scores_their_differences_count(tmp_path):
    def more(nodes, initializers):
        initializers["hundred"] = np.array(100, np.float32)
        nodes += [
            helper.make_node("ReduceMax", ["scores"], ["best"], axes=[1], keepdims=0),
            helper.make_node("Add", ["best", "hundred"], ["out"]),
        ]

    path = save(exported(more=more), tmp_path)
    quantized(path, tmp_path / "made")
    near = quantizing.nearness(tmp_path / "made")
    assert 0.99 < near.mean == near.least < 0.99999  # the cosine of scores of about a hundred would be 1


def test_what_is_too_far_is_not_accepted(tmp_path, monkeypatch):
    path = save(exported(), tmp_path)
    monkeypatch.setattr(quantize_onnx, "LEAST", 1.0)
    with pytest.raises(
        ModelLoadError, match=r"model.onnx in int8 is too far from itself: .* is \d\.\d{4}.*Leave `precision`"
    ):
        quantized(path, tmp_path / "made")


def a_branch(nodes, initializers):
    initializers["yes"] = np.array(True)
    branch = helper.make_graph(
        [helper.make_node("Identity", ["states"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    nodes += [
        helper.make_node("Size", ["input_ids"], ["size"]),
        helper.make_node("Cast", ["size"], ["some"], to=TensorProto.BOOL),
        helper.make_node("If", ["some"], ["out"], then_branch=branch, else_branch=branch),
    ]


def a_quantized_product(nodes, initializers):
    initializers["bytes"] = np.ones((WIDTH, WIDTH), np.int8)
    initializers["step"] = np.array(0.01, np.float32)
    nodes += [
        helper.make_node("DynamicQuantizeLinear", ["states"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "bytes", "z"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["out"], to=TensorProto.FLOAT),
    ]


def packed_attention(nodes, initializers):
    initializers["qkv"] = np.ones((WIDTH, 3 * WIDTH), np.float32)
    initializers["qkv_bias"] = np.ones(3 * WIDTH, np.float32)
    inputs = ["states", "qkv", "qkv_bias"]
    nodes.append(helper.make_node("Attention", inputs, ["out"], domain="com.microsoft", num_heads=2))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (a_branch, r"it has graphs inside a node \(If\)"),
        (a_quantized_product, r"it is quantized already \(DynamicQuantizeLinear, MatMulInteger\)"),
        (packed_attention, r"its attention is packed \(Attention\).*the checkpoint it was exported from"),
    ],
)
def test_graphs_that_are_not_changed_are_named(more, says, tmp_path):
    path = save(exported(more=more), tmp_path)
    with pytest.raises(ModelLoadError, match=rf"model\.onnx cannot be quantized: {says}.*Leave `precision` out"):
        quantized(path, tmp_path / "made")
    assert list(tmp_path.iterdir()) == [path]


def test_weights_in_half_precision_are_not_changed(tmp_path):
    path = save(exported(weights=np.float16), tmp_path)
    with pytest.raises(ModelLoadError, match=r"cannot be quantized: its weights are F16.*Leave `precision` out"):
        quantized(path, tmp_path / "made")


def test_a_weight_with_two_uses_stays_as_it_is(tmp_path):
    """Smoothing is of one activation; and a weight that is added somewhere is needed as it is."""

    def more(nodes, initializers):
        initializers["square"] = np.random.default_rng(3).standard_normal((WIDTH, WIDTH)).astype(np.float32) / 6
        nodes += [
            helper.make_node("MatMul", ["states", "square"], ["once"]),
            helper.make_node("MatMul", ["once", "square"], ["out"]),
        ]

    path = save(exported(more=more), tmp_path)
    stored = quantized(path, tmp_path / "made")
    kept = {tensor.shape for tensor in stored.values() if tensor.dtype == "F32" and len(tensor.shape) == 2}
    assert (WIDTH, WIDTH) in kept
    assert alike(results(in_int8(tmp_path / "made"), IDS), results(Model(path), IDS)) > 0.999


def test_a_table_that_is_also_multiplied_by_has_both_forms(tmp_path):
    def more(nodes, _):
        nodes += [
            helper.make_node("Transpose", ["words"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["states", "turned"], ["out"]),
        ]

    path = save(exported(more=more), tmp_path)
    stored = quantized(path, tmp_path / "made")
    assert sorted(tensor.shape for tensor in stored.values() if tensor.dtype == "I8") == sorted(
        [(WORDS, WIDTH), (WIDTH, WORDS), (WIDTH, 48), (48, WIDTH)]
    )
    assert alike(results(in_int8(tmp_path / "made"), IDS), results(Model(path), IDS)) > 0.999


@pytest.mark.parametrize("length", [0, 1, 10, 100, 1000, -1])
def test_a_cut_graph_is_an_error_with_its_name(length):
    content = exported().SerializeToString()
    with pytest.raises(ModelLoadError, match=r"some\.onnx is not an ONNX graph: "):
        onnx_reading.read(content[:length], Path("some.onnx"))


def test_what_is_read_is_what_onnx_reads():
    model = exported(18, more=a_branch)
    found = onnx_reading.read(model.SerializeToString(), Path("some.onnx"))
    assert [(node.kind, list(node.inputs), list(node.outputs)) for node in found.nodes] == [
        (node.op_type, list(node.input), list(node.output)) for node in model.graph.node
    ]
    assert {each.name: (each.dtype, list(each.shape)) for each in found.initializers.values()} == {
        each.name: (each.data_type, list(each.dims)) for each in model.graph.initializer
    }
    assert [node.has_graph for node in found.nodes] == [node.op_type == "If" for node in model.graph.node]
    assert found.domains == {"": 18, "com.microsoft": 1}


# -- through the public classes -------------------------------------------------------------------------------------

TEXTS = ["the cat", "a dog ran", "one two three", "paris is the capital of france"]


def as_graph(source, target, head):
    """A fixture's folder with its model as an ONNX file with external data, and without its checkpoint."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    model = onnx.load_model_from_string(graph.build(source, head))
    load_external_data_for_model(model, str(source))
    onnx.save(model, target / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=512)
    (target / "model.safetensors").unlink()
    return target


def vectors(model):
    return np.array(list(model.embed(TEXTS)))


def spread(model):
    rows = np.zeros((len(TEXTS), 2000))
    for row, found in zip(rows, model.embed(TEXTS), strict=True):
        row[found.indices] = found.values
    return rows


TASKS = {
    "dense": (
        TextEmbedding,
        support.FIXTURES / "sentence_encoder",
        "encoder",
        vectors,
    ),
    "sparse": (SparseTextEmbedding, support.FIXTURES / "sparse_encoder", "masked-lm", spread),
    "late": (
        LateInteractionTextEmbedding,
        support.FIXTURES / "late_interaction" / "pylate_bert",
        "colbert",
        lambda model: np.concatenate(list(model.embed(TEXTS))),
    ),
    "pairs": (
        TextCrossEncoder,
        support.FIXTURES / "pair_classifier",
        "sequence-classification",
        lambda model: np.array(list(model.rerank("a cat", TEXTS))),
    ),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["int8", "int8-fast"])
def test_every_task(task, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize_onnx, "LEAST", 0.9)  # of tiny models, whose few numbers leave more rounding error
    make, source, head, run = TASKS[task]
    folder = as_graph(source, tmp_path / "graph", head)
    exact = make("acme/exported", specific_model_path=folder)
    model = make("acme/exported", specific_model_path=folder, precision=kind)
    expected, found = run(exact), run(model)
    assert found.shape == expected.shape
    assert not np.array_equal(found, expected)
    assert alike(found, expected) > 0.99
    facts = model.info()
    assert facts["precision"].startswith("int8, activations scaled per")
    assert "made from model.onnx, 0.9" in facts["reason"]
    assert Path(facts["file"]).name == "onnx-int8-model-onnx-1.safetensors"
    assert folder not in Path(facts["file"]).parents


@pytest.fixture
def folder(tmp_path):
    return as_graph(support.FIXTURES / "sentence_encoder", tmp_path / "graph", "encoder")


def test_it_is_as_the_checkpoint_in_int8(folder):
    of_graph, of_checkpoint = (
        vectors(TextEmbedding("acme/some", specific_model_path=path, precision="int8"))
        for path in (folder, support.FIXTURES / "sentence_encoder")
    )
    assert alike(of_graph, of_checkpoint) > 0.9999


def test_it_is_made_once_and_anew_for_another_graph_or_data(folder, monkeypatch):
    made = Path(TextEmbedding("acme/some", specific_model_path=folder, precision="int8").info()["file"])
    with monkeypatch.context() as patch:
        patch.setattr(quantize_onnx, "quantize_onnx", None)  # would fail if it were called
        TextEmbedding("acme/some", specific_model_path=folder, precision="int8-fast")
    for name in ("model.onnx", "model.onnx_data"):
        os.utime(folder / name, ns=(1, 1))
        again = Path(TextEmbedding("acme/some", specific_model_path=folder, precision="int8").info()["file"])
        assert again.parent != made.parent
        made = again


def test_a_checkpoint_in_the_same_folder_comes_first(folder):
    shutil.copyfile(support.FIXTURES / "sentence_encoder" / "model.safetensors", folder / "model.safetensors")
    facts = TextEmbedding("acme/some", specific_model_path=folder, precision="int8").info()
    assert "made from model.safetensors" in facts["reason"]
    assert "model.onnx" in TextEmbedding("acme/some", specific_model_path=folder).info()["file"]


def test_without_vnni_weights_are_unsigned(folder, monkeypatch):
    signed = vectors(TextEmbedding("acme/some", specific_model_path=folder, precision="int8"))
    if not precision.adds_exactly():
        pytest.skip("signed weights saturate on this CPU")
    monkeypatch.setattr(precision, "adds_exactly", lambda: False)
    model = TextEmbedding("acme/some", specific_model_path=folder, precision="int8")
    assert Path(model.info()["file"]).name == "onnx-uint8-model-onnx-1.safetensors"
    assert np.array_equal(vectors(model), signed)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (TextEmbedding, "BAAI/bge-small-zh-v1.5"),
        (SparseTextEmbedding, "prithivida/Splade_PP_en_v1"),
        (LateInteractionTextEmbedding, "answerdotai/answerai-colbert-small-v1"),
        (TextCrossEncoder, "jinaai/jina-reranker-v1-tiny-en"),
    ],
)
def test_models_of_the_registry_that_are_graphs_only_may_be_asked_for(make, name):
    make(name, precision="int8", lazy_load=True)


def test_four_bits_are_of_checkpoints_only(folder):
    with pytest.raises(ValueError, match=r"precision='int4' is made from a checkpoint.*use precision='int8'"):
        TextEmbedding("acme/some", specific_model_path=folder, precision="int4")


def test_a_graph_that_multiplies_by_nothing_is_refused(tmp_path):
    table = numpy_helper.from_array(np.ones((WORDS, WIDTH), np.float32), "words")
    nodes = [helper.make_node("Gather", ["words", "input_ids"], ["out"])]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "static", [ids], [out], [table])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=IR_VERSION)
    with pytest.raises(
        ModelLoadError, match=r"cannot be quantized: it multiplies by no weights.*Leave `precision` out"
    ):
        quantized(save(model, tmp_path), tmp_path / "made")


def test_pairs_of_tokens_and_segments_are_supplied(tmp_path):
    """A graph with token_type_ids, whose vectors are pooled in it."""
    only = write_model(tmp_path / "onnx", tiny_pooled())
    exact, found = (
        vectors(TextEmbedding("acme/tiny", specific_model_path=only, pooling=PoolingType.DISABLED, precision=kind))
        for kind in ("auto", "int8")
    )
    assert 0.99 < alike(found, exact) < 1
