"""HybridTextEmbedding: the embeddings and scores of FlagEmbedding and transformers, one run, one session."""

import asyncio
import gc
import json
import pickle
import shutil

import numpy as np
import pytest
import support

from fastrank import (
    HybridEmbedding,
    HybridTextEmbedding,
    LateInteractionTextEmbedding,
    SparseTextEmbedding,
    TextEmbedding,
    hybrid_scores,
)
from fastrank.engine.session import Session
from fastrank.errors import ModelLoadError, OutputError

FIXTURES = support.FIXTURES / "hybrid"
EXPECTED = {folder.name: json.loads((folder / "expected.json").read_text()) for folder in sorted(FIXTURES.iterdir())}
NAME, M3, GTE = "acme/own", "bge_m3", "gte_multilingual"
PARTS = {M3: ["dense", "sparse", "tokens"], GTE: ["dense", "sparse"]}


def load(name=M3, cls=HybridTextEmbedding, **options):
    folder = FIXTURES / name if isinstance(name, str) else name
    return cls(NAME, specific_model_path=folder, **{"max_length": 60, "threads": 2, **options})


def assert_equal(found, expected, part):
    if part == "sparse":
        assert found.indices.tolist() == sorted(map(int, expected)), part
        values = [expected[str(index)] for index in found.indices]
        np.testing.assert_allclose(found.values, values, rtol=0, atol=1e-5)
    else:
        assert found.shape == np.shape(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert found.dtype == np.float32


@pytest.mark.parametrize("name", EXPECTED)
def test_embeddings_equal_those_of_the_authors(name):
    expected = EXPECTED[name]
    with load(name) as model:
        assert model.embeddings == PARTS[name]
        for n, made in enumerate(model.embed(expected["texts"])):
            (alone,) = model.embed(expected["texts"][n])
            for part in HybridEmbedding._fields:
                if part in PARTS[name]:
                    assert_equal(getattr(made, part), expected[part][n], part)
                    assert_equal(getattr(alone, part), expected[part][n], part)
                else:
                    assert getattr(made, part) is None


@pytest.mark.parametrize("name", EXPECTED)
def test_the_same_folder_serves_each_class_alone(name):
    expected = EXPECTED[name]
    classes = {"dense": TextEmbedding, "sparse": SparseTextEmbedding, "tokens": LateInteractionTextEmbedding}
    for part in PARTS[name]:
        with load(name, classes[part]) as model:
            for method in ("embed", "query_embed", "passage_embed"):
                for n, found in enumerate(getattr(model, method)(expected["texts"])):
                    assert_equal(found, expected[part][n], part)


def test_all_classes_share_a_session_and_let_it_go():
    gc.collect()
    before = {each for each in gc.get_objects() if isinstance(each, Session)}
    models = [load(cls=cls) for cls in (TextEmbedding, SparseTextEmbedding, LateInteractionTextEmbedding)]
    models.append(load())
    sessions = {model.load().documents.session for model in models}
    assert len(sessions) == 1
    with load(threads=1) as other, load(precision="int8") as quantized:
        assert len({*sessions, other.load().documents.session, quantized.load().documents.session}) == 3
    del other, quantized
    for model in models:
        model.close()
    del models, model, sessions
    gc.collect()
    assert {each for each in gc.get_objects() if isinstance(each, Session)} <= before


def test_all_embeddings_are_of_one_run(monkeypatch):
    runs = []
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda self, batch, *a, **o: runs.append(batch) or run(self, batch, *a, **o))
    with load() as model:
        made = list(model.embed(["hello world", "the red cat"], batch_size=1))
        assert all(part is not None for each in made for part in each)
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ({}, ["dense", "sparse", "tokens"]),
        ({"dense": True}, ["dense"]),
        ({"dense": True, "sparse": True, "tokens": True}, ["dense", "sparse", "tokens"]),
        ({"tokens": False}, ["dense", "sparse"]),
        ({"sparse": True, "dense": False}, ["sparse"]),
    ],
)
def test_what_is_asked_for_is_made(asked, made):
    with load() as model:
        for method in (model.embed, model.query_embed, model.passage_embed):
            (found,) = method("hello world", **asked)
            assert [part for part in found._fields if getattr(found, part) is not None] == made


def test_what_a_model_lacks_is_an_error_at_the_call():
    with load(GTE) as model:
        with pytest.raises(ValueError, match="acme/own makes no tokens embeddings; it makes dense and sparse"):
            model.embed("a", tokens=True)
        with pytest.raises(ValueError, match="nothing is asked for"):
            model.embed("a", dense=False, sparse=False)
        with pytest.raises(TypeError, match="documents"):
            model.embed(3)


def test_asyncio():
    async def run(model):
        documents = [each async for each in model.aembed(["hello world", "cat"], sparse=True)]
        queries = [each async for each in model.aquery_embed("hello world", dense=True)]
        return documents, queries

    with load() as model:
        documents, (query,) = asyncio.run(run(model))
        assert_equal(query.dense, EXPECTED[M3]["dense"][0], "dense")
        assert_equal(documents[0].sparse, EXPECTED[M3]["sparse"][0], "sparse")
        assert documents[0].dense is None


# -- scores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "weights"),
    [
        ("colbert+sparse+dense", (0.4, 0.2, 0.4)),
        ("sparse+dense", (0.4, 0.2, 0)),
        ("dense", (1, 0, 0)),
        ("sparse", (0, 3, 0)),
        ("colbert", (0, 0, 0.5)),
    ],
)
def test_scores_equal_those_of_flag_embedding(key, weights):
    expected = EXPECTED[M3]
    with load() as model:
        scores = list(model.rerank(expected["query"], expected["texts"], weights=weights))
        np.testing.assert_allclose(scores, expected["scores"][key], rtol=0, atol=1e-5)
        (query,) = model.query_embed(expected["query"])
        by_hand = hybrid_scores(query, model.embed(expected["texts"]), weights)
        np.testing.assert_allclose(by_hand, scores, rtol=0, atol=1e-6)
        assert by_hand.dtype == np.float32


def test_the_default_weights_are_those_of_the_authors():
    expected = EXPECTED[M3]
    with load() as model:
        scores = list(model.rerank(expected["query"], expected["texts"]))
    np.testing.assert_allclose(scores, expected["scores"]["colbert+sparse+dense"], rtol=0, atol=1e-5)


def test_parts_that_a_query_lacks_have_no_weight():
    expected = EXPECTED[GTE]
    with load(GTE) as model:
        (query,) = model.embed(expected["query"])
        documents = list(model.embed(expected["texts"]))
        found = hybrid_scores(query, documents)
        dense, sparse = hybrid_scores(query, documents, (1, 0, 0)), hybrid_scores(query, documents, (0, 1, 0))
        np.testing.assert_allclose(found, (0.4 * dense + 0.2 * sparse) / 0.6, rtol=0, atol=1e-6)
        np.testing.assert_allclose(list(model.rerank(expected["query"], expected["texts"])), found, atol=1e-6)


def test_scores_need_what_is_compared():
    with load() as model:
        (whole,) = model.embed("cat")
        (dense,) = model.embed("cat", dense=True)
        assert len(hybrid_scores(whole, [])) == 0
        with pytest.raises(ValueError, match=r"documents\[1\] has no sparse embedding"):
            hybrid_scores(whole, [whole, dense])
        with pytest.raises(ValueError, match="leave nothing of a query to compare"):
            hybrid_scores(dense, [whole], (0, 1, 1))
        for weights in ((0.5, 0.5), (-1, 1, 1), "abc"):
            with pytest.raises(ValueError, match="three numbers of at least 0"):
                model.rerank("cat", ["dog"], weights=weights)


# -- folders --------------------------------------------------------------------------------------------------------


def copied(tmp_path, name=M3):
    return shutil.copytree(FIXTURES / name, tmp_path / name)


def test_a_folder_with_one_of_the_layers_has_two_kinds(tmp_path):
    folder = copied(tmp_path)
    (folder / "colbert_linear.pt").unlink()
    with load(folder) as model:
        assert model.embeddings == ["dense", "sparse"]
    (folder / "sparse_linear.pt").unlink()
    with pytest.raises(ModelLoadError, match=r"sparse_linear\.pt and colbert_linear\.pt: use TextEmbedding"):
        load(folder)


@pytest.mark.parametrize("file", ["sparse_linear.pt", "colbert_linear.pt"])
def test_a_damaged_layer_is_refused(file, tmp_path):
    folder = copied(tmp_path)
    content = (folder / file).read_bytes()
    for damaged in (b"", content[:100], b"\x80\x02}q\x00.", content.replace(b"weight", b"weighs")):
        (folder / file).write_bytes(damaged)
        with pytest.raises(ModelLoadError, match=file):
            load(folder)


def test_layers_of_another_size_are_refused(tmp_path):
    folder = copied(tmp_path)
    shutil.copyfile(folder / "colbert_linear.pt", folder / "sparse_linear.pt")
    with pytest.raises(ModelLoadError, match=r"sparse_linear\.pt: weight and bias have the shapes \(24, 32\) and"):
        load(folder)


def test_a_checkpoint_without_the_classifier_is_refused(tmp_path):
    folder = copied(tmp_path, GTE)
    shutil.copyfile(support.FIXTURES / "families" / GTE / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"has no tensor classifier\.weight, which would weigh the tokens"):
        load(folder)


def test_int8_is_near_and_the_same_in_any_batch():
    expected = EXPECTED[M3]
    with load(precision="int8") as model:
        together = list(model.embed(expected["texts"]))
        alone = [next(model.embed(text)) for text in expected["texts"]]
    for each, single, dense in zip(together, alone, expected["dense"], strict=True):
        assert np.array_equal(each.dense, single.dense)
        assert each.dense @ np.array(dense) > 0.98
        assert np.abs(each.tokens - single.tokens).max() < 1e-5


def test_a_model_arrives_pickled():
    with pickle.loads(pickle.dumps(load())) as model:  # noqa: S301 - its own
        assert_equal(next(model.embed("hello world")).dense, EXPECTED[M3]["dense"][0], "dense")


def test_a_text_with_nan_is_named():
    with load() as model:
        parts = model.load().settings
        broken = parts._replace(tokens=lambda _, batch: [np.full((1, 4), np.nan, np.float32)] * len(batch.ids))
        object.__setattr__(model.load(), "settings", broken)
        with pytest.raises(OutputError, match=r"documents\[0\]"):
            list(model.embed(["a", "b"]))


def test_it_is_listed():
    listed = [each["model"] for each in HybridTextEmbedding.list_supported_models()]
    assert "BAAI/bge-m3" in listed


@pytest.mark.parametrize(
    ("name", "fixture", "parts"),
    [("BAAI/bge-m3", M3, PARTS[M3]), ("Alibaba-NLP/gte-multilingual-base", GTE, PARTS[GTE])],
)
def test_entries_of_the_registry_say_what_their_folders_say(name, fixture, parts, monkeypatch):
    from fastrank.models import registry
    from fastrank.models.spec import LATE_INTERACTION, TEXT_EMBEDDING

    spec = registry.find(name)
    tasks = dict(spec.tasks) | {TEXT_EMBEDDING: spec.tasks[TEXT_EMBEDDING]._replace(dim=32, answers=())}
    if LATE_INTERACTION in tasks:
        tasks[LATE_INTERACTION] = tasks[LATE_INTERACTION]._replace(dim=24)
    tiny = spec._replace(tasks=tasks)
    monkeypatch.setattr(registry, "find_or_own", lambda *_: tiny)
    expected = EXPECTED[fixture]
    with HybridTextEmbedding(name, specific_model_path=FIXTURES / fixture, max_length=60) as model:
        assert model.embeddings == parts
        for n, made in enumerate(model.embed(expected["texts"])):
            for part in parts:
                assert_equal(getattr(made, part), expected[part][n], part)
