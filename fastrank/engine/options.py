"""Where and how to run a model, as the constructors of the public classes take it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

OnnxProvider: TypeAlias = "str | tuple[str, dict[Any, Any]]"


_MOST_THREADS = 4096

PRECISIONS = ("auto", "fp32", "fp16", "int8", "int8-fast", "int4")


class Device(StrEnum):
    """Where to run. Names and values as in FastEmbed."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """Provider, devices, threads and precision."""

    threads: int | None = None
    providers: Sequence[OnnxProvider] | None = None
    cuda: bool | Device = Device.AUTO
    device_ids: Sequence[int] | None = None
    device_id: int | None = None
    enable_cpu_mem_arena: bool = True
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Check what can be checked without onnxruntime."""
        if not isinstance(self.cuda, bool) and self.cuda not in list(Device):
            raise ValueError(f"cuda must be True, False, 'auto', 'cuda' or 'cpu', not {self.cuda!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, not {self.precision!r}")
        if self.quantized and (self.demands_cuda or self.providers is not None):
            raise ValueError(
                f"precision={self.precision!r} is for the CPU and chooses its provider itself. On a GPU use "
                "precision='fp16'; leave out `cuda` and `providers` otherwise"
            )
        if self.threads is not None and self.threads > _MOST_THREADS:
            raise ValueError(f"threads must be <= {_MOST_THREADS}, got {self.threads}")
        _check_providers(self.providers)
        _check_devices(self.device_ids, self.devices)
        if self.providers is not None and self.cuda in (True, Device.CUDA):
            warnings.warn(
                f"`cuda` and `providers` are mutually exclusive parameters, cuda: {self.cuda}, providers: "
                f"{self.providers}. If you'd like to use providers, cuda should be one of "
                "[False, Device.CPU, Device.AUTO].",
                stacklevel=4,
            )

    @property
    def devices(self) -> Sequence[int]:
        """GPU ids from `device_id` or `device_ids`."""
        return [self.device_id] if self.device_id is not None else list(self.device_ids or ())

    @property
    def in_int8(self) -> bool:
        """Whether weights are int8."""
        return self.precision in ("int8", "int8-fast")

    @property
    def quantized(self) -> bool:
        """Whether weights are int8 or int4, which only CPUs run."""
        return self.in_int8 or self.precision == "int4"

    @property
    def demands_cuda(self) -> bool:
        """Whether the caller requires CUDA."""
        return self.providers is None and self.cuda in (True, Device.CUDA)


def _check_providers(providers: Any) -> None:
    """Refuse what onnxruntime would not understand.

    Raises:
        TypeError: `providers` is one name, or an item is neither a name nor a pair (name, options).
    """
    if isinstance(providers, str):
        raise TypeError(f"providers must be a list, such as [{providers!r}]")
    for provider in providers or ():
        pair = isinstance(provider, tuple) and len(provider) == 2 and isinstance(provider[1], dict)
        if not isinstance(provider[0] if pair else provider, str):
            raise TypeError(f"a provider is a name, or (name, options), not {provider!r:.200}")


def _check_devices(device_ids: Any, devices: Sequence[Any]) -> None:
    """Refuse invalid GPU ids, also on machines without a GPU.

    Raises:
        TypeError: `device_ids` is a string.
        ValueError: an id is not an integer >= 0.
    """
    if isinstance(device_ids, str):
        raise TypeError(f"device_ids must be a list of integers, not {device_ids!r}")
    for device in devices:
        if type(device) is not int or device < 0:
            raise ValueError(f"a device id must be an integer >= 0, not {device!r}")
