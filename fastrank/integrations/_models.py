"""What the integrations share: one loaded model per process, and devices as other libraries name them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from fastrank.engine.options import Device

M = TypeVar("M")

_lock = threading.Lock()
_models: dict[tuple[object, ...], Any] = {}


def shared(kind: Callable[..., M], model_name: str, **options: Any) -> M:
    """The one model of this process with this class, name and options, loaded at its first use.

    Hosts make many instances of what is plugged into them, LanceDB several for every table; weights are loaded once.

    Raises:
        TypeError, ValueError: as the class's constructor.
    """
    key = (kind, model_name, repr(sorted(options.items())))
    with _lock:
        if key not in _models:
            _models[key] = kind(model_name, lazy_load=True, **options)
        model: M = _models[key]
        return model


def device_options(device: str | None) -> dict[str, Any]:
    """Constructor options for a device as PyTorch's libraries name it: "cpu", "cuda", "cuda:1"; None, "": any.

    Raises:
        ValueError: another device.
    """
    kind, _, number = (device or Device.AUTO.value).partition(":")
    if kind not in list(Device) or (number and not (kind == Device.CUDA and number.isdecimal())):
        raise ValueError(f"device must be None, 'cpu', 'cuda' or 'cuda:<number>', not {device!r}")
    return {"cuda": Device(kind), "device_id": int(number) if number else None}
