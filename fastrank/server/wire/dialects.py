"""Which family's words a request speaks. The path says it, or a field that only one family sends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class Dialect(Enum):
    """A family whose errors look different."""

    SUPERSET = "superset"  # Cohere, Jina, Voyage, OpenAI, vLLM and all others: one body that fits them all
    TEI = "tei"
    OLLAMA = "ollama"


SUPERSET, TEI, OLLAMA = Dialect

RERANK_PATHS = frozenset({"/v1/rerank", "/v2/rerank", "/rerank", "/reranking", "/v1/reranking"})
_TEI_PATHS = frozenset(
    {"/embed", "/embed_all", "/embed_sparse", "/predict", "/similarity", "/tokenize", "/", "/invocations", "/info"}
)


def of(path: str, body: object = None) -> Dialect:
    """The dialect of a request; of its path alone while the body is not known."""
    if path.startswith("/api/"):
        return OLLAMA
    if path in _TEI_PATHS or (path in RERANK_PATHS and isinstance(body, Mapping) and "texts" in body):
        return TEI
    return SUPERSET


def is_voyage(path: str, body: Mapping[str, Any]) -> bool:
    """Whether a rerank request comes from Voyage's client: it always sends `top_k` or `truncation`, never `top_n`."""
    return path == "/v1/rerank" and "top_n" not in body and ("top_k" in body or "truncation" in body)


def fold(path: str) -> str:
    """The path without a doubled prefix, doubled slashes and the slash at its end.

    Half of the clients add /v1 to a base URL and half do not: /v1/v1/rerank and /v1/v2/rerank are meant well.
    """
    parts = [part for part in path.split("/") if part]
    while len(parts) > 1 and parts[0] == "v1" and parts[1] in ("v1", "v2", "api"):
        del parts[0]
    return "/" + "/".join(parts)
