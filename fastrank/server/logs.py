"""One line a request, as JSON or as text. Neither keys nor texts are ever written."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import orjson

_REQUESTS = logging.getLogger("fastrank.server.requests")


def request(**fields: Any) -> None:
    """Log a request that was answered."""
    _REQUESTS.info("request", extra={"fields": fields})


def configure(*, as_json: bool) -> None:
    """Write fastrank's log to standard error, and uvicorn's warnings with it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text())
    for name, level in (("fastrank", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": _time(record), "level": record.levelname.lower()}
        line.update(getattr(record, "fields", None) or {"message": record.getMessage()})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        text = " ".join(f"{key}={value}" for key, value in fields.items()) if fields else record.getMessage()
        traceback = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{_time(record)} {text}{traceback}"


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
