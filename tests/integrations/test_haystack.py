"""Haystack with embedders and a ranker of fastrank. Tiny models with random weights show the wiring alone."""

import asyncio
import inspect
import os
from functools import partial

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # read when Haystack is imported

import numpy as np
import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

host("haystack")
from haystack import Document, Pipeline  # noqa: E402
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever  # noqa: E402
from haystack.core.serialization import component_from_dict, component_to_dict  # noqa: E402
from haystack.document_stores.in_memory import InMemoryDocumentStore  # noqa: E402
from haystack.utils import misc  # noqa: E402

from fastrank import (  # noqa: E402
    LateInteractionTextEmbedding,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)
from fastrank.errors import ModelNotCachedError, ModelNotFoundError  # noqa: E402
from fastrank.integrations import haystack  # noqa: E402
from fastrank.integrations.haystack import (  # noqa: E402
    FastrankDocumentEmbedder,
    FastrankLateInteractionRanker,
    FastrankRanker,
    FastrankSparseDocumentEmbedder,
    FastrankSparseTextEmbedder,
    FastrankTextEmbedder,
)

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", "fast red cats"]
KINDS = [
    *(FastrankTextEmbedder, FastrankDocumentEmbedder, FastrankSparseTextEmbedder, FastrankSparseDocumentEmbedder),
    *(FastrankRanker, FastrankLateInteractionRanker),
]


def of(kind, model, **more):
    return kind(model["model_name"], model_kwargs={"specific_model_path": model["specific_model_path"]}, **more)


@pytest.fixture
def documents():
    return [Document(content=text, meta={"n": number, "title": None}) for number, text in enumerate(TEXTS)]


def test_dense(tiny_dense, documents):
    text, document = of(FastrankTextEmbedder, tiny_dense), of(FastrankDocumentEmbedder, tiny_dense)
    document.warm_up()
    with TextEmbedding(**tiny_dense) as model:
        passages, query = np.stack(list(model.passage_embed(TEXTS))), next(model.query_embed(QUERY))
    assert text.run(QUERY)["embedding"] == pytest.approx(query, abs=1e-6)
    assert asyncio.run(text.run_async(QUERY)) == text.run(QUERY)
    found = document.run(documents)["documents"]
    np.testing.assert_allclose([each.embedding for each in found], passages, atol=1e-6)
    assert [each.content for each in found] == TEXTS
    assert {type(number) for each in found for number in each.embedding} == {float}
    assert {each.embedding for each in documents} == {None}
    assert asyncio.run(document.run_async(documents))["documents"] == found
    assert document.run([]) == {"documents": []}


def test_meta_fields(tiny_dense, documents):
    embedder = of(FastrankDocumentEmbedder, tiny_dense, meta_fields_to_embed=["n", "title"], embedding_separator=" ")
    found = embedder.run(documents)["documents"][1].embedding
    with TextEmbedding(**tiny_dense) as model:
        assert found == pytest.approx(next(model.passage_embed("1 one dog")), abs=1e-6)


def test_sparse(documents):
    model = SparseTextEmbedding("Qdrant/bm25")
    found = FastrankSparseTextEmbedder().run(QUERY)["sparse_embedding"]
    assert dict(zip(found.indices, found.values, strict=True)) == next(model.query_embed(QUERY)).as_dict()
    embedder = FastrankSparseDocumentEmbedder(progress_bar=False)
    for each, expected in zip(embedder.run(documents)["documents"], model.embed(TEXTS), strict=True):
        found = each.sparse_embedding
        assert dict(zip(found.indices, found.values, strict=True)) == expected.as_dict()
    assert {each.sparse_embedding for each in documents} == {None}


def test_ranker(tiny_cross_encoder, documents):
    with TextCrossEncoder(**tiny_cross_encoder) as model:
        scores = list(model.rerank(QUERY, TEXTS))
    order = sorted(range(len(TEXTS)), key=lambda number: -scores[number])
    ranker = of(FastrankRanker, tiny_cross_encoder, top_k=2)
    ranker.warm_up()
    found = ranker.run(QUERY, documents)["documents"]
    assert [each.meta["n"] for each in found] == order[:2]
    assert [each.score for each in found] == [pytest.approx(scores[number], abs=1e-6) for number in order[:2]]
    assert {each.score for each in documents} == {None}
    assert asyncio.run(ranker.run_async(QUERY, documents))["documents"] == found
    assert len(ranker.run(QUERY, documents, top_k=3)["documents"]) == 3
    least = (scores[order[0]] + scores[order[1]]) / 2
    assert len(ranker.run(QUERY, documents, score_threshold=least)["documents"]) == 1
    assert ranker.run(QUERY, []) == {"documents": []}
    with pytest.raises(ValueError, match="top_k"):
        ranker.run(QUERY, documents, top_k=0)


def test_late_interaction_ranker(tiny_late, documents):
    with LateInteractionTextEmbedding(**tiny_late) as model:
        expected = model.rank(QUERY, TEXTS)
    ranker = of(FastrankLateInteractionRanker, tiny_late, top_k=2)
    ranker.warm_up()
    found = ranker.run(QUERY, documents)["documents"]
    assert [each.meta["n"] for each in found] == [each.index for each in expected[:2]]
    assert [each.score for each in found] == [pytest.approx(each.score, abs=1e-5) for each in expected[:2]]
    assert asyncio.run(ranker.run_async(QUERY, documents))["documents"] == found
    assert len(ranker.run(QUERY, documents, top_k=3, score_threshold=expected[1].score - 1e-4)["documents"]) == 2
    assert ranker.run(QUERY, []) == {"documents": []}


def test_run_async_uses_the_models_own_methods(tiny_dense, tiny_cross_encoder, tiny_late, documents, monkeypatch):
    """Those of threads fail here."""
    sparse = SparseTextEmbedding("Qdrant/bm25")
    expected = next(sparse.query_embed(QUERY)).as_dict(), [each.as_dict() for each in sparse.passage_embed(TEXTS)]
    for kind, names in {
        TextEmbedding: ("query_embed", "passage_embed"),
        SparseTextEmbedding: ("query_embed", "passage_embed"),
        TextCrossEncoder: ("rank", "rerank"),
        LateInteractionTextEmbedding: ("rank", "rerank"),
    }.items():
        for name in names:
            monkeypatch.delattr(kind, name)

    async def run():
        query, passages = of(FastrankTextEmbedder, tiny_dense), of(FastrankDocumentEmbedder, tiny_dense)
        assert len((await query.run_async(QUERY))["embedding"]) == 16
        assert len((await passages.run_async(documents))["documents"]) == 3
        for kind, model in ((FastrankRanker, tiny_cross_encoder), (FastrankLateInteractionRanker, tiny_late)):
            assert len((await of(kind, model).run_async(QUERY, documents))["documents"]) == 3
        query = (await FastrankSparseTextEmbedder().run_async(QUERY))["sparse_embedding"]
        found = (await FastrankSparseDocumentEmbedder(progress_bar=False).run_async(documents))["documents"]
        passages = [each.sparse_embedding for each in found]
        return dict(zip(query.indices, query.values, strict=True)), [
            dict(zip(each.indices, each.values, strict=True)) for each in passages
        ]

    assert asyncio.run(run()) == expected


def test_documents_with_one_id_count_once_as_with_haystacks_own_rankers(tiny_cross_encoder):
    documents = [
        *(Document(id="a", content=TEXTS[0]), Document(id="b", content=TEXTS[1], score=-1.0)),
        *(Document(id="a", content=TEXTS[0], score=0.2), Document(id="a", content=TEXTS[0], score=0.9, meta={"n": 3})),
        *(Document(id="b", content=TEXTS[1], score=-1.0), Document(id="c", content=TEXTS[2])),
        Document(id="b", content=TEXTS[1]),
    ]
    before = list(documents)
    found = of(FastrankRanker, tiny_cross_encoder).run(QUERY, documents)["documents"]
    assert sorted(each.id for each in found) == ["a", "b", "c"]
    assert [each.meta for each in found if each.id == "a"] == [{"n": 3}]
    assert documents == before
    assert haystack._distinct(documents) == [documents[3], documents[1], documents[5]]
    if theirs := getattr(misc, "_deduplicate_documents", None):  # not in old versions
        assert haystack._distinct(documents) == theirs(documents)
    assert len(of(FastrankRanker, tiny_cross_encoder, top_k=2).run(QUERY, documents)["documents"]) == 2


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (FastrankTextEmbedder, {}),
        (FastrankSparseTextEmbedder, {"model_kwargs": {"language": "german"}}),
        *(
            (kind, {"batch_size": 3, "progress_bar": False, "meta_fields_to_embed": ["n"], "embedding_separator": "|"})
            for kind in (FastrankDocumentEmbedder, FastrankSparseDocumentEmbedder)
        ),
        (FastrankLateInteractionRanker, {"top_k": 3, "embedding_separator": "|"}),
        (FastrankRanker, {"top_k": 3, "score_threshold": 0.5, "meta_fields_to_embed": ["n"], "batch_size": 2}),
    ],
)
def test_settings_are_stored_and_restored(kind, settings):
    stored = component_to_dict(kind(**settings), "it")
    assert stored["type"] == f"fastrank.integrations.haystack.{kind.__name__}"
    assert stored["init_parameters"] == {**stored["init_parameters"], **settings}
    assert ["self", *stored["init_parameters"]] == list(inspect.signature(kind.__init__).parameters)
    assert component_to_dict(component_from_dict(kind, stored, "it"), "it") == stored


def test_a_pipeline_that_was_stored(tiny_dense, tiny_cross_encoder, documents):
    store = InMemoryDocumentStore()
    store.write_documents(of(FastrankDocumentEmbedder, tiny_dense).run(documents)["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", of(FastrankTextEmbedder, tiny_dense))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=3))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    found = pipeline.run({"embedder": {"text": QUERY}})["retriever"]["documents"]
    assert len(found) == 3
    again = Pipeline.loads(pipeline.dumps()).get_component("embedder")
    assert again.run(QUERY) == of(FastrankTextEmbedder, tiny_dense).run(QUERY)
    assert again._shared is pipeline.get_component("embedder")._shared


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes(kind):
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        kind("acme/none")
    with pytest.raises(TypeError, match="max_lenght"):
        kind(model_kwargs={"max_lenght": 3})


def test_more_mistakes():
    with pytest.raises(TypeError, match="text must be a string, not list"):
        FastrankTextEmbedder().run(["a"])
    for documents in ("a", ["a"], None, {"a": 1}):
        for ask in (FastrankDocumentEmbedder().run, partial(FastrankRanker().run, "query")):
            with pytest.raises(TypeError, match="must be a list of Haystack documents"):
                ask(documents)
    with pytest.raises(TypeError, match="query must be a string, not NoneType"):
        FastrankRanker().run(None, [Document(content="a")])


def test_offline(monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    for component in (FastrankTextEmbedder(), FastrankRanker()):
        with pytest.raises(ModelNotCachedError, match=r"is not in .*, and downloading is off"):
            component.warm_up()


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    notes = [Document(content=note) for note in NOTES]
    store.write_documents(of(FastrankDocumentEmbedder, real, progress_bar=False).run(notes)["documents"])
    query = of(FastrankTextEmbedder, real).run(QUESTION)["embedding"]
    assert InMemoryEmbeddingRetriever(store).run(query_embedding=query)["documents"][0].content == ANSWER


def test_without_the_host():
    code = "import sys; sys.modules['haystack'] = None; import fastrank.integrations.haystack"
    done = run_python("-c", code)
    assert done.stderr.endswith("(in a checkout: pip install '.[haystack]')\n")
