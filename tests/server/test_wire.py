"""Requests as clients write them -> calls; results -> answers; errors in the words of each family."""

import base64
import math
import re

import numpy as np
import pytest
from server import toy

from fastrank.server.wire import calls, dialects, errors, numbers, routes
from fastrank.server.wire.dialects import OLLAMA, SUPERSET, TEI
from fastrank.server.wire.errors import ApiError, Kind
from fastrank.server.wire.fields import Limits, Request

DOCUMENTS = ["BM25 ranks documents", "Paris is the capital of France", "dogs bark at night"]
RERANK = {"query": "capital of France", "documents": DOCUMENTS}


def read(path, body, **options):
    return routes.reader(path)(Request(path, body, **options))


def call(path, body, **options):
    return read(path, body, **options).call


def answer(path, body, **options):
    exchange = read(path, body, **options)
    return exchange.answer(None if exchange.call is None else toy.run(exchange.call))


def refused(path, body, **options):
    with pytest.raises(ApiError) as raised:
        read(path, body, **options)
    return raised.value


# -- dialects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "folded"),
    [
        ("/v1/v1/rerank", "/v1/rerank"),
        ("/v1/v2/rerank", "/v2/rerank"),
        ("/v1/api/embed", "/api/embed"),
        ("//v1//embeddings/", "/v1/embeddings"),
        ("", "/"),
        ("/", "/"),
        ("/v1", "/v1"),
    ],
)
def test_paths_are_folded(path, folded):
    assert dialects.fold(path) == folded


@pytest.mark.parametrize(
    ("path", "body", "dialect"),
    [
        ("/api/embed", None, OLLAMA),
        ("/rerank", {"texts": []}, TEI),
        ("/v1/rerank", {"texts": []}, TEI),
        ("/rerank", {"documents": []}, SUPERSET),
        ("/embed", None, TEI),
        ("/", None, TEI),
        ("/v1/embeddings", {"texts": []}, SUPERSET),
        ("/nowhere", None, SUPERSET),
        ("/rerank", ["texts"], SUPERSET),
    ],
)
def test_the_dialect_follows_from_the_path_then_from_the_fields(path, body, dialect):
    assert dialects.of(path, body) is dialect


# -- rerank ---------------------------------------------------------------------------------------------------------


def test_one_list_serves_clients_of_results_and_of_data():
    given = answer("/v1/rerank", RERANK)
    assert given["results"] is given["data"]
    assert [entry["index"] for entry in given["results"]] == [1, 2, 0]
    assert all(entry["score"] == entry["relevance_score"] for entry in given["data"])
    assert given["usage"] == {"total_tokens": 34, "prompt_tokens": 34}


@pytest.mark.parametrize("top", [{"top_n": 2}, {"top_k": 2}, {"top_n": 2.0}])
def test_top_n_and_top_k_limit_the_ranking_in_every_dialect(top):
    assert len(answer("/v1/rerank", {**RERANK, **top})["results"]) == 2
    assert len(answer("/rerank", {"query": "q", "texts": DOCUMENTS, **top})) == 2
    body = {"query": {"text": "q"}, "passages": [{"text": text} for text in DOCUMENTS], **top}
    assert len(answer("/v1/ranking", body)["rankings"]) == 2


@pytest.mark.parametrize("top", [None, 0, -1, 99])
def test_no_top_n_or_one_that_makes_no_sense_means_all(top):
    assert len(answer("/v1/rerank", {**RERANK, "top_n": top})["results"]) == 3


def test_ties_stay_in_the_order_given():
    given = answer("/v2/rerank", {"query": "q", "documents": ["b", "a", "c"]})
    assert [entry["index"] for entry in given["results"]] == [0, 1, 2]


def test_documents_are_shown_by_default_on_v1_only():
    assert answer("/v1/rerank", RERANK)["results"][0]["document"] == {"text": DOCUMENTS[1]}
    for path in ("/v2/rerank", "/rerank"):
        assert "document" not in answer(path, RERANK)["results"][0]


@pytest.mark.parametrize("wish", [True, 1, "true", "True"])
def test_documents_are_shown_when_asked_for(wish):
    assert answer("/v2/rerank", {**RERANK, "return_documents": wish})["results"][0]["document"]["text"] == DOCUMENTS[1]


@pytest.mark.parametrize("wish", [False, 0, "false"])
def test_documents_are_left_out_when_not_wanted(wish):
    assert "document" not in answer("/v1/rerank", {**RERANK, "return_documents": wish})["results"][0]


def test_voyage_gets_strings_and_only_when_it_asks():
    body = {**RERANK, "top_k": None, "truncation": True}
    assert "document" not in answer("/v1/rerank", body)["results"][0]
    assert answer("/v1/rerank", {**body, "return_documents": True})["results"][0]["document"] == DOCUMENTS[1]


def test_litellm_gets_no_documents_on_the_bare_path():
    body = {**RERANK, "return_documents": True}
    assert "document" not in answer("/rerank", body, agent="litellm/1.110.2")["results"][0]
    assert "document" in answer("/rerank", body, agent="python-httpx/0.28")["results"][0]


def test_an_object_that_came_is_returned_whole():
    documents = [{"text": "a", "id": 7}, "b"]
    given = answer("/v1/rerank", {"query": "q", "documents": documents})["results"]
    assert [entry["document"] for entry in given] == [{"text": "a", "id": 7}, {"text": "b"}]


def test_rank_fields_are_read_as_lines():
    document = {"title": "Bees", "body": "They fly.", "id": 3}
    made = call("/v1/rerank", {"query": "q", "documents": [document], "rank_fields": ["title", "body", "none"]})
    assert made.pairs == [("q", "title: Bees\nbody: They fly.")]


def test_raw_scores_are_logits_and_the_default_is_in_0_to_1():
    raw = [entry["score"] for entry in answer("/rerank", {**RERANK, "raw_scores": True})["results"]]
    assert raw == [2.0, -0.5, -1.75]
    assert [e["score"] for e in answer("/v1/rerank", {**RERANK, "use_activation": False})["results"]] == raw
    assert all(0 <= entry["score"] <= 1 for entry in answer("/rerank", RERANK)["results"])


def test_nvidia_gets_raw_scores_on_its_paths_and_by_its_field():
    body = {"query": {"text": "q"}, "passages": [{"text": text} for text in DOCUMENTS], "truncate": "END"}
    for path in ("/v1/ranking", "/v1/retrieval/some-model/reranking", "/v1/rerank"):
        assert answer(path, body)["rankings"][0] == {"index": 1, "logit": 2.0}


def test_the_object_is_rerank_only_on_the_bare_path():
    assert answer("/rerank", RERANK)["object"] == "rerank"
    assert answer("/v1/rerank", RERANK)["object"] == "list"


def test_max_tokens_per_doc_is_passed_on():
    assert call("/v2/rerank", {**RERANK, "max_tokens_per_doc": 8}).max_document_tokens == 8
    assert call("/v2/rerank", {**RERANK, "max_tokens_per_doc": None}).max_document_tokens is None
    assert refused("/v2/rerank", {**RERANK, "max_tokens_per_doc": 0}).param == "max_tokens_per_doc"


@pytest.mark.parametrize(
    ("told", "truncate"),
    [
        ({}, None),
        ({"truncation": False}, False),
        ({"truncation": True}, True),
        ({"truncate": "NONE"}, False),
        ({"truncate": "END"}, True),
        ({"truncate": False}, False),
        ({"truncate_prompt_tokens": 100}, True),
        ({"truncation": None}, None),
    ],
)
def test_truncation_is_read_in_every_familys_words(told, truncate):
    assert call("/v1/rerank", {**RERANK, **told}).truncate is truncate


def test_scores_of_pairs_come_in_the_order_given():
    given = answer("/score", {"text_1": "q", "text_2": DOCUMENTS})
    assert [entry["score"] for entry in given["data"]] == pytest.approx([0.148047, 0.880797, 0.377541], abs=1e-6)
    assert call("/score", {"queries": ["a", "b"], "documents": ["c", "d"]}).pairs == [("a", "c"), ("b", "d")]
    assert call("/score", {"text_1": "a", "text_2": "b"}).pairs == [("a", "b")]
    assert refused("/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}).kind is Kind.INVALID


# -- embeddings -----------------------------------------------------------------------------------------------------


def test_base64_is_little_endian_float32():
    given = answer("/v1/embeddings", {"input": "x", "encoding_format": "base64"})["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(given), "<f4").tolist() == toy.vector("x").tolist()


@pytest.mark.parametrize(
    ("field", "value", "role"),
    [
        ("input_type", "query", "query"),
        ("input_type", "search_document", "passage"),
        ("input_type", "clustering", None),
        ("input_type", None, None),
        ("task", "retrieval.query", "query"),
        ("task", "retrieval.passage", "passage"),
        ("prompt_name", "query", "query"),
    ],
)
def test_query_and_passage_in_every_familys_words(field, value, role):
    assert call("/v1/embeddings", {"input": "x", field: value}).role == role


def test_jinas_objects_and_single_texts_are_read():
    assert call("/v1/embeddings", {"input": [{"text": "a"}, "b"]}).texts == ["a", "b"]
    assert call("/v1/embeddings", {"input": "a"}).texts == ["a"]
    assert call("/v1/embeddings", {"input": ""}).texts == [""]


@pytest.mark.parametrize("body", [{"output_dtype": "int8"}, {"embedding_type": "int8"}, {"embedding_type": ["int8"]}])
def test_small_integers_in_every_familys_words(body):
    row = answer("/v1/embeddings", {"input": "x", **body})["data"][0]["embedding"]
    assert row.dtype == np.int8
    assert row.tolist() == np.rint(toy.vector("x") * 127).tolist()


def test_token_ids_are_decoded_where_that_is_possible():
    assert call("/v1/embeddings", {"input": [[1, 2], [3]]}, decode=str).texts == ["[1, 2]", "[3]"]
    assert call("/v1/embeddings", {"input": [1, 2]}, decode=str).texts == ["[1, 2]"]
    assert "check_embedding_ctx_length=False" in refused("/v1/embeddings", {"input": [[1, 2]]}).message


def test_late_chunking_prompts_and_chunks_are_read():
    assert call("/v1/embeddings", {"input": ["x", "y"], "late_chunking": True}).one_document
    assert not call("/v1/embeddings", {"input": "x", "late_chunking": False}).one_document
    assert call("/v1/embeddings", {"input": "x", "prompt": "query: "}).prompt == "query: "
    chunks = call("/v1/embeddings", {"input": "x", "overflow": "chunk", "chunk_size": 9, "chunk_overlap": 2}).chunks
    assert (chunks.size, chunks.overlap, chunks.most) == (9, 2, None)
    reranked = {"query": "q", "documents": ["d"]}
    assert call("/v1/rerank", {**reranked, "max_chunks_per_doc": 3}).chunks.most == 3
    assert call("/v1/rerank", reranked).chunks is None
    assert call("/v1/rerank", {**reranked, "overflow": "truncate", "max_chunks_per_doc": 3}).chunks is None
    assert call("/v1/rerank", {**reranked, "overflow": "error"}).truncate is False
    for change, field in (
        ({"overflow": "cut"}, "overflow"),
        ({"max_chunks_per_doc": 0}, "max_chunks_per_doc"),
        ({"overflow": "chunk", "chunk_size": 0}, "chunk_size"),
        ({"overflow": "chunk", "chunk_size": 4, "chunk_overlap": 4}, "chunk_overlap"),
    ):
        assert refused("/v1/rerank", {**reranked, **change}).param == field


def test_cohere_v2_reads_contents_and_refuses_images():
    inputs = [{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert call("/v2/embed", {"inputs": inputs}).texts == ["a\nb"]
    image = [{"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
    assert refused("/v2/embed", {"inputs": image}).param == "inputs"


def test_cohere_gives_every_type_that_is_asked_for():
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    given = answer("/v1/embed", {"texts": ["x"], "embedding_types": kinds})["embeddings"]
    assert list(given) == kinds
    assert given["ubinary"][0].tolist() == [int(np.packbits(toy.vector("x") > 0)[0])]
    assert given["binary"][0].tolist() == [int(np.packbits(toy.vector("x") > 0)[0]) - 128]
    assert given["uint8"][0].tolist() == (given["int8"][0].astype(int) + 128).tolist()


@pytest.mark.parametrize(("told", "side"), [("START", "left"), ("END", "right"), (None, "right")])
def test_cohere_cuts_at_the_start_when_told(told, side):
    assert call("/v2/embed", {"texts": ["x"], "truncate": told}).side == side


def test_tei_normalizes_unless_told():
    assert call("/embed", {"inputs": "x"}).normalize is True
    assert call("/embed", {"inputs": "x", "normalize": False}).normalize is False


def test_predict_tells_one_pair_from_many():
    assert answer("/predict", {"inputs": ["q", DOCUMENTS[1]]})[0]["score"] == pytest.approx(0.880797, abs=1e-6)
    many = answer("/predict", {"inputs": [["q", DOCUMENTS[1]], ["q", "x"]], "raw_scores": True})
    assert [row[0]["score"] for row in many] == [2.0, 0.0]
    assert call("/predict", {"inputs": "alone"}).pairs == ["alone"]
    assert refused("/predict", {"inputs": [["a", "b", "c"]]}).param == "inputs"


def test_similarity_is_the_cosine_wherever_it_is_asked_for():
    body = {"inputs": {"source_sentence": "capital of France", "sentences": DOCUMENTS}, "parameters": {}}
    expected = [float(toy.vector("capital of France") @ toy.vector(text)) for text in DOCUMENTS]
    for path in ("/similarity", "/", "/invocations"):
        assert answer(path, body) == pytest.approx(expected, abs=1e-6)


def test_ollama_gives_nothing_for_nothing():
    assert answer("/api/embed", {"model": "m", "input": ""})["embeddings"] == []
    assert answer("/api/embed", {"model": "m"})["embeddings"] == []
    assert answer("/api/embeddings", {"model": "m", "prompt": ""}) == {"embedding": []}


# -- numbers --------------------------------------------------------------------------------------------------------


def test_fewer_dimensions_are_cut_and_normalised_again():
    row = numbers.fitted(np.array([[3, 4, 12]], np.float32), 2, None)
    assert row.tolist() == pytest.approx(np.array([[0.6, 0.8]]))


def test_more_dimensions_are_zeros_under_an_alias_and_refused_otherwise():
    rows = np.ones((2, 3), np.float32)
    assert numbers.fitted(rows, 5, 8).tolist() == [[1, 1, 1, 0, 0]] * 2
    assert numbers.fitted(rows, None, 8) is rows
    for wanted in (4, 0, -1):
        with pytest.raises(ApiError, match="from 1 to 3") as raised:
            numbers.fitted(rows, wanted, None)
        assert raised.value.param == "dimensions"


def test_a_vector_of_zeros_stays_one():
    assert numbers.normalized(np.zeros((1, 2), np.float32)).tolist() == [[0, 0]]


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "kind", "message"),
    [
        ("/v1/rerank", {"documents": ["a"]}, Kind.FIELD, "query is missing"),
        ("/v1/rerank", {"query": "q"}, Kind.FIELD, "documents is missing"),
        ("/v1/rerank", {"query": "q", "documents": None}, Kind.FIELD, "documents is missing"),
        ("/v1/rerank", {"query": "q", "documents": []}, Kind.EMPTY, "documents must not be empty"),
        ("/v1/rerank", {"query": "  ", "documents": ["a"]}, Kind.EMPTY, "query must not be empty"),
        ("/v1/rerank", {"query": 3, "documents": ["a"]}, Kind.FIELD, "query must be a string, got int"),
        ("/v1/rerank", {"query": "q", "documents": "a"}, Kind.FIELD, "documents must be an array, got string"),
        (
            "/v1/rerank",
            {"query": "q", "documents": ["a", "b", "c", 5]},
            Kind.FIELD,
            r"documents\[3\] must be a string, got int",
        ),
        ("/v1/rerank", {"query": "q", "documents": ["a", None]}, Kind.FIELD, r"documents\[1\] must be .* got null"),
        ("/v1/rerank", {"query": "q", "documents": [{"title": "a"}]}, Kind.FIELD, r"documents\[0\] has no field"),
        ("/v1/rerank", {**RERANK, "top_n": "five"}, Kind.FIELD, "top_n must be an integer, got string"),
        ("/v1/rerank", {**RERANK, "top_n": True}, Kind.FIELD, "top_n must be an integer, got boolean"),
        ("/v1/rerank", {**RERANK, "return_documents": "maybe"}, Kind.FIELD, "return_documents must be true or false"),
        ("/rerank", {"query": "q", "texts": []}, Kind.EMPTY, "texts must not be empty"),
        ("/rerank", {"query": "q", "texts": [1]}, Kind.FIELD, r"texts\[0\] must be a string"),
        ("/v1/ranking", {"query": {"text": "q"}, "passages": [{}]}, Kind.FIELD, r"passages\[0\] has no field"),
        ("/v1/embeddings", {}, Kind.FIELD, "input is missing"),
        ("/v1/embeddings", {"input": []}, Kind.EMPTY, "input must not be empty"),
        ("/v1/embeddings", {"input": 5}, Kind.FIELD, "input must be a string or an array"),
        ("/v1/embeddings", {"input": ["a", 1]}, Kind.FIELD, r"input\[1\] must be a string, got int"),
        ("/v1/embeddings", {"input": [[1, "a"]]}, Kind.FIELD, r"input\[0\] must be a string, got array"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, Kind.INVALID, "encoding_format must be one of"),
        ("/v1/embeddings", {"input": "a", "dimensions": "all"}, Kind.FIELD, "dimensions must be an integer"),
        ("/v1/embeddings", {"input": "a", "model": 3}, Kind.FIELD, "model must be a string"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["int4"]}, Kind.INVALID, "embedding_types must be of"),
        ("/v1/embed", {}, Kind.FIELD, "texts is missing"),
        ("/embed", {}, Kind.FIELD, "inputs is missing"),
        ("/embed", {"inputs": [1, 2]}, Kind.FIELD, r"inputs\[0\] must be a string"),
        ("/similarity", {"inputs": {"sentences": ["a"]}}, Kind.FIELD, "source_sentence is missing"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, Kind.FIELD, "sentences is missing"),
        ("/similarity", {"inputs": "a"}, Kind.FIELD, "inputs must be an object"),
        ("/api/embed", {"input": [1]}, Kind.FIELD, r"input\[0\] must be a string"),
    ],
)
def test_errors_name_the_field(path, body, kind, message):
    error = refused(path, body)
    assert error.kind is kind
    assert re.search(message, error.message), error.message
    assert error.param
    assert error.message.startswith(error.param) or error.param in error.message


def test_too_many_texts_say_the_limit_and_the_flag():
    error = refused("/v1/embeddings", {"input": ["a"] * 4}, limits=Limits(inputs=3))
    assert error.kind is Kind.TOO_MANY
    assert "4 items" in error.message
    assert "--max-inputs" in error.message
    assert (error.status(SUPERSET), error.status(TEI)) == (400, 422)
    assert refused("/rerank", {"query": "q", "texts": ["a"] * 4}, limits=Limits(inputs=3)).kind is Kind.TOO_MANY
    assert refused("/v1/embeddings", {"input": [[1]] * 4}, limits=Limits(inputs=3), decode=str).kind is Kind.TOO_MANY


def test_a_lone_surrogate_becomes_the_replacement_character():
    assert call("/v1/embeddings", {"input": "a\ud800"}).texts == ["a\ufffd"]


def test_unknown_fields_and_nulls_are_ignored():
    body = {**RERANK, "top_n": None, "rank_fields": None, "return_documents": None, "user": "me", "priority": 3}
    assert len(answer("/v1/rerank", body)["results"]) == 3


def test_every_error_body_has_the_key_that_its_clients_read():
    error = ApiError(Kind.FIELD, "documents is missing", "documents")
    superset = errors.body(error, SUPERSET)
    assert superset["error"]["message"] == superset["message"] == superset["detail"] == "documents is missing"
    assert superset["error"]["param"] == "documents"
    assert superset["error"]["type"] == "invalid_request_error"
    tei = errors.body(error, TEI)
    assert tei["error"] == tei["message"] == "documents is missing"
    assert tei["error_type"] == "Validation"
    assert errors.body(error, OLLAMA)["error"] == "documents is missing"


@pytest.mark.parametrize(
    ("kind", "status", "tei"),
    [
        (Kind.EMPTY, 400, 400),
        (Kind.TOO_LONG, 400, 422),
        (Kind.WRONG_TASK, 400, 424),
        (Kind.NOT_FINITE, 500, 424),
        (Kind.OVERLOADED, 429, 429),
        (Kind.UNAVAILABLE, 503, 503),
    ],
)
def test_statuses_of_errors(kind, status, tei):
    error = ApiError(kind, "why")
    assert (error.status(SUPERSET), error.status(TEI), error.status(OLLAMA)) == (status, tei, status)


def test_toy_scores_are_the_recorded_ones():
    values = toy.run(calls.Score(None, [("capital of France", DOCUMENTS[1])])).values
    assert math.isclose(values[0], 0.880797, abs_tol=1e-6)
