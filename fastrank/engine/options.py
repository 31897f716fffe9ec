"""Where and how to run a model, as the constructors of the public classes take it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

OnnxProvider: TypeAlias = "str | tuple[str, dict[Any, Any]]"


PRECISIONS = ("auto", "fp32", "fp16", "int8", "int8-fast")


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
        if self.in_int8 and (self.demands_cuda or self.providers is not None):
            raise ValueError(
                f"precision={self.precision!r} is for the CPU and chooses its provider itself. On a GPU use "
                "precision='fp16'; leave out `cuda` and `providers` otherwise"
            )
        if isinstance(self.providers, str):
            raise TypeError(f"providers must be a list, such as [{self.providers!r}]")
        if self.providers is not None and self.cuda in (True, Device.CUDA):
            warnings.warn(
                f"`cuda` and `providers` are mutually exclusive parameters, cuda: {self.cuda}, providers: "
                f"{self.providers}. If you'd like to use providers, cuda should be one of "
                "[False, Device.CPU, Device.AUTO].",
                stacklevel=4,
            )

    @property
    def devices(self) -> Sequence[int]:
        """The GPUs that were named, by either argument."""
        return [self.device_id] if self.device_id is not None else list(self.device_ids or ())

    @property
    def in_int8(self) -> bool:
        """Whether weights are to be 8-bit integers."""
        return self.precision in ("int8", "int8-fast")

    @property
    def demands_cuda(self) -> bool:
        """Whether the caller asked for CUDA by name."""
        return self.providers is None and self.cuda in (True, Device.CUDA)
