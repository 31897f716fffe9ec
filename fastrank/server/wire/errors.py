"""Errors as clients read them: a status and a JSON body that names the field, in the words of the client's family."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from fastrank.server.wire.dialects import OLLAMA, TEI, Dialect


class _Answer(NamedTuple):
    status: int
    tei_status: int
    tei_type: str
    metric: str  # te_request_failure{err=...}
    openai_type: str = "invalid_request_error"


class Kind(Enum):
    """What went wrong. The value says how it is answered."""

    INVALID = _Answer(400, 400, "Validation", "validation")  # no JSON, or a value this server or model cannot do
    EMPTY = _Answer(400, 400, "Empty", "empty")
    TOO_MANY = _Answer(400, 422, "Validation", "batch_size")
    TOO_LONG = _Answer(400, 422, "Validation", "validation")
    WRONG_TASK = _Answer(400, 424, "Backend", "model_type")
    UNAUTHORIZED = _Answer(401, 401, "Unauthorized", "auth", "authentication_error")
    NOT_FOUND = _Answer(404, 404, "Validation", "not_found")
    METHOD = _Answer(405, 405, "Validation", "method")
    TIMEOUT = _Answer(408, 408, "Validation", "timeout")  # the body did not arrive
    BODY_TOO_LARGE = _Answer(413, 413, "Validation", "body")
    ENCODING = _Answer(415, 415, "Validation", "encoding")
    FIELD = _Answer(422, 422, "Validation", "validation")  # one is missing or has the wrong type
    OVERLOADED = _Answer(429, 429, "Overloaded", "overloaded", "rate_limit_error")
    NOT_FINITE = _Answer(500, 424, "Backend", "backend", "server_error")
    INTERNAL = _Answer(500, 500, "Backend", "internal", "server_error")
    UNAVAILABLE = _Answer(503, 503, "Unhealthy", "unhealthy", "server_error")


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        kind: what went wrong.
        message: one sentence or two, for people.
        param: the field of the request, if one is to blame.
        code: a word for programs, as OpenAI has "model_not_found".
        headers: of the answer, such as Retry-After.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}

    def status(self, dialect: Dialect) -> int:
        """The HTTP status. text-embeddings-inference has some of its own."""
        return self.kind.value.tei_status if dialect is TEI else self.kind.value.status


def body(error: ApiError, dialect: Dialect) -> dict[str, Any]:
    """The JSON body. Every family finds its key: clients read one without looking whether it is there.

    `message` is Cohere's, `detail` Jina's and Voyage's, `error.message` OpenAI's, `error` as text TEI's and Ollama's.
    """
    common = {"message": error.message, "detail": error.message}
    if dialect is OLLAMA:
        return {"error": error.message, **common}
    if dialect is TEI:
        return {"error": error.message, "error_type": error.kind.value.tei_type, **common}
    inner = {
        "message": error.message,
        "type": error.kind.value.openai_type,
        "param": error.param,
        "code": error.code,
    }
    return {"error": inner, **common}
