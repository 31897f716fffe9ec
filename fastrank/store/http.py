"""HTTP with an end: every answer has a limit of time and size, whatever the server does.

The client is huggingface_hub's, with its token, proxies and certificates. What it leaves open is closed here: headers
that never end (its timeouts count from byte to byte), bodies that never end or unpack to gigabytes, redirects from
https to http, tokens that follow a redirect to another host, and secrets in error messages.
"""

from __future__ import annotations

import re
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from fastrank.errors import DownloadError

READ_SECONDS = 15.0  # without a byte, after which a connection is given up; and for all headers of an answer
_MOST_REDIRECTS = 8
_PIECE = 1 << 20  # bytes of a compressed body that are unpacked at a time
_SHUT_BOTH = 2  # socket.SHUT_RDWR


class UnreachableError(DownloadError):
    """No answer at all: no use in asking this host for anything else."""


class ConnectionBrokenError(Exception):
    """A connection was refused, reset, cut or too slow. Another try may work."""


class NoAnswerError(ConnectionBrokenError):
    """No headers came within the time that was given."""


class Client:
    """Sends requests, one at a time. Importing huggingface_hub takes 0.2 s: make one only to download."""

    def __init__(self) -> None:
        from huggingface_hub import constants
        from huggingface_hub import utils as untyped

        utils: Any = untyped

        self.endpoint: str = constants.ENDPOINT
        _check_endpoint(self.endpoint)
        if constants.HF_HUB_OFFLINE:  # fixed when huggingface_hub was imported; it then refuses every request
            raise UnreachableError(
                "huggingface_hub was imported while HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE was set: unset it first"
            )
        self._headers: dict[str, str] = {
            **utils.build_hf_headers(library_name="fastrank"),
            "Accept-Encoding": "identity",
        }
        self._client: Any = utils.get_session()
        clients: list[Any] = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
        # The client is httpx under huggingface_hub 1 and httpx2 under 2. InvalidURL is no HTTPError in either.
        self._broken = (OSError, *(kind for each in clients for kind in (each.HTTPError, each.InvalidURL)))
        self._sockets: list[Any] = []

    def head(self, url: str, seconds: float = READ_SECONDS) -> tuple[int, dict[str, str]]:
        """Status and headers (names in lower case) of an answer. Redirects are not followed.

        Raises:
            ConnectionBrokenError: no answer.
        """
        answer = self._open("HEAD", url, self._headers, seconds)
        answer.close()
        return int(answer.status_code), {name.lower(): value for name, value in answer.headers.items()}

    @contextmanager
    def get(self, url: str, headers: dict[str, str] | None = None) -> Iterator[tuple[str, Any]]:
        """The answer to a GET, redirects followed, and the address that gave it. `body` reads it.

        Raises:
            ConnectionBrokenError: no answer, or it broke off while it was read.
            DownloadError: a redirect that is not followed.
        """
        headers = {**self._headers, **(headers or {})}
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._open("GET", url, headers, READ_SECONDS)
            try:
                if answer.has_redirect_location:
                    url, headers = redirected(url, answer.headers["Location"], headers)
                    continue
                yield url, answer
            except self._broken as error:
                # What the disk says is no matter of the network.
                if isinstance(error, OSError) and (error.filename is not None or isinstance(error, DownloadError)):
                    raise
                raise ConnectionBrokenError(reason(error)) from error
            finally:
                answer.close()
            return
        raise DownloadError(f"{public(url)}: more than {_MOST_REDIRECTS} redirects")

    def read(self, url: str, limit: int, seconds: float) -> tuple[int, bytes]:
        """Status and body of an answer, redirects followed.

        Raises:
            ConnectionBrokenError: no answer, or not all of it within `seconds`.
            DownloadError: more than `limit` bytes; a redirect that is not followed.
        """
        deadline = monotonic() + seconds
        with self.get(url) as (url_of_answer, answer):
            content = bytearray()
            for piece in body(answer, url_of_answer):
                content += piece
                if len(content) > limit:
                    raise DownloadError(f"{public(url_of_answer)}: the answer has more than {limit} bytes")
                if monotonic() > deadline:
                    raise ConnectionBrokenError(f"only {len(content)} bytes in {seconds:.0f} s")
            return int(answer.status_code), bytes(content)

    def _open(self, method: str, url: str, headers: dict[str, str], seconds: float) -> Any:
        """An answer whose body is not read yet.

        In a thread, because nothing else interrupts looking up a name or headers that come byte by byte. A thread that
        is given up ends as soon as its connection does.
        """
        outcome: list[Any] = []
        given_up = threading.Event()

        def ask() -> None:
            try:
                request = self._client.build_request(
                    method, url, headers=headers, timeout=READ_SECONDS, extensions={"trace": self._remember}
                )
                outcome.append(self._client.send(request, stream=True, follow_redirects=False))
            except Exception as error:  # noqa: BLE001 - raised below, in the thread that waits for it
                outcome.append(error)
            if given_up.is_set() and not isinstance(outcome[0], Exception):
                outcome[0].close()

        thread = threading.Thread(target=ask, daemon=True, name="fastrank-request")
        thread.start()
        thread.join(seconds)
        if not outcome:
            given_up.set()
            self._disconnect()
            raise NoAnswerError(f"no answer from {public(url)} within {seconds:.0f} s")
        if isinstance(error := outcome[0], self._broken):
            raise ConnectionBrokenError(reason(error)) from error
        if isinstance(error, Exception):
            raise error
        return error

    def _remember(self, event: str, info: dict[str, Any]) -> None:
        """Called by the client at every step; connections are remembered, so that they can be broken off."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")) and info.get("return_value") is not None:
            self._sockets.append(info["return_value"].get_extra_info("socket"))

    def _disconnect(self) -> None:
        while self._sockets:
            with suppress(OSError, AttributeError):  # closed already; or another kind of transport
                self._sockets.pop().shutdown(_SHUT_BOTH)


def body(answer: Any, url: str) -> Iterator[bytes]:
    """The bytes of a body as they come, unpacked in pieces of bounded size if they were compressed unasked.

    Raises:
        ConnectionBrokenError: compressed data that is damaged or cut.
        DownloadError: a compression other than gzip.
    """
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        yield from answer.iter_raw()
    elif encoding in ("gzip", "x-gzip"):
        yield from _unpacked(answer.iter_raw())
    else:
        raise DownloadError(f"{public(url)}: the server compresses with {encoding:.20}, which was not asked for")


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for chunk in chunks:
        rest = chunk
        while rest and not unpacker.eof:
            try:
                piece = unpacker.decompress(rest, _PIECE)
            except zlib.error as error:
                raise ConnectionBrokenError(f"damaged gzip: {error}") from error
            rest = unpacker.unconsumed_tail
            if piece:
                yield piece
    if not unpacker.eof:
        raise ConnectionBrokenError("the connection ended in the middle of a compressed body")


def redirected(url: str, location: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Where a redirect leads and what may be sent there: no token to another origin, nothing but HTTP.

    Raises:
        DownloadError: it leads from https to http, to another scheme or to no address at all.
    """
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        leaves = (here.scheme, here.hostname, here.port) != (there.scheme, there.hostname, there.port)
    except ValueError as error:
        raise DownloadError(f"{public(url)} redirects to no address: {error}") from error
    if there.scheme not in ("http", "https") or (here.scheme == "https" and there.scheme == "http"):
        raise DownloadError(f"{public(url)} redirects to {public(target):.200}, which is not followed")
    if leaves:
        headers = {key: value for key, value in headers.items() if key.lower() not in ("authorization", "cookie")}
    return target, headers


def public(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    try:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
    except ValueError:
        return _without_secrets(url)


def reason(error: BaseException) -> str:
    """The innermost cause in a few words: `[Errno 111] Connection refused`."""
    while isinstance(inner := error.__cause__ or error.__context__, Exception):
        error = inner
    return _without_secrets(str(error)) or type(error).__name__


def _without_secrets(text: str) -> str:
    text = re.sub(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/?#\s'\"]*@", r"\1", text)
    return re.sub(r"(?i)(\bhttps?://[^\s?'\"<>]*)\?[^\s'\"<>]*", r"\1", text)


def _check_endpoint(endpoint: str) -> None:
    """What is wrong with HF_ENDPOINT is said as such, before anything is sent."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UnreachableError(f"HF_ENDPOINT={_without_secrets(endpoint)!r} is no address of an http or https server")
