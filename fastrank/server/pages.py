"""The page for people, as it is in the package: no build, no outside requests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.responses import Response

_FOLDER = Path(__file__).with_name("page")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def home() -> Response:
    """The page itself."""
    return _response("index.html")


def static(path: str) -> Response | None:
    """What the page is made of, under `/page/`; None: there is no such file."""
    name = path.removeprefix("/page/")
    return _response(name) if name != path and name in _files() else None


def _response(name: str) -> Response:
    return Response(_files()[name], headers=_HEADERS, media_type=_TYPES[Path(name).suffix])


@cache
def _files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
