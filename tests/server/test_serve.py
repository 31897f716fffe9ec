"""`fastrank serve` as a process: how it starts, what it says, how it ends."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from server.live import wait_for
from support.processes import run_python
from support.waiting import patience

pytest.importorskip("starlette")

FIXTURES = Path(__file__).parents[1] / "fixtures"
DENSE, RERANK = FIXTURES / "sentence_encoder", FIXTURES / "pair_classifier"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and Unix sockets")


class Process:
    """`fastrank serve` with these arguments."""

    def __init__(self, *arguments, **environment):
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "fastrank", "serve", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.log = []
        self._reader = threading.Thread(target=lambda: self.log.extend(self.popen.stderr), daemon=True)
        self._reader.start()
        self.greeting = []
        self.port = None

    def started(self):
        """Read the greeting."""
        for line in self.popen.stdout:
            self.greeting.append(line.rstrip("\n"))
            if "curl " in line and not line.startswith("fastrank serves"):
                break
        assert self.greeting, self.failed()
        if found := re.search(r":(\d+)$", self.greeting[0]):
            self.port = int(found[1])
        return self

    def failed(self):
        """What it says when it does not start."""
        self.popen.wait(patience(60))
        self._reader.join(patience(10))
        return "".join(self.log)

    def ask(self, method, path, body=None, **headers):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience(60))) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or "null")

    def stop(self, number=signal.SIGTERM):
        self.popen.send_signal(number)
        return self.popen.wait(patience(60))


@contextlib.contextmanager
def serve(*arguments, **environment):
    process = Process(*arguments, **environment)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()
        process.popen.stdout.close()
        process._reader.join()
        process.popen.stderr.close()


def refused(*arguments):
    """What it says when it does not start."""
    with serve(*arguments) as process:
        return process.failed()


def test_it_says_where_it_is_and_how_to_ask():
    with serve(f"rerank:{RERANK}", "--port", 0, "--alias", "rerank-v3.5=pair_classifier") as process:
        process.started()
        assert process.greeting[0] == f"fastrank serves http://127.0.0.1:{process.port}"
        assert process.greeting[1] == "  pair_classifier (rerank)"
        assert "curl http://127.0.0.1" in process.greeting[-1]
        assert process.ask("GET", "/ready") == (200, {"status": "ready"})
        body = {"model": "rerank-v3.5", "query": "it", "documents": ["a", "b"]}
        assert process.ask("POST", "/v1/rerank", body)[0] == 200
        assert process.stop() == 0
        lines = [json.loads(line) for line in process.log]
        (of_request,) = [line for line in lines if line.get("route") == "/v1/rerank"]
        assert of_request["texts"] == 2
        assert of_request["status"] == 200


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_50_requests_finish_and_ends_with_0(number):
    with serve(f"dense:{DENSE}", "--port", 0) as process:
        process.started()
        statuses = []
        body = {"input": ["a red cat is it and what is the capital of france"] * 500}
        threads = [
            threading.Thread(target=lambda: statuses.append(process.ask("POST", "/v1/embeddings", body)[0]))
            for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        metrics = lambda: http_text(process.port, "/metrics")  # noqa: E731
        wait_for(lambda: waiting_requests(metrics()) >= 20 or len(statuses) >= 20)
        time.sleep(0.2)
        assert process.stop(number) == 0
        for thread in threads:
            thread.join(patience(30))
        assert statuses == [200] * 50


def http_text(port, path):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=patience(60))) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def waiting_requests(text):
    return float(re.search(r"^te_queue_size (\S+)", text, re.MULTILINE)[1])


@posix
def test_a_second_signal_ends_it_now():
    with serve(f"dense:{DENSE}", "--port", 0, "--drain-delay", 60) as process:
        process.started()
        process.popen.send_signal(signal.SIGTERM)
        wait_for(lambda: process.ask("GET", "/ready")[0] == 503)
        assert process.ask("GET", "/health")[0] == 200
        assert process.ask("POST", "/v1/embeddings", {"input": "it"})[0] == 200  # still accepts, for the delay
        begun = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - begun < patience(20)


@posix
def test_a_unix_socket_is_for_its_group_only_and_goes_with_the_server(tmp_path):
    path = tmp_path / "fastrank.sock"
    with serve(f"dense:{DENSE}", "--uds", path) as process:
        process.started()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert "already" in refused(f"dense:{DENSE}", "--uds", path)
        assert process.stop() == 0
    assert not path.exists()


@posix
def test_what_a_dead_server_left_is_replaced(tmp_path):
    path = tmp_path / "fastrank.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serve(f"dense:{DENSE}", "--uds", path) as process:
        assert process.started().stop() == 0
    path.write_text("mine")
    assert "no socket" in refused(f"dense:{DENSE}", "--uds", path)
    assert path.read_text() == "mine"


def test_a_port_that_is_taken_says_who_answers_there():
    with serve(f"dense:{DENSE}", "--port", 0) as process:
        process.started()
        said = refused(f"dense:{DENSE}", "--port", process.port)
        assert f"127.0.0.1:{process.port} cannot be used" in said
        assert "another fastrank answers there" in said


def test_options_come_from_the_environment_too(tmp_path):
    environment = {
        "FASTRANK_SERVE_MODELS": f"dense:{DENSE}",
        "FASTRANK_SERVE_PORT": "0",
        "FASTRANK_SERVE_MAX_INPUTS": "2",
        "FASTRANK_SERVE_ALIAS": "one=sentence_encoder two=sentence_encoder:64",
        "FASTRANK_SERVE_NO_TRUNCATE": "1",
        "FASTRANK_API_KEY": "secret",
    }
    with serve(**environment) as process:
        process.started()
        key = {"Authorization": "Bearer secret"}
        assert process.ask("POST", "/v1/embeddings", {"input": "it"})[0] == 401
        status, answer = process.ask("POST", "/v1/embeddings", {"input": "it", "model": "two"}, **key)
        assert status == 200
        assert len(answer["data"][0]["embedding"]) == 64
        assert process.ask("POST", "/v1/embeddings", {"input": ["it"] * 3}, **key)[0] == 400
        assert process.ask("POST", "/v1/embeddings", {"input": "it " * 500}, **key)[0] == 400
        assert "secret" not in "".join(process.log)


def test_lazy_listens_first_and_loads_in_the_background():
    with serve(f"dense:{DENSE}", "--port", 0, "--lazy") as process:
        process.started()
        assert process.ask("POST", "/v1/embeddings", {"input": "it"})[0] == 200
        wait_for(lambda: process.ask("GET", "/ready")[0] == 200)


def test_keys_come_from_a_file(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first\nsecond\n")
    with serve(f"dense:{DENSE}", "--port", 0, "--api-key-file", keys) as process:
        process.started()
        assert process.ask("GET", "/v1/models")[0] == 401
        for key in ("first", "second"):
            assert process.ask("GET", "/v1/models", Authorization=f"Bearer {key}")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-model"], "no-such-model"),
        (["some/repository"], "dense:some/repository"),
        ([f"dense:{DENSE}", "--max-body", "many"], "write a size like 32MiB"),
        ([f"dense:{DENSE}", "--max-inputs", "0"], "must be at least 1"),
        ([f"dense:{DENSE}", "--alias", "x=y"], "y is not served"),
    ],
)
def test_mistakes_are_said_at_once(arguments, words):
    with serve(*arguments) as process:
        assert words in process.failed()
        assert process.popen.returncode in (1, 2)


@pytest.mark.parametrize(
    ("variable", "value"), [("FASTRANK_SERVE_RERANK_WITH", "magic"), ("FASTRANK_SERVE_PRECISION", "int3")]
)
def test_a_wrong_variable_is_said_where_it_is_used(variable, value):
    with serve(f"dense:{DENSE}", **{variable: value}) as process:
        assert f"{variable}={value} is none of" in process.failed()
    other = run_python("-m", "fastrank", "cache", env={**os.environ, variable: value})
    assert other.returncode == 0


def test_without_the_extra_it_says_how_to_install_it():
    code = "import sys; sys.modules['starlette'] = None; from fastrank.cli import main; sys.exit(main(['serve', 'x']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'fastrank-onnx[server]'" in done.stderr


def test_importing_fastrank_loads_nothing_of_the_server():
    code = (
        "import fastrank, sys; print([m for m in sys.modules if m.split('.')[0] in ('starlette', 'uvicorn', 'orjson')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
