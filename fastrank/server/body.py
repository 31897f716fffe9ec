"""Bodies of requests: read within limits, inflated within limits, parsed as JSON."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson
from starlette.types import Receive

from fastrank import inputs
from fastrank.server.wire.errors import ApiError, Kind

_LARGE = 1 << 16  # bytes: more is inflated in a thread
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_GZIP = 31  # zlib's number for "with gzip's header"


class ClientGone(Exception):  # noqa: N818 - no error: nobody is left to read an answer
    """The client closed the connection."""


async def read(headers: Mapping[str, str], receive: Receive, most: int, patience: float) -> bytes:
    """The body, inflated.

    Args:
        headers: of the request.
        receive: ASGI's.
        most: bytes a body may have, before and after it is inflated.
        patience: seconds to wait for the next piece.

    Raises:
        ApiError: too large (known by Content-Length before it is read), compressed in an unknown way, too slow.
        ClientGone: the client closed the connection first.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise ApiError(Kind.ENCODING, f"Content-Encoding {encoding!r} is not supported; send gzip or identity")
    stated = headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > most:
        raise _too_large(most)
    raw = await _collect(receive, most, patience)
    if "gzip" not in encoding:
        return raw
    return await asyncio.to_thread(_inflate, raw, most) if len(raw) > _LARGE else _inflate(raw, most)


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Of keys that occur twice the last counts.

    Raises:
        ApiError: no JSON, or no object. NaN and Infinity are no JSON, nor is what starts with a byte order mark.
    """
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if not _SURROGATE.search(raw):
            raise ApiError(Kind.INVALID, f"The body is not JSON: {error}") from None
        found = _with_surrogates(raw)
    if not isinstance(found, dict):
        raise ApiError(Kind.INVALID, f"The body must be a JSON object, got {type(found).__name__}")
    return found


def dump(answer: Any) -> bytes:
    """An answer as JSON; rows of float32 in the fewest digits that say them exactly."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


async def _collect(receive: Receive, most: int, patience: float) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError:
            message_text = f"No more of the body arrived for {patience:g} s"
            raise ApiError(Kind.TIMEOUT, message_text, headers={"Connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise _too_large(most)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _inflate(raw: bytes, most: int) -> bytes:
    pieces: list[bytes] = []
    room = most
    while raw:
        member = zlib.decompressobj(_GZIP)
        try:
            piece = member.decompress(raw, room + 1)
        except zlib.error as error:
            raise ApiError(Kind.INVALID, f"The body is not gzip, as Content-Encoding says: {error}") from None
        room -= len(piece)
        if room < 0:
            raise _too_large(most)
        if not member.eof:
            raise ApiError(Kind.INVALID, "The gzip body ends too early")
        pieces.append(piece)
        raw = member.unused_data
    return b"".join(pieces)


def _with_surrogates(raw: bytes) -> Any:
    """JSON with halves of surrogate pairs, as broken documents have them. They become U+FFFD, as in the library."""
    try:
        return _mended(json.loads(raw.decode("utf-8"), parse_constant=_refuse))
    except (ValueError, RecursionError) as error:
        raise ApiError(Kind.INVALID, f"The body is not JSON: {error}") from None


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return inputs.text(value, "body")
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _too_large(most: int) -> ApiError:
    return ApiError(
        Kind.BODY_TOO_LARGE, f"The body is larger than {most} bytes (--max-body)", headers={"Connection": "close"}
    )
