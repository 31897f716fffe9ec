"""Folders that say by themselves how vectors are made: sentence-transformers models, and plain ones."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import support
from support import tiny_models

from fastrank import PoolingType, TextEmbedding
from fastrank.errors import ModelLoadError, ModelNotFoundError
from fastrank.models.sentence_transformers import _POOLINGS

FIXTURE = support.FIXTURES / "sentence_encoder"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
CASES = {case["name"]: case for case in EXPECTED["cases"]}
TEXTS = EXPECTED["texts"]
NAME = "acme/tuned"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "folder", copy_function=shutil.copyfile))


def edit(folder, file, **fields):
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **fields}))


def rows(vectors):
    return np.stack(list(vectors))


# -- sentence-transformers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_vectors_equal_sentence_transformers(folder, name):
    """`expected.json` is of sentence-transformers 6.2 (scripts/make_modules_fixture.py)."""
    case = CASES[name]
    for path, content in case["files"].items():
        (folder / path).write_text(json.dumps(content))
    with TextEmbedding(NAME, specific_model_path=folder) as model:
        for method in ("embed", "query_embed", "passage_embed"):
            if method in case:
                found = rows(getattr(model, method)(TEXTS))
                np.testing.assert_allclose(found, case[method], atol=1e-5)
                assert model.embedding_size == found.shape[1]


def test_every_pooling_has_a_case():

    assert {f"pooling {mode}" for mode in _POOLINGS} <= set(CASES)
    limits = ("limit 7", "pooling mean", "limit 20", "no limit")  # 7, 12, 20 and 64 tokens
    assert len({tuple(CASES[name]["embed"][3]) for name in limits}) == len(limits)


def test_the_size_is_known_without_loading(folder, monkeypatch):
    import fastrank.engine.loading as module

    monkeypatch.setattr(module, "Session", None)
    assert TextEmbedding(NAME, specific_model_path=folder, lazy_load=True).embedding_size == 24


def test_what_the_caller_says_goes_before_what_the_folder_says(folder):
    with TextEmbedding(NAME, specific_model_path=folder) as model:
        cut = next(model.embed("hello world"))
    with TextEmbedding(NAME, specific_model_path=folder, normalize=False, max_length=3) as model:
        assert model.token_count("hello world") == 3
        assert np.linalg.norm(next(model.embed("hello world"))) != pytest.approx(1, abs=1e-3)
        assert not np.allclose(next(model.embed("hello world")), cut)
    with TextEmbedding(NAME, specific_model_path=folder, pooling=PoolingType.CLS, max_length=64) as model:
        np.testing.assert_allclose(rows(model.embed(TEXTS[:3])), CASES["pooling cls"]["embed"][:3], atol=1e-5)
        assert model.embedding_size == 32
    with TextEmbedding(NAME, specific_model_path=folder, prefixes=False) as model:
        np.testing.assert_array_equal(rows(model.query_embed(TEXTS)), rows(model.embed(TEXTS)))


@pytest.mark.parametrize(
    ("stated", "query", "passage", "plain"),
    [
        ({"prompts": {"query": "q ", "document": "p "}}, "q ", "p ", ""),
        ({"prompts": {"query": "q ", "passage": "p "}}, "q ", "", ""),
        ({"prompts": {"query": "q ", "corpus": "c "}, "default_prompt_name": "query"}, "q ", "", "q "),
        ({"prompts": {"all": "a "}, "default_prompt_name": "all"}, "", "", "a "),
        ({"prompts": None, "default_prompt_name": None}, "", "", ""),
        ({"prompts": {}, "default_prompt_name": "query"}, "", "", ""),
        ({}, "", "", ""),
    ],
)
def test_prompts(folder, stated, query, passage, plain):
    """As sentence-transformers 6.2 resolves them: "query" and "document" are there, if only as empty ones."""
    (folder / "config_sentence_transformers.json").write_text(json.dumps(stated))
    with TextEmbedding(NAME, specific_model_path=folder) as model, TextEmbedding(NAME, **bare(folder)) as without:
        np.testing.assert_array_equal(next(model.query_embed("cat")), next(without.embed(f"{query}cat")))
        np.testing.assert_array_equal(next(model.passage_embed("cat")), next(without.embed(f"{passage}cat")))
        np.testing.assert_array_equal(next(model.embed("cat")), next(without.embed(f"{plain}cat")))


def bare(folder):
    """The arguments of the same model without prompts."""
    return {"specific_model_path": folder, "prefixes": False}


def test_a_default_prompt_that_is_not_there_is_refused(folder):
    stated = {"prompts": {"query": "q "}, "default_prompt_name": "gone"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(stated))
    with pytest.raises(ModelLoadError, match="'default_prompt_name' is 'gone'; the prompts are 'query'"):
        TextEmbedding(NAME, specific_model_path=folder)


@pytest.mark.parametrize("content", ["[]", '{"prompts": ["q"]}', '{"prompts": {"query": 7}}', "{", '"x"'])
def test_damaged_prompts(folder, content):
    (folder / "config_sentence_transformers.json").write_text(content)
    with pytest.raises(ModelLoadError, match=r"config_sentence_transformers\.json"):
        TextEmbedding(NAME, specific_model_path=folder)


def test_a_graph_beside_the_modules_goes_first_and_may_pool_by_itself(folder):
    graphs = {"states": tiny_models.tiny_encoder(32, segments=False), "rows": tiny_models.tiny_pooled(24, seed=1)}
    found = {}
    (folder / "onnx").mkdir()
    for name, graph in graphs.items():
        (folder / "onnx" / "model.onnx").write_bytes(graph)
        with TextEmbedding(NAME, specific_model_path=folder) as model:
            found[name] = rows(model.embed(TEXTS))
    assert {each.shape for each in found.values()} == {(len(TEXTS), 24)}
    for each in found.values():
        np.testing.assert_allclose(np.linalg.norm(each, axis=1), 1, rtol=1e-5)
    assert not np.allclose(found["states"], CASES["as saved"]["embed"], atol=1e-3)


# -- folders that say less ---------------------------------------------------------------------------------------------


def test_a_plain_folder_needs_its_pooling_said(tiny):
    with pytest.raises(ModelLoadError, match=r"has no modules\.json.*pooling=PoolingType\.MEAN"):
        TextEmbedding(NAME, specific_model_path=tiny)
    with TextEmbedding(NAME, specific_model_path=tiny, pooling=PoolingType.MEAN, normalize=True) as model:
        assert model.embedding_size == 16  # of a run: its config.json does not say
        assert next(model.embed("cat")).shape == (16,)
        np.testing.assert_array_equal(next(model.query_embed("cat")), next(model.embed("cat")))
    with TextEmbedding(NAME, specific_model_path=tiny, pooling="cls") as model:
        assert np.linalg.norm(next(model.embed("cat"))) != pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="'median' is not a valid PoolingType"):
        TextEmbedding(NAME, specific_model_path=tiny, pooling="median")


def test_plain_checkpoints():
    folder = FIXTURE.parent / "sentence_encoder"
    with TextEmbedding(NAME, specific_model_path=folder, pooling=PoolingType.LAST_TOKEN, max_length=64) as model:
        np.testing.assert_allclose(rows(model.embed(TEXTS[:3])), CASES["pooling lasttoken"]["embed"][:3], atol=1e-5)


def test_graphs_that_pool_by_themselves_are_said_to(tmp_path):
    folder = tiny_models.write_model(tmp_path / "pooled", tiny_models.tiny_pooled(8))
    with TextEmbedding(NAME, specific_model_path=folder, pooling=PoolingType.DISABLED) as model:
        assert model.embedding_size == 8
    with (
        TextEmbedding(NAME, specific_model_path=folder, pooling=PoolingType.MEAN) as model,
        pytest.raises(ModelLoadError, match=r"has shape \(1, 8\), which its pooling cannot take"),
    ):
        list(model.embed("x"))


def test_names_need_a_folder_or_an_entry(tiny):
    with pytest.raises(ModelNotFoundError, match="is not supported in TextEmbedding"):
        TextEmbedding(NAME)
    with pytest.raises(ModelNotFoundError, match="It is a model for SparseTextEmbedding"):
        TextEmbedding("Qdrant/bm25", specific_model_path=tiny)
    with pytest.raises(TypeError, match="must be a string"):
        TextEmbedding(None, specific_model_path=tiny)


def test_the_entry_of_a_name_goes_before_the_folder_and_a_difference_is_said(folder, caplog):
    registered = "sentence-transformers/all-MiniLM-L6-v2"  # mean, normalised, of 384 numbers
    with caplog.at_level(logging.WARNING, "fastrank"):
        model = TextEmbedding(registered, specific_model_path=folder)
    assert "was made for mean and Dense; pooling mean of the model" in caplog.text
    assert model.embedding_size == 384
    with pytest.raises(ModelLoadError, match="returns 32-dimensional vectors; expected 384"):
        list(model.embed("x"))
    caplog.clear()
    for path, content in CASES["pooling mean"]["files"].items():
        (folder / path).write_text(json.dumps(content))
    TextEmbedding(registered, specific_model_path=folder)
    (folder / "modules.json").write_text('[{"type": "custom_st.Transformer", "path": ""}]')
    TextEmbedding(registered, specific_model_path=folder)
    assert caplog.text == ""
