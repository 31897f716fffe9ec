"""Which execution provider runs a model, and what differs between them: memory of inputs and outputs, batch sizes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from fastrank import environment
from fastrank.engine.batching import WINDOW
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.errors import ProviderError

if TYPE_CHECKING:
    import onnxruntime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_GPU_PACKAGES = (
    "onnxruntime and onnxruntime-gpu own the same module, so have only the second: "
    "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"
)

Run: TypeAlias = Callable[[str, Mapping[str, NDArray[Any]]], Any]
"""One output of a session, by name, from its inputs."""


class Limits(NamedTuple):
    """How work is cut for a device.

    Attributes:
        tokens: of a batch at most, padding included.
        square: what `texts x longest x longest` of a batch should be at most, for attention's memory; None: no limit.
        output_bytes: of a batch's output at most; None: no limit.
        window: texts read ahead, so that those of similar length can run together.
        runs: batches that run at a time on this device; None: one per thread.
    """

    tokens: int
    square: int | None
    output_bytes: int | None
    window: int
    runs: int | None


# On a CPU small batches stay in its cache and beat large ones by 1.4x; a GPU wants work.
CPU_LIMITS = Limits(tokens=512, square=None, output_bytes=None, window=WINDOW, runs=None)
GPU_LIMITS = Limits(
    tokens=16_384,
    square=16_384 * 512,  # 12 heads' scores in fp16, and in fp32 to add up, are 1 GB
    output_bytes=1 << 28,  # SPLADE's output has 30,000 numbers per token
    window=2_048,  # 8 batches of texts of 64 tokens
    runs=2,  # what one has computed is copied and pooled while the other computes
)


class ExecutionDevice:
    """What one onnxruntime session runs on.

    Args:
        providers: onnxruntime's execution providers, best first.
        name: for messages, where there are several devices.
    """

    def __init__(self, providers: Sequence[OnnxProvider], name: str = "") -> None:
        self.providers = list(providers)
        self.name = name

    @property
    def only_cpu(self) -> bool:
        """Whether no other provider than the CPU's was asked for."""
        return self.providers == [CPU]

    def runs_on_cpu(self, session: onnxruntime.InferenceSession) -> bool:
        """Whether a session that was opened for this device runs on the CPU, by choice or by fallback."""
        return bool(session.get_providers()[0] == CPU)

    def limits(self, session: onnxruntime.InferenceSession) -> Limits:
        """How work is cut for a session of this device."""
        return CPU_LIMITS if self.runs_on_cpu(session) else GPU_LIMITS

    def runner(self, session: onnxruntime.InferenceSession, *, sized: bool) -> Run:
        """What runs a session: through page-locked memory on CUDA.

        Args:
            session: opened for this device.
            sized: the graph states its outputs' sizes in terms of its inputs', and rightly.
        """
        if session.get_providers()[0] != CUDA:
            return lambda output, feed: session.run([output], feed)[0]
        from fastrank.engine import pinned_memory

        memory = pinned_memory.cuda_memory(int(session.get_provider_options()[CUDA].get("device_id", 0)))
        return partial(pinned_memory.run, session, memory=memory, sized=sized)


def runtime() -> tuple[str, list[str]]:
    """The version of onnxruntime, and the providers it was built with."""
    onnxruntime = load_onnxruntime()
    return onnxruntime.__version__, list(onnxruntime.get_available_providers())


def load_onnxruntime() -> ModuleType:
    """onnxruntime, imported without its telemetry."""
    environment.silence_onnxruntime_telemetry()
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


def devices(options: Options, available: Sequence[str]) -> list[ExecutionDevice]:
    """What to open sessions for: the CPU, or one device for each GPU.

    Raises:
        ProviderError: a provider that was asked for is not available.
    """
    if options.providers is not None:
        wanted: list[OnnxProvider] = list(options.providers)
    elif options.demands_cuda or (options.cuda == Device.AUTO and CUDA in available and not options.quantized):
        # TF32, which onnxruntime would use for float32, keeps 10 bits of a fraction: no more than float16.
        exact = {"use_tf32": 0}
        if gpus := options.devices:
            return [
                ExecutionDevice(_available([(CUDA, {"device_id": gpu, **exact}), CPU], available), f"GPU {gpu}")
                for gpu in gpus
            ]
        wanted = [(CUDA, exact), CPU]
    else:
        wanted = [CPU]
    return [ExecutionDevice(_available(wanted, available))]


@cache
def find_cuda(onnxruntime: ModuleType) -> None:
    """Load the CUDA libraries that pip has installed: onnxruntime looks for them only where the system keeps its own.

    With torch they are loaded already. `preload_dlls` prints what is missing to standard output; it belongs to the log.
    """
    from importlib.util import find_spec

    if "torch" not in sys.modules and find_spec("nvidia") is not None:
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()


def _available(wanted: list[OnnxProvider], available: Sequence[str]) -> list[OnnxProvider]:
    for provider in wanted:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            advice = f" For CUDA, {_GPU_PACKAGES}" if name == CUDA else ""
            raise ProviderError(f"Provider {name} is not available. Available providers: {list(available)}.{advice}")
    return wanted
