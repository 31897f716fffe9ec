"""Servers on 127.0.0.1, in a thread of this process."""

import asyncio
import contextlib
import http.client
import json
import threading

from server import toy
from support.waiting import patience, wait_until

from fastrank.server import process
from fastrank.server.app import Application
from fastrank.server.catalog import Alias, Catalog
from fastrank.server.metrics import Metrics
from fastrank.server.settings import Settings
from fastrank.server.wire import calls


class Model:
    def __init__(self, name, task):
        self.name, self.task = name, task


TOYS = [Model("toy", task) for task in ("rerank", "dense", "sparse", "late")]
ALIASES = {
    "voyage-3-lite": Alias("toy"),
    "text-embedding-3-small": Alias("toy"),
    "embed-english-v3.0": Alias("toy"),
}


class ToyRunner:
    """Answers with the toy; `gate` holds requests back until it is set."""

    def __init__(self, catalog):
        self.catalog = catalog
        self.gate = None
        self.error = None
        self.running = self.cancelled = 0
        self.well = self.loaded = True

    async def run(self, call, timing):
        tasks = {calls.Score: "rerank", calls.EmbedSparse: "sparse", calls.EmbedTokens: "late", calls.Match: "late"}
        task = getattr(call, "method", None) or tasks.get(type(call), "dense")
        found = self.catalog.find(call.model, [task])
        timing.model = found.model.name
        if self.error is not None:
            raise self.error
        self.running += 1
        try:
            while self.gate is not None and not self.gate.is_set():  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        result = toy.run(call, found.most_dimensions)
        timing.tokens = result.cost.tokens
        return result

    def ready(self):
        return self.loaded

    def healthy(self):
        return self.well

    def describe(self, model):
        return {"model_id": model.name}


class Live:
    """A running server and a client for it."""

    def __init__(self, server, app, runner, port):
        self.server, self.app, self.runner, self.port = server, app, runner, port
        self.url = f"http://127.0.0.1:{port}"

    def connect(self, timeout=20):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience(timeout))

    def ask(self, method, path, body=None, headers=None):
        """(status, headers, parsed JSON or bytes)."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, raw, headers or {})
            answer = connection.getresponse()
            content = answer.read()
            found = {key.lower(): value for key, value in answer.getheaders()}
            is_json = found.get("content-type", "").startswith("application/json")
            return answer.status, found, json.loads(content) if is_json and content else content

    def post(self, path, body, **headers):
        return self.ask("POST", path, body, {key.replace("_", "-"): value for key, value in headers.items()})

    def get(self, path, **headers):
        return self.ask("GET", path, None, {key.replace("_", "-"): value for key, value in headers.items()})


@contextlib.contextmanager
def running(settings=None, models=TOYS, aliases=None, **catalog_options):
    """A server with toy models."""
    catalog = Catalog(models, ALIASES if aliases is None else aliases, **catalog_options)
    runner = ToyRunner(catalog)
    with serving(Application(settings or Settings(), catalog, runner, Metrics()), runner) as live:
        yield live


@contextlib.contextmanager
def serving(app, runner):
    """A server in a thread."""
    server = process.server(app)
    sock = process.listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield Live(server, app, runner, port)
    finally:
        server.should_exit = server.force_exit = True
        app.abort()
        thread.join(patience(20))
        assert not thread.is_alive()


def wait_for(condition, seconds=20):
    wait_until(condition, seconds, interval=0.005)
