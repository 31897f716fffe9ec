"""LangChain with embeddings and rerankers of fastrank. Tiny models with random weights show the wiring alone."""

import asyncio
import importlib.util
import os
from pathlib import Path

import pytest
from support import TESTS
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

host("langchain_core")
from langchain_core.cross_encoders import BaseCrossEncoder  # noqa: E402
from langchain_core.documents import BaseDocumentCompressor, Document  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402
from langchain_core.vectorstores import InMemoryVectorStore  # noqa: E402

from fastrank import TextCrossEncoder, TextEmbedding  # noqa: E402
from fastrank.errors import ModelNotCachedError, ModelNotFoundError  # noqa: E402
from fastrank.integrations.langchain import FastrankCrossEncoder, FastrankEmbeddings, FastrankRerank  # noqa: E402

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", "", "fast red cats", "paris is the capital of france"]
ALL = pytest.mark.parametrize("kind", [FastrankEmbeddings, FastrankCrossEncoder, FastrankRerank])


def of(kind, model, **more):
    folder = model["specific_model_path"]
    return kind(model_name=model["model_name"], model_kwargs={"specific_model_path": folder}, **more)


@pytest.fixture
def documents():
    return [Document(page_content=text, metadata={"number": number}) for number, text in enumerate(TEXTS)]


@pytest.fixture
def scores(tiny_cross_encoder):
    with TextCrossEncoder(**tiny_cross_encoder) as model:
        return list(model.rerank(QUERY, TEXTS))


def test_embeddings(tiny_dense):
    embeddings = of(FastrankEmbeddings, tiny_dense)
    assert isinstance(embeddings, Embeddings)
    with TextEmbedding(**tiny_dense) as model:
        passages, query = list(model.passage_embed(TEXTS)), next(model.query_embed(QUERY))
    found = embeddings.embed_documents(TEXTS)
    assert {type(number) for vector in found for number in vector} == {float}
    assert found == [pytest.approx(vector, abs=1e-6) for vector in passages]
    assert embeddings.embed_query(QUERY) == pytest.approx(query, abs=1e-6)
    assert asyncio.run(embeddings.aembed_documents(TEXTS)) == found
    assert asyncio.run(embeddings.aembed_query(QUERY)) == embeddings.embed_query(QUERY)
    assert embeddings.embed_documents([]) == []


def test_cross_encoder(tiny_cross_encoder, scores):
    model = of(FastrankCrossEncoder, tiny_cross_encoder)
    assert isinstance(model, BaseCrossEncoder)
    found = model.score([(QUERY, text) for text in TEXTS])
    assert found == pytest.approx(scores, abs=1e-6)
    assert {type(score) for score in found} == {float}


def test_rerank(tiny_cross_encoder, documents, scores):
    rerank = of(FastrankRerank, tiny_cross_encoder, top_n=2)
    assert isinstance(rerank, BaseDocumentCompressor)
    order = sorted(range(len(TEXTS)), key=lambda number: -scores[number])
    found = rerank.compress_documents(documents, QUERY)
    assert [document.metadata["number"] for document in found] == order[:2]
    expected = [pytest.approx(scores[number], abs=1e-6) for number in order[:2]]
    assert [document.metadata["relevance_score"] for document in found] == expected
    assert all("relevance_score" not in document.metadata for document in documents)
    assert asyncio.run(rerank.acompress_documents(documents, QUERY)) == found
    assert len(of(FastrankRerank, tiny_cross_encoder, top_n=None).compress_documents(documents, QUERY)) == len(TEXTS)
    assert rerank.compress_documents([], QUERY) == []
    assert asyncio.run(rerank.acompress_documents([], QUERY)) == []


def test_reranking_for_asyncio_is_the_models_own(tiny_cross_encoder, documents, monkeypatch):
    rerank = of(FastrankRerank, tiny_cross_encoder)
    found = rerank.compress_documents(documents, QUERY)
    monkeypatch.delattr(TextCrossEncoder, "rank")  # what a thread would call
    assert asyncio.run(rerank.acompress_documents(documents, QUERY)) == found
    with pytest.raises(TypeError, match="LangChain documents"):
        asyncio.run(rerank.acompress_documents(["a"], QUERY))


@ALL
def test_they_are_configuration(kind, tiny_cross_encoder, tiny_dense):
    made = of(kind, tiny_dense, batch_size=8)
    again = kind(**made.model_dump())
    assert again == made
    assert again._model() is made._model()


@ALL
def test_mistakes(kind):
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        kind(model_name="acme/none")
    with pytest.raises(TypeError, match="max_lenght"):
        kind(model_kwargs={"max_lenght": 3})
    with pytest.raises(ValueError, match="batchsize"):
        kind(batchsize=3)


def test_more_mistakes():
    with pytest.raises(ValueError, match="top_n"):
        FastrankRerank(top_n=0)
    with pytest.raises(TypeError, match="not one string"):
        FastrankEmbeddings().embed_documents("text")
    with pytest.raises(TypeError, match="texts must be a string or an iterable of strings, not dict"):
        FastrankEmbeddings().embed_documents({"text": "a"})
    with pytest.raises(TypeError, match="text must be a string, not NoneType"):
        FastrankEmbeddings().embed_query(None)
    for documents in ("text", ["text"], {"text": "a"}, None):
        with pytest.raises(TypeError, match="must be a sequence of LangChain documents"):
            FastrankRerank().compress_documents(documents, QUERY)
    with pytest.raises(TypeError, match="pairs must be an iterable of"):
        FastrankCrossEncoder().score({"query": "document"})


def test_offline(monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    store = InMemoryVectorStore(FastrankEmbeddings())
    with pytest.raises(ModelNotCachedError, match=r"BAAI/bge-small-en-v1.5 is not in .*"):
        store.add_texts(NOTES)
    assert store.store == {}


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    store = InMemoryVectorStore(of(FastrankEmbeddings, real))
    store.add_texts(NOTES)
    assert store.similarity_search(QUESTION, k=3)[0].page_content == ANSWER


@pytest.mark.skipif(importlib.util.find_spec("langchain_tests") is None, reason="langchain-tests is not installed")
def test_langchains_standard_tests_pass():
    """In a process of their own: they bring plugins of pytest along."""
    suite = Path(__file__).with_name("standard") / "langchain_embeddings.py"
    options = ["-c", os.devnull, "--rootdir", str(suite.parent), "--confcutdir", str(suite.parent)]
    options += ["-o", "asyncio_mode=auto", "-o", f"pythonpath={TESTS}", "-p", "no:cacheprovider", "-p", "no:codspeed"]
    done = run_python("-m", "pytest", "-q", *options, str(suite))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


def test_without_the_host():
    code = "import sys; sys.modules['langchain_core'] = None; import fastrank.integrations.langchain"
    done = run_python("-c", code)
    assert done.stderr.endswith("(in a checkout: pip install '.[langchain]')\n")
