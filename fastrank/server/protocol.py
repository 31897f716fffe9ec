"""uvicorn's HTTP protocols with what they lack: a limit of connections, of time and size of headers, errors as JSON."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from fastrank.server import body
from fastrank.server.settings import Settings
from fastrank.server.wire import errors
from fastrank.server.wire.dialects import SUPERSET
from fastrank.server.wire.errors import ApiError, Kind

_MOST_HEADERS = 1 << 16  # bytes
_LINGER = 0.5  # seconds until a refused connection is closed: closing at once may take the answer away
_PHRASES = {400: "Bad Request", 408: "Request Timeout", 429: "Too Many Requests", 431: "Header Fields Too Large"}


@cache
def protocol(settings: Settings) -> type[asyncio.Protocol]:
    """The class that reads and writes HTTP: on httptools where it is installed, else on h11."""
    base: Any
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as base  # noqa: N813 - one of two
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as base  # noqa: N813

    class Guarded(_Guard, base):  # type: ignore[misc]  # a base that is chosen here
        limits = settings

    return Guarded


class _Guard(asyncio.Protocol):
    """Refuses connections that are too many, and headers that are too slow or too long."""

    limits: Settings
    connections: set[Any]
    cycle: Any
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _timer: asyncio.TimerHandle | None = None
    _refused = False
    _header_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            message = f"The server has {self.limits.max_connections} connections already (--max-connections)"
            self._refuse(429, ApiError(Kind.OVERLOADED, message), "retry-after: 1\r\n")
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
            return
        self._header_bytes += len(data)
        if self._header_bytes > _MOST_HEADERS:
            self._refuse(431, ApiError(Kind.INVALID, f"The headers are longer than {_MOST_HEADERS} bytes"))
        elif self._timer is None:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, ApiError(Kind.INVALID, msg))

    def _watch(self) -> None:
        self._timer = self.loop.call_later(self.limits.header_timeout, self._too_slow)

    def _unwatch(self) -> None:
        self._header_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        message = f"The headers did not arrive within {self.limits.header_timeout:g} s"
        self._refuse(408, ApiError(Kind.TIMEOUT, message))

    def _refuse(self, status: int, error: ApiError, headers: str = "") -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._unwatch()
        content = body.dump(errors.body(error, SUPERSET))
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n{headers}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + content)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.close)
