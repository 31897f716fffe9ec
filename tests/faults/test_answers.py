"""Rows D32 to D36: answers of a hub that never end, lead elsewhere or hold secrets, and odd addresses and headers."""

import logging
import threading
import time
import tracemalloc
import zlib
from contextlib import contextmanager

import pytest
from support.hub import Fault
from support.pinned_model import FILES, REPO, content, entry, unpinned_entry
from support.waiting import patience, wait_until

from fastrank import store
from fastrank.errors import DownloadError
from fastrank.models.spec import HubSource
from fastrank.store import http
from fastrank.store.http import UnreachableError, public, redirected
from fastrank.store.hub import Hub

LIST = "/api/models/"
PASSWORD, SIGNATURE = "s3cret", "f00d5ec7e7"


@pytest.fixture(params=["pinned", "unpinned"])
def spec(request, hub):
    commit = hub.add_repo(REPO, FILES)
    return entry(commit) if request.param == "pinned" else unpinned_entry()


@contextmanager
def at_most(seconds, megabytes=64):
    """What is inside takes no longer, and no more memory."""
    begin = time.monotonic()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begin < patience(seconds)


# -- answers of /api ---------------------------------------------------------------------------------------------------


def packed(size):
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(size >> 20)) + packer.flush()


BAD_LISTS = {
    "endless": Fault(body=b'{"a": 1, ' * 10_000, endless=True),
    "drip": Fault(drip=10),
    "header drip": Fault(header_drip=2),
    "gzip bomb": Fault(body=packed(200 << 20), headers={"Content-Encoding": "gzip"}),
    "brotli": Fault(body=b"x", headers={"Content-Encoding": "br"}),
    "deep": Fault(body=b'{"a":' * 200_000),
    "list": Fault(body=b"[1, 2]"),
    "null rows": Fault(body=b'{"sha": null, "siblings": [null]}'),
    "rows of other types": Fault(body=b'{"sha": 5, "siblings": {"a": 1}}'),
    "sizes of other types": Fault(
        body=b'{"siblings": [{"rfilename": "config.json", "size": true, "lfs": {"sha256": 1}}]}'
    ),
    "not JSON": Fault(body=b"\xff\xfe"),
    "HTTP 500": Fault(status=500),
    "reset": Fault(reset=True),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_d32_a_list_of_files_that_is_none(hub, cache, quick, monkeypatch, name):
    """The list is given up within its limits. Headers of the files themselves state what they should be."""
    monkeypatch.setattr("fastrank.store.hub._LIST_SECONDS", 1.0)
    monkeypatch.setattr("fastrank.store.http.READ_SECONDS", 1.0)
    hub.add_repo(REPO, FILES)
    hub.fault("GET", LIST, BAD_LISTS[name])
    with at_most(20):
        try:
            assert content(store.locate(unpinned_entry())) == FILES
        except DownloadError as error:  # too much of it, or packed in a way that was not asked for
            assert "/api/models/acme/tiny" in str(error)  # noqa: PT017 - one of two ways


def test_d32_a_list_of_another_commit_is_refused(hub, cache):
    commit = hub.add_repo(REPO, FILES)
    hub.add_repo(REPO, {**FILES, "config.json": b"{}"})
    hub.fault("GET", f"{LIST}acme/tiny/revision/{commit}", Fault(body=b'{"sha": "%s", "siblings": []}' % (b"1" * 40)))
    with pytest.raises(DownloadError, match=f"the answer is of commit {'1' * 40}"):
        store.locate(unpinned_entry(commit))


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Fault(header_drip=5), Fault(hints=True), Fault(delay=60)], ids=["drip", "103 for ever", "silence"]
)
def test_d33_headers_that_never_end(hub, spec, quick, monkeypatch, fault):
    monkeypatch.setattr("fastrank.store.http.READ_SECONDS", 0.5)
    hub.fault("GET", "/cdn/", fault)
    before = threading.active_count()
    with at_most(30), pytest.raises(DownloadError, match=r"no answer from http://.* within 0 s \(6 tries\)"):
        store.locate(spec)
    if not fault.delay:  # our side hangs up, so no thread waits on
        wait_until(lambda: not [each for each in threading.enumerate() if each.name == "fastrank-request"])
        assert threading.active_count() <= before + 8  # the stand-in's own


def test_d33_headers_that_never_end_at_the_first_question(hub, spec):
    hub.fault("HEAD", ".", Fault(header_drip=5))
    with at_most(8), pytest.raises(DownloadError, match=r"no answer from http://127\.0\.0\.1:.* within 5 s"):
        store.locate(spec)


# -- redirects ---------------------------------------------------------------------------------------------------------


class Secure:
    """Stands in for huggingface_hub's client: an https hub whose every answer is a redirect to `target`."""

    def __init__(self, target):
        self.target, self.asked = target, []

    def build_request(self, method, url, **_options):
        return method, url

    def send(self, request, **_options):
        self.asked.append(request)
        return self

    has_redirect_location = True
    status_code = 302

    @property
    def headers(self):
        return {"Location": self.target}

    def close(self):
        pass


@pytest.mark.parametrize("target", ["http://hub.test/x", "//[", "file:///etc/passwd", "ftp://hub.test/x"])
def test_d34_no_answer_is_taken_from_where_https_does_not_lead(monkeypatch, target):
    """Neither lists of files nor files: sizes and hashes from a plain host would be anybody's."""
    from huggingface_hub import constants, utils

    client = Secure(target)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.test")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "https://hub.test/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(utils, "get_session", lambda: client)
    hub, source = Hub(), HubSource(REPO, "1" * 40)
    with pytest.raises(DownloadError, match=r"redirects to .*"):
        hub.repository(source)
    with pytest.raises(DownloadError, match=r"redirects to .*"):
        hub._http.read(hub.url(source, "config.json"), 100, 5)
    assert hub.stated(source, "config.json").stated_by == ""
    assert {url.partition(":")[0] for _, url in client.asked} == {"https"}


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/x", "file:///etc/passwd", "http://[", "/api/models/acme/tiny/loop"]
)
def test_d34_a_list_that_is_elsewhere(hub, quick, target):
    hub.add_repo(REPO, FILES)
    hub.fault("GET", LIST, Fault(redirect=target))
    with at_most(20):
        try:
            assert content(store.locate(unpinned_entry())) == FILES
        except DownloadError as error:
            assert "redirect" in str(error)  # noqa: PT017 - one of two ways


def test_d34_the_token_stays_with_its_origin():
    token = {"authorization": "Bearer x", "Range": "bytes=1-"}
    assert redirected("https://user:pw@hub/x", "https://hub/y", token) == ("https://hub/y", token)
    for other in ("https://hub:444/y", "https://cdn/y"):
        assert redirected("https://hub/x", other, token) == (other, {"Range": "bytes=1-"})


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_password(hub, monkeypatch):
    """HF_ENDPOINT with a user and a password in it, as some mirrors want it."""
    from huggingface_hub import constants

    url = hub.url.replace("http://", f"http://user:{PASSWORD}@")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=404),
        Fault(status=403),
        Fault(status=429),
        Fault(flip=1),
        Fault(short=10),
        Fault(truncate=0),
        Fault(endless=True),
        Fault(reset=True),
        Fault(redirect=f"file:///x?X-Amz-Signature={SIGNATURE}"),
        Fault(redirect=f"http://user:{PASSWORD}@127.0.0.1:1/x?X-Amz-Signature={SIGNATURE}"),
        Fault(redirect=f"/acme/tiny/resolve/x?X-Amz-Signature={SIGNATURE}"),
    ],
)
@pytest.mark.parametrize("method", ["*", "GET"])
def test_d35_no_password_and_no_signature_is_told(hub, spec, with_password, quick, caplog, method, fault):
    caplog.set_level(logging.WARNING)
    hub.fault(method, "resolve|/cdn/", fault)
    with pytest.raises(DownloadError) as error:
        store.locate(spec._replace(variants=spec.variants * 2))
    told = [str(error.value), *caplog.messages]
    while (cause := error.value.__cause__) is not None:
        told.append(str(cause))
        error.value = cause
    assert "127.0.0.1" in told[0]
    assert not [text for text in told if PASSWORD in text or SIGNATURE in text]


def test_d35_addresses_are_told_without_what_is_secret():
    assert public(f"https://user:{PASSWORD}@cdn/a/b?X-Amz-Signature={SIGNATURE}#{SIGNATURE}") == "https://cdn/a/b"
    text = f"Cannot connect to https://user:{PASSWORD}@cdn:99/a?sig={SIGNATURE} now"
    assert http.reason(OSError(text)) == "Cannot connect to https://cdn:99/a now"


# -- odd values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["²", "soon", "-5", "1e9", "9" * 5000, "Wed, 21 Oct 2015 07:28:00 GMT", "inf"])
def test_d36_retry_after_of_any_kind(hub, spec, quick, value):
    hub.fault("GET", "/cdn/", Fault(status=503, headers={"Retry-After": value.encode().decode("latin-1")}), times=2)
    hub.fault(
        "GET", "/cdn/", Fault(headers={"Content-Length": "²".encode().decode("latin-1")}, no_length=True), times=0
    )
    assert content(store.locate(spec)) == FILES
    assert max(quick) <= 30.0


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:99999",
        "http://[::1",
        "ftp://127.0.0.1",
        "127.0.0.1:80",
        "http://",
        "http:///x",
        f"x://u:{PASSWORD}@h",
    ],
)
def test_d36_endpoints_that_are_no_address(monkeypatch, endpoint):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(UnreachableError, match=r"HF_ENDPOINT=.* is no address") as error:
        Hub()
    assert PASSWORD not in str(error.value)
