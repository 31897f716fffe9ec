"""AnswerDotAI's rerankers with models of fastrank. Tiny models with random weights show the wiring alone."""

import asyncio

import numpy as np
import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

host("rerankers")
from rerankers import Document, Reranker  # noqa: E402

import fastrank.integrations.rerankers  # noqa: E402, F401 - registers
from fastrank import LateInteractionTextEmbedding, TextCrossEncoder  # noqa: E402
from fastrank.errors import ModelNotCachedError, ModelNotFoundError  # noqa: E402

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", "fast red cats"]


def ranker_of(kind, model):
    name, folder = model["model_name"], model["specific_model_path"]
    return Reranker(name, model_type=kind, verbose=0, specific_model_path=folder)


def check(ranker, model):
    scores = list(model.rerank(QUERY, TEXTS))
    order = sorted(range(len(TEXTS)), key=lambda number: -scores[number])
    found = ranker.rank(QUERY, TEXTS)
    assert [result.doc_id for result in found] == order
    assert [result.score for result in found] == [pytest.approx(scores[number], abs=1e-6) for number in order]
    assert [result.rank for result in found] == [1, 2, 3]
    assert ranker.score(QUERY, TEXTS[1]) == pytest.approx(scores[1], abs=1e-6)
    documents = [Document(text, doc_id=f"d{number}", metadata={"n": number}) for number, text in enumerate(TEXTS)]
    assert ranker.rank(QUERY, documents).top_k(1)[0].metadata == {"n": order[0]}
    named = ranker.rank(QUERY, TEXTS, doc_ids=["a", "b", "c"], batch_size=1)
    assert [result.doc_id for result in named] == ["abc"[number] for number in order]
    assert [result.doc_id for result in asyncio.run(ranker.rank_async(QUERY, TEXTS))] == order


def test_cross_encoder(tiny_cross_encoder):
    with TextCrossEncoder(**tiny_cross_encoder) as model:
        check(ranker_of("FastrankRanker", tiny_cross_encoder), model)


@pytest.mark.parametrize("kind", ["FastrankRanker", "FastrankColBERTRanker"])
def test_ranking_for_asyncio_is_the_models_own(kind, tiny_cross_encoder, tiny_late, monkeypatch):
    ranker = ranker_of(kind, tiny_cross_encoder if kind == "FastrankRanker" else tiny_late)
    found = [(each.doc_id, each.score, each.rank) for each in ranker.rank(QUERY, TEXTS)]
    monkeypatch.delattr(type(ranker.model), "rank")  # what a thread would call
    again = asyncio.run(ranker.rank_async(QUERY, TEXTS))
    assert [(each.doc_id, each.score, each.rank) for each in again] == found
    assert asyncio.run(ranker.rank_async(QUERY, [])).results == []


def test_late_interaction(tiny_late):
    with LateInteractionTextEmbedding(**tiny_late) as model:
        check(ranker_of("FastrankColBERTRanker", tiny_late), model)


@pytest.mark.parametrize("kind", ["FastrankRanker", "FastrankColBERTRanker"])
def test_nothing_in_nothing_out(kind, monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")  # and no model is loaded for it
    name = "BAAI/bge-reranker-base" if kind == "FastrankRanker" else "colbert-ir/colbertv2.0"
    found = Reranker(name, model_type=kind, verbose=0).rank(QUERY, [])
    assert (found.results, found.query, found.has_scores, found.top_k(3)) == ([], QUERY, True, [])


def test_documents_in_any_container(tiny_cross_encoder):
    ranker = ranker_of("FastrankRanker", tiny_cross_encoder)
    expected = [result.text for result in ranker.rank(QUERY, TEXTS)]
    documents = [Document(text, doc_id=number) for number, text in enumerate(TEXTS)]
    for given in (tuple(TEXTS), iter(TEXTS), np.array(TEXTS), tuple(documents)):
        assert [result.text for result in ranker.rank(QUERY, given)] == expected
    assert ranker.rank(QUERY, TEXTS[0])[0].text == ranker.rank(QUERY, documents[0])[0].text == TEXTS[0]
    with pytest.raises(TypeError, match="docs must be"):
        ranker.rank(QUERY, {"text": TEXTS})
    with pytest.raises(TypeError, match=r"docs\[1\] must be a string, not NoneType"):
        ranker.rank(QUERY, ["a", None])


def test_mistakes(monkeypatch):
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        Reranker("acme/none", model_type="FastrankRanker", verbose=0)
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    ranker = Reranker("BAAI/bge-reranker-base", model_type="FastrankRanker", verbose=0)
    with pytest.raises(ModelNotCachedError, match=r"BAAI/bge-reranker-base is not in .*"):
        ranker.rank(QUERY, TEXTS)


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    assert ranker_of("FastrankColBERTRanker", real).rank(QUESTION, NOTES).top_k(1)[0].text == ANSWER


def test_without_the_host():
    code = "import sys; sys.modules['rerankers'] = None; import fastrank.integrations.rerankers"
    done = run_python("-c", code)
    assert done.stderr.endswith("(in a checkout: pip install '.[rerankers]')\n")
