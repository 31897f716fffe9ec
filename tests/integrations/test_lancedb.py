"""LanceDB on disk with rerankers and embedding functions of fastrank.

Tiny models with random weights show the wiring alone. Which document should be first is asked of the real
all-MiniLM-L6-v2: its dense vectors, and MaxSim of its token vectors.
"""

import asyncio
import inspect
import json

import numpy as np
import pytest
from support import tiny_models
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, PART, PART_ANSWER, QUESTION

lancedb = host("lancedb")
import pyarrow as pa  # noqa: E402
from lancedb.embeddings import EmbeddingFunctionConfig, get_registry  # noqa: E402
from lancedb.index import FTS  # noqa: E402
from lancedb.pydantic import LanceModel, MultiVector, Vector  # noqa: E402
from lancedb.query import BooleanQuery, BoostQuery, MatchQuery, MultiMatchQuery, Occur, PhraseQuery  # noqa: E402

from fastrank import LateInteractionTextEmbedding, ModelSource, TextCrossEncoder, TextEmbedding  # noqa: E402
from fastrank.engine import shared  # noqa: E402
from fastrank.errors import ModelNotCachedError, ModelNotFoundError  # noqa: E402
from fastrank.integrations.lancedb import ColbertReranker, CrossEncoderReranker  # noqa: E402

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", None, "fast red cats", "paris is the capital of france", "how fast"]


def index_texts(table, column="text"):
    if "config" in inspect.signature(table.create_index).parameters:
        table.create_index(column, config=FTS())
    else:
        table.create_fts_index(column, use_tantivy=False)


def created(name, arguments, **more):
    """An embedding function of the registry, made as LanceDB's own are."""
    folder = arguments["specific_model_path"]
    return get_registry().get(name).create(name=arguments["model_name"], specific_model_path=folder, **more)


@pytest.fixture
def db(tmp_path):
    return lancedb.connect(tmp_path / "db")


@pytest.fixture
def table(db):
    """Texts, one of them null, with vectors by hand and a full-text index."""
    rows = [{"id": number, "text": text, "vector": [float(number), 1.0]} for number, text in enumerate(TEXTS)]
    schema = pa.schema({"id": pa.int64(), "text": pa.string(), "vector": pa.list_(pa.float32(), 2)})
    made = db.create_table("texts", rows, schema=schema)
    index_texts(made)
    return made


@pytest.fixture
def scores(tiny_cross_encoder):
    """Text -> the score that the tiny cross-encoder gives it."""
    with TextCrossEncoder(**tiny_cross_encoder) as model:
        known = [text or "" for text in TEXTS]
        return dict(zip(TEXTS, model.rerank(QUERY, known), strict=True))


def check(result, scores, texts, columns):
    """The rows are those texts in the order of their scores, with these columns of scores."""
    assert [name for name in result.column_names if name.startswith("_")] == columns
    found = result["text"].to_pylist()
    assert found == sorted(texts, key=lambda text: -scores[text])
    np.testing.assert_allclose(result["_relevance_score"].to_pylist(), [scores[text] for text in found], atol=1e-6)
    assert result.schema.field("_relevance_score").type == pa.float32()


# -- rerankers: wiring ------------------------------------------------------------------------------------------------


class TestSearches:
    def test_vector(self, table, tiny_cross_encoder, scores):
        search = table.search([0.0, 1.0]).limit(4)
        found = search.rerank(CrossEncoderReranker(**tiny_cross_encoder), query_string=QUERY).to_arrow()
        check(found, scores, TEXTS[:4], ["_relevance_score"])  # with the null text
        search = table.search([0.0, 1.0]).limit(4)
        reranker = CrossEncoderReranker(**tiny_cross_encoder, return_score="all")
        found = search.rerank(reranker, query_string=QUERY).to_arrow()
        check(found, scores, TEXTS[:4], ["_distance", "_rowid", "_relevance_score"])
        assert found["_distance"].to_pylist() == [number**2 for number in found["id"].to_pylist()]

    def test_full_text(self, table, tiny_cross_encoder):
        search = table.search("fast cat", query_type="fts").limit(9)
        found = search.rerank(CrossEncoderReranker(**tiny_cross_encoder)).to_arrow()
        assert set(found["text"].to_pylist()) >= {"the cat is red", "fast red cats", "how fast"}
        assert found.column_names[-1] == "_relevance_score"
        assert "_score" not in found.column_names
        search = table.search("fast cat", query_type="fts").limit(9)
        every = search.rerank(CrossEncoderReranker(**tiny_cross_encoder, return_score="all")).to_arrow()
        assert every["text"].to_pylist() == found["text"].to_pylist()
        assert {"_score", "_relevance_score"} <= set(every.column_names)
        assert min(every["_score"].to_pylist()) > 0

    @pytest.mark.parametrize("return_score", ["relevance", "all"])
    def test_hybrid(self, table, tiny_cross_encoder, scores, return_score):
        def legs():
            return table.search([0.0, 1.0]).limit(3), table.search(QUERY, query_type="fts").limit(3)

        by_vector, by_text = (leg.with_row_id(True).to_arrow() for leg in legs())
        search = table.search(query_type="hybrid").vector([0.0, 1.0]).text(QUERY).limit(3)
        reranker = CrossEncoderReranker(**tiny_cross_encoder, return_score=return_score)
        found = search.rerank(reranker).to_arrow()
        together = {*by_vector["text"].to_pylist(), *by_text["text"].to_pylist()}
        best = sorted(together, key=lambda text: -scores[text])[:3]
        assert found["text"].to_pylist() == best
        assert found.schema.field("vector").type == pa.list_(pa.float32(), 2)
        extra = {"_distance", "_score"} & set(found.column_names)
        assert extra == (set() if return_score == "relevance" else {"_distance", "_score"})
        if return_score == "all":  # what each search found by itself, null where it did not find the row
            for name, leg in [("_distance", by_vector), ("_score", by_text)]:
                known = dict(zip(leg["text"].to_pylist(), leg[name].to_pylist(), strict=True))
                assert found[name].to_pylist() == pytest.approx([known.get(text) for text in best])

    def test_a_reranked_row_has_the_scores_of_both_searches(self, table, tiny_cross_encoder):
        search = table.search(query_type="hybrid").vector([0.0, 1.0]).text("cat").limit(9)
        found = search.rerank(CrossEncoderReranker(**tiny_cross_encoder, return_score="all")).to_arrow().to_pylist()
        both = next(row for row in found if row["text"] == TEXTS[0])
        assert both["_distance"] == 0
        assert both["_score"] > 0
        assert next(row for row in found if row["text"] == TEXTS[1])["_score"] is None

    def test_text_of_another_column(self, db, tiny_cross_encoder, scores):
        renamed = db.create_table("renamed", [{"body": "one dog", "vector": [0.0, 1.0]}])
        reranker = CrossEncoderReranker(**tiny_cross_encoder, column="body")
        found = renamed.search([0.0, 1.0]).rerank(reranker, query_string=QUERY).to_arrow()
        assert found["_relevance_score"].to_pylist() == pytest.approx([scores["one dog"]], abs=1e-6)

    def test_colbert(self, table, tiny_late):
        with LateInteractionTextEmbedding(**tiny_late) as model:
            scores = dict(zip(TEXTS, model.rerank(QUERY, [text or "" for text in TEXTS]), strict=True))
        search = table.search([0.0, 1.0]).limit(6)
        found = search.rerank(ColbertReranker(**tiny_late), query_string=QUERY).to_arrow()
        check(found, scores, TEXTS, ["_relevance_score"])

    @pytest.mark.usefixtures("table")
    def test_asynchronous_tables(self, tiny_cross_encoder, scores, tmp_path):
        reranker = CrossEncoderReranker(**tiny_cross_encoder)

        async def search():
            opened = await (await lancedb.connect_async(tmp_path / "db")).open_table("texts")
            near = opened.query().nearest_to([0.0, 1.0])
            vector = await near.limit(4).rerank(reranker, query_string=QUERY).to_arrow()
            near = opened.query().nearest_to([0.0, 1.0])
            hybrid = await near.nearest_to_text("cat").limit(9).rerank(reranker).to_arrow()
            return vector, hybrid, await opened.query().nearest_to_text("cat").limit(9).rerank(reranker).to_arrow()

        vector, hybrid, text = asyncio.run(search())
        check(vector, scores, TEXTS[:4], ["_relevance_score"])
        assert hybrid.num_rows == len(TEXTS)
        assert "cat" in text["text"][0].as_py()

    def test_it_has_a_name_in_plans(self, tiny_cross_encoder):
        assert str(CrossEncoderReranker(**tiny_cross_encoder)) == "CrossEncoderReranker(model_name=acme/tiny)"


class TestEmptyResults:
    @pytest.fixture
    def reranker(self):
        return CrossEncoderReranker()  # its model is not on this machine, and is not needed

    @pytest.mark.parametrize("return_score", ["relevance", "all"])
    def test_no_row(self, table, return_score):
        reranker = CrossEncoderReranker(return_score=return_score)
        vector = table.search([0.0, 1.0]).where("id = 99").rerank(reranker, query_string=QUERY).to_arrow()
        text = table.search("zebra", query_type="fts").rerank(reranker).to_arrow()
        hybrid = table.search(query_type="hybrid").vector([0.0, 1.0]).text("zebra").where("id = 99").rerank(reranker)
        for found in (vector, text, hybrid.to_arrow()):
            assert found.num_rows == 0
            assert found.schema.field("_relevance_score").type == pa.float32()
        assert ("_distance" in vector.column_names) == (return_score == "all")

    @pytest.mark.parametrize("return_score", ["relevance", "all"])
    def test_one_of_two_searches_finds_nothing(self, table, tiny_cross_encoder, return_score):
        reranker = CrossEncoderReranker(**tiny_cross_encoder, return_score=return_score)
        search = table.search(query_type="hybrid").vector([0.0, 1.0]).text("zebra").limit(3)
        found = search.rerank(reranker).to_arrow()
        assert sorted(found["id"].to_pylist()) == [0, 1, 2]
        if return_score == "all":
            assert found["_score"].to_pylist() == [None] * 3


class TestQueries:
    @pytest.mark.parametrize(
        "query",
        [
            MatchQuery(QUERY, "text"),
            MultiMatchQuery(QUERY, ["text"]),
            BoostQuery(MatchQuery(QUERY, "text"), MatchQuery("dog", "text")),
            BooleanQuery(
                [
                    (Occur.SHOULD, MatchQuery("how fast is the", "text")),
                    (Occur.MUST, MatchQuery("red cat", "text")),
                    (Occur.MUST, MatchQuery("red cat", "text")),
                    (Occur.MUST_NOT, MatchQuery("dog", "text")),
                ]
            ),
        ],
    )
    def test_words_of_full_text_queries(self, table, tiny_cross_encoder, scores, query):
        found = table.search(query).limit(2).rerank(CrossEncoderReranker(**tiny_cross_encoder)).to_arrow()
        assert found.num_rows
        check(found, scores, found["text"].to_pylist(), ["_relevance_score"])
        search = table.search(query_type="hybrid").vector([0.0, 1.0]).text(query).limit(9)
        check(search.rerank(CrossEncoderReranker(**tiny_cross_encoder)).to_arrow(), scores, TEXTS, ["_relevance_score"])

    def test_phrases(self, table, tiny_cross_encoder):
        reranker = CrossEncoderReranker(**tiny_cross_encoder)
        results = table.search([0.0, 1.0]).to_arrow()
        phrase = reranker.rerank_fts(PhraseQuery("red cat", "text"), results)
        assert phrase.equals(reranker.rerank_fts("red cat", results))

    def test_no_text(self, table):
        with pytest.raises(TypeError, match="needs the query as text, not list"):
            CrossEncoderReranker().rerank_vector([1.0], table.search([0.0, 1.0]).to_arrow())


class TestMultivector:
    def searches(self, table, *, row_ids=True):
        first, second = table.search([0.0, 1.0]).limit(3), table.search([9.0, 1.0]).limit(5)
        return [first.with_row_id(row_ids), second.with_row_id(row_ids)]

    def test_duplicates_go(self, table, tiny_cross_encoder, scores):
        reranker = CrossEncoderReranker(**tiny_cross_encoder)
        found = reranker.rerank_multivector(self.searches(table), QUERY, deduplicate=True)
        check(found, scores, TEXTS, ["_rowid", "_relevance_score"])
        results = [search.to_arrow() for search in self.searches(table)]
        assert reranker.rerank_multivector(results, query=QUERY, deduplicate=True).equals(found)
        assert reranker.rerank_multivector(results, query=QUERY).num_rows == 8

    def test_one_search(self, table, tiny_cross_encoder, scores):
        found = CrossEncoderReranker(**tiny_cross_encoder).rerank_multivector(self.searches(table)[0], QUERY)
        check(found, scores, TEXTS[:3], ["_rowid", "_relevance_score"])

    def test_mistakes(self, table):
        reranker = CrossEncoderReranker()  # no model is needed to find them
        with pytest.raises(ValueError, match="needs the text to score by"):
            reranker.rerank_multivector(self.searches(table), deduplicate=True)
        with pytest.raises(ValueError, match="at least one search"):
            reranker.rerank_multivector([], QUERY)
        with pytest.raises(ValueError, match=r"with_row_id\(True\)"):
            reranker.rerank_multivector(self.searches(table, row_ids=False), QUERY, deduplicate=True)
        with pytest.raises(TypeError, match="not str"):
            reranker.rerank_multivector(["rows"], QUERY)


class TestMistakes:
    def test_texts_go_through_the_gate(self):
        for name in ("fastrank", "fastrank-late"):
            function = get_registry().get(name).create()
            for ask in (function.compute_source_embeddings, function.compute_query_embeddings):
                with pytest.raises(TypeError, match="texts must be a string or an iterable of strings, not dict"):
                    ask({"text": "a"})

    def test_no_such_column(self, table):
        search = table.search([0.0, 1.0]).rerank(CrossEncoderReranker(column="body"), query_string=QUERY)
        with pytest.raises(ValueError, match="no column 'body' to rerank by among id, text, vector, _distance"):
            search.to_arrow()

    @pytest.mark.parametrize("column", ["id", "vector"])
    def test_a_column_of_something_else(self, table, column):
        search = table.search([0.0, 1.0]).rerank(ColbertReranker(column=column), query_string=QUERY)
        with pytest.raises(TypeError, match=f"'{column}' to rerank by holds .*, not strings"):
            search.to_arrow()

    def test_arguments(self):
        with pytest.raises(ValueError, match="'relevance' or 'all'"):
            CrossEncoderReranker(return_score="score")
        with pytest.raises(ModelNotFoundError, match="acme/none"):
            ColbertReranker("acme/none")
        with pytest.raises(TypeError, match="max_lenght"):
            CrossEncoderReranker(max_lenght=10)
        with pytest.raises(ValueError, match="'mps'"):
            CrossEncoderReranker(device="mps")

    def test_offline(self, table, monkeypatch):
        monkeypatch.setenv("FASTRANK_OFFLINE", "1")
        search = table.search([0.0, 1.0]).rerank(CrossEncoderReranker(), query_string=QUERY)
        with pytest.raises(ModelNotCachedError, match="cross-encoder/ms-marco-TinyBERT-L-6 is not in") as error:
            search.to_arrow()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_columns_that_hold_strings(kind, tiny_cross_encoder, scores):
    results = pa.table({"text": pa.array(TEXTS).cast(kind)})
    found = CrossEncoderReranker(**tiny_cross_encoder).rerank_fts(QUERY, results)
    assert found["text"].to_pylist() == sorted(TEXTS, key=lambda text: -scores[text])


def test_only_nulls(tiny_cross_encoder):
    results = pa.table({"text": pa.nulls(2)})
    assert CrossEncoderReranker(**tiny_cross_encoder).rerank_fts(QUERY, results).num_rows == 2


# -- embedding functions: wiring --------------------------------------------------------------------------------------


class TestDense:
    @pytest.fixture
    def function(self, tiny_dense):
        return created("fastrank", tiny_dense)

    @pytest.fixture
    def schema(self, function):
        class Row(LanceModel):
            text: str | None = function.SourceField()
            vector: Vector(function.ndims()) = function.VectorField()

        return Row

    def test_vectors_are_fastranks(self, db, schema, tiny_dense):
        table = db.create_table("t", schema=schema)
        table.add([{"text": text} for text in TEXTS], on_bad_vectors="null")
        known = [text for text in TEXTS if text]
        with TextEmbedding(**tiny_dense) as model:
            passages, query = np.stack(list(model.passage_embed(known))), next(model.query_embed(QUERY))
        rows = table.to_arrow().to_pylist()
        assert [row["text"] for row in rows if row["vector"] is None] == [None]
        np.testing.assert_allclose([row["vector"] for row in rows if row["text"]], passages, atol=1e-6)
        found = table.search(QUERY).limit(5).to_arrow()
        expected = np.square(passages - query).sum(axis=1)
        np.testing.assert_allclose(found["_distance"].to_pylist(), np.sort(expected), atol=1e-5)

    def test_one_model_serves_many_instances(self, db, schema, tiny_dense):
        table = db.create_table("t", [{"text": "one"}], schema=schema)
        table.add([{"text": "two"}])
        db.open_table("t").search("two").limit(1).to_arrow()
        assert created("fastrank", tiny_dense)._model() is created("fastrank", tiny_dense)._model()
        assert len(shared._models) == 1

    def test_a_table_opened_again(self, db, schema, tmp_path):
        db.create_table("t", [{"text": "one dog"}], schema=schema)
        again = lancedb.connect(tmp_path / "db").open_table("t")
        again.add([{"text": "hello world"}])
        assert again.search("hello world").to_arrow()["text"].to_pylist() == ["hello world", "one dog"]
        stored = json.loads(again.schema.metadata[b"embedding_functions"])[0]
        assert (stored["name"], stored["model"]["name"]) == ("fastrank", "acme/tiny")

    def test_hybrid_search_by_text_with_rerank(self, db, schema, tmp_path):
        table = db.create_table("t", [{"text": text} for text in TEXTS if text], schema=schema)
        index_texts(table)
        TextCrossEncoder.add_custom_model("acme/cross", ModelSource(hf="acme/cross"), max_length=64)
        folder = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
        reranker = CrossEncoderReranker("acme/cross", specific_model_path=folder)
        found = table.search(QUERY, query_type="hybrid").limit(3).rerank(reranker).to_arrow()
        assert found.num_rows == 3
        assert found["_relevance_score"].to_pylist() == sorted(found["_relevance_score"].to_pylist(), reverse=True)

    def test_asynchronous_tables(self, db, schema, tmp_path):
        db.create_table("t", schema=schema)

        async def search():
            opened = await (await lancedb.connect_async(tmp_path / "db")).open_table("t")
            await opened.add([{"text": text} for text in TEXTS if text])
            return await (await opened.search("one dog")).limit(1).to_arrow()

        assert asyncio.run(search())["text"].to_pylist() == ["one dog"]

    def test_arguments(self, function):
        assert function.max_retries == 0
        assert function == created("fastrank", {"model_name": function.name, **vars(function)})
        with pytest.raises(ValueError, match="batchsize"):
            get_registry().get("fastrank").create(name="acme/tiny", batchsize=3)
        with pytest.raises(ModelNotFoundError, match="acme/none"):
            get_registry().get("fastrank").create(name="acme/none").ndims()


class TestLate:
    @pytest.fixture
    def table(self, db, tiny_late):
        function = created("fastrank-late", tiny_late)

        class Row(LanceModel):
            text: str | None = function.SourceField()
            tokens: MultiVector(function.ndims()) = function.VectorField()

        table = db.create_table("t", schema=Row)
        table.add([{"text": text} for text in TEXTS])
        return table

    def test_vectors_are_fastranks(self, table, tiny_late):
        with LateInteractionTextEmbedding(**tiny_late) as model:
            for row in table.to_arrow().to_pylist():
                if row["text"] is None:
                    assert row["tokens"] is None
                else:
                    np.testing.assert_allclose(row["tokens"], next(model.passage_embed(row["text"])), atol=1e-6)

    @pytest.mark.parametrize("opened", ["kept", "again"])
    def test_search_is_by_maxsim(self, table, tiny_late, opened, tmp_path):
        table = table if opened == "kept" else lancedb.connect(tmp_path / "db").open_table("t")
        found = table.search(QUERY).distance_type("cosine").limit(9).to_arrow()["text"].to_pylist()
        known = [text for text in TEXTS if text]
        with LateInteractionTextEmbedding(**tiny_late) as model:
            scores = dict(zip(known, model.rerank(QUERY, known), strict=True))
        assert [text for text in found if text] == sorted(known, key=lambda text: -scores[text])  # old ones list nulls

    def test_the_size_of_a_token(self, tiny_late):
        function = created("fastrank-late", tiny_late)
        assert int(function.ndims()) == tiny_models.DIM


class TestEmbeddingMistakes:
    NAME = "BAAI/bge-small-en-v1.5"  # a model that is not on this machine

    @pytest.fixture(autouse=True)
    def _offline(self, monkeypatch):
        monkeypatch.setenv("FASTRANK_OFFLINE", "1")

    @pytest.mark.parametrize(("name", "model"), [("fastrank", NAME), ("fastrank-late", "colbert-ir/colbertv2.0")])
    def test_no_table_is_declared_for_a_model_that_cannot_be_had(self, name, model):
        function = get_registry().get(name).create(name=model)
        with pytest.raises(ModelNotCachedError, match=f"{model} is not in .*, and downloading is off") as error:
            function.VectorField()
        assert "\n" not in str(error.value)

    def test_a_table_that_was_made_elsewhere(self, db):
        """Here LanceDB's writer passes the error on in one of its own, behind its traceback."""
        stored = [
            {"name": "fastrank", "model": {"name": self.NAME}, "source_column": "text", "vector_column": "vector"}
        ]
        schema = pa.schema({"text": pa.string(), "vector": pa.list_(pa.float32(), 384)})
        schema = schema.with_metadata({"embedding_functions": json.dumps(stored)})
        table = db.create_table("t", schema=schema)
        with pytest.raises(Exception, match=f"{self.NAME} is not in .*, and downloading is off"):
            table.add([{"text": "a"}])
        assert table.count_rows() == 0
        with pytest.raises(ModelNotCachedError, match=f"{self.NAME} is not in .*, and downloading is off"):
            table.search("a")

    def test_a_source_column_of_numbers(self, db, tiny_dense):
        function = created("fastrank", tiny_dense)

        class Row(LanceModel):
            number: int = function.SourceField()
            vector: Vector(function.ndims()) = function.VectorField()

        table = db.create_table("t", schema=Row)
        with pytest.raises(Exception, match="acme/tiny embeds texts, and the source column holds int64"):
            table.add([{"number": 3}])
        assert table.count_rows() == 0

    def test_a_column_for_other_vectors(self, db, tiny_dense):
        function = created("fastrank", tiny_dense)

        class Row(LanceModel):
            text: str = function.SourceField()
            vector: Vector(8) = function.VectorField()

        table = db.create_table("t", schema=Row)
        with pytest.raises(Exception, match="16"):
            table.add([{"text": "a"}])
        assert table.count_rows() == 0


# -- the real model ---------------------------------------------------------------------------------------------------


@pytest.mark.real_model
class TestRealModel:
    @pytest.fixture
    def table(self, db, real):
        """Notes with dense vectors, token vectors and a full-text index; one source column for two functions."""
        dense, late = created("fastrank", real), created("fastrank-late", real)

        class Note(LanceModel):
            text: str
            vector: Vector(dense.ndims())
            tokens: MultiVector(late.ndims())

        functions = [
            EmbeddingFunctionConfig(vector_column=column, source_column="text", function=function)
            for column, function in [("vector", dense), ("tokens", late)]
        ]
        table = db.create_table("notes", schema=Note, embedding_functions=functions)
        table.add([{"text": note} for note in NOTES])
        index_texts(table)
        return table

    def test_dense(self, table):
        assert table.search(QUESTION, "vector").limit(1).to_list()[0]["text"] == ANSWER

    def test_maxsim_column(self, table):
        found = table.search(QUESTION, "tokens").distance_type("cosine").limit(1).to_list()
        assert found[0]["text"] == ANSWER

    @pytest.mark.parametrize(("question", "answer"), [(QUESTION, ANSWER), (PART, PART_ANSWER)], ids=["sense", "word"])
    @pytest.mark.parametrize("return_score", ["relevance", "all"])
    def test_hybrid_with_maxsim_rerank(self, table, real, question, answer, return_score):
        search = table.search(question, "vector", query_type="hybrid").limit(5)
        assert search.rerank(ColbertReranker(**real, return_score=return_score)).to_list()[0]["text"] == answer

    def test_two_searches_together(self, table, real):
        searches = [
            table.search(QUESTION, "vector").with_row_id(True).limit(4),
            table.search(QUESTION, "tokens").distance_type("cosine").with_row_id(True).limit(4),
        ]
        found = ColbertReranker(**real).rerank_multivector(searches, QUESTION, deduplicate=True)
        assert found["text"][0].as_py() == ANSWER
        assert len(set(found["text"].to_pylist())) == found.num_rows


# -- the host ---------------------------------------------------------------------------------------------------------


def test_the_host_is_imported_with_the_module_alone():
    code = "import sys, fastrank, fastrank.integrations; assert not {'lancedb', 'pyarrow', 'numpy'} & set(sys.modules)"
    run_python("-c", code, check=True)


def test_without_the_host():
    code = "import sys; sys.modules['lancedb'] = None; import fastrank.integrations.lancedb"
    done = run_python("-c", code)
    assert done.stderr.endswith("(in a checkout: pip install '.[lancedb]')\n")
