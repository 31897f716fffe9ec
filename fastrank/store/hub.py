"""Fetching files from the Hugging Face hub.

huggingface_hub is the address book: endpoint, token, proxies and HTTP client come from it. The bytes are moved here,
because its own download never checks content, does not resume in a new process, obeys any Retry-After and does not stop
a body that has no end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fastrank.errors import DownloadError, IntegrityError
from fastrank.models.spec import COMMIT, SHA256, FileSpec, HubSource
from fastrank.store import http
from fastrank.store.forms import size_limit
from fastrank.store.http import ConnectionBrokenError, NoAnswerError, UnreachableError, public
from fastrank.store.integrity import HUB, REGISTRY, Expected
from fastrank.store.layout import FILE_MODE, make_folders
from fastrank.store.publish import move

REACH = 5.0  # seconds after which a hub that gives no answer is given up
_STALL_SECONDS, _STALL_BYTES = 30.0, 32 * 1024
_TRIES = 6  # in a row without progress
_LONGEST_WAIT = 30.0
_MOST_REDIRECTS = 8
_LIST_SECONDS, _LIST_BYTES = 30.0, 16_000_000  # a list of 100,000 files, the most that a repository has
_SHA1 = r"[0-9a-f]{40}"

Report = Callable[[int], object]


class Repository(NamedTuple):
    """What the hub states of a repository: its commit, and its files by path; None where it does not state it."""

    commit: str | None
    files: Mapping[str, Expected] | None


class Hub:
    """The hub as it is configured for this process."""

    def __init__(self) -> None:
        from huggingface_hub import hf_hub_url

        self._http = http.Client()
        self._url = hf_hub_url

    def url(self, source: HubSource, path: str) -> str:
        """The address of a file."""
        return str(self._url(source.hub, path, revision=source.revision or "main"))

    def reach(self, source: HubSource, path: str, *, needed: bool = True) -> str | None:
        """Ask for a file's headers, to learn within 5 seconds whether there is a hub and the file is to be had.

        `needed`: that there is no such file is an error.

        Returns:
            The commit that the hub says the file is of, if it says so.

        Raises:
            UnreachableError: no answer.
            DownloadError: the hub says that it is not to be had.
        """
        url = self.url(source, path)
        try:
            status, headers = self._head_request(url)
        except Exception as error:
            if isinstance(error, NoAnswerError):
                raise UnreachableError(f"no answer from {public(self._http.endpoint)} within {REACH:.0f} s") from error
            raise UnreachableError(f"{public(self._http.endpoint)} cannot be reached: {http.reason(error)}") from error
        if needed or status != 404:
            _refuse(status, url)
        commit = headers.get("x-repo-commit", "")
        return commit if re.fullmatch(COMMIT, commit) else None

    def repository(self, source: HubSource) -> Repository:
        """What the hub states of a repository at the source's commit, or at the one its main branch has now.

        Raises:
            DownloadError: the answer is too large, or is of another commit.
        """
        url = f"{self._http.endpoint}/api/models/{source.hub}/revision/{source.revision or 'main'}?blobs=true"
        try:
            answer = json.loads(self._read_list(url))
        except (ValueError, RecursionError):  # a mirror may have no such list
            return Repository(None, None)
        if not isinstance(answer, dict):
            return Repository(None, None)
        commit = answer.get("sha")
        commit = commit if isinstance(commit, str) and re.fullmatch(COMMIT, commit) else None
        if None not in (commit, source.revision) and commit != source.revision:
            raise DownloadError(f"{public(url)}: the answer is of commit {commit}")
        try:
            rows = [_stated(row) for row in answer["siblings"]]
        except (ValueError, KeyError, TypeError, AttributeError):  # an answer of another form
            return Repository(commit, None)
        return Repository(commit, {row.path: row for row in rows})

    def stated(self, source: HubSource, path: str) -> Expected:
        """What the hub states of one file in the headers of an answer, for mirrors that give no list.

        Only answers that name the commit count, as for huggingface_hub: others' ETags mean something else.
        """
        url = self.url(source, path)
        status, headers = 0, dict[str, str]()
        for _ in range(_MOST_REDIRECTS):
            try:
                status, headers = self._http.head(url)
                if not (300 <= status < 400 and "location" in headers and "x-linked-etag" not in headers):
                    break
                target, _headers = http.redirected(url, headers["location"], {})
            except (ConnectionBrokenError, DownloadError):
                return Expected(path)
            if urlsplit(target).netloc != urlsplit(url).netloc:
                break
            url = target
        if not re.fullmatch(COMMIT, headers.get("x-repo-commit", "")):
            return Expected(path)
        tag = headers.get("x-linked-etag", headers.get("etag", "")).removeprefix("W/").strip('"')
        size = _number(headers.get("x-linked-size", headers.get("content-length", "") if status == 200 else ""))
        return _expected(path, size, tag, tag)

    def fetch(self, source: HubSource, file: FileSpec, expected: Expected, target: Path, report: Report) -> bool:
        """Bring one file to `target`, going on with what an earlier run left in `<target>.part`.

        Returns whether there is such a file: False only for an optional one. The content is not checked here, except
        that it never grows beyond the size that is stated, or that files of its kind may have.

        Raises:
            DownloadError: six tries in a row brought nothing.
        """
        url, part = self.url(source, file.path), target.with_name(target.name + ".part")
        make_folders(part.parent)
        failures, furthest = 0, 0
        while True:
            done = part.stat().st_size if part.exists() else 0
            furthest = max(furthest, done)
            try:
                if not part.exists() or done != expected.size:
                    self._transfer(url, part, done, expected, report)
            except _MissingError:
                if file.optional:
                    return False
                raise
            except (_RetryError, ConnectionBrokenError) as error:
                # Only bytes never reached before are progress: a server may send the same beginning for ever.
                failures = 1 if part.exists() and part.stat().st_size > furthest else failures + 1
                if failures >= _TRIES:
                    raise DownloadError(f"{public(url)}: {error} ({_TRIES} tries)") from error
                wait = getattr(error, "wait", None)
                sleep(min(0.5 * 2**failures if wait is None else wait, _LONGEST_WAIT))
            else:
                move(part, target)
                return True

    def _head_request(self, url: str) -> tuple[int, dict[str, str]]:
        """The answer to a HEAD request within 5 seconds; three tries, for connections that are reset."""
        deadline = monotonic() + REACH
        for pause in (0.2, 0.5):
            try:
                return self._http.head(url, deadline - monotonic())
            except ConnectionBrokenError:
                if monotonic() + pause > deadline:
                    raise
                sleep(pause)
        return self._http.head(url, deadline - monotonic())

    def _read_list(self, url: str) -> bytes:
        """The body of an answer; empty if there is none after a few tries and 30 seconds."""
        deadline = monotonic() + _LIST_SECONDS
        for pause in (0.5, 2.0, 0.0):
            try:
                status, content = self._http.read(url, _LIST_BYTES, deadline - monotonic())
                if status not in (408, 429) and status < 500:
                    return content
            except ConnectionBrokenError:
                pass
            if monotonic() + pause > deadline:
                break
            sleep(pause)
        return b""

    def _transfer(self, url: str, part: Path, done: int, expected: Expected, report: Report) -> None:
        """One connection's worth of bytes, appended to `part`."""
        with self._http.get(url, {"Range": f"bytes={done}-"} if done else None) as (url_of_answer, answer):
            self._receive(url_of_answer, answer, part, done, expected, report)

    def _receive(self, url: str, answer: Any, part: Path, done: int, expected: Expected, report: Report) -> None:
        done = self._begin(url, answer, part, done, report)
        announced = _number(answer.headers.get("Content-Length", ""))
        plain = answer.headers.get("Content-Encoding", "identity") == "identity"
        whole = done + announced if announced is not None and plain else None
        if expected.size is not None and whole not in (None, expected.size):
            raise IntegrityError(f"{public(url)} has {whole} bytes, the {expected.author} states {expected.size}")
        wanted = expected.size if expected.size is not None else whole
        limit = size_limit(expected.path) if wanted is None else wanted
        if expected.size is None and limit > size_limit(expected.path):
            raise IntegrityError(
                f"{public(url)} has {wanted} bytes, such files may have at most {size_limit(expected.path)}"
            )
        mark, marked = monotonic(), done
        with _opened(part, append=done > 0) as stream:
            for chunk in http.body(answer, url):  # as they come: what a chunk size collects is lost with a connection
                done += len(chunk)
                if done > limit:
                    part.unlink()
                    raise IntegrityError(f"{public(url)} sends more than the {limit} bytes it should have")
                _write(stream, chunk, part)
                report(len(chunk))
                if (now := monotonic()) - mark > _STALL_SECONDS:
                    if done - marked < _STALL_BYTES:
                        raise _RetryError(f"only {done - marked} bytes in {now - mark:.0f} s")
                    mark, marked = now, done
        if wanted is not None and done < wanted:
            raise _RetryError(f"the connection ended after {done} of {wanted} bytes")

    def _begin(self, url: str, answer: Any, part: Path, done: int, report: Report) -> int:
        """What an answer's status means: at which byte its body begins, or an error."""
        status = int(answer.status_code)
        if status == 416:
            part.unlink(missing_ok=True)
            report(-done)
            raise _RetryError(f"HTTP {status}")
        if status in (408, 429) or status >= 500:
            wait = _number(answer.headers.get("Retry-After", ""))
            raise _RetryError(f"HTTP {status}", None if wait is None else float(wait))
        _refuse(status, url)
        resumed = status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if done and not resumed:  # the server ignored Range: from the start
            report(-done)
            return 0
        return done


def expected(file: FileSpec, stated: Expected | None) -> Expected:
    """The expected size and hash of a file: the registry's, else the hub's.

    Raises:
        IntegrityError: the hub states more bytes than such files may have.
    """
    if file.sha256 is not None:
        size = file.size if file.size is not None or stated is None else stated.size
        return Expected(file.path, size, file.sha256, None, REGISTRY)
    if stated is None:
        stated = Expected(file.path)
    if stated.size is not None and stated.size > (limit := size_limit(file.path)):
        raise IntegrityError(f"{file.path} has {stated.size} bytes, such files may have at most {limit}")
    return stated._replace(path=file.path) if file.size is None else stated._replace(path=file.path, size=file.size)


def _stated(row: Any) -> Expected:
    """A file as the hub lists it: SHA-256 of large ones, the id of git's blob of small ones."""
    lfs = row.get("lfs") or {}
    return _expected(str(row["rfilename"]), row.get("size"), lfs.get("sha256"), None if lfs else row.get("blobId"))


def _expected(path: str, size: Any, sha256: Any, sha1: Any) -> Expected:
    size = size if type(size) is int and 0 < size < 1 << 50 else None
    sha256 = sha256 if isinstance(sha256, str) and re.fullmatch(SHA256, sha256) else None
    sha1 = sha1 if isinstance(sha1, str) and re.fullmatch(_SHA1, sha1) else None
    return Expected(path, size, sha256, sha1, HUB if sha256 or sha1 else "")


class _RetryError(Exception):
    """Worth another try, after `wait` seconds if the server said so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _MissingError(DownloadError):
    """The hub says that there is no such file."""


def _write(stream: Any, chunk: bytes, part: Path) -> None:
    """All of it: an unbuffered file may take less. An error names the file: that tells it from the network's."""
    rest = memoryview(chunk)
    while rest:
        try:
            rest = rest[stream.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(part)) from error


def _opened(part: Path, *, append: bool) -> Any:
    try:
        return open(part, "ab" if append else "wb", buffering=0, opener=_for_the_owner)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(part)) from error


def _for_the_owner(path: str, flags: int) -> int:
    import os

    return os.open(path, flags, FILE_MODE)


def _refuse(status: int, url: str) -> None:
    """Say what a client error means to a user."""
    if status == 404:
        raise _MissingError(f"{public(url)}: HTTP 404, there is no such model, commit or file")
    if status in (401, 403):
        raise DownloadError(
            f"{public(url)}: HTTP {status}. The name is wrong, or the model is private or gated: accept its terms on "
            "its page and set HF_TOKEN (huggingface.co/settings/tokens)"
        )
    if 400 <= status < 500 and status not in (405, 408, 416, 429):
        raise DownloadError(f"{public(url)}: HTTP {status}")


def _number(text: str) -> int | None:
    """A number in a header; None if it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
