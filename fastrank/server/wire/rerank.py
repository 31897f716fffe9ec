"""Rerank: Cohere v1 and v2, Jina, Voyage, vLLM, infinity, Mixedbread; TEI's and NIM's shapes on the same paths.

All but those two get one superset answer: `results` and `data` are the same list, `relevance_score` and `score` the
same number, because clients read one or the other without looking.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastrank.server.wire import dialects, fields
from fastrank.server.wire.calls import Exchange, Method, Score, Scores
from fastrank.server.wire.errors import ApiError, Kind
from fastrank.server.wire.fields import Request

_COHERE_SEARCH_UNIT = 100  # documents
_METHODS: dict[str, Method] = {
    "cross-encoder": "rerank",
    "dense": "dense",
    "colbert": "late",
    "late": "late",
    "bm25": "sparse",
    "sparse": "sparse",
}


def rerank(request: Request) -> Exchange:
    """Any rerank request; its fields say which dialect it is."""
    if "texts" in request.body:
        return tei(request)
    if "passages" in request.body:
        return nvidia(request)
    return superset(request)


def superset(request: Request) -> Exchange:
    """The answer that Cohere's, Jina's, Voyage's, vLLM's, infinity's and Mixedbread's clients can all read."""
    call, documents = _call(request, "documents", "input")
    voyage = dialects.is_voyage(request.path, request.body)
    shown = _shows_documents(request, voyage=voyage)
    mixedbread = "input" in request.body and "documents" not in request.body
    raw, most = _raw(request), _most(request, len(documents))
    asked, detailed = fields.model(request), fields.boolean(request, "return_tokens")

    def answer(scores: Scores) -> dict[str, Any]:
        entries = []
        for index, score in ranked(scores.raw if raw else scores.values)[:most]:
            entry: dict[str, Any] = {"index": index, "relevance_score": score, "score": score}
            if shown:
                entry["document"] = _document(documents[index], as_string=voyage)
                if mixedbread:
                    entry["input"] = entry["document"]
            if detailed and scores.lengths:
                entry.update(tokens=abs(scores.lengths[index]), truncated=scores.lengths[index] < 0)
            entries.append(entry)
        return {
            "id": str(uuid.uuid4()),
            # infinity_client takes no other word than "rerank" on its path.
            "object": "rerank" if request.path == "/rerank" else "list",
            "model": asked or scores.model,
            "results": entries,
            "data": entries,
            "usage": _usage(scores),
            "meta": {
                "api_version": {"version": "2" if request.path.startswith("/v2") else "1", "is_experimental": False},
                "billed_units": {"search_units": math.ceil(len(documents) / _COHERE_SEARCH_UNIT)},
            },
        }

    return Exchange(call, answer)


def tei(request: Request) -> Exchange:
    """text-embeddings-inference: a bare list."""
    call, documents = _call(request, "texts")
    raw, most = _raw(request), _most(request, len(documents))
    shown = fields.boolean(request, "return_text", "return_documents")

    def answer(scores: Scores) -> list[dict[str, Any]]:
        return [
            {"index": index, "score": score, **({"text": call.pairs[index][1]} if shown else {})}
            for index, score in ranked(scores.raw if raw else scores.values)[:most]
        ]

    return Exchange(call, answer)


def nvidia(request: Request) -> Exchange:
    """NVIDIA NIM: raw scores, called logits."""
    call, documents = _call(request, "passages")
    most = _most(request, len(documents))

    def answer(scores: Scores) -> dict[str, Any]:
        ranking = [{"index": index, "logit": score} for index, score in ranked(scores.raw)[:most]]
        return {"rankings": ranking, "usage": _usage(scores)}

    return Exchange(call, answer)


def score(request: Request) -> Exchange:
    """Scores as vLLM has them: of one text and many, or of many and as many, in the order given."""
    first = fields.texts(request, "text_1", "queries")
    second = fields.texts(request, "text_2", "documents")
    if len(first) not in (1, len(second)):
        message = f"text_1 has {len(first)} texts and text_2 {len(second)}: give one text_1, or as many as text_2"
        raise ApiError(Kind.INVALID, message, "text_1")
    if len(first) == 1:
        first *= len(second)
    pairs = list(zip(first, second, strict=True))
    call = Score(fields.model(request), pairs, fields.truncate(request), field="text_2")
    raw = _raw(request)

    def answer(scores: Scores) -> dict[str, Any]:
        values = scores.raw if raw else scores.values
        return {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "list",
            "created": fields.now(),
            "model": call.model or scores.model,
            "data": [{"index": index, "object": "score", "score": value} for index, value in enumerate(values)],
            "usage": {**_usage(scores), "completion_tokens": 0},
        }

    return Exchange(call, answer)


def ranked(scores: Sequence[float]) -> list[tuple[int, float]]:
    """(index, score), highest first; ties in the order given."""
    return sorted(enumerate(scores), key=lambda entry: -entry[1])


def _call(request: Request, *names: str) -> tuple[Score, list[Any]]:
    """The call, and the documents as they came."""
    query = fields.query(request, "query")
    name, value = request.get(*names)
    if value is None:
        raise fields.missing(name)
    if not isinstance(value, list):
        raise fields.wrong_type(name, "an array", value)
    documents = fields.listed(request, value, name)
    keys = _rank_fields(request)
    texts = [_text(document, f"{name}[{position}]", keys) for position, document in enumerate(documents)]
    most = fields.integer(request, "max_tokens_per_doc")
    if most is not None and most < 1:
        raise ApiError(Kind.INVALID, f"max_tokens_per_doc must be at least 1, got {most}", "max_tokens_per_doc")
    call = Score(
        fields.model(request),
        [(query, text) for text in texts],
        fields.truncate(request),
        max_document_tokens=most,
        side=fields.side(request),
        field=name,
        method=fields.choice(request, "method", _METHODS),  # ours: the page asks with it
        chunks=fields.chunks(request),
    )
    return call, documents


def _text(document: Any, name: str, keys: Sequence[str] | None) -> str:
    if keys and isinstance(document, Mapping):
        return "\n".join(f"{key}: {document[key]}" for key in keys if document.get(key) is not None)
    return fields.text_of(document, name)


def _rank_fields(request: Request) -> list[str] | None:
    """Cohere v1: the fields of documents that are read, as lines `key: value`."""
    value = request.get("rank_fields")[1]
    if value is None:
        return None
    if not isinstance(value, list):
        raise fields.wrong_type("rank_fields", "an array of strings", value)
    return [fields.text(key, f"rank_fields[{position}]") for position, key in enumerate(value)]


def _shows_documents(request: Request, *, voyage: bool) -> bool:
    if request.path == "/rerank" and request.agent.lower().startswith("litellm/"):
        return False  # its infinity/ wants strings there, its hosted_vllm/ objects, and neither needs them
    wish = fields.boolean(request, "return_documents", "return_text", "return_input")
    # MilvusModel's JinaRerankFunction sends nothing and reads res["document"]["text"].
    return (request.path == "/v1/rerank" and not voyage) if wish is None else wish


def _document(document: Any, *, as_string: bool) -> Any:
    if as_string:
        return document if isinstance(document, str) else document.get("text", document)
    return {"text": document} if isinstance(document, str) else document


def _most(request: Request, documents: int) -> int:
    """How many are returned: all if the client says nothing, zero or less."""
    most = fields.integer(request, "top_n", "top_k")
    return documents if most is None or most < 1 else most


def _raw(request: Request) -> bool:
    if wish := fields.boolean(request, "raw_scores"):
        return wish
    return fields.boolean(request, "use_activation", "activation") is False


def _usage(scores: Scores) -> dict[str, int]:
    return {"total_tokens": scores.cost.tokens, "prompt_tokens": scores.cost.tokens}
