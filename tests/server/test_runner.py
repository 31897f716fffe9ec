"""A server with small models of every task: its results are the library's, and each call means what it says."""

import base64
import contextlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from server.live import serving, wait_for
from support import tiny_models

import fastrank
from fastrank.maxsim import maxsim
from fastrank.server import start
from fastrank.server.app import Application
from fastrank.server.metrics import Metrics
from fastrank.server.runner import ModelRunner
from fastrank.server.settings import Settings

FIXTURES = Path(__file__).parents[1] / "fixtures"
REAL = "sentence-transformers/all-MiniLM-L6-v2"
DENSE, RERANK = FIXTURES / "sentence_encoder", FIXTURES / "pair_classifier"
SPARSE, LATE = FIXTURES / "sparse_encoder", FIXTURES / "late_interaction" / "pylate_bert"
TEXTS = ["a red cat", "what is the capital of france", "it", "where is berlin, and how fast is the dog " * 3]
LONG = "the quick brown fox jumps over the lazy dog " * 200


@pytest.fixture(scope="module")
def library():
    """The same models, in the library."""
    models = {
        "dense": fastrank.TextEmbedding("any/dense", specific_model_path=DENSE),
        "rerank": fastrank.TextCrossEncoder("any/rerank", specific_model_path=RERANK, truncation="only_second"),
        "sparse": fastrank.SparseTextEmbedding("any/sparse", specific_model_path=SPARSE),
        "late": fastrank.LateInteractionTextEmbedding("any/late", specific_model_path=LATE),
    }
    yield models
    for model in models.values():
        model.close()


@contextlib.contextmanager
def serve(plan, settings=None):
    catalog = start.catalog(plan)
    metrics = Metrics()
    settings = settings or Settings()
    runner = ModelRunner(catalog, settings, metrics)
    runner.load()
    with serving(Application(settings, catalog, runner, metrics), runner) as live:
        yield live
    runner.close()


@pytest.fixture(scope="module")
def live():
    models = [f"rerank:{RERANK}", f"dense:{DENSE}", f"sparse:{SPARSE}", f"late:{LATE}"]
    with serve(start.Plan(models, aliases=["padded=sentence_encoder:64"], alias_hosted=True)) as found:
        yield found


def pipeline(live, task):
    """The pipeline for documents of the server's model of a task."""
    return live.runner._catalog.find(None, [task]).model.get().load().documents


def ask(live, path, **body):
    status, headers, answer = live.post(path, body)
    assert status == 200, answer
    return answer, headers


def test_dense_vectors_are_the_librarys(live, library):
    expected = np.stack(list(library["dense"].embed(TEXTS)))
    answer, headers = ask(live, "/v1/embeddings", input=TEXTS)
    found = np.array([entry["embedding"] for entry in answer["data"]], np.float32)
    assert np.abs(found - expected).max() < 1e-6
    assert answer["usage"]["total_tokens"] == library["dense"].token_count(TEXTS)
    assert headers["x-compute-tokens"] == str(library["dense"].token_count(TEXTS))


def test_queries_and_passages_get_their_prefixes(live, library):
    for role, method in (("query", "query_embed"), ("document", "passage_embed")):
        expected = np.stack(list(getattr(library["dense"], method)(TEXTS)))
        answer, _ = ask(live, "/v1/embeddings", input=TEXTS, input_type=role)
        found = np.array([entry["embedding"] for entry in answer["data"]])
        assert np.abs(found - expected).max() < 1e-6


def test_base64_has_the_bytes_of_the_vector(live):
    floats, _ = ask(live, "/v1/embeddings", input="a red cat")
    encoded, _ = ask(live, "/v1/embeddings", input="a red cat", encoding_format="base64")
    found = np.frombuffer(base64.b64decode(encoded["data"][0]["embedding"]), "<f4")
    assert found.tolist() == np.array(floats["data"][0]["embedding"], np.float32).tolist()


def test_tei_normalizes_or_not(live):
    unit, _ = ask(live, "/embed", inputs=TEXTS)
    raw, _ = ask(live, "/embed", inputs=TEXTS, normalize=False)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).max() > 0.01
    assert np.array(raw) / lengths == pytest.approx(np.array(unit), abs=1e-6)


def test_dimensions_are_cut_filled_up_or_refused(live):
    whole = ask(live, "/v1/embeddings", input="it")[0]["data"][0]["embedding"]
    cut = ask(live, "/v1/embeddings", input="it", dimensions=4)[0]["data"][0]["embedding"]
    assert cut == pytest.approx(np.array(whole[:4]) / np.linalg.norm(whole[:4]), abs=1e-6)
    padded = ask(live, "/v1/embeddings", input="it", model="padded")[0]["data"][0]["embedding"]
    assert padded == [*whole, *[0] * (64 - len(whole))]
    hosted = ask(live, "/v1/embeddings", input="it", model="voyage-3-lite", output_dimension=512)[0]
    assert len(hosted["data"][0]["embedding"]) == 512
    assert len(ask(live, "/v1/embeddings", input="it", model="voyage-3-lite")[0]["data"][0]["embedding"]) == len(whole)
    status, _, answer = live.post("/v1/embeddings", {"input": "it", "dimensions": 512})
    assert status == 400
    assert answer["error"]["param"] == "dimensions"


def test_rerank_scores_are_the_librarys(live, library):
    expected = np.array(list(library["rerank"].rerank("what is it", TEXTS)))
    raw, _ = ask(live, "/rerank", query="what is it", texts=TEXTS, raw_scores=True)
    found = {entry["index"]: entry["score"] for entry in raw}
    assert [found[n] for n in range(4)] == pytest.approx(expected, abs=1e-5)
    ranked, _ = ask(live, "/v1/rerank", query="what is it", documents=TEXTS)
    assert [entry["index"] for entry in ranked["results"]] == np.argsort(-expected, kind="stable").tolist()
    scores = {entry["index"]: entry["relevance_score"] for entry in ranked["results"]}
    assert [scores[n] for n in range(4)] == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-6)
    assert ranked["usage"]["total_tokens"] == library["rerank"].token_count([("what is it", text) for text in TEXTS])


def test_sparse_vectors_are_the_librarys(live, library):
    expected = list(library["sparse"].embed(TEXTS))
    answer, _ = ask(live, "/embed_sparse", inputs=TEXTS)
    for row, vector in zip(answer, expected, strict=True):
        found = {entry["index"]: entry["value"] for entry in row}
        assert found == pytest.approx(vector.as_dict(), abs=1e-6)


def test_token_vectors_are_the_librarys(live, library):
    for role, method in ((None, "embed"), ("query", "query_embed")):
        expected = list(getattr(library["late"], method)(TEXTS))
        answer, _ = ask(live, "/embed_all", inputs=TEXTS, prompt_name=role)
        for rows, vectors in zip(answer, expected, strict=True):
            assert np.abs(np.array(rows) - vectors).max() < 1e-6


def test_a_dense_model_gives_the_states_of_its_tokens():
    with serve(start.Plan([f"dense:{DENSE}"])) as live:
        answer, _ = ask(live, "/embed_all", inputs=["a red cat", "it"])
        tokens = pipeline(live, "dense").tokenize(["a red cat", "it"])
        assert [len(rows) for rows in answer] == [len(each.ids) for each in tokens]


@pytest.mark.parametrize(
    ("method", "task"), [("dense", "dense"), ("colbert", "late"), ("bm25", "sparse"), ("cross-encoder", "rerank")]
)
def test_a_client_may_say_how_to_rank(live, method, task):
    answer, headers = ask(live, "/v1/rerank", query="red cat", documents=TEXTS, method=method)
    names = {
        "dense": "sentence_encoder",
        "late": "pylate_bert",
        "sparse": "sparse_encoder",
        "rerank": "pair_classifier",
    }
    assert headers["x-model"] == names[task]
    assert all(0 <= entry["score"] <= 1 for entry in answer["results"])


def test_cosine_and_maxsim_are_the_librarys(live, library):
    (query,) = library["dense"].query_embed("red cat")
    cosines = [float(query @ vector) for vector in library["dense"].passage_embed(TEXTS)]
    answer, _ = ask(live, "/v1/rerank", query="red cat", documents=TEXTS, method="dense", raw_scores=True)
    assert {e["index"]: e["score"] for e in answer["results"]} == pytest.approx(dict(enumerate(cosines)), abs=1e-6)
    (tokens,) = library["late"].query_embed("red cat")
    expected = maxsim(tokens, list(library["late"].embed(TEXTS)))
    answer, _ = ask(live, "/v1/rerank", query="red cat", documents=TEXTS, method="colbert", raw_scores=True)
    assert {e["index"]: e["score"] for e in answer["results"]} == pytest.approx(
        dict(enumerate(expected.tolist())), abs=1e-5
    )


def test_without_another_sparse_model_there_is_bm25():
    with serve(start.Plan([f"dense:{DENSE}"], rerank_with=["dense"])) as live:
        expected = next(fastrank.SparseTextEmbedding("Qdrant/bm25").embed("hello world")).as_dict()
        answer, headers = ask(live, "/embed_sparse", inputs="hello world")
        assert {entry["index"]: entry["value"] for entry in answer[0]} == pytest.approx(expected)
        assert headers["x-model"] == "Qdrant/bm25"
        ranked, _ = ask(live, "/v1/rerank", query="hello", documents=["no", "hello you"], method="bm25")
        assert [entry["index"] for entry in ranked["results"]] == [1, 0]
        assert ask(live, "/v1/rerank", query="hello", documents=["no", "hello you"])[1]["x-model"] == "sentence_encoder"
        assert [model["id"] for model in live.get("/v1/models")[2]["data"]] == ["sentence_encoder"]


def test_the_heat_map_has_the_tokens_that_have_a_vector(live, library):
    answer, _ = ask(live, "/page/match", query="red cat", document="a red cat, it is.")
    (query,) = library["late"].query_embed("red cat")
    (document,) = library["late"].embed("a red cat, it is.")
    assert np.shape(answer["scores"]) == (len(query), len(document)) == (len(answer["query"]), len(answer["document"]))
    assert np.array(answer["scores"]) == pytest.approx(query @ document.T, abs=1e-5)
    assert "," not in answer["document"]
    assert answer["document"][2:4] == ["a", "red"]


def test_the_heat_map_is_the_librarys_explanation(live, library):
    answer, _ = ask(live, "/page/match", query="red cat", document="a red cat, it is.")
    expected = library["late"].explain("red cat", "a red cat, it is.").as_dict()
    assert answer["document_tokens"] == expected["document_tokens"]
    assert answer["query_tokens"] == expected["query_tokens"]
    assert answer["score"] == pytest.approx(expected["score"], rel=1e-5)
    assert [match["document"] for match in answer["matches"]] == [match["document"] for match in expected["matches"]]


def test_pooled_embeddings_have_no_heat_map(tmp_path):
    folder = shutil.copytree(FIXTURES / "folders" / "multi_vector", tmp_path / "pooled")
    config = folder / "4_HierarchicalTokenPooling" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pool_factor": 2}))
    with serve(start.Plan([f"late:{folder}"])) as live:
        status, _, answer = live.post("/page/match", {"query": "red", "document": "the red cat, is fast and is not"})
        assert status == 400
        assert "they are pooled" in answer["error"]["message"]


def test_tokens_stand_where_they_stand(live):
    (row,), _ = ask(live, "/tokenize", inputs="Red cats")
    for piece in row:
        assert set(piece) == {"id", "text", "special", "start", "stop"}
        assert piece["special"] == (piece["start"] is None)
        if not piece["special"]:
            assert "Red cats"[piece["start"] : piece["stop"]] == piece["text"]
    bare, _ = ask(live, "/tokenize", inputs="Red cats", add_special_tokens=False)
    assert bare[0] == [piece for piece in row if not piece["special"]]


# -- truncation -------------------------------------------------------------------------------------------------------


def test_long_texts_are_cut_counted_and_refused_when_asked(live, library):
    answer, headers = ask(live, "/v1/embeddings", input=[LONG, "it"])
    expected = next(library["dense"].embed(LONG))
    assert np.array(answer["data"][0]["embedding"]) == pytest.approx(expected, abs=1e-6)
    assert headers["x-truncated"] == "1"
    status, _, refused = live.post("/v1/embeddings", {"input": ["it", LONG], "truncation": False})
    assert status == 400
    assert refused["message"].startswith("input[1] has more than ")
    assert live.post("/embed", {"inputs": [LONG], "truncate": False})[0] == 422
    assert live.post("/v2/embed", {"texts": [LONG], "truncate": "NONE"})[0] == 400
    assert live.post("/api/embed", {"input": LONG, "truncate": False})[0] == 400


def test_a_text_of_exactly_the_limit_is_not_called_cut(live):
    pieces, _ = ask(live, "/tokenize", inputs=LONG, model="sentence_encoder", add_special_tokens=False)
    dense = pipeline(live, "dense")
    room = dense.tokenizer.max_length - len(dense.tokenize([""])[0].ids)  # beside special tokens and a prompt
    fits = LONG[: pieces[0][room - 1]["stop"]]
    assert ask(live, "/v1/embeddings", input=fits, truncation=False)[1]["x-truncated"] == "0"
    over = LONG[: pieces[0][room]["stop"]]
    assert live.post("/v1/embeddings", {"input": over, "truncation": False})[0] == 400


def test_the_end_is_kept_when_the_start_is_cut(live):
    end = "paris berlin cat"
    left = ask(live, "/v2/embed", texts=[LONG + end], truncate="START")[0]["embeddings"]["float"][0]
    right = ask(live, "/v2/embed", texts=[LONG + end], truncate="END")[0]["embeddings"]["float"][0]
    same = ask(live, "/v2/embed", texts=["x " * 500 + LONG + end], truncate="START")[0]["embeddings"]["float"][0]
    assert left != right
    assert left == pytest.approx(same, abs=1e-5)


def test_documents_are_cut_to_max_tokens_per_doc_and_the_query_never(live, library):
    answer, _ = ask(live, "/v2/rerank", query="what is it", documents=["a red cat " * 9], max_tokens_per_doc=3)
    pieces, _ = ask(live, "/tokenize", inputs="a red cat " * 9, model="pair_classifier", add_special_tokens=False)
    short = ("a red cat " * 9)[: pieces[0][2]["stop"]]
    (expected,) = library["rerank"].rerank("what is it", [short])
    assert answer["results"][0]["relevance_score"] == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-6)


def test_tokens_and_cuts_of_each_document_are_told_when_asked(live):
    answer, _ = ask(live, "/v1/rerank", query="it", documents=["a cat", LONG], return_tokens=True)
    by_index = {entry["index"]: entry for entry in answer["results"]}
    assert [by_index[n]["truncated"] for n in (0, 1)] == [False, True]
    assert by_index[0]["tokens"] < by_index[1]["tokens"]


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    """A cross-encoder that gives NaN for documents with the word "nan"."""
    return tiny_models.write_model(tmp_path / "broken", tiny_models.tiny_cross_encoder(nan=True))


def test_nan_is_an_error_that_names_the_text(broken):
    with serve(start.Plan([f"rerank:{broken}"])) as live:
        status, _, answer = live.post("/v1/rerank", {"query": "it", "documents": ["cat", "nan", "dog"]})
        assert status == 500
        assert "NaN or infinity for documents[1]" in answer["message"]
        assert live.post("/rerank", {"query": "it", "texts": ["nan"]})[0] == 424
        assert live.post("/v1/rerank", {"query": "it", "documents": ["cat"]})[0] == 200


def test_a_model_that_cannot_be_loaded_says_why_and_others_go_on(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    catalog = start.catalog(start.Plan([f"dense:{DENSE}", f"rerank:{tmp_path / 'broken'}"]))
    runner = ModelRunner(catalog, Settings(), Metrics())
    with serving(Application(Settings(), catalog, runner, Metrics()), runner) as live:
        assert live.get("/ready")[0] == 503
        status, _, answer = live.post("/v1/rerank", {"query": "q", "documents": ["a"]})
        assert status == 503
        assert "broken cannot be loaded" in answer["message"]
        assert live.post("/v1/embeddings", {"input": "cat"})[0] == 200


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (start.Plan(["no-such-model"]), "no-such-model"),
        (start.Plan([f"dense:{DENSE}"], aliases=["x=other"]), "other is not served"),
        (start.Plan([f"dense:{DENSE}"], aliases=["x"]), "write name=model"),
        (start.Plan([f"dense:{DENSE}"], fallback="other"), "other is not served"),
    ],
)
def test_a_plan_that_makes_no_sense_fails_at_once(plan, words):
    with pytest.raises(ValueError, match=words):
        start.catalog(plan)


# -- scheduling -------------------------------------------------------------------------------------------------------


def test_one_request_among_many_gets_the_same_vectors(live, library):
    texts = [f"{word} {n}" for n in range(40) for word in ("cat", "dog and cat", "berlin is red")]
    expected = np.stack(list(library["dense"].embed(texts)))

    def embed(n):
        return ask(live, "/v1/embeddings", input=texts[n])[0]["data"][0]["embedding"]

    with ThreadPoolExecutor(16) as pool:
        found = np.array(list(pool.map(embed, range(len(texts)))))
    assert np.abs(found - expected).max() < 1e-6


def test_more_tokens_than_may_wait_are_refused_before_any_work():
    settings = Settings(max_waiting_tokens=50)
    with serve(start.Plan([f"dense:{DENSE}"]), settings) as live:
        assert live.post("/v1/embeddings", {"input": ["word " * 50] * 4})[0] == 200  # into an empty queue
        held = live.runner.jobs.admitted(40)
        held.__enter__()
        status, headers, answer = live.post("/v1/embeddings", {"input": ["word " * 50]})
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 30
        assert "40 tokens wait" in answer["message"]
        assert live.post("/v1/embeddings", {"input": "it"})[0] == 200
        held.__exit__(None, None, None)
        assert live.post("/v1/embeddings", {"input": ["word " * 50]})[0] == 200
        assert live.runner.jobs.waiting_tokens == 0


def test_a_client_that_leaves_leaves_no_work(live):
    body = json.dumps({"input": ["a red cat is it"] * 2000}).encode()
    connection = live.connect()
    connection.request("POST", "/v1/embeddings", body)
    wait_for(lambda: live.runner.jobs.waiting_tokens > 0)
    connection.close()
    wait_for(lambda: live.runner.jobs.waiting_tokens == 0 and live.runner.jobs.waiting_requests == 0)


def test_a_query_does_not_wait_for_a_large_job():
    with serve(start.Plan([f"dense:{DENSE}"])) as live:
        order = []
        large = threading.Thread(
            target=lambda: order.append(
                (live.post("/v1/embeddings", {"input": ["a red cat is it"] * 2000})[0], "large")
            )
        )
        large.start()
        wait_for(lambda: live.runner.jobs.waiting_tokens > 0)
        for _ in range(5):
            status, _headers, _answer = live.post("/v1/embeddings", {"input": "cat"})
            order.append((status, "query"))
        large.join(60)
        assert [name for _, name in order] == ["query"] * 5 + ["large"]
        assert {status for status, _ in order} == {200}


def test_an_error_of_one_request_is_not_anothers(broken):
    with serve(start.Plan([f"rerank:{broken}"])) as live, ThreadPoolExecutor(16) as pool:
        texts = ["nan" if n % 4 == 0 else "cat" for n in range(64)]
        found = pool.map(lambda text: live.post("/v1/rerank", {"query": "it", "documents": [text]})[0], texts)
        assert list(found) == [500 if text == "nan" else 200 for text in texts]


def test_loading_models_share_the_threads_of_one_scheduler(live):
    schedulers = {id(model.get().load().documents.session.scheduler) for model in live.runner._catalog.models}
    assert len(schedulers) == 1


def test_tei_says_what_the_model_is(live):
    info = live.get("/info")[2]
    assert info["model_id"] == "pair_classifier"
    assert "reranker" in info["model_type"]
    assert [model["task"] for model in info["served_models"]] == ["rerank", "dense", "sparse", "late", "sparse"]


# -- the real model ---------------------------------------------------------------------------------------------------


@pytest.mark.real_model
@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 0), ("fp32", 1e-6)])
def test_a_real_models_vectors_do_not_depend_on_what_else_runs(real_model_folder, precision, tolerance):
    words = [
        "a",
        "bank",
        "of",
        "the",
        "river",
        "keeps",
        "money",
        "under",
        "stone",
        "while",
        "chess",
        "machines",
        "play",
        "games",
    ]
    texts = [" ".join(words[: 1 + n % len(words)] * (1 + n % 5)) for n in range(120)]
    name, arguments = REAL, {"precision": precision, "specific_model_path": real_model_folder}
    with fastrank.TextEmbedding(name, **arguments) as model:
        expected = np.stack(list(model.embed(texts)))
    with serve(start.Plan([name], arguments)) as live:

        def embed(text):
            body = {"input": text, "encoding_format": "base64"}
            encoded = live.post("/v1/embeddings", body)[2]["data"][0]["embedding"]
            return np.frombuffer(base64.b64decode(encoded), "<f4")

        with ThreadPoolExecutor(12) as pool:
            bulk = pool.submit(live.post, "/v1/embeddings", {"input": texts})
            found = np.stack(list(pool.map(embed, texts)))
        rows = np.array([entry["embedding"] for entry in bulk.result()[2]["data"]], np.float32)
    for ours in (found, rows):
        assert np.abs(ours - expected).max() <= tolerance


def test_long_documents_are_read_in_chunks_where_a_client_wants_it(live, library):
    documents = [TEXTS[0], LONG]
    expected = list(library["rerank"].rerank("what is it", documents, overflow="chunk"))
    asked = {"query": "what is it", "documents": documents, "overflow": "chunk"}
    ranked, headers = ask(live, "/v1/rerank", **asked, raw_scores=True, return_tokens=True)
    found = {entry["index"]: entry for entry in ranked["results"]}
    assert [found[n]["relevance_score"] for n in (0, 1)] == pytest.approx(expected, abs=1e-5)
    assert headers["x-truncated"] == "0"
    assert not found[1]["truncated"]
    assert found[1]["tokens"] > 400
    _, headers = ask(live, "/v1/rerank", query="what is it", documents=documents, max_chunks_per_doc=1)
    assert headers["x-truncated"] == "1"
    answer, _ = ask(
        live, "/v1/rerank", query="it", documents=documents, method="colbert", overflow="chunk", raw_scores=True
    )
    scores = list(library["late"].rerank("it", documents, overflow="chunk"))
    values = {entry["index"]: entry["relevance_score"] for entry in answer["results"]}
    assert [values[0], values[1]] == pytest.approx(scores, abs=1e-4)
    vectors = np.stack(list(library["dense"].embed(documents, overflow="chunk", chunk_size=8)))
    answer, _ = ask(live, "/v1/embeddings", input=documents, overflow="chunk", chunk_size=8)
    np.testing.assert_allclose([entry["embedding"] for entry in answer["data"]], vectors, atol=1e-5)
    status, _, answer = live.post("/v1/rerank", {"query": LONG, "documents": ["a"], "overflow": "chunk"})
    assert status == 400
    assert "leaves no room" in answer["message"]


def test_prompts_of_clients_and_parts_of_one_document(live, library):
    answer, _ = ask(live, "/v1/embeddings", input=TEXTS[:2], prompt="a dog ")
    expected = np.stack(list(library["dense"].embed(TEXTS[:2], prompt="a dog ")))
    np.testing.assert_allclose([entry["embedding"] for entry in answer["data"]], expected, atol=1e-5)
    parts = ["a red cat", "it"]
    alone = np.stack(list(library["dense"].passage_embed(parts)))
    answer, _ = ask(live, "/v1/embeddings", input=parts[:1], late_chunking=True)
    np.testing.assert_allclose(answer["data"][0]["embedding"], alone[0], atol=1e-5)
    answer, _ = ask(live, "/v1/embeddings", input=parts, late_chunking=True)
    together = np.array([entry["embedding"] for entry in answer["data"]])
    assert together.shape == alone.shape
    assert np.abs(together - alone).max() > 1e-3
    status, _, answer = live.post("/v1/embeddings", {"input": [LONG, LONG], "late_chunking": True})
    assert status == 400
    assert "are read as one text" in answer["message"]


def test_texts_that_are_cut_are_counted_by_the_model_too(live):
    before = live.runner._catalog.find(None, ["dense"]).model.get().info()["truncated_texts"]
    ask(live, "/v1/embeddings", input=[LONG, "it"])
    assert live.runner._catalog.find(None, ["dense"]).model.get().info()["truncated_texts"] == before + 1
