"""The package's logger, named "fastrank"."""

from __future__ import annotations


def warning(message: str, *values: object) -> None:
    """Log a warning; `values` are inserted with `%`."""
    import logging  # only when needed, so that processes start faster

    logging.getLogger("fastrank").warning(message, *values, stacklevel=2)
