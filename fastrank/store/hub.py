"""Fetching files from the Hugging Face hub.

huggingface_hub is the address book: endpoint, token, proxies and HTTP client come from it. The bytes are moved here,
because its own download never checks content, does not resume in a new process, obeys any Retry-After and does not stop
a body that has no end.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urljoin, urlsplit

from fastrank.errors import DownloadError, IntegrityError
from fastrank.models.spec import COMMIT, SHA256, FileSpec, HubSource
from fastrank.store.publish import move

REACH = 5.0  # seconds after which a hub that gives no answer is given up
_READ = 15.0  # seconds without a byte after which a connection is given up
_STALL_SECONDS, _STALL_BYTES = 30.0, 32 * 1024
_TRIES = 6  # in a row without progress
_LONGEST_WAIT = 30.0
_MOST_REDIRECTS = 8
_LARGEST = 20 << 30  # bytes; for files whose size nobody knows

Report = Callable[[int], object]


class UnreachableError(DownloadError):
    """No answer at all: no use in asking this host for anything else."""


class Hub:
    """The hub as it is configured for this process. Importing huggingface_hub takes 0.2 s: only when downloading."""

    def __init__(self) -> None:
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub import utils as untyped

        utils: Any = untyped

        self.endpoint: str = constants.ENDPOINT
        self._url = hf_hub_url
        self._headers: dict[str, str] = {
            **utils.build_hf_headers(library_name="fastrank"),
            "Accept-Encoding": "identity",
        }
        self._client: Any = utils.get_session()
        clients: list[Any] = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
        # What a connection may raise; the client is httpx under huggingface_hub 1 and httpx2 under 2.
        self._broken: tuple[type[Exception], ...] = (OSError, *(module.HTTPError for module in clients))

    def url(self, source: HubSource, path: str) -> str:
        """The address of a file."""
        return str(self._url(source.hub, path, revision=source.revision or "main"))

    def reach(self, source: HubSource, path: str, *, needed: bool = True) -> None:
        """Ask for a file's headers, to learn within 5 seconds whether there is a hub and the file is to be had.

        `needed`: that there is no such file is an error.

        Raises:
            UnreachableError: no answer. Looking up a name cannot be interrupted, so this happens in a thread.
            DownloadError: the hub says that it is not to be had.
        """
        url = self.url(source, path)
        outcome: list[int | Exception] = []
        thread = threading.Thread(target=lambda: outcome.append(self._knock(url)), daemon=True)
        thread.start()
        thread.join(REACH)
        if not outcome:
            raise UnreachableError(f"no answer from {self.endpoint} within {REACH:.0f} s")
        if isinstance(status := outcome[0], Exception):
            raise UnreachableError(f"{self.endpoint} cannot be reached: {_reason(status)}") from status
        if needed or status != 404:
            _refused(status, url)

    def pin(self, source: HubSource) -> HubSource:
        """The source at the commit its main branch has now, so that all files are of one commit."""
        if source.revision is not None:
            return source
        url = f"{self.endpoint}/api/models/{source.hub}/revision/main"
        try:
            answer = self._client.get(url, headers=self._headers, timeout=REACH)
        except self._broken:
            return source
        try:
            commit = str(answer.json()["sha"])
        except (ValueError, KeyError, TypeError):
            return source
        return HubSource(source.hub, commit) if re.fullmatch(COMMIT, commit) else source

    def files(self, source: HubSource) -> list[FileSpec] | None:
        """All files of a repository, with sizes and hashes as far as the hub states them; None if it gives no list."""
        url = f"{self.endpoint}/api/models/{source.hub}/revision/{source.revision or 'main'}?blobs=true"
        try:
            rows = self._client.get(url, headers=self._headers, timeout=_READ).json()["siblings"]
            return [_stated(row) for row in rows]
        except self._broken:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):  # an answer of another form
            return None

    def fetch(self, source: HubSource, file: FileSpec, target: Path, report: Report) -> bool:
        """Bring one file to `target`, going on with what an earlier run left in `<target>.part`.

        Returns whether there is such a file: False only for an optional one. The content is not checked here, except
        that it never grows beyond the stated size.

        Raises:
            DownloadError: six tries in a row brought nothing.
        """
        url, part = self.url(source, file.path), target.with_name(target.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        failures, furthest = 0, 0
        while True:
            done = part.stat().st_size if part.exists() else 0
            furthest = max(furthest, done)
            try:
                if not part.exists() or done != file.size:
                    self._transfer(url, part, done, file, report)
            except _MissingError:
                if file.optional:
                    return False
                raise
            except _AgainError as error:
                # Only bytes never reached before are progress: a server may send the same beginning for ever.
                failures = 1 if part.exists() and part.stat().st_size > furthest else failures + 1
                if failures >= _TRIES:
                    raise DownloadError(f"{url}: {error} ({_TRIES} tries)") from error
                sleep(min(error.wait if error.wait is not None else 0.5 * 2**failures, _LONGEST_WAIT))
            else:
                move(part, target)
                return True

    def _knock(self, url: str) -> int | Exception:
        """The status of a HEAD request; three tries, for connections that are reset."""
        failure: Exception = DownloadError("no try")
        for pause in (0.2, 0.5, 0.0):
            try:
                answer = self._client.request("HEAD", url, headers=self._headers, timeout=REACH, follow_redirects=False)
            except self._broken as error:
                failure = error
                sleep(pause)
            except Exception as error:  # noqa: BLE001 - said by the caller: a token or an endpoint that cannot be sent
                return error
            else:
                return int(answer.status_code)
        return failure

    def _transfer(self, url: str, part: Path, done: int, file: FileSpec, report: Report) -> None:
        """One connection's worth of bytes, appended to `part`."""
        headers = dict(self._headers)
        if done:
            headers["Range"] = f"bytes={done}-"
        for _ in range(_MOST_REDIRECTS):
            try:
                with self._client.stream("GET", url, headers=headers, timeout=_READ, follow_redirects=False) as answer:
                    if answer.has_redirect_location:
                        url, headers = _redirected(url, answer.headers["Location"], headers)
                        continue
                    self._receive(url, answer, part, done, file, report)
                    return
            except self._broken as error:
                # What the disk says is no matter of the network.
                if isinstance(error, OSError) and (error.filename is not None or isinstance(error, DownloadError)):
                    raise
                raise _AgainError(_reason(error)) from error
        raise DownloadError(f"{url}: more than {_MOST_REDIRECTS} redirects")

    def _receive(self, url: str, answer: Any, part: Path, done: int, file: FileSpec, report: Report) -> None:
        status = int(answer.status_code)
        if status == 416:
            part.unlink(missing_ok=True)
            report(-done)
            raise _AgainError(f"HTTP {status}")
        if status in (408, 429) or status >= 500:
            raise _AgainError(f"HTTP {status}", _seconds(answer.headers.get("Retry-After")))
        _refused(status, url)
        resumed = status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if done and not resumed:  # the server ignored Range: from the start
            report(-done)
            done = 0
        announced = answer.headers.get("Content-Length", "")
        plain = answer.headers.get("Content-Encoding", "identity") == "identity"
        whole = done + int(announced) if announced.isdigit() and plain else None
        if file.size is not None and whole not in (None, file.size):
            raise IntegrityError(f"{url} has {whole} bytes, the registry states {file.size}")
        wanted = file.size or whole
        mark, marked = monotonic(), done
        with _opened(part, append=done > 0) as stream:
            for chunk in answer.iter_bytes():  # as they come: what a chunk size collects is lost with a connection
                done += len(chunk)
                if done > (wanted or _LARGEST):
                    part.unlink()
                    raise IntegrityError(f"{url} sends more than the {wanted} bytes it should have")
                _write(stream, chunk, part)
                report(len(chunk))
                if (now := monotonic()) - mark > _STALL_SECONDS:
                    if done - marked < _STALL_BYTES:
                        raise _AgainError(f"only {done - marked} bytes in {now - mark:.0f} s")
                    mark, marked = now, done
        if wanted is not None and done < wanted:
            raise _AgainError(f"the connection ended after {done} of {wanted} bytes")


def _stated(row: Any) -> FileSpec:
    """A file as the hub lists it. It states the SHA-256 of large ones only."""
    size, digest = row.get("size"), (row.get("lfs") or {}).get("sha256")
    return FileSpec(
        str(row["rfilename"]),
        size if isinstance(size, int) and 0 < size <= _LARGEST else None,
        digest if isinstance(digest, str) and re.fullmatch(SHA256, digest) else None,
    )


class _AgainError(Exception):
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
        return part.open("ab" if append else "wb", buffering=0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(part)) from error


def _refused(status: int, url: str) -> None:
    """Say what a client error means to a user."""
    if status == 404:
        raise _MissingError(f"{url}: HTTP 404, there is no such model, commit or file")
    if status in (401, 403):
        raise DownloadError(
            f"{url}: HTTP {status}. The name is wrong, or the model is private or gated: accept its terms on its page "
            "and set HF_TOKEN (huggingface.co/settings/tokens)"
        )
    if 400 <= status < 500 and status not in (405, 408, 416, 429):
        raise DownloadError(f"{url}: HTTP {status}")


def _redirected(url: str, location: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Where a redirect leads and what may be sent there: no token to another origin, nothing but HTTP."""
    target = urljoin(url, location)
    here, there = urlsplit(url), urlsplit(target)
    if there.scheme not in ("http", "https") or (here.scheme == "https" and there.scheme == "http"):
        raise DownloadError(f"{url} redirects to {target:.200}, which is not followed")
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        headers = {key: value for key, value in headers.items() if key.lower() not in ("authorization", "cookie")}
    return target, headers


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.isdigit() else None


def _reason(error: Exception) -> str:
    """The innermost cause in a few words: `[Errno 111] Connection refused`."""
    while isinstance(inner := error.__cause__ or error.__context__, Exception):
        error = inner
    return str(error) or type(error).__name__
