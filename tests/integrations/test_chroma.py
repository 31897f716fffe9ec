"""Chroma with embedding functions of fastrank. Tiny models with random weights show the wiring alone."""

import numpy as np
import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

chromadb = host("chromadb")
from chromadb.config import Settings  # noqa: E402
from chromadb.utils.embedding_functions import known_embedding_functions  # noqa: E402

from fastrank import SparseTextEmbedding, TextEmbedding  # noqa: E402
from fastrank.errors import ModelNotCachedError, ModelNotFoundError  # noqa: E402
from fastrank.integrations.chroma import FastrankEmbeddingFunction, FastrankSparseEmbeddingFunction  # noqa: E402

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", "fast red cats"]
IDS = ["0", "1", "2"]


@pytest.fixture
def client(tmp_path):
    return chromadb.PersistentClient(str(tmp_path / "chroma"), Settings(anonymized_telemetry=False))


def test_dense(client, tiny_dense):
    function = FastrankEmbeddingFunction(**tiny_dense, device="cpu")
    collection = client.create_collection("notes", embedding_function=function)
    collection.add(ids=IDS, documents=TEXTS)
    with TextEmbedding(**tiny_dense) as model:
        passages, query = np.stack(list(model.passage_embed(TEXTS))), next(model.query_embed(QUERY))
    stored = collection.get(ids=IDS, include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(stored, passages, atol=1e-6)
    found = collection.query(query_texts=[QUERY], n_results=3)
    distances = dict(zip(found["ids"][0], found["distances"][0], strict=True))
    assert distances == pytest.approx(dict(zip(IDS, 1 - passages @ query, strict=True)), abs=1e-5)  # cosine


def test_a_collection_opened_again(client, tiny_dense):
    assert known_embedding_functions["fastrank"] is FastrankEmbeddingFunction
    function = FastrankEmbeddingFunction(**tiny_dense, batch_size=5)
    client.create_collection("notes", embedding_function=function).add(ids=IDS, documents=TEXTS)
    again = client.get_collection("notes")
    assert again.query(query_texts=["one dog"], n_results=1)["ids"] == [["1"]]
    opened = FastrankEmbeddingFunction.build_from_config(function.get_config())
    assert (opened.batch_size, opened.model) == (5, function.model)


def test_sparse():
    function = FastrankSparseEmbeddingFunction(language="german")
    with SparseTextEmbedding("Qdrant/bm25", language="german") as model:
        for found, expected in [
            (function(["die Kette und die Bremse"]), model.embed("die Kette und die Bremse")),
            (function.embed_query(["die Kette"]), model.query_embed("die Kette")),
        ]:
            known = next(expected).as_dict()
            assert found[0].indices == sorted(known)
            assert found[0].values == [known[index] for index in found[0].indices]
    again = FastrankSparseEmbeddingFunction.build_from_config(function.get_config())
    assert again(TEXTS) == function(TEXTS)


@pytest.mark.parametrize("kind", [FastrankEmbeddingFunction, FastrankSparseEmbeddingFunction])
def test_mistakes(kind):
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        kind("acme/none")
    with pytest.raises(TypeError, match="max_lenght"):
        kind(max_lenght=3)
    with pytest.raises(ValueError, match=r"vectors are those of .*; for acme/other make"):
        kind().validate_config_update(kind().get_config(), {"model_name": "acme/other"})


@pytest.mark.parametrize("kind", [FastrankEmbeddingFunction, FastrankSparseEmbeddingFunction])
def test_texts_go_through_the_gate(kind):
    for ask in (kind().__call__, kind().embed_query):
        with pytest.raises(TypeError, match="must be a string or an iterable of strings, not dict"):
            ask({"text": "a"})


@pytest.mark.parametrize("kind", [FastrankEmbeddingFunction, FastrankSparseEmbeddingFunction])
def test_config_is_all_that_makes_an_equal_function(kind):
    function = kind(batch_size=5, threads=1)
    config = function.get_config()
    assert config == {"model_name": config["model_name"], "device": None, "batch_size": 5, "threads": 1}
    again = kind.build_from_config(config)
    assert (type(again), again.get_config(), again.model) == (kind, config, function.model)
    config["batch_size"] = 6
    assert function.get_config()["batch_size"] == 5


def test_offline(client, monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    collection = client.create_collection("notes", embedding_function=FastrankEmbeddingFunction())
    with pytest.raises(ModelNotCachedError, match=r"BAAI/bge-small-en-v1.5 is not in .*"):
        collection.add(ids=IDS, documents=TEXTS)
    assert collection.count() == 0


@pytest.mark.real_model
def test_the_answer_is_found_first(client, real):
    collection = client.create_collection("notes", embedding_function=FastrankEmbeddingFunction(**real))
    collection.add(ids=[str(number) for number in range(len(NOTES))], documents=NOTES)
    assert collection.query(query_texts=[QUESTION], n_results=3)["documents"][0][0] == ANSWER


def test_without_the_host():
    code = "import sys; sys.modules['chromadb'] = None; import fastrank.integrations.chroma"
    done = run_python("-c", code)
    assert done.stderr.endswith("(in a checkout: pip install '.[chroma]')\n")
