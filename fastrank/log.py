"""The log of this package, named "fastrank"."""

from __future__ import annotations


def warning(message: str, *values: object) -> None:
    """Log a warning, with values put in by `%`."""
    import logging  # when there is something to say: a new process starts sooner without

    logging.getLogger("fastrank").warning(message, *values, stacklevel=2)
