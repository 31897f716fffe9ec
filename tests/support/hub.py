"""A stand-in for the Hugging Face Hub on 127.0.0.1, with fault injection. Standard library only.

It answers exactly the endpoints that ``hf_hub_download`` and ``snapshot_download`` call
(observed with huggingface_hub 2.4.0, 1.x and 0.x)::

    GET  /api/models/{repo}                          -> {"id", "sha", "siblings", ...}
    GET  /api/models/{repo}/revision/{rev}           -> the same, for a branch, tag or commit; with ?blobs=true each
                                                        sibling has "size", "blobId" and, if large, "lfs"
    GET  /api/models/{repo}/tree/{rev}[/{folder}]    -> [{"type", "path", "size", "oid", "lfs"}], paginated
    HEAD /{repo}/resolve/{rev}/{path}                -> small file: 200, ETag = git blob id
                                                        large file: 302 to the CDN, X-Linked-Etag = sha256
    GET  /{repo}/resolve/{rev}/{path}                -> the bytes, or the same 302
    GET  {cdn}/{sha256}                              -> the bytes; Range is honoured

The CDN listens on a second port, so it is another origin, as in production: the client must
stop at the 302, take the metadata from it, and must not send its token along.

Use it in a test::

    with HubStandIn() as hub:
        hub.add_repo("acme/tiny", {"config.json": b"{}", "onnx/model.onnx": b"..."})
        hub.fault("GET", r"/cdn/", Fault(truncate=100), times=1)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)     # before huggingface_hub is imported
        ...
        assert hub.count("GET", r"/cdn/") == 2

or from a shell; another process then sets faults through ``POST /__faults__`` and reads the log at ``GET /__log__``::

    cd tests && python -m support.hub --root ./repos --port 8765
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from support.waiting import patience

LFS_SUFFIXES = (".onnx", ".onnx_data", ".bin", ".safetensors", ".model")


@dataclass(frozen=True)
class Fault:
    """What to do wrong with one matching request. Every field left alone behaves correctly."""

    status: int | None = None  # answer with this status and no useful body
    headers: dict = field(default_factory=dict)  # headers to add or replace (also on a right answer)
    drop_headers: tuple = ()  # headers to leave out, e.g. ("ETag",)
    delay: float = 0.0  # seconds before the first byte
    reset: bool = False  # close the connection with RST, nothing sent
    truncate: int | None = None  # full Content-Length, but close after N bytes
    short: int | None = None  # N bytes with an honest Content-Length of N
    no_length: bool = False  # no Content-Length; the body ends when the connection closes
    flip: int | None = None  # XOR the byte at this offset: same length, other content
    body: bytes | None = None  # another body altogether
    endless: bool = False  # never stop sending
    drip: float | None = None  # bytes per second
    ignore_range: bool = False  # answer 200 with the whole file to a Range request
    gzip: bool = False  # Content-Encoding: gzip, no Content-Length
    redirect: str | None = None  # answer 302 to this URL
    portal: bytes | None = None  # 200 with this body to any request, without a header of the hub's: a captive portal
    header_drip: float | None = None  # send headers only, this many bytes per second, for ever
    hints: bool = False  # "103 Early Hints" for ever
    tree_extra: tuple = ()  # extra paths to list in /tree, e.g. ("../../evil",)


@dataclass
class _Rule:
    method: str
    pattern: str
    fault: Fault
    times: int | None  # None: for ever
    skip: int = 0  # let the first N matching requests through


@dataclass(frozen=True)
class Request:
    """One line of the log."""

    method: str
    path: str
    status: int  # 0: the connection was reset
    sent: int  # bytes of the body
    headers: dict


class HubStandIn:
    """Two servers (Hub and CDN) over one in-memory set of repositories."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, lfs_suffixes: tuple = LFS_SUFFIXES, page: int = 1000):
        self.lfs_suffixes = lfs_suffixes
        self.page = page
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}  # repo -> commit -> path -> bytes
        self.refs: dict[tuple[str, str], str] = {}  # (repo, branch) -> commit
        self.requests: list[Request] = []
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self._servers = [_Server((host, port), self, cdn=False), _Server((host, 0), self, cdn=True)]
        self.url = f"http://{host}:{self._servers[0].server_address[1]}"
        # Another name, not only another port: huggingface_hub 1.x compares host names, 2.x whole origins.
        self.cdn_url = f"http://{'localhost' if host == '127.0.0.1' else host}:{self._servers[1].server_address[1]}"
        self._threads = [threading.Thread(target=s.serve_forever, args=(0.05,), daemon=True) for s in self._servers]

    # -- life cycle ---------------------------------------------------------------------------
    def start(self) -> HubStandIn:
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    __enter__ = start

    def __exit__(self, *_exc) -> None:
        self.stop()

    # -- content ------------------------------------------------------------------------------
    def add_repo(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit ``files`` as a whole new tree; return the commit hash."""
        digest = hashlib.sha1(repo.encode(), usedforsecurity=False)
        for path in sorted(files):
            digest.update(path.encode() + b"\0" + hashlib.sha256(files[path]).digest())
        commit = digest.hexdigest()
        self.repos.setdefault(repo, {})[commit] = dict(files)
        self.refs[repo, branch] = commit
        return commit

    def add_folder(self, root: str | Path) -> None:
        """Every ``root/<org>/<name>/**`` becomes one repository."""
        for folder in sorted(p for p in Path(root).glob("*/*") if p.is_dir()):
            files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
            self.add_repo(f"{folder.parent.name}/{folder.name}", files)

    def is_lfs(self, path: str) -> bool:
        return path.endswith(self.lfs_suffixes)

    # -- faults and log -----------------------------------------------------------------------
    def fault(self, method: str, pattern: str, fault: Fault, times: int | None = None, skip: int = 0) -> None:
        """Do `fault` to requests of this method ("*": any) whose path, query included, matches.

        The first matching rule that is not used up wins.
        """
        with self._lock:
            self._rules.append(_Rule(method, pattern, fault, times, skip))

    def clear(self) -> None:
        """Forget all faults and the log."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def count(self, method: str, pattern: str) -> int:
        """How many requests of this method had a path that matches."""
        return sum(r.method == method and re.search(pattern, r.path) is not None for r in self.requests)

    def seen(self, path: str, least: int) -> int:
        """How many requests had `path` in theirs. They are logged when they end, so wait a moment for `least`."""
        deadline = time.monotonic() + patience(2)
        while True:
            found = sum(path in request.path for request in self.requests)
            if found >= least or time.monotonic() > deadline:
                return found
            time.sleep(0.02)

    def take_fault(self, method: str, path: str) -> Fault:
        """The fault for this request. Its rule counts it."""
        with self._lock:
            for rule in self._rules:
                if rule.method not in (method, "*") or not re.search(rule.pattern, path):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.times is None:
                    return rule.fault
                if rule.times > 0:
                    rule.times -= 1
                    return rule.fault
        return Fault()

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, hub: HubStandIn, cdn: bool):
        self.hub, self.cdn = hub, cdn
        super().__init__(address, _Handler)

    def handle_error(self, request, client_address):
        """Silence: a client that hangs up is what we test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: else the second waits 40 ms
    server: _Server
    fault = Fault()  # what to do wrong with the request at hand

    def log_message(self, *_args) -> None:
        """Silence: tests read the hub's log."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        """Out-of-process control: ``/__faults__`` takes a list of {method, pattern, times, skip, fault}."""
        self.fault = Fault()
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        if self.path == "/__faults__":
            self.server.hub.clear()
            known = {f.name for f in fields(Fault)}
            for rule in body or []:
                fault = Fault(**{k: v for k, v in rule.get("fault", {}).items() if k in known})
                self.server.hub.fault(rule["method"], rule["pattern"], fault, rule.get("times"), rule.get("skip", 0))
            self._json([])
        else:
            self._error(404, "EntryNotFound")

    # -- routing ------------------------------------------------------------------------------
    def _route(self) -> None:
        self.fault = Fault()
        if self.path == "/__log__":
            self._json([asdict(r) for r in self.server.hub.requests])
            return
        self.fault = self.server.hub.take_fault(self.command, self.path)
        if self.fault.delay:
            self.server.hub.stopping.wait(self.fault.delay)
        if self.fault.reset:
            self._reset()
        elif self.fault.status is not None:
            self._error(self.fault.status, self.fault.headers.get("X-Error-Code"))
        elif self.fault.redirect is not None:
            self._send(302, b"", {"Location": self.fault.redirect})
        elif self.fault.portal is not None:
            self._send(200, self.fault.portal, {"Content-Type": "text/html"})
        elif self.fault.header_drip or self.fault.hints:
            self._only_headers()
        else:
            self._right_answer()

    def _right_answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if self.server.cdn:
            self._cdn(path)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(match[1], match[2] or "main", blobs="blobs" in parse_qs(url.query))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", path):
            self._tree(match[1], match[2], match[3] or "", parse_qs(url.query))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups())
        else:
            self._error(404, "EntryNotFound")

    def _only_headers(self) -> None:
        """Begin an answer whose headers never end, until the client hangs up."""
        self.close_connection = True
        hint = b"HTTP/1.1 103 Early Hints\r\nX-Hint: 1\r\n\r\n"
        try:
            self.wfile.write(hint if self.fault.hints else b"HTTP/1.1 200 OK\r\nX-Drip: ")
            while not self.server.hub.stopping.is_set():
                self.wfile.write(hint * 100 if self.fault.hints else b"x")
                self.server.hub.stopping.wait(0.01 if self.fault.hints else 1 / self.fault.header_drip)
        except OSError:  # the client hung up
            self.server.hub.note(Request(self.command, self.path, 0, 0, dict(self.headers)))

    def _reset(self) -> None:
        """Close the connection so that the client sees RST, not an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.server.hub.note(Request(self.command, self.path, 0, 0, dict(self.headers)))
        self.connection.close()

    def _files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        hub = self.server.hub
        if repo not in hub.repos:
            self._error(401, "RepoNotFound")  # the real Hub says 401 to an anonymous caller
            return None
        commit = hub.refs.get((repo, revision), revision)
        if commit not in hub.repos[repo]:
            self._error(404, "RevisionNotFound")
            return None
        return commit, hub.repos[repo][commit]

    def _info(self, repo: str, revision: str, *, blobs: bool) -> None:
        if (found := self._files(repo, revision)) is None:
            return
        commit, files = found
        self._json(
            {
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "private": False,
                "gated": False,
                "disabled": False,
                "tags": [],
                "cardData": _card(files.get("README.md", b"")),
                "siblings": [self._sibling(path, files[path], blobs=blobs) for path in sorted(files)],
            }
        )

    def _sibling(self, path: str, data: bytes, *, blobs: bool) -> dict:
        row = {"rfilename": path}
        if blobs:
            row |= {"size": len(data), "blobId": git_blob_id(data)}
            if self.server.hub.is_lfs(path):
                row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return row

    def _tree(self, repo: str, revision: str, folder: str, query: dict) -> None:
        if (found := self._files(repo, revision)) is None:
            return
        _commit, files = found
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = folder + "/" if folder else ""
        rows, seen = [], set()
        for path in [*sorted(files), *self.fault.tree_extra]:
            if not path.startswith(prefix):
                continue
            head, _, rest = path[len(prefix) :].partition("/")
            if rest and not recursive:
                if head not in seen:
                    seen.add(head)
                    rows.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": prefix + head})
                continue
            rows.append(self._row(path, files.get(path, b"hostile")))
        start = int(query.get("cursor", ["0"])[0])
        end = start + self.server.hub.page
        headers = {}
        if end < len(rows):
            address = self.server.hub.url + urlsplit(self.path).path
            headers["Link"] = f'<{address}?recursive={recursive}&cursor={end}>; rel="next"'
        self._json(rows[start:end], headers)

    def _row(self, path: str, data: bytes) -> dict:
        row = {"type": "file", "oid": git_blob_id(data), "size": len(data), "path": path}
        if self.server.hub.is_lfs(path):
            row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return row

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        if (found := self._files(repo, revision)) is None:
            return
        commit, files = found
        if path not in files:
            self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
            return
        data = files[path]
        if not self.server.hub.is_lfs(path):
            self._data(data, {"ETag": f'"{git_blob_id(data)}"', "X-Repo-Commit": commit})
            return
        sha256 = hashlib.sha256(data).hexdigest()
        self._send(
            302,
            b"",
            {
                "Location": f"{self.server.hub.cdn_url}/cdn/{quote(repo)}/{commit}/{quote(path)}/{sha256}",
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(len(data)),
            },
        )

    def _cdn(self, path: str) -> None:
        sha256 = path.rsplit("/", 1)[-1]
        trees = (files for commits in self.server.hub.repos.values() for files in commits.values())
        for data in (data for files in trees for data in files.values()):
            if hashlib.sha256(data).hexdigest() == sha256:
                self._data(data, {"ETag": f'"{sha256}"'})
                return
        self._error(404, "EntryNotFound")

    # -- answers ------------------------------------------------------------------------------
    def _data(self, data: bytes, headers: dict) -> None:
        if self.fault.body is not None:
            data = self.fault.body
        if self.fault.flip is not None and data:
            at = self.fault.flip % len(data)
            data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted or self.fault.ignore_range:
            self._send(200, data, headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if first > last:
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        else:
            self._send(206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _json(self, value, headers: dict | None = None) -> None:
        body = json.dumps(value).encode() if self.fault.body is None else self.fault.body
        self._send(200, body, {"Content-Type": "application/json", **(headers or {})})

    def _error(self, status: int, code: str | None = None, headers: dict | None = None) -> None:
        extra = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._send(status, json.dumps({"error": code or "fault"}).encode(), {**extra, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict) -> None:
        fault = self.fault
        if fault.gzip and self.command == "GET":
            body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
        if fault.short is not None:
            body = body[: fault.short]
        merged = {**headers, **fault.headers}
        if not (fault.no_length or fault.endless or fault.gzip) or self.command == "HEAD":
            merged.setdefault("Content-Length", str(len(body)))
        else:
            merged["Connection"], self.close_connection = "close", True
        for name in fault.drop_headers:
            merged = {k: v for k, v in merged.items() if k.lower() != name.lower()}
            if name.lower() == "content-length":
                self.close_connection = True
        self.send_response(status)
        for name, value in merged.items():
            self.send_header(name, str(value))
        self.end_headers()
        sent = 0
        try:
            if self.command != "HEAD":
                sent = self._body(body)
        except OSError:  # the client hung up
            self.close_connection = True
        finally:
            self.server.hub.note(Request(self.command, self.path, status, sent, dict(self.headers)))

    def _body(self, body: bytes) -> int:
        """Send the body as the fault wants it; return how many bytes went out."""
        fault, sent = self.fault, 0
        if fault.truncate is not None:
            body, self.close_connection = body[: fault.truncate], True
        step = max(1, int(fault.drip / 10)) if fault.drip else 1 << 16
        pieces = [body[at : at + step] for at in range(0, len(body), step)]
        for piece in cycle(pieces) if fault.endless else pieces:
            if self.server.hub.stopping.is_set():
                return sent
            self.wfile.write(piece)
            sent += len(piece)
            if fault.drip:
                self.server.hub.stopping.wait(0.1)
        self.wfile.flush()
        if fault.truncate is not None:
            self.connection.shutdown(socket.SHUT_RDWR)
        return sent


def _card(readme: bytes) -> dict:
    """The `key: value` lines between the two lines of dashes that a model card begins with."""
    found = re.match(r"---\n(.*?)^---", readme.decode(), re.DOTALL | re.MULTILINE)
    return dict(line.split(": ", 1) for line in found[1].splitlines()) if found else {}


def git_blob_id(data: bytes) -> str:
    """The id git gives a blob; the Hub uses it as ETag of files kept outside LFS."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of <org>/<name>/ repositories")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    hub = HubStandIn(port=options.port)
    hub.add_folder(options.root)
    hub.start()
    sys.stdout.write(f"HF_ENDPOINT={hub.url}\n")
    sys.stdout.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        hub.stop()


if __name__ == "__main__":
    main()
