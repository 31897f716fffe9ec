"""LlamaIndex with embeddings and a reranker of fastrank. Tiny models with random weights show the wiring alone."""

import asyncio

import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

host("llama_index.core")
from llama_index.core import VectorStoreIndex  # noqa: E402
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler  # noqa: E402
from llama_index.core.schema import NodeWithScore, TextNode  # noqa: E402

from fastrank import TextCrossEncoder, TextEmbedding  # noqa: E402
from fastrank.errors import ModelNotCachedError, ModelNotFoundError  # noqa: E402
from fastrank.integrations.llama_index import FastrankEmbedding, FastrankRerank  # noqa: E402

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", "fast red cats", "paris is the capital of france"]


def of(kind, model, **more):
    return kind(model["model_name"], model_kwargs={"specific_model_path": model["specific_model_path"]}, **more)


@pytest.fixture
def nodes():
    return [NodeWithScore(node=TextNode(text=text), score=0.1) for text in TEXTS]


@pytest.fixture
def scores(tiny_cross_encoder):
    with TextCrossEncoder(**tiny_cross_encoder) as model:
        return dict(zip(TEXTS, model.rerank(QUERY, TEXTS), strict=True))


def test_embeddings(tiny_dense):
    embedding = of(FastrankEmbedding, tiny_dense, embed_batch_size=3)
    with TextEmbedding(**tiny_dense) as model:
        passages, query = list(model.passage_embed(TEXTS)), next(model.query_embed(QUERY))
    expected = [pytest.approx(vector, abs=1e-6) for vector in passages]
    assert embedding.get_text_embedding_batch(TEXTS) == expected
    assert embedding.get_text_embedding(TEXTS[0]) == expected[0]
    assert embedding.get_query_embedding(QUERY) == pytest.approx(query, abs=1e-6)
    assert {type(number) for number in embedding.get_query_embedding(QUERY)} == {float}
    assert asyncio.run(embedding.aget_text_embedding_batch(TEXTS)) == expected
    assert asyncio.run(embedding.aget_text_embedding(TEXTS[0])) == expected[0]
    assert asyncio.run(embedding.aget_query_embedding(QUERY)) == pytest.approx(query, abs=1e-6)


def test_rerank(tiny_cross_encoder, nodes, scores):
    rerank = of(FastrankRerank, tiny_cross_encoder, top_n=3)
    best = sorted(TEXTS, key=lambda text: -scores[text])[:3]
    found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    assert [node.text for node in found] == best
    assert [node.score for node in found] == [pytest.approx(scores[text], abs=1e-6) for text in best]
    assert {node.score for node in nodes} == {0.1}
    assert "retrieval_score" not in found[0].metadata
    assert asyncio.run(rerank.apostprocess_nodes(nodes, query_str=QUERY)) == found
    assert rerank.postprocess_nodes([], query_str=QUERY) == []
    assert asyncio.run(rerank.apostprocess_nodes([], query_str=QUERY)) == []


def test_reranking_for_asyncio_is_the_models_own(tiny_cross_encoder, nodes, monkeypatch):
    rerank = of(FastrankRerank, tiny_cross_encoder)
    found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    monkeypatch.delattr(TextCrossEncoder, "rank")  # what a thread would call
    assert asyncio.run(rerank.apostprocess_nodes(nodes, query_str=QUERY)) == found
    with pytest.raises(ValueError, match="needs the query"):
        asyncio.run(rerank.apostprocess_nodes(nodes))


def test_keeping_the_retrieval_score_changes_neither_the_callers_nodes_nor_later_scores(tiny_cross_encoder, nodes):
    rerank = of(FastrankRerank, tiny_cross_encoder, top_n=4, keep_retrieval_score=True)
    plain = of(FastrankRerank, tiny_cross_encoder, top_n=4).postprocess_nodes(nodes, query_str=QUERY)
    before = [node.model_copy(deep=True) for node in nodes]
    kept = rerank.postprocess_nodes(nodes, query_str=QUERY)
    assert [node.metadata["retrieval_score"] for node in kept] == [0.1] * 4
    assert nodes == before
    assert all(node.metadata == {} for node in nodes)
    assert [node.score for node in kept] == [node.score for node in plain]
    again = rerank.postprocess_nodes(kept, query_str=QUERY)
    assert [(node.text, node.score) for node in again] == [(node.text, node.score) for node in kept]
    assert [node.metadata["retrieval_score"] for node in again] == [node.score for node in kept]
    assert {node.node_id for node in kept} == {node.node_id for node in nodes}


def test_metadata_that_is_embedded_is_scored(tiny_cross_encoder, nodes):
    nodes[0].node.metadata = {"title": "red"}
    (found,) = of(FastrankRerank, tiny_cross_encoder).postprocess_nodes(nodes[:1], query_str=QUERY)
    with TextCrossEncoder(**tiny_cross_encoder) as model:
        (score,) = model.rerank(QUERY, ["title: red\n\nthe cat is red"])
    assert found.score == pytest.approx(score, abs=1e-6)


def test_callbacks(tiny_cross_encoder, nodes):
    handler = LlamaDebugHandler(print_trace_on_end=False)
    rerank = of(FastrankRerank, tiny_cross_encoder, callback_manager=CallbackManager([handler]))
    rerank.postprocess_nodes(nodes, query_str=QUERY)
    ((start, end),) = handler.get_event_pairs(CBEventType.RERANKING)
    assert start.payload["query_str"] == QUERY
    assert len(end.payload["nodes"]) == 2


def test_they_can_be_stored(tiny_cross_encoder, tiny_dense):
    embedding = of(FastrankEmbedding, tiny_dense)
    assert FastrankEmbedding.from_dict(embedding.to_dict())._model() is embedding._model()
    rerank = of(FastrankRerank, tiny_cross_encoder, top_n=7)
    again = FastrankRerank.from_dict(rerank.to_dict())
    assert (again.top_n, again._model()) == (7, rerank._model())


def test_mistakes(nodes):
    for kind in (FastrankEmbedding, FastrankRerank):
        with pytest.raises(ModelNotFoundError, match="acme/none"):
            kind("acme/none")
        with pytest.raises(TypeError, match="max_lenght"):
            kind(model_kwargs={"max_lenght": 3})
    with pytest.raises(ValueError, match="top_n"):
        FastrankRerank(top_n=0)
    with pytest.raises(ValueError, match="needs the query"):
        FastrankRerank().postprocess_nodes(nodes)


def test_texts_go_through_the_gate():
    with pytest.raises(TypeError, match="not one string"):
        FastrankEmbedding()._get_text_embeddings("text")
    with pytest.raises(TypeError, match="query must be a string, not NoneType"):
        FastrankEmbedding()._get_query_embedding(None)


def test_offline(monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    with pytest.raises(ModelNotCachedError, match=r"BAAI/bge-small-en-v1.5 is not in .*"):
        VectorStoreIndex([TextNode(text="a")], embed_model=FastrankEmbedding())


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    index = VectorStoreIndex([TextNode(text=note) for note in NOTES], embed_model=of(FastrankEmbedding, real))
    assert index.as_retriever(similarity_top_k=3).retrieve(QUESTION)[0].text == ANSWER


def test_without_the_host():
    code = "import sys; sys.modules['llama_index'] = None; import fastrank.integrations.llama_index"
    done = run_python("-c", code)
    assert done.stderr.endswith("(in a checkout: pip install '.[llama-index]')\n")
