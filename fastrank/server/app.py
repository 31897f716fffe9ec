"""The ASGI application: routes, keys, limits, cancellation, errors, headers, and one log line a request."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrank.server import body, cl100k, logs, openapi, pages
from fastrank.server.catalog import Catalog, Named
from fastrank.server.metrics import CONTENT_TYPE, Metrics
from fastrank.server.settings import Settings
from fastrank.server.timing import Timing
from fastrank.server.wire import calls, dialects, errors, ollama, routes
from fastrank.server.wire.errors import ApiError, Kind
from fastrank.server.wire.fields import Request

T = TypeVar("T")
_LOG = logging.getLogger("fastrank.server")
_OPEN = frozenset({"/", "/health", "/ping", "/ready", "/metrics", "/docs", "/openapi.json"})  # GET without a key
_MANY = 64  # texts: answers with more are written in a thread
_LINGER_SECONDS, _LINGER_BYTES = 5.0, 1 << 28
_CLIENT_GONE = 499
_REQUEST_ID = 128  # characters


class Runner(Protocol):
    """What runs calls on models."""

    async def run(self, call: calls.Call, timing: Timing) -> calls.Result:
        """The result; cancelling the task stops the work.

        Raises:
            ApiError: refused or failed.
        """

    def ready(self) -> bool:
        """Whether the models that were named are loaded."""

    def healthy(self) -> bool:
        """Whether its threads run."""

    def describe(self, model: Any) -> dict[str, Any]:
        """What `/info` says of a model."""


class Application:
    """Serves all dialects on one port.

    Args:
        settings: limits, keys and times.
        catalog: names of models.
        runner: runs calls.
        metrics: counts.
    """

    def __init__(self, settings: Settings, catalog: Catalog[Any], runner: Runner, metrics: Metrics) -> None:
        self.settings = settings
        self.draining = False
        self._catalog = catalog
        self._runner = runner
        self._metrics = metrics
        self._keys = [key.encode() for key in settings.keys]
        self._created = int(time.time())
        self._decode = cl100k.decoder()
        self._jobs: set[asyncio.Future[Any]] = set()
        self._gets: dict[str, Callable[[], Response]] = {
            "/health": self._health,
            "/ping": self._health,
            "/ready": self._ready,
            "/metrics": lambda: Response(metrics.text(), media_type=CONTENT_TYPE),
            "/info": self._info,
            "/v1/models": self._models,
            "/models": self._models,
            "/api/tags": lambda: _json(ollama.tags(catalog.names())),
            "/api/version": lambda: _json({"version": ollama.VERSION}),
            "/openapi.json": lambda: _json(openapi.document()),
            "/docs": lambda: Response(openapi.page(), media_type="text/html"),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def abort(self) -> None:
        """Stop what runs; it is answered with 503."""
        for job in self._jobs:
            job.cancel()

    # -- one request --------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        identity = _request_id(headers)
        path = self._path(scope)
        timing = Timing()
        response: Response | None = None
        failure: ApiError | None = None
        try:
            if scope["method"] in ("GET", "HEAD"):
                response = self._get(path, headers)
            else:
                response = await self._post(scope["method"], path, headers, receive, timing)
        except body.ClientGone:
            self._log(identity, path, timing, _CLIENT_GONE, "dropped")
            return
        except ApiError as error:
            failure = error
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer
            _LOG.exception("request %s failed", identity)
            failure = ApiError(Kind.INTERNAL, f"Internal Server Error (request {identity})")
        if response is None and failure is not None:
            response = _error(failure, timing.dialect or dialects.of(path))
        assert response is not None  # noqa: S101 - one of both is
        self._add_headers(response, identity, timing)
        self._log(identity, path, timing, response.status_code, None if failure is None else failure.kind.value.metric)
        await response(scope, receive, send)

    def _path(self, scope: Scope) -> str:
        path: str = dialects.fold(scope["path"])
        for given in (scope.get("root_path", ""), self.settings.url_prefix):
            prefix = dialects.fold(given)
            if prefix != "/" and (path == prefix or path.startswith(f"{prefix}/")):
                path = dialects.fold(path.removeprefix(prefix))
        return path

    def _get(self, path: str, headers: Headers) -> Response:
        if path == "/":
            return pages.home() if "text/html" in headers.get("accept", "") else self._health()
        if (page := pages.static(path)) is not None:
            return page
        if path not in _OPEN:
            self._authorize(headers)
        if (answer := self._gets.get(path)) is not None:
            return answer()
        for prefix in ("/v1/models/", "/models/"):
            if path.startswith(prefix):
                return self._model(path.removeprefix(prefix))
        if routes.reader(path) is not None or path == "/api/show":
            raise ApiError(Kind.METHOD, f"{path} takes POST", headers={"Allow": "POST"})
        raise _unknown(path)

    async def _post(self, method: str, path: str, headers: Headers, receive: Receive, timing: Timing) -> Response:
        read = routes.reader(path)
        if method != "POST" or (read is None and path != "/api/show"):
            self._refuse_method(method, path, known=read is not None)
        self._authorize(headers)
        raw = await body.read(headers, receive, self.settings.max_body, self.settings.body_timeout)
        asked = body.parse(raw)
        timing.dialect = dialects.of(path, asked)
        request = Request(path, asked, headers.get("user-agent", ""), self.settings.limits, self._decode)
        if read is None:
            return self._show(request)
        exchange = read(request)
        result = None
        if exchange.call is not None:
            timing.describe(exchange.call)
            result = await self._watched(receive, self._runner.run(exchange.call, timing), timing)
        if timing.texts > _MANY:
            content = await asyncio.to_thread(lambda: body.dump(exchange.answer(result)))
        else:
            content = body.dump(exchange.answer(result))
        return Response(content, media_type="application/json")

    def _refuse_method(self, method: str, path: str, *, known: bool) -> None:
        known_get = path in self._gets or path == "/" or path.startswith(("/v1/models/", "/models/"))
        if not known and not known_get and path != "/api/show":
            raise _unknown(path)
        allowed = [verb for verb, is_so in (("GET", known_get), ("HEAD", known_get), ("POST", known)) if is_so]
        raise ApiError(
            Kind.METHOD, f"{path} takes {', '.join(allowed)}, not {method}", headers={"Allow": ", ".join(allowed)}
        )

    async def _watched(self, receive: Receive, work: Coroutine[Any, Any, T], timing: Timing) -> T:
        """The result of some work, which stops when the client goes or time is up."""
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({job, gone}, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if job.cancelled():
                message = "The server is shutting down"
                raise ApiError(Kind.UNAVAILABLE, message, headers={"Retry-After": "1"})
            if job.done():
                return job.result()
            if gone.done():
                raise body.ClientGone
            message = f"The request took longer than {self.settings.timeout:g} s (--timeout)"
            if timing.started:
                raise ApiError(Kind.INTERNAL, message)
            raise ApiError(Kind.OVERLOADED, f"{message} without having begun", headers={"Retry-After": "30"})
        finally:
            self._jobs.discard(job)
            gone.cancel()
            job.cancel()
            await asyncio.gather(job, gone, return_exceptions=True)

    def _authorize(self, headers: Headers) -> None:
        if not self._keys:
            return
        bearer = headers.get("authorization", "")
        given = bearer[7:] if bearer[:7].lower() == "bearer " else bearer
        found = [given, headers.get("api-key", ""), headers.get("x-api-key", "")]
        # Every key is compared, so that the time says nothing of which one was nearly right.
        right = [hmac.compare_digest(each.strip().encode(), key) for each in found if each for key in self._keys]
        if not any(right):
            message = "The API key is wrong" if any(found) else "An API key is needed: Authorization: Bearer KEY"
            raise ApiError(Kind.UNAUTHORIZED, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _add_headers(self, response: Response, identity: str, timing: Timing) -> None:
        headers = {"x-request-id": identity}
        if timing.texts:
            headers.update(
                {
                    "x-compute-time": _milliseconds(timing.tokenization + timing.inference),
                    "x-total-time": _milliseconds(timing.total()),
                    "x-tokenization-time": _milliseconds(timing.tokenization),
                    "x-queue-time": _milliseconds(timing.queue),
                    "x-inference-time": _milliseconds(timing.inference),
                    "x-compute-tokens": str(timing.tokens),
                    "x-compute-characters": str(timing.characters),
                    "x-truncated": str(timing.truncated),
                }
            )
        if timing.model:
            headers["x-model"] = timing.model
        if self.draining and "connection" not in response.headers:
            headers["connection"] = "close"
        response.raw_headers.extend(
            (name.encode("ascii"), value.encode("ascii", "replace")) for name, value in headers.items()
        )

    def _log(self, identity: str, path: str, timing: Timing, status: int, failure: str | None) -> None:
        route = routes.name(path) or (path if path in self._gets else "other")
        self._metrics.finished(route, timing.kind, status, failure, timing)
        logs.request(
            id=identity,
            route=route,
            status=status,
            model=timing.model,
            texts=timing.texts,
            tokens=timing.tokens,
            truncated=timing.truncated,
            ms=round(timing.total() * 1000, 1),
            queue_ms=round(timing.queue * 1000, 1),
            inference_ms=round(timing.inference * 1000, 1),
            **({"error": failure} if failure else {}),
        )

    # -- about the server ---------------------------------------------------------------------------------------------

    def _health(self) -> Response:
        if self._runner.healthy():
            return _json({"status": "ok", "server": "fastrank"})
        raise ApiError(Kind.UNAVAILABLE, "A unit of work has been running for a minute")

    def _ready(self) -> Response:
        if self.draining:
            raise ApiError(Kind.UNAVAILABLE, "The server is draining", headers={"Retry-After": "1"})
        if not self._runner.ready():
            raise ApiError(Kind.UNAVAILABLE, "Models are being loaded", headers={"Retry-After": "1"})
        return _json({"status": "ready"})

    def _info(self) -> Response:
        models: Sequence[Named] = [*self._catalog.models, *self._catalog.hidden]
        limits = self.settings.limits
        described = self._runner.describe(models[0])
        return _json(
            {
                **described,
                "max_concurrent_requests": self.settings.max_connections,
                "max_batch_requests": None,
                "max_client_batch_size": limits.inputs,
                "auto_truncate": self.settings.truncate,
                "version": openapi.VERSION,
                "sha": None,
                "docker_label": None,
                "served_models": [{"id": model.name, "task": model.task} for model in models],
            }
        )

    def _models(self) -> Response:
        return _json({"object": "list", "data": [self._entry(name) for name in self._catalog.names()]})

    def _model(self, name: str) -> Response:
        if not self._catalog.known(name):
            raise ApiError(Kind.NOT_FOUND, f"There is no model {name!r}", "model", "model_not_found")
        return _json(self._entry(name))

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "fastrank"}

    def _show(self, request: Request) -> Response:
        name = str(request.get("model", "name")[1] or "")
        if not self._catalog.known(name):
            raise ApiError(Kind.NOT_FOUND, f"There is no model {name!r}", "model", "model_not_found")
        return _json(ollama.show(name))


def middlewares(app: Application) -> ASGIApp:
    """The application with what was asked for around it: CORS and compression."""
    wrapped: ASGIApp = app
    if app.settings.gzip:
        wrapped = GZipMiddleware(wrapped, minimum_size=1024, compresslevel=1)
    if app.settings.cors_origins:
        wrapped = CORSMiddleware(
            wrapped,
            allow_origins=app.settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-model", "x-truncated", "x-total-time", "retry-after"],
        )
    return wrapped


class _Lingering(Response):
    """An answer to a request whose body was not read: what still comes is read and dropped for a while.

    Closing at once resets the connection, and a client that is still sending never sees the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                message: Message = {"more_body": True}
                while left > 0 and message.get("more_body", False):
                    message = await receive()
                    left -= len(message.get("body", b""))
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _error(error: ApiError, dialect: dialects.Dialect) -> Response:
    kind = _Lingering if error.kind in (Kind.BODY_TOO_LARGE, Kind.ENCODING, Kind.UNAUTHORIZED) else Response
    content = body.dump(errors.body(error, dialect))
    return kind(content, error.status(dialect), error.headers, media_type="application/json")


def _json(content: Any) -> Response:
    return Response(body.dump(content), media_type="application/json")


def _unknown(path: str) -> ApiError:
    return ApiError(Kind.NOT_FOUND, f"There is no {path[:200]} here; GET /docs lists the paths")


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if 0 < len(given) <= _REQUEST_ID and given.isascii() and given.isprintable() else uuid.uuid4().hex


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
