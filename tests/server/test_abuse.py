"""What hostile or broken clients do to a server in a process of its own: it refuses, and stays as it was."""

import contextlib
import http.client
import json
import socket
import sys
import zlib

import pytest
from server.live import wait_for
from server.test_serve import DENSE, serve
from support.waiting import patience

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MANY = 5_000
GROWTH = 120  # MB that memory may grow under all of this


@pytest.fixture(scope="module")
def server():
    with serve(f"dense:{DENSE}", "--port", 0, "--max-connections", 256, "--timeout", 60) as process:
        process.started()
        assert process.ask("POST", "/v1/embeddings", {"input": ["warm"] * 100})[0] == 200
        process.before = memory(process)
        yield process
        assert process.popen.poll() is None, "it is gone"
        assert process.ask("POST", "/v1/embeddings", {"input": "still there"})[0] == 200
        assert memory(process) - process.before < GROWTH
        assert process.stop() == 0


def memory(process):
    """MB in memory."""
    with open(f"/proc/{process.popen.pid}/status", encoding="ascii") as status:  # noqa: PTH123
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1000


def post(process, content, path="/v1/embeddings", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=patience(60))
    with contextlib.closing(connection):
        connection.request("POST", path, content, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_a_body_of_33_mib_is_refused(server):
    for _ in range(5):
        status, answer = post(server, b'{"input": "' + b"x" * (33 << 20) + b'"}')
        assert status == 413
        assert "--max-body" in answer["message"]


def test_a_chunked_body_without_end_is_refused(server):
    def pieces():
        for _ in range(40):
            yield b"x" * (1 << 20)

    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=patience(60))) as connection:
        connection.request("POST", "/embed", pieces(), encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["error_type"] == "Validation"


def test_a_bomb_of_gzip_is_refused(server):
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(256)) + packer.flush()
    assert len(bomb) < 2 << 20
    assert post(server, bomb, Content_Encoding="gzip")[0] == 413


def test_a_text_of_ten_megabytes_is_cut(server):
    status, answer = post(server, json.dumps({"input": ["cat " * 2_500_000, "dog"]}).encode())
    assert status == 200
    assert len(answer["data"]) == 2
    assert post(server, json.dumps({"input": "x" * 10_000_000, "truncation": False}).encode())[0] == 400


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000,
        b'{"input":' * 200_000,
        b'{"input": NaN}',
        b'{"input": Infinity}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe",
        b'{"input": "\\ud800", "x": ' + b"[" * 100_000,
        b"null",
        b'"text"',
        b"",
    ],
)
def test_what_is_no_json_object_is_refused(server, content):
    status, answer = post(server, content)
    assert status == 400
    assert answer["message"] == answer["detail"] == answer["error"]["message"]


def test_thousands_of_connections_are_refused_or_end(server):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(MANY, (hard if hard != resource.RLIM_INFINITY else MANY + 500) - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many + 500), hard))
    opened = []
    try:
        for _ in range(many):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=patience(60))
            opened.append(connection)
            with contextlib.suppress(OSError):  # it is refused already
                connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nx: ")
        answers = [first(connection) for connection in opened]
    finally:
        for connection in opened:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(answers) <= {b"HTTP/1.1 429", b"HTTP/1.1 408", b""}
    assert answers.count(b"HTTP/1.1 429") > many / 2
    assert answers.count(b"HTTP/1.1 408") > 100
    wait_for(lambda: server.ask("GET", "/health")[0] == 200)


def first(connection):
    """How the answer on a connection begins; nothing if it was reset."""
    with contextlib.suppress(ConnectionError):
        return connection.recv(12)
    return b""
