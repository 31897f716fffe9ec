"""langchain-qdrant with sparse embeddings of fastrank."""

import asyncio

import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import NOTES, PART, PART_ANSWER

host("langchain_qdrant")
from langchain_core.embeddings import DeterministicFakeEmbedding  # noqa: E402
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings  # noqa: E402
from qdrant_client.models import Modifier  # noqa: E402

from fastrank import SparseTextEmbedding  # noqa: E402
from fastrank.errors import ModelNotFoundError  # noqa: E402
from fastrank.integrations.langchain_qdrant import FastrankSparse  # noqa: E402

QUERY = "worn chain"


def rows(vectors):
    return [dict(zip(vector.indices, vector.values, strict=True)) for vector in vectors]


def test_vectors():
    sparse = FastrankSparse(language="german")
    assert isinstance(sparse, SparseEmbeddings)
    model = SparseTextEmbedding("Qdrant/bm25", language="german")
    expected = [vector.as_dict() for vector in model.embed(NOTES)]
    assert rows(sparse.embed_documents(NOTES)) == expected
    assert rows([sparse.embed_query(QUERY)]) == [next(model.query_embed(QUERY)).as_dict()]
    assert asyncio.run(sparse.aembed_documents(NOTES)) == sparse.embed_documents(NOTES)
    assert asyncio.run(sparse.aembed_query(QUERY)) == sparse.embed_query(QUERY)
    assert sparse.embed_documents([]) == []


def test_asyncio_is_the_models_own(monkeypatch):
    sparse = FastrankSparse()
    expected = sparse.embed_query(QUERY), sparse.embed_documents(NOTES)
    monkeypatch.delattr(SparseTextEmbedding, "query_embed")  # what a thread would call
    monkeypatch.delattr(SparseTextEmbedding, "passage_embed")
    assert (asyncio.run(sparse.aembed_query(QUERY)), asyncio.run(sparse.aembed_documents(NOTES))) == expected


@pytest.mark.parametrize("mode", [RetrievalMode.SPARSE, RetrievalMode.HYBRID])
def test_a_store_finds_the_answer(mode):
    store = QdrantVectorStore.from_texts(
        NOTES,
        embedding=DeterministicFakeEmbedding(size=8),
        sparse_embedding=FastrankSparse(),
        sparse_vector_params={"modifier": Modifier.IDF},
        retrieval_mode=mode,
        location=":memory:",
    )
    found = store.similarity_search(PART, k=len(NOTES))
    assert PART_ANSWER in [document.page_content for document in found][: 1 if mode == RetrievalMode.SPARSE else None]


def test_mistakes():
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        FastrankSparse("acme/none")
    with pytest.raises(TypeError, match="languge"):
        FastrankSparse(languge="german")
    with pytest.raises(TypeError, match=r"texts\[1\] must be a string, not int"):
        FastrankSparse().embed_documents(["a", 3])


def test_without_the_host():
    code = "import sys; sys.modules['langchain_qdrant'] = None; import fastrank.integrations.langchain_qdrant"
    assert run_python("-c", code).stderr.endswith("(in a checkout: pip install '.[langchain-qdrant]')\n")
