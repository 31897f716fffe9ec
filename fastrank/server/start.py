"""From what an operator asked for to a running server."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastrank.server import logs, process
from fastrank.server.app import Application
from fastrank.server.catalog import Alias, Catalog, Task, hosted_aliases, parse_alias
from fastrank.server.metrics import Metrics
from fastrank.server.models import Served, bm25, served
from fastrank.server.runner import ModelRunner
from fastrank.server.settings import Settings

_LOG = logging.getLogger("fastrank.server")


@dataclass(frozen=True)
class Plan:
    """What to serve, and where.

    Attributes:
        models: names, folders, or either after a task.
        arguments: of the public classes.
        aliases: `name=model` or `name=model:1536`.
        alias_hosted: whether names of hosted models stand for the defaults of their task.
        rerank_with: tasks whose models may rerank.
        defaults: models that answer where none is named.
        fallback: the model that answers for unknown names.
        host: address to listen on.
        port: 0: any that is free.
        uds: listen on this Unix socket instead.
        lazy: listen first and load models when they are needed.
        json_log: one JSON object a line.
        uvicorn: further options of uvicorn.
    """

    models: Sequence[str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    alias_hosted: bool = False
    rerank_with: Sequence[Task] = ()
    defaults: Mapping[Task, str] = field(default_factory=dict)
    fallback: str | None = None
    host: str = "127.0.0.1"
    port: int = 8321
    uds: str | None = None
    lazy: bool = False
    json_log: bool = False
    uvicorn: Mapping[str, Any] = field(default_factory=dict)


def catalog(plan: Plan) -> Catalog[Served]:
    """The models of a plan, not loaded, and their names.

    Raises:
        ModelNotFoundError: there is no such model.
        ValueError: an alias or a default names no model that is served.
    """
    models = [served(name, plan.arguments) for name in plan.models]
    tasks: set[Task] = {model.task for model in models}
    if tasks & set(plan.rerank_with):
        tasks.add("rerank")
    aliases: dict[str, Alias] = dict(hosted_aliases(sorted(tasks))) if plan.alias_hosted else {}
    aliases.update(parse_alias(text) for text in plan.aliases)
    return Catalog(models, aliases, plan.defaults, plan.fallback, plan.rerank_with, [bm25()])


def run(plan: Plan, settings: Settings) -> int:
    """Serve until a signal ends it; the exit status.

    Raises:
        OSError: the address cannot be used; a model cannot be fetched.
        FastrankError: a model cannot be loaded.
    """
    logs.configure(as_json=plan.json_log)
    known = catalog(plan)
    metrics = Metrics()
    runner = ModelRunner(known, settings, metrics)
    app = Application(settings, known, runner, metrics)
    process.allow_many_connections(settings.max_connections)
    with contextlib.ExitStack() as stack:
        stack.callback(runner.close)
        if not plan.lazy:
            runner.load()
        listening = process.listen_unix(plan.uds) if plan.uds else process.listen(plan.host, plan.port)
        stack.callback(_remove, plan.uds)
        if plan.lazy:
            threading.Thread(target=_load, args=(runner,), name="fastrank-load", daemon=True).start()
        port = 0 if plan.uds else listening.getsockname()[1]
        gc.freeze()  # what is loaded now stays: the collector need not look at it again
        server = process.server(app, lambda: _greet(plan, known, settings, port), **plan.uvicorn)
        server.run([listening])
    return 0


def _load(runner: ModelRunner) -> None:
    try:
        runner.load()
    except Exception:  # noqa: BLE001 - requests for it find out again
        _LOG.exception("a model cannot be loaded; requests for it say why")


def _remove(uds: str | None) -> None:
    if uds is not None:
        Path(uds).unlink(missing_ok=True)


def _greet(plan: Plan, known: Catalog[Served], settings: Settings, port: int) -> None:
    """Say where the server is, what it has, and how to ask it."""
    secure = "https" if plan.uvicorn.get("ssl_certfile") else "http"
    host = f"[{plan.host}]" if ":" in plan.host else plan.host
    address = f"http://localhost (curl --unix-socket {plan.uds})" if plan.uds else ""
    url = address or f"{secure}://{host}:{port}"
    lines = [f"fastrank serves {url}"]
    lines += [f"  {model.name} ({model.task})" for model in known.models]
    if plan.alias_hosted:
        lines.append(
            f"  {len(known.aliases) - len(plan.aliases)} names of hosted models stand for these (--alias-hosted)"
        )
        for name, alias in known.aliases.items():
            _LOG.info("the name %s stands for %s", name, alias.target or f"the default of {alias.task}")
    base = "http://localhost" if plan.uds else url
    unix = f"--unix-socket {plan.uds} " if plan.uds else ""
    key = "-H 'Authorization: Bearer KEY' " if settings.keys else ""
    lines.append(f"  {_example(known, f'curl {unix}{key}{base}')}")
    print("\n".join(lines), flush=True)  # noqa: T201 - what the command says
    if not settings.keys and not plan.uds and plan.host not in ("127.0.0.1", "::1", "localhost"):
        _LOG.warning("%s can be reached from other machines and asks for no key: set --api-key", url)


def _example(known: Catalog[Served], curl: str) -> str:
    tasks = {model.task for model in known.models}
    if "rerank" in tasks or tasks & set(known.rerank_with):
        return f"""{curl}/v1/rerank -d '{{"query": "games", "documents": ["chess", "bees"]}}'"""
    if "dense" in tasks:
        return f"""{curl}/v1/embeddings -d '{{"input": "hello"}}'"""
    return f"""{curl}/{"embed_all" if "late" in tasks else "embed_sparse"} -d '{{"inputs": "hello"}}'"""
