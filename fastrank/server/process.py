"""The process of a server: its socket, its signals, and its end.

SIGTERM or SIGINT: not ready from now on; after `drain_delay` no new connections; what runs may finish for
`drain_timeout`; then the process ends with status 0. A second signal ends it now.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import stat
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

import uvicorn

from fastrank.server.app import Application, middlewares
from fastrank.server.protocol import protocol

_BACKLOG = 2048
_ARRIVED = 0.1  # seconds in which requests are read that have reached the socket before the signal
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


class Server(uvicorn.Server):
    """uvicorn's server, which drains as above and ends with status 0."""

    def __init__(self, app: Application, config: uvicorn.Config, greet: Callable[[], None]) -> None:
        super().__init__(config)
        self._greet = greet
        self._app = app
        self._stops: float | None = None  # when it stops accepting, by `time.monotonic`

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals without raising them again afterwards, as uvicorn does, which would end with -15."""
        try:
            before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        except ValueError:  # not in the main thread: whoever started it stops it
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to drain; the second time, end now."""
        if self._stops is not None:
            self.should_exit = self.force_exit = True
            self._app.abort()
        else:
            self.drain()

    def drain(self) -> None:
        """Begin to drain."""
        self._app.draining = True
        self._stops = time.monotonic() + self._app.settings.drain_delay + _ARRIVED

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then say so."""
        await super().startup(sockets)
        self._greet()

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop accepting; asked ten times a second."""
        if self._stops is not None and time.monotonic() >= self._stops:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what runs finish; what takes too long is answered with 503."""
        timer = asyncio.get_running_loop().call_later(self._app.settings.drain_timeout, self._app.abort)
        await super().shutdown(sockets)
        timer.cancel()


def server(app: Application, greet: Callable[[], None] = lambda: None, **options: object) -> Server:
    """A server for an application.

    Args:
        app: the application.
        greet: is called once it accepts connections.
        options: uvicorn's, such as `ssl_certfile` or `root_path`.
    """
    settings = app.settings
    config = uvicorn.Config(
        middlewares(app),
        http=protocol(settings),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]  # seconds, of any kind
        timeout_graceful_shutdown=settings.drain_timeout + 2,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )
    return Server(app, config, greet)


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        OSError: the port is taken; the message says who answers there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(f"{host}:{port} cannot be used: {error.strerror or error}{_who(host, port)}") from None


def listen_unix(path: str) -> socket.socket:
    """A listening Unix socket with mode 0660. One that nobody listens on any more is replaced.

    Raises:
        OSError: something else is there, or somebody listens.
    """
    place = Path(path)
    if place.exists():
        if not stat.S_ISSOCK(place.stat().st_mode):
            raise OSError(f"{path} is there and no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise OSError(f"Somebody listens on {path} already")
        place.unlink()
    found = socket.socket(socket.AF_UNIX)
    try:
        found.bind(path)
        place.chmod(0o660)
        found.listen(_BACKLOG)
    except OSError:
        found.close()
        raise
    return found


def allow_many_connections(wanted: int) -> None:
    """Raise the limit of open connections, up to what the system allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + 512  # files of models, libraries, and connections that are being refused
    if soft != resource.RLIM_INFINITY and soft < need:
        most = need if hard == resource.RLIM_INFINITY else min(need, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _who(host: str, port: int) -> str:
    """Who answers at an address, as the end of a sentence."""
    connection = http.client.HTTPConnection("127.0.0.1" if host in ("0.0.0.0", "") else host, port, timeout=2)  # noqa: S104
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        if json.loads(answer.read(1000)).get("server") == "fastrank":
            return "; another fastrank answers there"
        return f"; {answer.getheader('server') or 'another program'} answers there"
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
