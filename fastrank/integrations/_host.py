"""Imports of host libraries, which are extras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def required(extra: str) -> Iterator[None]:
    """Around the import of a host library: if it is missing, the error says what to install.

    >>> with required("qdrant"):
    ...     import qdrant_client
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed. Run: pip install 'fastrank-onnx[{extra}]'"
        raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
