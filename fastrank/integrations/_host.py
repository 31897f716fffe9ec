"""Imports of host libraries, which are extras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastrank import errors


@contextmanager
def required(extra: str) -> Iterator[None]:
    """Around the import of a host library: if it is missing, the error says what to install.

    >>> with required("qdrant"):
    ...     import qdrant_client
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed. Run: {errors.how_to_install(extra)}"
        raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
