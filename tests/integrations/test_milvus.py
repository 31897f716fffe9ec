"""milvus-lite with embedding and rerank functions of fastrank.

Tiny models with random weights show the wiring alone. Which document should be first is asked of the real
all-MiniLM-L6-v2 (its dense vectors, and MaxSim of its token vectors) and of BM25.
"""

import importlib
import math
import pickle
import sys

import numpy as np
import pytest
from support import tiny_models
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, PART, PART_ANSWER, QUESTION

pymilvus = host("pymilvus")
from pymilvus import AnnSearchRequest, DataType, MilvusClient, RRFRanker, WeightedRanker  # noqa: E402

from fastrank import (  # noqa: E402
    LateInteractionTextEmbedding,
    ModelSource,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)
from fastrank.errors import ModelLoadError, ModelNotCachedError, ModelNotFoundError  # noqa: E402
from fastrank.integrations import milvus  # noqa: E402
from fastrank.integrations.milvus import (  # noqa: E402
    BGERerankFunction,
    BM25EmbeddingFunction,
    ColbertRerankFunction,
    CrossEncoderRerankFunction,
    DenseEmbeddingFunction,
    SparseEmbeddingFunction,
)

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", "", "fast red cats", "paris is the capital of france", "how fast", "one dog"]


def ranked(results):
    return [(result.text, result.score, result.index) for result in results]


# -- rerank functions: wiring -----------------------------------------------------------------------------------------


class TestRerank:
    @pytest.fixture
    def logits(self, tiny_cross_encoder):
        with TextCrossEncoder(**tiny_cross_encoder) as model:
            return list(model.rerank(QUERY, TEXTS))

    def expected(self, scores):
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return [(TEXTS[index], pytest.approx(scores[index], abs=1e-6), index) for index in order]

    def test_cross_encoder(self, tiny_cross_encoder, logits):
        rerank = CrossEncoderRerankFunction(**tiny_cross_encoder, device="cpu")
        assert ranked(rerank(query=QUERY, documents=TEXTS, top_k=None)) == self.expected(logits)
        assert ranked(rerank(QUERY, TEXTS, 0)) == self.expected(logits)
        assert ranked(rerank(QUERY, TEXTS)) == self.expected(logits)[:5]
        assert ranked(rerank(QUERY, TEXTS, top_k=2)) == self.expected(logits)[:2]
        assert ranked(rerank(QUERY, TEXTS, top_k=99)) == self.expected(logits)

    def test_activation(self, tiny_cross_encoder, logits):
        scores = [-2 * logit for logit in logits]
        rerank = CrossEncoderRerankFunction(**tiny_cross_encoder, activation_fct=lambda array: -2 * array)
        assert ranked(rerank(QUERY, TEXTS, None)) == self.expected(scores)

    def test_bge(self, tiny_cross_encoder, logits):
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
        assert ranked(BGERerankFunction(**tiny_cross_encoder)(QUERY, TEXTS, None)) == self.expected(scores)
        raw = BGERerankFunction(**tiny_cross_encoder, normalize=False, use_fp16=False, device="cpu")
        assert ranked(raw(QUERY, TEXTS, None)) == self.expected(logits)

    def test_bge_cuts_documents(self, tiny_cross_encoder):
        rerank = BGERerankFunction(**tiny_cross_encoder, max_length=16)
        long = [f"{QUERY} cat {'dog ' * n}" for n in (20, 40)]
        first, second = rerank(QUERY, long)
        assert first.score == pytest.approx(second.score, abs=1e-6)
        assert rerank.model.token_count((QUERY, long[0])) == 16

    def test_colbert(self, tiny_late):
        with LateInteractionTextEmbedding(**tiny_late) as model:
            scores = list(model.rerank(QUERY, TEXTS))
        assert ranked(ColbertRerankFunction(**tiny_late)(QUERY, TEXTS, None)) == self.expected(scores)

    def test_results(self, tiny_cross_encoder):
        (result,) = CrossEncoderRerankFunction(**tiny_cross_encoder)(QUERY, ["one dog"])
        assert result.to_dict() == {"text": "one dog", "score": result.score, "index": 0}
        assert (type(result.score), type(result.index)) == (float, int)
        assert "RerankResult(text='one dog', score=" in repr(result)
        assert CrossEncoderRerankFunction(**tiny_cross_encoder)(QUERY, []) == []

    def test_one_model_serves_all(self, tiny_cross_encoder):
        first, second = (CrossEncoderRerankFunction(**tiny_cross_encoder) for _ in range(2))
        assert first.model is second.model

    def test_mistakes(self, tiny_cross_encoder):
        rerank = CrossEncoderRerankFunction(**tiny_cross_encoder)
        with pytest.raises(TypeError, match="not one string"):
            rerank(QUERY, "one dog")
        with pytest.raises(TypeError, match=r"documents\[1\] must be a string, not NoneType"):
            rerank(QUERY, ["one dog", None])
        with pytest.raises(TypeError, match="documents must be a string or an iterable of strings, not dict"):
            rerank(QUERY, {"text": "a"})
        with pytest.raises(TypeError, match="query must be a string"):
            rerank(None, TEXTS)
        with pytest.raises(ValueError, match="top_k must be >= 1"):
            rerank(QUERY, TEXTS, top_k=-1)
        with pytest.raises(ModelNotFoundError, match="acme/none"):
            ColbertRerankFunction("acme/none")
        with pytest.raises(TypeError, match="max_lenght"):
            BGERerankFunction(**tiny_cross_encoder, max_lenght=3)

    def test_offline(self, monkeypatch):
        monkeypatch.setenv("FASTRANK_OFFLINE", "1")
        with pytest.raises(ModelNotCachedError, match=r"BAAI/bge-reranker-v2-m3 is not in .*") as error:
            BGERerankFunction()(QUERY, TEXTS)
        assert "\n" not in str(error.value)


# -- embedding functions: wiring --------------------------------------------------------------------------------------


class TestDense:
    def test_vectors_are_fastranks(self, tiny_dense):
        function = DenseEmbeddingFunction(**tiny_dense)
        assert function.dim == tiny_models.DIM
        with TextEmbedding(**tiny_dense) as model:
            for found, expected in [
                (function(TEXTS), model.embed(TEXTS)),
                (function.encode_documents(TEXTS), model.passage_embed(TEXTS)),
                (function.encode_queries([QUERY]), model.query_embed(QUERY)),
            ]:
                np.testing.assert_allclose(found, np.stack(list(expected)), atol=1e-6)
        assert {(type(vector), vector.dtype) for vector in found} == {(np.ndarray, np.dtype("float32"))}


class TestSparse:
    @pytest.fixture
    def splade(self, tmp_path):
        """A tiny encoder whose numbers stand for a vocabulary of 16."""
        SparseTextEmbedding.add_custom_model("acme/splade", ModelSource(hf="acme/splade"), vocab_size=16, max_length=64)
        folder = tiny_models.write_model(tmp_path / "splade", tiny_models.tiny_encoder())
        return {"model_name": "acme/splade", "specific_model_path": str(folder)}

    def test_splade(self, splade):
        function = SparseEmbeddingFunction(**splade)
        assert function.dim == 16
        with SparseTextEmbedding(**splade) as model:
            expected = [vector.as_dict() for vector in model.embed(TEXTS)]
        assert [set(each) for each in function(TEXTS)] == [set(each) for each in expected]
        for found, known in zip(function.encode_documents(TEXTS), expected, strict=True):
            assert found == pytest.approx(known, abs=1e-6)
        assert function.encode_queries([QUERY])[0] == pytest.approx(
            next(SparseTextEmbedding(**splade).query_embed(QUERY)).as_dict(), abs=1e-6
        )

    @pytest.mark.parametrize("name", ["Qdrant/bm25", "Qdrant/bm42-all-minilm-l6-v2-attentions"])
    def test_models_that_need_what_milvus_has_not(self, name):
        with pytest.raises(ValueError, match=f"{name} leaves the IDF to the store.*BM25EmbeddingFunction"):
            SparseEmbeddingFunction(name)

    def test_bm25_is_that_of_the_corpus(self):
        function = BM25EmbeddingFunction(corpus=NOTES, k1=1.5, b=0.5)
        fitted = SparseTextEmbedding("Qdrant/bm25", k=1.5, b=0.5, avg_len="auto", idf=True).fit(NOTES)
        assert function.encode_documents(NOTES) == [vector.as_dict() for vector in fitted.embed(NOTES)]
        assert function(NOTES) == function.encode_documents(NOTES)
        (query,) = function.encode_queries(["worn chain"])
        assert set(query.values()) == {1.0}
        assert {type(value) for value in query} == {int}
        assert max(query) < function.dim

    def test_bm25_is_kept_by_pickle(self):
        function = BM25EmbeddingFunction(corpus=NOTES)
        again = pickle.loads(pickle.dumps(function))  # noqa: S301 - our own
        assert again.encode_documents(["a worn chain"]) == function.encode_documents(["a worn chain"])

    def test_bm25_is_saved_and_loaded(self, tmp_path):
        function = BM25EmbeddingFunction(corpus=NOTES)
        function.save(str(tmp_path / "bm25"))
        again = BM25EmbeddingFunction()
        again.load(str(tmp_path / "bm25"))
        assert again.encode_documents(["a worn chain"]) == function.encode_documents(["a worn chain"])
        with pytest.raises(ValueError, match="these settings differ: language"):
            BM25EmbeddingFunction(language="german").load(tmp_path / "bm25")
        (tmp_path / "theirs").write_text('{"version": "v1", "corpus_size": 2}')
        with pytest.raises(ModelLoadError):
            again.load(tmp_path / "theirs")
        assert again.encode_documents(["a worn chain"]) == function.encode_documents(["a worn chain"])

    def test_bm25_needs_a_corpus_for_documents(self):
        function = BM25EmbeddingFunction()
        assert function.encode_queries(["worn chain"])
        with pytest.raises(ValueError, match=r"call fit\(corpus\) first"):
            function.encode_documents(["worn chain"])
        with pytest.raises(TypeError, match=r"corpus\[1\] must be a string, not int"):
            function.fit(["a", 3])

    def test_bm25_options(self):
        terms = BM25EmbeddingFunction(str.split, ["die Kette ist", "die Bremse"]).encode_queries(["die die Kette"])
        assert len(terms[0]) == 2
        german = BM25EmbeddingFunction(corpus=NOTES, language="german", stopwords=["kette"])
        assert german.encode_queries(["die Kette"])[0].keys() == german.encode_queries(["die"])[0].keys()


# -- the base classes -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["with", "without"])
def module(request, monkeypatch):
    """fastrank.integrations.milvus, with pymilvus.model and where it is missing."""
    if request.param == "with":
        host("pymilvus.model.base")
    else:
        monkeypatch.setitem(sys.modules, "pymilvus.model.base", None)
    yield importlib.reload(milvus)
    monkeypatch.undo()
    importlib.reload(milvus)


def test_base_classes(module, tiny_cross_encoder):
    rerank = module.CrossEncoderRerankFunction(**tiny_cross_encoder)
    (result,) = rerank(QUERY, ["one dog"])
    if sys.modules["pymilvus.model.base"] is None:
        assert type(result) is module._RerankResult
    else:
        from pymilvus.model.base import BaseEmbeddingFunction, BaseRerankFunction, RerankResult

        assert isinstance(rerank, BaseRerankFunction)
        assert isinstance(result, RerankResult)
        assert isinstance(module.BM25EmbeddingFunction(), BaseEmbeddingFunction)
    assert (result.text, result.index) == ("one dog", 0)
    assert result.to_dict() == {"text": "one dog", "score": result.score, "index": 0}


# -- milvus-lite ------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(tmp_path):
    host("milvus_lite")
    client = MilvusClient(str(tmp_path / "notes.db"))
    yield client
    client.close()


def create(client, dim):
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=1000)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    index = client.prepare_index_params()
    index.add_index("dense", index_type="FLAT", metric_type="IP")
    index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("notes", schema=schema, index_params=index)


def insert(client, texts, dense, sparse):
    vectors = zip(texts, dense.encode_documents(texts), sparse.encode_documents(texts), strict=True)
    client.insert("notes", [{"id": n, "text": text, "dense": d, "sparse": s} for n, (text, d, s) in enumerate(vectors)])


def texts_of(hits):
    return [hit["entity"]["text"] for hit in hits[0]]


class TestMilvusLite:
    def test_tiny_models(self, client, tiny_dense):
        """Wiring: what a search gives are the inner products of fastrank's vectors."""
        dense, sparse = DenseEmbeddingFunction(**tiny_dense), BM25EmbeddingFunction(corpus=NOTES)
        create(client, dense.dim)
        insert(client, NOTES, dense, sparse)
        found = client.search("notes", dense.encode_queries([QUERY]), anns_field="dense", limit=10)
        products = np.stack(dense.encode_documents(NOTES)) @ dense.encode_queries([QUERY])[0]
        assert {hit["id"]: hit["distance"] for hit in found[0]} == pytest.approx(dict(enumerate(products)), abs=1e-5)
        query = "the worn chain"
        found = client.search("notes", sparse.encode_queries([query]), anns_field="sparse", limit=10)
        (asked,), known = sparse.encode_queries([query]), sparse.encode_documents(NOTES)
        products = [sum(vector.get(term, 0) for term in asked) for vector in known]
        expected = {number: product for number, product in enumerate(products) if product}
        assert {hit["id"]: hit["distance"] for hit in found[0]} == pytest.approx(expected, abs=1e-4)

    def test_vectors_of_another_length(self, client, tiny_dense):
        create(client, tiny_models.DIM + 1)
        with pytest.raises(pymilvus.MilvusException, match=str(tiny_models.DIM)):
            insert(client, NOTES, DenseEmbeddingFunction(**tiny_dense), BM25EmbeddingFunction(corpus=NOTES))
        assert client.query("notes", filter="id >= 0", output_fields=["id"]) == []

    def test_nothing_is_inserted_offline(self, client, monkeypatch):
        monkeypatch.setenv("FASTRANK_OFFLINE", "1")
        dense = DenseEmbeddingFunction("BAAI/bge-small-en-v1.5")
        create(client, dense.dim)  # known without the model
        with pytest.raises(ModelNotCachedError, match=r"BAAI/bge-small-en-v1.5 is not in .*") as error:
            insert(client, NOTES, dense, BM25EmbeddingFunction(corpus=NOTES))
        assert "\n" not in str(error.value)
        assert client.query("notes", filter="id >= 0", output_fields=["id"]) == []


@pytest.mark.real_model
class TestRealModel:
    @pytest.fixture
    def functions(self, client, real):
        """A filled collection's functions: dense vectors of the real model, and BM25."""
        dense, sparse = DenseEmbeddingFunction(**real), BM25EmbeddingFunction(corpus=NOTES)
        create(client, dense.dim)
        insert(client, NOTES, dense, sparse)
        return dense, sparse

    def test_dense(self, client, functions):
        vectors = functions[0].encode_queries([QUESTION])
        hits = client.search("notes", vectors, anns_field="dense", limit=3, output_fields=["text"])
        assert texts_of(hits)[0] == ANSWER

    def test_sparse(self, client, functions):
        vectors = functions[1].encode_queries([PART])
        hits = client.search("notes", vectors, anns_field="sparse", limit=3, output_fields=["text"])
        assert texts_of(hits) == [PART_ANSWER]

    @pytest.mark.parametrize(("question", "answer"), [(QUESTION, ANSWER), (PART, PART_ANSWER)], ids=["sense", "word"])
    @pytest.mark.parametrize("ranker", [RRFRanker(60), WeightedRanker(0.6, 0.4)], ids=["rrf", "weighted"])
    def test_hybrid_with_rerank(self, client, functions, real, question, answer, ranker):
        requests = [
            AnnSearchRequest(function.encode_queries([question]), field, {"metric_type": "IP"}, limit=5)
            for function, field in zip(functions, ["dense", "sparse"], strict=True)
        ]
        hits = client.hybrid_search("notes", requests, ranker=ranker, limit=4, output_fields=["text"])
        found = texts_of(hits)
        assert answer in found
        best = ColbertRerankFunction(**real)(question, found, top_k=2)
        assert best[0].text == answer
        assert len(best) == 2


# -- the host ---------------------------------------------------------------------------------------------------------


def test_without_the_host():
    code = "import sys; sys.modules['pymilvus'] = None; import fastrank.integrations.milvus"
    done = run_python("-c", code)
    assert done.stderr.endswith("(in a checkout: pip install '.[milvus]')\n")
