"""Fields of a JSON body, read as leniently as clients write them; errors name the field.

Clients send nulls for what they do not set, numbers and strings for booleans, and fields of other APIs. So null counts
as absent and unknown fields are ignored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastrank import inputs
from fastrank.server.wire.calls import Chunks, Side
from fastrank.server.wire.errors import ApiError, Kind

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    inputs: int = 2048  # texts
    characters: int = 1_000_000  # of a text; the rest is cut off unless truncation is off


@dataclass(frozen=True)
class Request:
    """A request as the wire formats see it."""

    path: str  # folded
    body: Mapping[str, Any]
    agent: str = ""  # User-Agent
    limits: Limits = field(default_factory=Limits)
    decode: Callable[[Sequence[int]], str] | None = None  # cl100k token ids -> text, where it can be done

    def get(self, *names: str) -> tuple[str, Any]:
        """The first of these fields that is there and not null, with its name; else the first name and None."""
        for name in names:
            if self.body.get(name) is not None:
                return name, self.body[name]
        return names[0], None


def kind_of(value: object) -> str:
    """The name of a JSON type in errors."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def wrong_type(name: str, wanted: str, value: object) -> ApiError:
    """`documents[3] must be a string, got int`."""
    return ApiError(Kind.FIELD, f"{name} must be {wanted}, got {kind_of(value)}", name.split("[", maxsplit=1)[0])


def missing(name: str) -> ApiError:
    """A field without which nothing can be done."""
    return ApiError(Kind.FIELD, f"{name} is missing", name)


def text(value: Any, name: str) -> str:
    """One string, fit for a tokenizer."""
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    return inputs.text(value, name)


def model(request: Request) -> str | None:
    """The model asked for; None: the default."""
    name, value = request.get("model", "model_name")
    return None if value is None or value == "" else text(value, name)


def boolean(request: Request, *names: str) -> bool | None:
    """A boolean, also as 0, 1, "true" or "false"; None: absent.

    Raises:
        ApiError: anything else.
    """
    name, value = request.get(*names)
    if value is None or isinstance(value, bool):
        return value
    if (known := _BOOLEANS.get(str(value).strip().lower())) is None:
        raise wrong_type(name, "true or false", value)
    return known


def integer(request: Request, *names: str) -> int | None:
    """An integer, also as a float without fraction; None: absent."""
    name, value = request.get(*names)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "an integer", value)
    return value


def choice(request: Request, name: str, choices: Mapping[str, Any]) -> Any:
    """One of some words, in any case; None: absent."""
    value = request.get(name)[1]
    if value is None:
        return None
    word = text(value, name).lower()
    if word not in choices:
        known = ", ".join(choices)
        raise ApiError(Kind.INVALID, f"{name} must be one of {known}; got {value!r}", name)
    return choices[word]


def texts(request: Request, *names: str, empty: bool = False) -> list[str]:
    """One text or a list of texts; each may be an object with the text under "text".

    Raises:
        ApiError: missing, empty (unless `empty`), too many, or an item that is no text.
    """
    name, value = request.get(*names)
    if value is None:
        raise missing(name)
    items = listed(request, value, name, empty=empty)
    return [text_of(item, f"{name}[{position}]") for position, item in enumerate(items)]


def listed(request: Request, value: Any, name: str, *, empty: bool = False) -> list[Any]:
    """The items of a list, or one item; their number within the limits."""
    items = [value] if isinstance(value, (str, Mapping)) else value
    if not isinstance(items, list):
        raise wrong_type(name, "a string or an array of strings", value)
    if not items and not empty:
        raise ApiError(Kind.EMPTY, f"{name} must not be empty", name)
    check_count(request, len(items), name)
    return items


def check_count(request: Request, count: int, name: str) -> None:
    """Refuse more texts than one request may have."""
    if count > request.limits.inputs:
        message = f"{name} has {count} items; one request may have {request.limits.inputs} (--max-inputs)"
        raise ApiError(Kind.TOO_MANY, message, name)


def text_of(item: Any, name: str) -> str:
    """A text, or the text of an object {"text": ...}."""
    if isinstance(item, Mapping):
        if "text" not in item:
            found = ", ".join(map(str, item)) or "nothing"
            raise ApiError(Kind.FIELD, f'{name} has no field "text"; it has {found}', name.split("[", maxsplit=1)[0])
        return text(item["text"], f"{name}.text")
    return text(item, name)


def query(request: Request, *names: str) -> str:
    """A query: a text or {"text": ...}, not empty."""
    name, value = request.get(*names)
    if value is None:
        raise missing(name)
    found = text_of(value, name)
    if not found.strip():
        raise ApiError(Kind.EMPTY, f"{name} must not be empty", name)
    return found


def truncate(request: Request) -> bool | None:
    """Whether long texts are cut, in the words of any family; None: not said."""
    name, value = request.get("truncate", "truncation")
    if isinstance(value, str) and value.lower() in ("none", "start", "end"):
        return value.lower() != "none"
    found = boolean(request, name)
    if found is None and request.body.get("overflow") == "error":
        return False
    if found is None and request.get("truncate_prompt_tokens")[1] is not None:
        return True
    return found


def chunks(request: Request) -> Chunks | None:
    """Whether long texts are read in chunks: our `overflow`, or Cohere's `max_chunks_per_doc`; None: they are not.

    Raises:
        ApiError: a number is out of range.
    """
    most = integer(request, "max_chunks_per_doc")
    mode = choice(request, "overflow", {"truncate": False, "error": False, "chunk": True})
    size, overlap = integer(request, "chunk_size"), integer(request, "chunk_overlap") or 0
    if not (most is not None if mode is None else mode):
        return None
    for name, value, least in (("max_chunks_per_doc", most, 1), ("chunk_size", size, 1), ("chunk_overlap", overlap, 0)):
        if value is not None and value < least:
            raise ApiError(Kind.INVALID, f"{name} must be at least {least}, got {value}", name)
    if size is not None and overlap >= size:
        raise ApiError(
            Kind.INVALID, f"chunk_overlap must be less than chunk_size, {size}; got {overlap}", "chunk_overlap"
        )
    return Chunks(size, overlap, most)


def side(request: Request) -> Side:
    """Where long texts are cut: Cohere's and NIM's `truncate`, TEI's `truncation_direction`."""
    value = request.body.get("truncate")
    if isinstance(value, str) and value.lower() == "start":
        return "left"
    found: Side | None = choice(request, "truncation_direction", {"left": "left", "right": "right"})
    return found or "right"


def now() -> int:
    """Seconds since 1970, for `created`."""
    return int(time.time())


def changed(request: Request, **values: Any) -> Request:
    """The same request with other fields."""
    return replace(request, body={**request.body, **values})
