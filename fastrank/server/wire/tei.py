"""text-embeddings-inference, and Hugging Face's InferenceClient, which posts to `/`. Its rerank is in `rerank`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastrank.server.wire import fields, numbers, rerank
from fastrank.server.wire.calls import (
    Embed,
    EmbedSparse,
    EmbedTokens,
    Exchange,
    Pieces,
    Score,
    Scores,
    SparseVectors,
    Tokenize,
    TokenVectors,
    Vectors,
)
from fastrank.server.wire.embeddings import role_of
from fastrank.server.wire.fields import Request


def root(request: Request) -> Exchange:
    """`/` and `/invocations`: distinguished by the fields of the body."""
    if "texts" in request.body:
        return rerank.tei(request)
    if isinstance(request.body.get("inputs"), Mapping):
        return similarity(request)
    return embed(request)


def embed(request: Request) -> Exchange:
    """`/embed`: a list of vectors, for one text too."""
    normalize = fields.boolean(request, "normalize")
    call = Embed(
        fields.model(request),
        fields.texts(request, "inputs"),
        role_of(request),
        normalize=True if normalize is None else normalize,
        dimensions=fields.integer(request, "dimensions"),
        truncate=fields.truncate(request),
        side=fields.side(request),
        field="inputs",
        chunks=fields.chunks(request),
    )

    def answer(vectors: Vectors) -> list[Any]:
        return list(vectors.rows)

    return Exchange(call, answer)


def embed_all(request: Request) -> Exchange:
    """`/embed_all`: a vector for each token."""
    texts = fields.texts(request, "inputs")
    call = EmbedTokens(
        fields.model(request),
        texts,
        role_of(request),
        fields.truncate(request),
        side=fields.side(request),
        field="inputs",
    )

    def answer(vectors: TokenVectors) -> list[Any]:
        return [list(rows) for rows in vectors.rows]

    return Exchange(call, answer)


def embed_sparse(request: Request) -> Exchange:
    """`/embed_sparse`: indices and values."""
    texts = fields.texts(request, "inputs")
    call = EmbedSparse(
        fields.model(request),
        texts,
        role_of(request),
        fields.truncate(request),
        side=fields.side(request),
        field="inputs",
    )

    def answer(vectors: SparseVectors) -> list[Any]:
        return [
            [{"index": index, "value": value} for index, value in zip(indices.tolist(), values.tolist(), strict=True)]
            for indices, values in vectors.rows
        ]

    return Exchange(call, answer)


def predict(request: Request) -> Exchange:
    """`/predict`: the classes of a text, of a pair [a, b], or of a list of either in lists."""
    pairs, single = _predict_inputs(request)
    call = Score(fields.model(request), pairs, fields.truncate(request), side=fields.side(request), field="inputs")
    raw = fields.boolean(request, "raw_scores")

    def answer(scores: Scores) -> list[Any]:
        rows = [[{"score": value, "label": scores.label}] for value in (scores.raw if raw else scores.values)]
        return rows[0] if single else rows

    return Exchange(call, answer)


def similarity(request: Request) -> Exchange:
    """`/similarity`: the cosine of one sentence and each of others."""
    inputs = request.get("inputs")[1]
    if inputs is None:
        raise fields.missing("inputs")
    if not isinstance(inputs, Mapping):
        raise fields.wrong_type("inputs", "an object with source_sentence and sentences", inputs)
    parameters = request.get("parameters")[1]
    inner = fields.changed(request, **(parameters if isinstance(parameters, Mapping) else {}), **inputs)
    source = fields.text_of(_needed(inputs, "source_sentence"), "source_sentence")
    sentences = fields.texts(inner, "sentences")
    call = Embed(
        fields.model(request),
        [source, *sentences],
        role_of(inner),
        normalize=True,
        truncate=fields.truncate(inner),
        side=fields.side(inner),
        field="sentences",
    )

    def answer(vectors: Vectors) -> list[float]:
        rows = numbers.normalized(vectors.rows)
        cosines: list[float] = (rows[1:] @ rows[0]).tolist()
        return cosines

    return Exchange(call, answer)


def tokenize(request: Request) -> Exchange:
    """`/tokenize`: tokens with their places."""
    special = fields.boolean(request, "add_special_tokens")
    call = Tokenize(fields.model(request), fields.texts(request, "inputs"), special is not False)

    def answer(pieces: Pieces) -> list[Any]:
        return [[vars(piece) for piece in row] for row in pieces.rows]

    return Exchange(call, answer)


def _predict_inputs(request: Request) -> tuple[list[tuple[str, str] | str], bool]:
    """The texts and pairs, and whether it is one that was not in a list."""
    value = request.get("inputs")[1]
    if value is None:
        raise fields.missing("inputs")
    if isinstance(value, str):
        return [fields.text(value, "inputs")], True
    items = fields.listed(request, value, "inputs")
    if len(items) == 2 and all(isinstance(item, str) for item in items):
        return [(fields.text(items[0], "inputs[0]"), fields.text(items[1], "inputs[1]"))], True
    return [_pair(item, f"inputs[{position}]") for position, item in enumerate(items)], False


def _pair(item: Any, name: str) -> tuple[str, str] | str:
    if isinstance(item, list) and len(item) == 2:
        return fields.text(item[0], f"{name}[0]"), fields.text(item[1], f"{name}[1]")
    if isinstance(item, list) and len(item) == 1:
        return fields.text(item[0], f"{name}[0]")
    if isinstance(item, list):
        raise fields.wrong_type(name, "one text or a pair of texts", item)
    return fields.text(item, name)


def _needed(mapping: Mapping[str, Any], name: str) -> Any:
    if mapping.get(name) is None:
        raise fields.missing(name)
    return mapping[name]
