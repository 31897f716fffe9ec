"""Static embeddings: model2vec's folders and those of sentence-transformers, from text to vector."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import support
from support.checkpoints import edit_config, load, read_tensors, write_tensors

from fastrank import ModelLoadError, TextEmbedding
from fastrank.graph import build

FIXTURES = support.FIXTURES / "static"
NAMES = sorted(folder.name for folder in FIXTURES.iterdir())


def copy_of(name, tmp_path):
    return Path(shutil.copytree(FIXTURES / name, tmp_path / "checkpoint", copy_function=shutil.copyfile))


def expected_of(name):
    stored = json.loads((FIXTURES / name / "expected.json").read_text())
    return stored["texts"], np.array(stored["vectors"], np.float32)


def embed(folder, texts, **options):
    with TextEmbedding("acme/static", specific_model_path=folder, **options) as model:
        return np.stack(list(model.embed(texts)))


def to_subfolder(folder):
    """The layout of sentence-transformers before version 5."""
    place = folder / "0_StaticEmbedding"
    place.mkdir()
    for file in ("model.safetensors", "tokenizer.json"):
        (folder / file).rename(place / file)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0] |= {"path": place.name, "type": "sentence_transformers.models.StaticEmbedding"}
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize("name", NAMES)
def test_vectors_equal_those_of_the_models_own_library(name):
    texts, expected = expected_of(name)
    np.testing.assert_allclose(embed(FIXTURES / name, texts), expected, rtol=0, atol=1e-5)
    for text, vector in zip(texts, expected, strict=True):
        np.testing.assert_allclose(embed(FIXTURES / name, text), vector[None], rtol=0, atol=1e-5)


def test_the_old_layout_of_sentence_transformers_is_read(tmp_path):
    folder = copy_of("sentence_transformers", tmp_path)
    to_subfolder(folder)
    texts, expected = expected_of("sentence_transformers")
    np.testing.assert_allclose(embed(folder, texts), expected, rtol=0, atol=1e-5)


def test_model2vec_says_in_its_config_whether_vectors_have_length_1(tmp_path):
    folder = copy_of("model2vec", tmp_path)
    (folder / "modules.json").unlink()
    texts, expected = expected_of("model2vec")
    np.testing.assert_allclose(embed(folder, texts), expected, rtol=0, atol=1e-5)
    edit_config(folder, normalize=False)
    assert np.abs(embed(folder, texts) - expected).max() > 0.1
    np.testing.assert_allclose(embed(folder, texts, normalize=True), expected, rtol=0, atol=1e-5)


def test_a_limit_is_kept(tmp_path):
    folder = FIXTURES / "model2vec"
    np.testing.assert_array_equal(embed(folder, "cat dog " * 5, max_length=1), embed(folder, "cat"))
    long = "the " * 512 + "cat"
    np.testing.assert_array_equal(embed(folder, long), embed(folder, "the " * 512))
    np.testing.assert_raises(
        AssertionError,
        np.testing.assert_array_equal,
        *(embed(FIXTURES / "sentence_transformers", text) for text in (long, "the " * 512)),
    )


@pytest.mark.parametrize("name", NAMES)
def test_onnx_checker_accepts(name, tmp_path):
    folder = copy_of(name, tmp_path)
    (folder / "model.onnx").write_bytes(build(folder))
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    graph = onnx.load(folder / "model.onnx").graph
    assert {item.name for item in graph.initializer if item.name in read_tensors(folder)} == read_tensors(folder).keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 2, 7, 600])
def test_states_are_rows_padded_or_alone(name, length):
    tensors = read_tensors(FIXTURES / name)
    table = next(np.frombuffer(raw, "<f4").reshape(shape) for _, shape, raw in tensors.values() if len(shape) == 2)
    ids = np.random.default_rng(length).integers(4, 19, (1, length))
    rows, weights = ids, 1
    if "mapping" in tensors:
        rows = np.frombuffer(tensors["mapping"][2], "<i8")[ids]
        weights = np.frombuffer(tensors["weights"][2], "<f8")[ids][..., None]
    session = load(FIXTURES / name)
    (alone,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    np.testing.assert_allclose(alone, table[rows] * weights, rtol=0, atol=1e-5)
    padded = np.pad(ids, ((0, 1), (0, 5)))
    (together,) = session.run(None, {"input_ids": padded, "attention_mask": (padded > 0).astype(np.int64)})
    np.testing.assert_array_equal(together[:1, :length], alone)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
@pytest.mark.parametrize("name", NAMES)
def test_tables_of_other_precision_are_cast(name, dtype, tmp_path):
    folder = copy_of(name, tmp_path)
    tensors = read_tensors(folder)
    table = next(key for key, (kind, shape, _) in tensors.items() if kind == "F32" and len(shape) == 2)
    _, shape, raw = tensors[table]
    values = np.frombuffer(raw, "<f4")
    stored = {
        "F16": values.astype("<f2"),
        "BF16": (values.view("<u4") >> 16).astype("<u2"),
        "F64": values.astype("<f8"),
    }
    rounded = {
        "F16": values.astype("<f2").astype("<f4"),
        "BF16": ((values.view("<u4") >> 16) << 16).view("<f4"),
        "F64": values,
    }
    texts, _ = expected_of(name)
    write_tensors(folder, tensors | {table: ("F32", shape, rounded[dtype].tobytes())})
    expected = embed(folder, texts)
    write_tensors(folder, tensors | {table: (dtype, shape, stored[dtype].tobytes())})
    np.testing.assert_allclose(embed(folder, texts), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "tensor", "says"),
    [
        ("embeddings", None, "no tensor 'embeddings'"),
        ("embeddings", ("F32", [240], bytes(960)), r"shape \[240\]; expected 2 sizes above 0"),
        ("embeddings", ("F32", [0, 12], b""), r"shape \[0, 12\]; expected 2 sizes above 0"),
        ("embeddings", ("U8", [10, 12], bytes(120)), "dtype U8; supported: F32, F16, BF16, F64, I8"),
        ("mapping", ("F32", [20], bytes(80)), "dtype F32; supported: I32, I64"),
        ("mapping", ("I64", [2, 10], bytes(160)), r"shape \[2, 10\]; expected 1 sizes above 0"),
        ("weights", ("F32", [19], bytes(76)), r"shape \[19\]; config\.json asks for \[20\]"),
        ("weights", ("I64", [20], bytes(160)), "dtype I64; supported: F32"),
    ],
)
def test_a_bad_tensor_is_named(tmp_path, key, tensor, says):
    folder = copy_of("model2vec_shared", tmp_path)
    tensors = read_tensors(folder) | {key: tensor}
    write_tensors(folder, {name: value for name, value in tensors.items() if value is not None})
    with pytest.raises(ModelLoadError, match=says):
        build(folder)


@pytest.mark.parametrize("place", [10, -11, 2**62])
def test_a_mapping_out_of_the_table_is_an_error(tmp_path, place):
    folder = copy_of("model2vec_shared", tmp_path)
    mapping = np.full(20, place, "<i8").tobytes()
    write_tensors(folder, read_tensors(folder) | {"mapping": ("I64", [20], mapping)})
    with pytest.raises(ModelLoadError, match="failed on a batch"):
        embed(folder, "cat")


def test_there_is_nothing_but_an_encoder():
    with pytest.raises(
        ModelLoadError, match=r"no head 'masked-lm' for the model type 'model2vec'; supported: 'encoder'$"
    ):
        build(FIXTURES / "model2vec", "masked-lm")


def test_int8_is_refused():
    with pytest.raises(ModelLoadError, match="a static model multiplies by no weights, so int8 is not for it"):
        embed(FIXTURES / "model2vec", "cat", precision="int8")


def test_int8_tables_are_rows_without_a_scale(tmp_path):
    """As model2vec has them: `StaticModel(...).encode` averages the int8 rows and normalizes the mean."""
    folder = copy_of("model2vec", tmp_path)
    tensors = read_tensors(folder)
    _, shape, raw = tensors["embeddings"]
    rows = np.frombuffer(raw, np.float32).reshape(shape)
    rounded = np.round(rows / np.abs(rows).max() * 127).astype(np.int8)
    write_tensors(folder, {**tensors, "embeddings": ("I8", shape, rounded.tobytes())})
    whole = copy_of("model2vec", tmp_path / "whole")
    write_tensors(whole, {**tensors, "embeddings": ("F32", shape, rounded.astype(np.float32).tobytes())})
    texts, _ = expected_of("model2vec")
    np.testing.assert_allclose(embed(folder, texts), embed(whole, texts), atol=1e-6)


def test_old_folders_of_model2vec_have_no_model_type(tmp_path):
    folder = copy_of("model2vec", tmp_path)
    (folder / "modules.json").unlink()
    edit_config(folder, model_type=..., apply_pca=12, apply_zipf=True)
    texts, expected = expected_of("model2vec")
    np.testing.assert_allclose(embed(folder, texts), expected, atol=1e-5)
