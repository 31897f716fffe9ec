"""The API of this server, for programs (`/openapi.json`) and people (`/docs`)."""

from __future__ import annotations

import html
from functools import cache
from typing import Any

import fastrank
from fastrank.server.wire import routes

VERSION = fastrank.__version__
_GETS = {
    "/health": "Whether the process works.",
    "/ready": "Whether models are loaded and the server is not draining.",
    "/metrics": "Prometheus metrics.",
    "/info": "The first model and the limits, as text-embeddings-inference says them.",
    "/v1/models": "Names of models and aliases.",
    "/api/tags": "The same, as Ollama says them.",
    "/api/version": "The version of Ollama's API.",
}


@cache
def document() -> dict[str, Any]:
    """The endpoints as OpenAPI 3.1; bodies are only outlined, as they differ between API families."""
    body = {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}
    answers = {"200": {"description": "The result"}, "4XX": {"description": "A JSON body with error and message"}}
    paths: dict[str, Any] = {path: {"get": {"summary": what, "responses": answers}} for path, what in _GETS.items()}
    for path, read in routes.POST.items():
        paths[path] = {"post": {"summary": _summary(read), "requestBody": body, "responses": answers}}
    return {"openapi": "3.1.0", "info": {"title": "fastrank", "version": VERSION}, "paths": paths}


@cache
def page() -> str:
    """The same as a page."""
    rows = [("GET", path, what) for path, what in _GETS.items()]
    rows += [("POST", path, _summary(read)) for path, read in routes.POST.items()]
    cells = "\n".join(
        f"<tr><td>{verb}</td><td><code>{html.escape(path)}</code></td><td>{html.escape(what)}</td></tr>"
        for verb, path, what in rows
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastrank {VERSION}</title><link rel="stylesheet" href="page/style.css">
<main><h1>fastrank {VERSION}</h1><p><a href=".">Try it</a> · <a href="openapi.json">openapi.json</a></p>
<table>{cells}</table></main></html>"""


def _summary(read: Any) -> str:
    return str(read.__doc__ or "").splitlines()[0]
