"""Embeddings of the OpenAI family: OpenAI, Jina, Voyage, Mistral, vLLM, infinity; and llama.cpp's."""

from __future__ import annotations

import uuid
from typing import Any

from fastrank.server.wire import fields, numbers
from fastrank.server.wire.calls import Embed, Exchange, Role, Vectors
from fastrank.server.wire.errors import ApiError, Kind
from fastrank.server.wire.fields import Request

_NO_IDS = (
    "input has token ids, which this server cannot turn into text. LangChain's OpenAIEmbeddings sends text with "
    "check_embedding_ctx_length=False"
)


def openai(request: Request) -> Exchange:
    """`/v1/embeddings`."""
    prompt = request.get("prompt")[1]  # Mixedbread's
    asked = fields.model(request)
    call = Embed(
        asked,
        _input(request),
        role_of(request),
        dimensions=fields.integer(request, "dimensions", "output_dimension"),
        truncate=fields.truncate(request),
        side=fields.side(request),
        prompt=None if prompt is None else fields.text(prompt, "prompt"),
        chunks=fields.chunks(request),
        one_document=bool(fields.boolean(request, "late_chunking")),
    )
    kind, base64 = _type(request)

    def answer(vectors: Vectors) -> dict[str, Any]:
        rows = numbers.typed(vectors.rows, kind)
        data = [
            {"object": "embedding", "index": index, "embedding": numbers.encoded(row) if base64 else row}
            for index, row in enumerate(rows)
        ]
        return {
            "id": f"embd-{uuid.uuid4().hex}",
            "object": "list",
            "created": fields.now(),
            "model": asked or vectors.model,
            "data": data,
            "usage": {"prompt_tokens": vectors.cost.tokens, "total_tokens": vectors.cost.tokens},
        }

    return Exchange(call, answer)


def llama_cpp(request: Request) -> Exchange:
    """`/embedding` of llama.cpp's server: a list of vectors per text, with one vector in it."""
    call = Embed(fields.model(request), fields.texts(request, "content", "input"), field="content")

    def answer(vectors: Vectors) -> list[dict[str, Any]]:
        return [{"index": index, "embedding": [row]} for index, row in enumerate(vectors.rows)]

    return Exchange(call, answer)


def role_of(request: Request) -> Role:
    """Query or passage, as Voyage's and Cohere's `input_type`, Jina's `task` or TEI's `prompt_name` say it."""
    for name in ("input_type", "task", "prompt_name"):
        value = request.get(name)[1]
        if value is None:
            continue
        word = fields.text(value, name).lower()
        if word in ("query", "search_query", "retrieval.query"):
            return "query"
        if word in ("document", "passage", "search_document", "retrieval.passage"):
            return "passage"
    return None


def _type(request: Request) -> tuple[str, bool]:
    """The type of numbers, and whether their bytes are sent in base64."""
    base64 = fields.choice(request, "encoding_format", {"float": False, "base64": True})
    value = request.get("embedding_type")[1]  # Jina: a word or a list of words
    if isinstance(value, list):
        if len(value) > 1:
            raise ApiError(Kind.INVALID, "embedding_type: ask for one type at a time", "embedding_type")
        request = fields.changed(request, embedding_type=value[0] if value else None)
    kind = fields.choice(request, "output_dtype", numbers.TYPES)
    if kind is None:
        kind = fields.choice(request, "embedding_type", {**numbers.TYPES, "base64": "base64"})
    if kind == "base64":
        return "float", True
    return kind or "float", bool(base64)


def _input(request: Request) -> list[str]:
    value = request.get("input")[1]
    if not isinstance(value, list) or not value:
        return fields.texts(request, "input")
    if _is_token_ids(value):
        value = [value]
    if not all(map(_is_token_ids, value)):
        return fields.texts(request, "input")
    if request.decode is None:
        raise ApiError(Kind.INVALID, _NO_IDS, "input")
    fields.check_count(request, len(value), "input")
    try:
        return [request.decode(ids) for ids in value]
    except (KeyError, ValueError, OverflowError) as error:
        raise ApiError(Kind.INVALID, f"input has token ids that are not of cl100k_base: {error}", "input") from None


def _is_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)
