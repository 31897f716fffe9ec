"""What the integrations share: one loaded model per process, and devices as other libraries name them."""

from __future__ import annotations

from typing import Any

from fastrank.engine.options import Device
from fastrank.engine.shared import shared

__all__ = ["device_options", "shared"]


def device_options(device: str | None) -> dict[str, Any]:
    """Constructor options for a device as PyTorch's libraries name it: "cpu", "cuda", "cuda:1"; None, "": any.

    Raises:
        ValueError: another device.
    """
    kind, _, number = (device or Device.AUTO.value).partition(":")
    if kind not in list(Device) or (number and not (kind == Device.CUDA and number.isdecimal())):
        raise ValueError(f"device must be None, 'cpu', 'cuda' or 'cuda:<number>', not {device!r}")
    return {"cuda": Device(kind), "device_id": int(number) if number else None}
