"""A live server with toy models: routes, limits, keys, errors, cancellation, draining."""

import contextlib
import gzip
import json
import socket
import threading
import time

import pytest
from server.covers import covers
from server.live import Model, running, wait_for
from server.test_contracts import FILES, SENDS_IDS, SHAPE_ONLY
from support.waiting import patience

from fastrank.server.settings import Settings
from fastrank.server.wire.errors import ApiError, Kind
from fastrank.server.wire.fields import Limits

RERANK = {"model": "toy", "query": "q", "documents": ["dogs bark at night", "Paris is the capital of France"]}
MESSAGE_KEYS = ("message", "detail", "error")


def raw(live, data, seconds=20):
    """What the server sends until it closes."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=patience(seconds)) as connection:
        connection.sendall(data)
        return read_all(connection)


def read_all(connection):
    pieces = []
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


# -- contracts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recorded_request_is_answered_over_http(live, path):
    told = json.loads(path.read_text(encoding="utf-8"))
    if path.stem == SENDS_IDS:
        status, _, answer = live.post("/v1/embeddings", told["requests"][0]["body"])
        assert status == 400
        assert "check_embedding_ctx_length=False" in answer["error"]["message"]
        return
    for asked in told["requests"]:
        body = None if asked["body"] is None else asked["body"]
        status, _, answer = live.ask(asked["method"], asked["path"], body, asked["headers"])
        assert status == 200, answer
    covers(answer, told["response"], values=False)
    assert path.stem in SHAPE_ONLY or answer


# -- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/v1/v1/rerank", "/v1/v2/rerank", "/v1/rerank/", "//v1//rerank", "/rerank", "/v2/rerank"]
)
def test_paths_that_clients_build_wrongly_work(live, path):
    status, _, answer = live.post(path, RERANK)
    assert status == 200
    assert answer["results"][0]["index"] == 1


def test_get_on_a_post_path_is_405_with_allow(live):
    status, headers, answer = live.get("/v1/rerank")
    assert (status, headers["allow"]) == (405, "POST")
    assert "takes POST" in answer["message"]
    status, headers, _ = live.ask("DELETE", "/v1/models")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert live.ask("PUT", "/v1/rerank", b"{}")[0] == 405


def test_head_is_get_without_a_body(live):
    status, headers, content = live.ask("HEAD", "/health")
    assert status == 200
    assert content == b""
    assert int(headers["content-length"]) > 0


def test_content_type_is_not_looked_at(live):
    status, _, _ = live.post("/v1/rerank", RERANK, Content_Type="application/x-www-form-urlencoded")
    assert status == 200


def test_browsers_get_a_page_and_programs_the_health(live):
    assert b"<html" in live.get("/", Accept="text/html,application/xhtml+xml")[2]
    assert live.get("/", Accept="*/*")[2] == {"status": "ok", "server": "fastrank"}
    assert b"<html" in live.get("/docs")[2]
    assert "/v1/rerank" in live.get("/openapi.json")[2]["paths"]


def test_models_are_listed_in_every_familys_way(live):
    names = ["toy", "voyage-3-lite", "text-embedding-3-small", "embed-english-v3.0"]
    assert [model["id"] for model in live.get("/v1/models")[2]["data"]] == names
    assert live.get("/v1/models/toy")[2]["object"] == "model"
    assert live.get("/v1/models/none")[0] == 404
    assert [model["name"] for model in live.get("/api/tags")[2]["models"]] == names
    assert live.post("/api/show", {"model": "toy:latest"})[0] == 200
    assert live.post("/api/show", {"model": "none"})[0] == 404
    assert live.get("/api/version")[2]["version"]
    assert live.get("/info")[2]["model_id"] == "toy"


def test_the_answer_names_the_model_as_asked_and_a_header_the_true_one(live):
    _, headers, answer = live.post("/v1/embeddings", {"model": "Voyage-3-Lite", "input": "x"})
    assert answer["model"] == "Voyage-3-Lite"
    assert headers["x-model"] == "toy"


def test_a_prefix_is_served_too():
    with running(Settings(url_prefix="/ai")) as live:
        assert live.post("/ai/v1/rerank", RERANK)[0] == 200
        assert live.post("/v1/rerank", RERANK)[0] == 200
        assert live.get("/ai/health")[0] == 200


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/rerank", b"{", 400, "not JSON"),
        ("/v1/rerank", b"[1]", 400, "JSON object, got list"),
        ("/v1/rerank", b"", 400, "not JSON"),
        ("/v1/rerank", b'\xef\xbb\xbf{"query": "q"}', 400, "not JSON"),
        ("/v1/rerank", b'{"query": NaN}', 400, "not JSON"),
        ("/v1/rerank", b"[" * 100_000, 400, "not JSON"),
        ("/v1/rerank", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "not JSON"),
        ("/v1/rerank", b'{"query": "\\ud800", "documents": NaN}', 400, "not JSON"),
        ("/v1/rerank", {"query": "q", "documents": [3]}, 422, "documents[0] must be a string, got int"),
        ("/v1/rerank", {"query": "q", "documents": []}, 400, "documents must not be empty"),
        ("/v1/rerank", {**RERANK, "model": "other"}, 404, "no model 'other'; this server has: toy"),
        ("/rerank", {"query": "q", "texts": ["a"], "model": "other"}, 404, "no model"),
        ("/embed", {}, 422, "inputs is missing"),
        ("/v1/embeddings", {"input": "x", "dimensions": 9}, 400, "dimensions must be from 1 to 8"),
        ("/api/embed", {"model": "other", "input": "x"}, 404, "no model"),
        ("/nowhere", {}, 404, "no /nowhere here"),
    ],
)
def test_every_error_has_a_json_body_that_says_why(live, path, body, status, words):
    found, headers, answer = live.post(path, body)
    assert found == status
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    assert words in answer["message"] == answer["detail"]
    error = answer["error"]
    assert (error if isinstance(error, str) else error["message"]) == answer["message"]


def test_an_unknown_model_has_openais_code(live):
    _, _, answer = live.post("/v1/embeddings", {"model": "other", "input": "x"})
    assert answer["error"]["code"] == "model_not_found"


def test_lone_surrogates_do_not_fail_a_request(live):
    status, _, answer = live.post(
        "/v1/rerank", b'{"query": "q", "documents": ["a\\ud800b", {"text": "b", "x": "\\udfff"}]}'
    )
    assert status == 200
    assert {entry["document"]["text"] for entry in answer["results"]} == {"a\ufffdb", "b"}


def test_of_duplicate_keys_the_last_counts(live):
    _, _, answer = live.post("/v1/rerank", b'{"query": "q", "documents": ["a"], "documents": ["a", "b"]}')
    assert len(answer["results"]) == 2


def test_a_failure_of_ours_is_500_with_the_requests_id_and_no_cause(live, caplog):
    live.runner.error = RuntimeError("secret cause")
    try:
        status, headers, answer = live.post("/v1/rerank", RERANK, X_Request_Id="abc-1")
    finally:
        live.runner.error = None
    assert (status, headers["x-request-id"]) == (500, "abc-1")
    assert "abc-1" in answer["message"]
    assert "secret" not in json.dumps(answer)
    assert "secret cause" in caplog.text


def test_nan_is_424_for_tei_and_500_elsewhere(live):
    live.runner.error = ApiError(Kind.NOT_FINITE, "The model returned NaN for documents[1]")
    try:
        assert live.post("/rerank", {"query": "q", "texts": ["a"]})[0] == 424
        assert live.post("/rerank", RERANK)[0] == 500
    finally:
        live.runner.error = None


def test_a_model_of_another_task_says_what_there_is():
    with running(models=[Model("org/dense-one", "dense")], aliases={}) as live:
        status, _, answer = live.post("/v1/rerank", {**RERANK, "model": "dense-one"})
        assert status == 400
        assert "dense-one is not a reranker; this server has: org/dense-one (dense)" in answer["message"]
        assert "--rerank-with" in answer["message"]
        assert live.post("/rerank", {"query": "q", "texts": ["a"], "model": "dense-one"})[0] == 424
        assert live.post("/v1/embeddings", {"input": "x", "model": "DENSE-ONE:latest"})[0] == 200


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    settings = Settings(
        limits=Limits(inputs=3), max_body=10_000, max_connections=8, header_timeout=0.5, body_timeout=0.5, timeout=0.3
    )
    with running(settings) as found:
        yield found


def test_a_body_over_the_limit_is_refused_before_it_is_read(small):
    status, _, answer = small.post("/v1/rerank", b"x" * 3_000_000)
    assert status == 413
    assert "10000 bytes (--max-body)" in answer["message"]


def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(small):
    def pieces():
        for _ in range(300):
            yield b"x" * 10_000

    with contextlib.closing(small.connect()) as connection:
        connection.request("POST", "/v1/rerank", pieces(), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["message"]


def test_a_gzip_bomb_is_refused_and_gzip_is_read(small):
    assert small.post("/v1/rerank", gzip.compress(b" " * 5_000_000), Content_Encoding="gzip")[0] == 413
    body = json.dumps(RERANK).encode()
    assert small.post("/v1/rerank", gzip.compress(body), Content_Encoding="gzip")[0] == 200
    halves = gzip.compress(body[:20]) + gzip.compress(body[20:])
    assert small.post("/v1/rerank", halves, Content_Encoding="gzip")[0] == 200
    assert small.post("/v1/rerank", gzip.compress(body)[:-9], Content_Encoding="gzip")[0] == 400
    assert small.post("/v1/rerank", b"no gzip", Content_Encoding="gzip")[0] == 400
    assert small.post("/v1/rerank", body, Content_Encoding="br")[0] == 415


def test_too_many_texts_are_400_and_422_for_tei(small):
    body = {"query": "q", "documents": ["a"] * 4}
    assert small.post("/v1/rerank", body)[0] == 400
    assert small.post("/rerank", {"query": "q", "texts": ["a"] * 4})[0] == 422


def test_slow_headers_end_with_an_answer(small):
    answer = raw(small, b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"detail"' in answer


def test_headers_that_never_begin_end_too(small):
    assert raw(small, b"").startswith(b"HTTP/1.1 408 ")


def test_headers_without_end_are_refused(small):
    answer = raw(small, b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 100_000)
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_a_body_that_does_not_come_ends_with_an_answer(small):
    answer = raw(small, b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_what_is_no_http_gets_a_json_answer(small):
    answer = raw(small, b"\x16\x03\x01 nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"message"' in answer


def test_connections_over_the_limit_are_429(small):
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", small.port)))
        answer = raw(small, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1" in answer
    wait_for(lambda: len(small.server.server_state.connections) == 0)
    assert small.get("/health")[0] == 200


def test_a_request_that_never_began_is_429_when_time_is_up(small):
    small.runner.gate = threading.Event()
    try:
        status, headers, answer = small.post("/v1/rerank", RERANK)
    finally:
        small.runner.gate = None
    assert status == 429
    assert headers["retry-after"] == "30"
    assert "--timeout" in answer["message"]


def test_pipelined_requests_are_answered_in_order(live):
    one = b"GET /v1/models/%s HTTP/1.1\r\nHost: x\r\n%s\r\n"
    answer = raw(live, one % (b"toy", b"") + one % (b"none", b"Connection: close\r\n"))
    assert answer.index(b"HTTP/1.1 200") < answer.index(b"HTTP/1.1 404")


def test_http_1_0_is_answered(live):
    assert raw(live, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_client_that_waits_for_100_continue_gets_it(live):
    body = json.dumps(RERANK).encode()
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
    head += b"Content-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.port), timeout=patience(20)) as connection:
        connection.sendall(head % len(body))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


# -- keys, CORS, ids --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked():
    with running(Settings(keys=("first", "second"), cors_origins=("https://a.example",))) as found:
        yield found


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first"},
        {"Authorization": "bearer second"},
        {"Authorization": "first"},
        {"api-key": "first"},
        {"x-api-key": "second"},
    ],
)
def test_any_of_the_keys_opens(locked, headers):
    assert locked.ask("POST", "/v1/rerank", RERANK, headers)[0] == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer third"}, {"x-api-key": ""}, {"x-api-key": "firs"}])
def test_without_a_key_it_is_401_with_a_body_in_every_dialect(locked, headers):
    for path, body in (("/v1/rerank", RERANK), ("/embed", {"inputs": "x"}), ("/api/embed", {"input": "x"})):
        status, found, answer = locked.ask("POST", path, body, headers)
        assert status == 401
        assert found["www-authenticate"] == "Bearer"
        assert answer["detail"] == answer["message"]
    assert locked.ask("GET", "/v1/models", None, headers)[0] == 401


def test_five_paths_need_no_key(locked):
    for path in ("/", "/health", "/ping", "/ready", "/metrics"):
        assert locked.get(path)[0] == 200


def test_a_large_body_without_a_key_gets_its_401(locked):
    assert locked.post("/v1/rerank", b"x" * 3_000_000)[0] == 401


def test_without_keys_any_is_taken(live):
    assert live.post("/v1/rerank", RERANK, Authorization="Bearer whatever")[0] == 200


def test_cors_answers_the_origins_it_was_given(locked):
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    status, headers, _ = locked.ask("OPTIONS", "/v1/rerank", None, asked)
    assert (status, headers["access-control-allow-origin"]) == (200, "https://a.example")
    assert locked.ask("OPTIONS", "/v1/rerank", None, {**asked, "Origin": "https://b.example"})[0] == 400


def test_cors_is_off_by_default(live):
    assert "access-control-allow-origin" not in live.get("/health", Origin="https://a.example")[1]


def test_a_request_id_is_taken_or_made(live):
    assert live.get("/health", X_Request_Id="mine")[1]["x-request-id"] == "mine"
    assert live.get("/health", X_Request_Id="x" * 200)[1]["x-request-id"] != "x" * 200
    assert len(live.get("/health")[1]["x-request-id"]) == 32


def test_answers_say_what_they_took(live):
    _, headers, _ = live.post("/v1/rerank", RERANK)
    for name in ("compute", "total", "tokenization", "queue", "inference"):
        assert headers[f"x-{name}-time"].isdecimal()
    assert headers["x-compute-tokens"] == "20"
    assert headers["x-compute-characters"] == str(sum(len(text) + 1 for text in RERANK["documents"]))


# -- metrics, logs ----------------------------------------------------------------------------------------------------


def test_metrics_have_teis_names(live):
    live.post("/v1/rerank", RERANK)
    live.post("/v1/rerank", {})
    text = live.get("/metrics")[2].decode()
    for line in (
        'te_request_count{method="batch"}',
        "te_request_success{",
        'te_request_failure{err="validation"}',
        "te_request_duration_bucket{",
        "te_predict_count ",
        'fastrank_requests_total{model="toy",route="/v1/rerank",status="200"}',
    ):
        assert f"\n{line}" in text, line
    assert "te_request_count_total" not in text


def test_a_path_that_is_no_route_makes_no_label(live):
    live.post("/random-path-7", {})
    text = live.get("/metrics")[2].decode()
    assert "random-path-7" not in text
    assert 'route="other"' in text


def test_one_line_is_logged_a_request_and_no_text(live, caplog):
    caplog.set_level("INFO", logger="fastrank.server.requests")
    live.post("/v1/rerank", {**RERANK, "query": "private words"}, Authorization="Bearer hidden", X_Request_Id="r1")
    wait_for(lambda: caplog.records)
    (record,) = caplog.records
    assert record.fields["id"] == "r1"
    assert record.fields["route"] == "/v1/rerank"
    assert record.fields["status"] == 200
    assert record.fields["texts"] == 2
    assert "private" not in str(record.__dict__)
    assert "hidden" not in str(record.__dict__)


# -- cancellation, draining -------------------------------------------------------------------------------------------


def test_work_stops_when_the_client_goes(live):
    live.runner.gate = threading.Event()
    before = live.runner.cancelled
    try:
        body = json.dumps(RERANK).encode()
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            wait_for(lambda: live.runner.running == 1)
        wait_for(lambda: live.runner.cancelled == before + 1)
        assert live.runner.running == 0
    finally:
        live.runner.gate = None


def test_health_and_readiness_are_two_things():
    with running() as live:
        live.runner.loaded = False
        status, headers, _ = live.get("/ready")
        assert (status, headers["retry-after"]) == (503, "1")
        assert live.get("/health")[0] == 200
        live.runner.loaded = True
        assert live.get("/ready")[0] == 200
        live.app.draining = True
        assert live.get("/ready")[0] == 503
        assert live.get("/health")[0] == 200
        live.runner.well = False
        assert live.get("/health")[0] == 503


def in_flight(live, count):
    """So many requests that wait at the gate; their answers come into the list returned."""
    live.runner.gate = threading.Event()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(live.post("/v1/rerank", RERANK)[0])) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: live.runner.running == count)
    return threads, answers


def test_draining_answers_what_is_in_flight_and_takes_no_more():
    with running() as live:
        threads, answers = in_flight(live, 50)
        live.server.drain()
        assert live.get("/ready")[0] == 503
        wait_for(lambda: live.server.should_exit)
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            live.get("/health")
        live.runner.gate.set()
        for thread in threads:
            thread.join(20)
        assert answers == [200] * 50


def test_what_does_not_finish_in_time_is_answered_with_503():
    with running(Settings(drain_timeout=0.3)) as live:
        threads, answers = in_flight(live, 3)
        live.server.drain()
        for thread in threads:
            thread.join(20)
        assert answers == [503] * 3
