"""Cohere's embed, v1 and v2. Its rerank is in `rerank`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from fastrank.server.wire import fields, numbers
from fastrank.server.wire.calls import Embed, Exchange, Vectors
from fastrank.server.wire.embeddings import role_of
from fastrank.server.wire.errors import ApiError, Kind
from fastrank.server.wire.fields import Request


def embed(request: Request) -> Exchange:
    """`/v1/embed` and `/v2/embed`. v1 without `embedding_types` answers with bare floats."""
    version = "2" if request.path.startswith("/v2") else "1"
    kinds = _kinds(request)
    if kinds is None and version == "2":
        kinds = ["float"]
    texts = _texts(request)
    call = Embed(
        fields.model(request),
        texts,
        role_of(request),
        dimensions=fields.integer(request, "output_dimension", "dimensions"),
        truncate=fields.truncate(request),
        side=fields.side(request),
        field="texts",
        chunks=fields.chunks(request),
    )

    def answer(vectors: Vectors) -> dict[str, Any]:
        by_type = kinds is not None
        return {
            "id": str(uuid.uuid4()),
            "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
            "texts": texts,
            "embeddings": {kind: _typed(vectors, kind) for kind in kinds} if kinds is not None else list(vectors.rows),
            "meta": {
                "api_version": {"version": version, "is_experimental": False},
                "billed_units": {"input_tokens": vectors.cost.tokens},
            },
        }

    return Exchange(call, answer)


def _typed(vectors: Vectors, kind: str) -> list[Any]:
    if kind == "base64":
        return [numbers.encoded(row) for row in numbers.typed(vectors.rows, "float")]
    return list(numbers.typed(vectors.rows, kind))


def _kinds(request: Request) -> list[str] | None:
    value = request.get("embedding_types")[1]
    if value is None:
        return None
    if not isinstance(value, list):
        raise fields.wrong_type("embedding_types", "an array of strings", value)
    kinds = [fields.text(kind, f"embedding_types[{position}]") for position, kind in enumerate(value)]
    known = (*numbers.TYPES, "base64")
    for kind in kinds:
        if kind not in known:
            message = f"embedding_types must be of {', '.join(known)}; got {kind!r}"
            raise ApiError(Kind.INVALID, message, "embedding_types")
    return kinds or None


def _texts(request: Request) -> list[str]:
    """`texts`, or v2's `inputs`: a list of contents, each of parts."""
    if request.get("texts")[1] is not None:
        return fields.texts(request, "texts")
    value = request.get("inputs")[1]
    if value is None:
        raise fields.missing("texts")
    items = fields.listed(request, value, "inputs")
    return [_content(item, f"inputs[{position}]") for position, item in enumerate(items)]


def _content(item: Any, name: str) -> str:
    parts = item.get("content") if isinstance(item, Mapping) else None
    if not isinstance(parts, list):
        raise fields.wrong_type(f"{name}.content", "an array", parts)
    texts = []
    for position, part in enumerate(parts):
        if not isinstance(part, Mapping) or part.get("type", "text") != "text":
            message = f"{name}.content[{position}] must be a text: this server embeds text only"
            raise ApiError(Kind.INVALID, message, "inputs")
        texts.append(fields.text_of(part, f"{name}.content[{position}]"))
    return "\n".join(texts)
