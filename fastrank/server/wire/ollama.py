"""Ollama's embeddings, and what its clients ask about models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastrank.server.wire import fields
from fastrank.server.wire.calls import Embed, Exchange, Vectors
from fastrank.server.wire.fields import Request

VERSION = "0.12.0"  # some clients ask for a version that knows /api/embed
_EPOCH = "1970-01-01T00:00:00Z"


def embed(request: Request) -> Exchange:
    """`/api/embed`."""
    asked = fields.model(request)
    value = request.get("input")[1]
    texts = [] if value is None or value == "" else fields.texts(request, "input", empty=True)

    def answer(vectors: Vectors | None) -> dict[str, Any]:
        nanoseconds = 0 if vectors is None else round(vectors.cost.seconds * 1e9)
        return {
            "model": asked or ("" if vectors is None else vectors.model),
            "embeddings": [] if vectors is None else list(vectors.rows),
            "total_duration": nanoseconds,
            "load_duration": 0,
            "prompt_eval_count": 0 if vectors is None else vectors.cost.tokens,
        }

    return Exchange(_call(request, texts), answer)


def embeddings(request: Request) -> Exchange:
    """`/api/embeddings`, the older one: one text, under `prompt`."""
    prompt = request.get("prompt", "input")[1]
    texts = [] if prompt is None or prompt == "" else [fields.text(prompt, "prompt")]

    def answer(vectors: Vectors | None) -> dict[str, Any]:
        return {"embedding": [] if vectors is None else vectors.rows[0]}

    return Exchange(_call(request, texts), answer)


def tags(names: Iterable[str]) -> dict[str, Any]:
    """`/api/tags`: the models there are."""
    return {"models": [_entry(name) for name in names]}


def show(name: str) -> dict[str, Any]:
    """`/api/show`: one model."""
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(),
        "model_info": {"general.basename": name},
        "capabilities": ["embedding"],
    }


def _call(request: Request, texts: list[str]) -> Embed | None:
    if not texts:
        return None
    return Embed(
        fields.model(request),
        texts,
        dimensions=fields.integer(request, "dimensions"),
        truncate=fields.truncate(request),
    )


def _entry(name: str) -> dict[str, Any]:
    return {"name": name, "model": name, "modified_at": _EPOCH, "size": 0, "digest": "0" * 64, "details": _details()}


def _details() -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "onnx",
        "family": "bert",
        "families": ["bert"],
        "parameter_size": "",
        "quantization_level": "",
    }
