"""Pydantic AI with an embedding model of fastrank. Tiny models with random weights show the wiring alone."""

import asyncio

import numpy as np
import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

host("pydantic_ai.embeddings")
from pydantic_ai import Embedder  # noqa: E402

from fastrank import TextEmbedding  # noqa: E402
from fastrank.errors import ModelNotFoundError  # noqa: E402
from fastrank.integrations.pydantic_ai import FastrankEmbeddingModel  # noqa: E402

TEXTS = ["the cat is red", "", "one dog"]


def test_embeddings(tiny_dense, monkeypatch):
    embedder = Embedder(FastrankEmbeddingModel(**tiny_dense))
    with TextEmbedding(**tiny_dense) as model:
        passages, query = np.stack(list(model.passage_embed(TEXTS))), next(model.query_embed("red cat"))
        tokens = model.token_count(TEXTS)
    monkeypatch.delattr(TextEmbedding, "query_embed")  # what a thread would call
    monkeypatch.delattr(TextEmbedding, "passage_embed")
    found = asyncio.run(embedder.embed_documents(TEXTS))
    np.testing.assert_allclose(found.embeddings, passages, atol=1e-6)
    assert {type(number) for vector in found.embeddings for number in vector} == {float}
    assert (found.provider_name, found.model_name, found.input_type) == ("fastrank", "acme/tiny", "document")
    assert (list(found.inputs), found.usage.input_tokens) == (TEXTS, tokens)
    assert asyncio.run(embedder.embed_query("red cat"))["red cat"] == pytest.approx(query, abs=1e-6)


def test_tokens(tiny_dense):
    embedder = Embedder(FastrankEmbeddingModel(**tiny_dense))
    assert asyncio.run(embedder.max_input_tokens()) == 64
    with TextEmbedding(**tiny_dense) as model:
        assert asyncio.run(embedder.count_tokens("the cat is red")) == model.token_count("the cat is red")


def test_settings(tiny_dense):
    model = FastrankEmbeddingModel(**tiny_dense, settings={"dimensions": 16})
    assert len(asyncio.run(Embedder(model).embed_query("a")).embeddings[0]) == 16
    with pytest.raises(ValueError, match="dimensions=8: acme/tiny has vectors of 16"):
        asyncio.run(Embedder(model).embed_query("a", settings={"dimensions": 8}))


def test_mistakes(tiny_dense):
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        FastrankEmbeddingModel("acme/none")
    with pytest.raises(TypeError, match="max_lenght"):
        FastrankEmbeddingModel(max_lenght=3)
    with pytest.raises(TypeError, match=r"inputs\[1\] must be a string, not int"):
        asyncio.run(Embedder(FastrankEmbeddingModel(**tiny_dense)).embed_documents(["a", 3]))


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    embedder = Embedder(FastrankEmbeddingModel(**real))
    notes = np.array(asyncio.run(embedder.embed_documents(NOTES)).embeddings)
    query = np.array(asyncio.run(embedder.embed_query(QUESTION)).embeddings[0])
    assert NOTES[int((notes @ query).argmax())] == ANSWER


def test_without_the_host():
    code = "import sys; sys.modules['pydantic_ai'] = None; import fastrank.integrations.pydantic_ai"
    assert run_python("-c", code).stderr.endswith("(in a checkout: pip install '.[pydantic-ai]')\n")
