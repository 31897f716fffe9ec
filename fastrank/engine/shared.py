"""One loaded model per process and configuration, however many ask for it: plugins, and tasks of a worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

M = TypeVar("M")

_lock = threading.Lock()
_models: dict[tuple[object, ...], Any] = {}


def shared(kind: Callable[..., M], model_name: str, **options: Any) -> M:
    """The one model of this process with this class, name and options, loaded at its first use.

    Hosts make many instances of what is plugged into them, LanceDB several for every table, and engines run many tasks
    in a worker; weights are loaded once. A model that was closed is made anew.

    Raises:
        TypeError, ValueError: as the class's constructor.
    """
    key = (kind, model_name, repr(sorted(options.items())))
    with _lock:
        known = _models.get(key)
        if known is None or getattr(known, "is_closed", False):
            known = _models[key] = kind(model_name, lazy_load=True, **options)
        model: M = known
        return model


def _forked() -> None:
    """Another thread of the parent may have held the lock, and that thread is not here."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
