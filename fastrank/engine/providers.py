"""Which execution provider runs a model, and finding CUDA's libraries."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from fastrank import environment
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.errors import ProviderError

if TYPE_CHECKING:
    pass


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
GPU_PACKAGES = (
    "onnxruntime and onnxruntime-gpu own the same module, so have only the second: "
    "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"
)


def runtime() -> tuple[str, list[str]]:
    """The version of onnxruntime, and the providers it was built with."""
    environment.silence_onnxruntime_telemetry()
    import onnxruntime

    return onnxruntime.__version__, list(onnxruntime.get_available_providers())


@cache
def find_cuda(onnxruntime: ModuleType) -> None:
    """Load the libraries of CUDA that pip has installed: onnxruntime looks for them only where the system has its own.

    With torch they are loaded already. What is missing, `preload_dlls` prints, whatever standard output is for.
    """
    from importlib.util import find_spec

    if "torch" not in sys.modules and find_spec("nvidia") is not None:
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()


def resolve(options: Options, available: Sequence[str]) -> list[list[OnnxProvider]]:
    """The providers of each device's session."""
    if options.providers is not None:
        wanted: list[OnnxProvider] = list(options.providers)
    elif options.demands_cuda or (options.cuda == Device.AUTO and CUDA in available and not options.in_int8):
        # TF32, which onnxruntime would use for float32, keeps 10 bits of a fraction: no more than float16.
        exact = {"use_tf32": 0}
        if options.devices:
            return [_checked([(CUDA, {"device_id": n, **exact}), CPU], available) for n in options.devices]
        wanted = [(CUDA, exact), CPU]
    else:
        wanted = [CPU]
    return [_checked(wanted, available)]


def _checked(wanted: list[OnnxProvider], available: Sequence[str]) -> list[OnnxProvider]:
    for provider in wanted:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            advice = f" For CUDA, {GPU_PACKAGES}" if name == CUDA else ""
            raise ProviderError(f"Provider {name} is not available. Available providers: {list(available)}.{advice}")
    return wanted
