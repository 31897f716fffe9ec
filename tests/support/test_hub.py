"""The stand-in of the Hugging Face hub: the real client is content with it, and its faults are what they claim."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.hub import Fault, HubStandIn, git_blob_id
from support.waiting import patience, wait_until

CONFIG = b'{"pad_token_id": 0}'
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": CONFIG, "onnx/model.onnx": WEIGHTS, "README.md": b"# Tiny\n"}
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy this machine has


@pytest.fixture
def hub():
    with HubStandIn() as hub:
        hub.commit = hub.add_repo("acme/tiny", FILES)
        yield hub


def get(url, **headers):
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - always the stand-in's http
    with _direct.open(request, timeout=patience(10)) as answer:
        return answer.status, answer.headers, answer.read()


def client(hub, tmp_path, code, **environment):
    """Run Python code with the real huggingface_hub in a process that knows only this hub."""
    clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith(("HF_", "HUGGING"))}
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **clean,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


class TestRealClient:
    def test_one_file_kept_in_git(self, hub, tmp_path):
        found = client(
            hub, tmp_path, "import huggingface_hub as h; print(h.hf_hub_download('acme/tiny', 'config.json'))"
        )
        assert Path(found).read_bytes() == CONFIG
        assert hub.commit in found
        assert hub.count("GET", r"^/cdn/") == 0

    def test_snapshot_of_a_commit_with_a_large_file_from_the_cdn(self, hub, tmp_path):
        code = f"import huggingface_hub as h; print(h.snapshot_download('acme/tiny', revision={hub.commit!r}))"
        folder = Path(client(hub, tmp_path, code))
        assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == FILES
        assert hub.count("GET", rf"^/cdn/.*/{SHA256}$") == 1

    def test_token_stays_with_the_hub(self, hub, tmp_path):
        code = "import huggingface_hub as h; h.hf_hub_download('acme/tiny', 'onnx/model.onnx')"
        client(hub, tmp_path, code, HF_TOKEN="hf_secret")  # noqa: S106
        sent = {
            ("/cdn/" in r.path): r.headers.get("authorization", r.headers.get("Authorization")) for r in hub.requests
        }
        assert sent == {False: "Bearer hf_secret", True: None}

    def test_pages_of_the_tree(self, hub, tmp_path):
        hub.page = 2
        code = "import huggingface_hub as h; print(len(list(h.list_repo_tree('acme/tiny', recursive=True))))"
        assert client(hub, tmp_path, code) == "3"
        assert hub.count("GET", "/tree/") == 2

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            ("h.hf_hub_download('acme/none', 'a')", "RepositoryNotFoundError"),
            ("h.hf_hub_download('acme/tiny', 'none')", "EntryNotFoundError"),
            ("h.hf_hub_download('acme/tiny', 'config.json', revision='none')", "RevisionNotFoundError"),
        ],
    )
    def test_what_is_missing_has_the_clients_own_error(self, hub, tmp_path, call, error):
        code = (
            f"import huggingface_hub as h, huggingface_hub.errors as e\ntry: {call}\nexcept e.{error}: print('right')"
        )
        assert client(hub, tmp_path, code) == "right"


class TestAnswers:
    def test_etags(self, hub):
        config = get(f"{hub.url}/acme/tiny/resolve/main/config.json")[1]
        assert config["ETag"] == f'"{git_blob_id(CONFIG)}"'
        assert config["X-Repo-Commit"] == hub.commit
        assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's own for the empty blob

    def test_large_file_is_a_redirect_to_another_host(self, hub):
        status, headers, body = get(f"{hub.url}/acme/tiny/resolve/main/onnx/model.onnx")
        assert (status, headers["ETag"], body) == (200, f'"{SHA256}"', WEIGHTS)
        assert hub.seen("/", 2) == 2
        assert sorted(r.status for r in hub.requests) == [200, 302]

    @pytest.mark.parametrize(
        ("asked", "status", "content", "span"),
        [
            ("bytes=5-", 206, CONFIG[5:], "bytes 5-18/19"),
            ("bytes=5-7", 206, CONFIG[5:8], "bytes 5-7/19"),
            ("bytes=5-999", 206, CONFIG[5:], "bytes 5-18/19"),
            ("lines=1", 200, CONFIG, None),
        ],
    )
    def test_range(self, hub, asked, status, content, span):
        found = get(f"{hub.url}/acme/tiny/resolve/main/config.json", Range=asked)
        assert (found[0], found[2], found[1]["Content-Range"]) == (status, content, span)

    def test_range_past_the_end(self, hub):
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{hub.url}/acme/tiny/resolve/main/config.json", Range="bytes=19-")
        with caught.value as error:
            assert (error.code, error.headers["Content-Range"]) == (416, "bytes */19")

    def test_two_commits_of_one_repository(self, hub):
        new = hub.add_repo("acme/tiny", {"config.json": b"{}"})
        assert get(f"{hub.url}/acme/tiny/resolve/main/config.json")[2] == b"{}"
        assert get(f"{hub.url}/acme/tiny/resolve/{hub.commit}/config.json")[2] == CONFIG
        assert json.loads(get(f"{hub.url}/api/models/acme/tiny")[2])["sha"] == new

    def test_folder_of_repositories(self, hub, tmp_path):
        (tmp_path / "org" / "name" / "sub").mkdir(parents=True)
        (tmp_path / "org" / "name" / "sub" / "a.txt").write_bytes(b"a")
        hub.add_folder(tmp_path)
        assert get(f"{hub.url}/org/name/resolve/main/sub/a.txt")[2] == b"a"


class TestFaults:
    @pytest.fixture
    def url(self, hub):
        return f"{hub.url}/acme/tiny/resolve/main/config.json"

    @pytest.mark.parametrize(
        ("fault", "body"),
        [
            (Fault(body=b"other"), b"other"),
            (Fault(short=4), CONFIG[:4]),
            (Fault(no_length=True), CONFIG),
            (Fault(flip=0), bytes([CONFIG[0] ^ 0xFF]) + CONFIG[1:]),
            (Fault(drip=1e6), CONFIG),
            (Fault(drop_headers=("Content-Length",)), CONFIG),
        ],
    )
    def test_bodies(self, hub, url, fault, body):
        hub.fault("GET", "config", fault)
        _, headers, found = get(url)
        assert found == body
        whole = not fault.no_length and not fault.drop_headers
        assert headers["Content-Length"] == (str(len(body)) if whole else None)

    def test_status_and_headers(self, hub, url):
        hub.fault("GET", "config", Fault(status=503, headers={"Retry-After": "7"}))
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(url)
        with caught.value as error:
            assert (error.code, error.headers["Retry-After"]) == (503, "7")

    def test_headers_on_a_right_answer(self, hub, url):
        hub.fault("GET", "config", Fault(headers={"ETag": '"other"'}, drop_headers=("x-repo-commit",)))
        _, headers, body = get(url)
        assert (headers["ETag"], headers["X-Repo-Commit"], body) == ('"other"', None, CONFIG)

    def test_truncate_promises_more_than_it_sends(self, hub, url):
        hub.fault("GET", "config", Fault(truncate=3))
        with pytest.raises(http.client.IncompleteRead) as caught:
            get(url)
        assert caught.value.partial == CONFIG[:3]

    def test_reset(self, hub, url):
        hub.fault("GET", "config", Fault(reset=True))
        with pytest.raises(ConnectionResetError):
            get(url)
        assert [(r.status, r.sent) for r in hub.requests] == [(0, 0)]

    def test_endless(self, hub, url):
        hub.fault("GET", "config", Fault(endless=True))
        with _direct.open(url, timeout=patience(10)) as answer:
            assert answer.read(100 * len(CONFIG)) == CONFIG * 100

    def test_drip_is_slow_and_ends_with_the_server(self, hub, url):
        hub.fault("GET", "config", Fault(drip=10))
        start = time.monotonic()
        with _direct.open(url, timeout=patience(10)) as answer:
            assert answer.read(3) == CONFIG[:3]
            assert time.monotonic() - start > 0.15
            hub.stop()
            with pytest.raises(http.client.IncompleteRead):
                answer.read()

    def test_delay(self, hub, url):
        hub.fault("GET", "config", Fault(delay=0.2))
        start = time.monotonic()
        assert get(url)[2] == CONFIG
        assert time.monotonic() - start > 0.15

    def test_gzip(self, hub, url):
        hub.fault("GET", "config", Fault(gzip=True))
        _, headers, body = get(url)
        assert (headers["Content-Encoding"], headers["Content-Length"]) == ("gzip", None)
        assert gzip.decompress(body) == CONFIG

    def test_redirect(self, hub, url):
        hub.fault("GET", "config", Fault(redirect=f"{hub.url}/acme/tiny/resolve/main/README.md"))
        assert get(url)[2] == FILES["README.md"]

    def test_ignored_range(self, hub, url):
        hub.fault("GET", "config", Fault(ignore_range=True))
        assert get(url, Range="bytes=5-")[::2] == (200, CONFIG)

    def test_hostile_paths_in_the_tree(self, hub):
        hub.fault("GET", "/tree/", Fault(tree_extra=("../../evil",)))
        rows = json.loads(get(f"{hub.url}/api/models/acme/tiny/tree/main?recursive=true")[2])
        assert [row["path"] for row in rows] == [*sorted(FILES), "../../evil"]

    def test_times_and_skip(self, hub, url):
        hub.fault("*", "config", Fault(body=b"second"), times=1, skip=1)
        assert [get(url)[2] for _ in range(3)] == [CONFIG, b"second", CONFIG]
        hub.clear()
        assert hub.count("GET", "config") == 0

    def test_another_process_sets_faults_and_reads_the_log(self, hub, url):
        rules = json.dumps([{"method": "GET", "pattern": "config", "fault": {"short": 1}}]).encode()
        with _direct.open(f"{hub.url}/__faults__", data=rules, timeout=patience(10)) as answer:
            assert answer.status == 200
        assert get(url)[2] == CONFIG[:1]

        def logged():
            log = json.loads(get(f"{hub.url}/__log__")[2])
            return [(r["method"], r["sent"]) for r in log if "config" in r["path"]]

        assert wait_until(logged) == [("GET", 1)]  # written after the last byte is sent
