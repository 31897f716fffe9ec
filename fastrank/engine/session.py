"""Running a model: execution provider, threads, and onnxruntime's errors. The only module that imports onnxruntime."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank import environment
from fastrank.engine import cpu
from fastrank.engine.batching import WINDOW, Batch
from fastrank.engine.options import OnnxProvider, Options
from fastrank.errors import ModelLoadError, ProviderError

if TYPE_CHECKING:
    import onnxruntime
from fastrank.engine.providers import CPU, CUDA, find_cuda, resolve

# Batches of up to so many tokens. On a CPU small ones stay in its cache and beat large ones by 1.4x; a GPU wants work.
_CPU_BUDGET, _GPU_BUDGET = 512, 16_384
_GPU_SQUARE = _GPU_BUDGET * 512  # texts x longest x longest; 12 heads' scores in fp16, and in fp32 to add up, are 1 GB
_GPU_OUTPUT = 1 << 28  # bytes of one batch's output at most: SPLADE's has 30,000 numbers a token
_GPU_WINDOW = 2_048  # texts read ahead for a GPU: 8 batches if they have 64 tokens each
_RUNS_A_GPU = 2  # at once: what one has computed is copied and pooled while the other computes

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _forked() -> None:
    """In a forked child: onnxruntime's threads stayed with the parent, so nothing that was opened there is of use."""
    for session in _sessions:
        session.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


_Run: TypeAlias = Callable[[str, Mapping[str, NDArray[Any]]], Any]
"""One output of a session, by name, from its inputs."""


class _Opened(NamedTuple):
    """A session of onnxruntime, and what runs it."""

    session: onnxruntime.InferenceSession
    run: _Run


class Session:
    """One model in memory, shared by all threads. `run` may be called from many at once.

    On a CPU there are two modes, each made when first needed: `wide` uses all threads inside one run, which is best for
    a single text; the other uses one thread a run, which is best when many batches run side by side.
    Of several GPUs each has a session of its own, made when first needed; a batch goes where the fewest are.

    Args:
        path: the model: an ONNX graph, or a checkpoint.
        options: provider and threads.
        build: writes the graph of a checkpoint, whose weights stay where they are.
        numbers: scalar inputs beside the tokens, by name, and what they are unless `run` says otherwise.
        finished: the graph is run as it is, not optimized by onnxruntime first.

    Raises:
        ProviderError: a provider that was asked for is not there, or cannot be started.
        ModelLoadError: onnxruntime cannot load the graph.
    """

    def __init__(
        self,
        path: Path,
        options: Options,
        build: Callable[[], bytes] | None = None,
        numbers: Mapping[str, int] = MappingProxyType({}),
        *,
        finished: bool = False,
    ) -> None:
        environment.silence_onnxruntime_telemetry()
        import onnxruntime

        self._onnxruntime = onnxruntime
        self._path, self._options, self._build = path, options, build
        self._numbers, self._finished = numbers, finished
        self._devices = resolve(options, onnxruntime.get_available_providers())
        self.threads = options.threads or cpu.available()
        self._lock = threading.Lock()
        self._opened: dict[tuple[int, bool], _Opened] = {}
        self._running = [0] * len(self._devices)
        self._counting = threading.Lock()
        _sessions.add(self)
        if self._devices != [[CPU]]:
            find_cuda(onnxruntime)
        first = self._first()
        self.provider: str = first.get_providers()[0]
        self.on_cpu = self.provider == CPU
        if options.demands_cuda and CUDA not in first.get_providers():
            raise ProviderError(
                f"CUDA was asked for, but onnxruntime could not start {CUDA} (standard error says why) and fell "
                f"back to {first.get_providers()}. Its version must fit the installed CUDA and cuDNN."
            )
        self.inputs = {value.name: value.type for value in first.get_inputs()}
        self.outputs = [value.name for value in first.get_outputs()]
        widths = [value.shape[-1] for value in first.get_outputs() if value.shape]
        self._widest = max((width for width in widths if isinstance(width, int)), default=1)
        known = {"input_ids", "attention_mask", "token_type_ids", "position_ids", *self._numbers}
        if unknown := set(self.inputs) - known:
            names = ", ".join(sorted(unknown))
            raise ModelLoadError(f"{path} wants inputs that fastrank does not know: {names}")

    def _first(self) -> onnxruntime.InferenceSession:
        """The session of the first device; where CUDA is only tried and does not start, one on the CPU, silently."""
        options = self._options
        if options.providers is not None or options.demands_cuda or self._devices == [[CPU]]:
            return self._open(0, wide=True).session
        self._onnxruntime.set_default_logger_severity(4)
        try:
            first = self._open(0, wide=True).session
            if first.get_providers() != [CPU]:
                return first
        except ProviderError:
            pass
        finally:
            self._onnxruntime.set_default_logger_severity(2)  # its default; it has no getter
        self._devices = [[CPU]]
        return self._open(0, wide=True).session

    @property
    def budget(self) -> int:
        """Tokens a batch should have at most."""
        if self.on_cpu:
            return _CPU_BUDGET
        return max(_CPU_BUDGET, min(_GPU_BUDGET, _GPU_OUTPUT // (4 * self._widest)))

    @property
    def square(self) -> int | None:
        """What `texts x longest x longest` of a batch should be at most; None: it does not matter."""
        return None if self.on_cpu else _GPU_SQUARE

    @property
    def window(self) -> int:
        """How many texts to read ahead, to put those of similar length together."""
        return WINDOW if self.on_cpu else _GPU_WINDOW

    @property
    def devices(self) -> int:
        """How many GPUs have a session each, or will have; 1 on a CPU."""
        return len(self._devices)

    @property
    def workers(self) -> int:
        """How many batches should run at once: one a processor, or two a GPU."""
        return self.threads if self.on_cpu else _RUNS_A_GPU * self.devices

    def run(
        self,
        batch: Batch,
        output: str | None = None,
        *,
        wide: bool = True,
        numbers: Mapping[str, int] = MappingProxyType({}),
    ) -> NDArray[np.float32]:
        """The named output (None: the first) for a batch, as float32 of whatever shape the model gives.

        Raises:
            ModelLoadError: onnxruntime failed while running, or there is no such output.
        """
        if output is not None and output not in self.outputs:
            raise ModelLoadError(f"Output {output!r} not found in the model, available outputs: {self.outputs}")
        name, feed = output or self.outputs[0], self._feed(batch, {**self._numbers, **numbers})
        with self._least_busy() as device:
            opened = self._open(device, wide=wide or not self.on_cpu)
            try:
                result = opened.run(name, feed)
            except Exception as error:
                shape = "x".join(str(n) for n in batch.ids.shape)
                where = f" on GPU {self._options.devices[device]}" if self.devices > 1 else ""
                raise ModelLoadError(f"{self._path} failed on a batch of {shape} tokens{where}: {error}") from error
        return np.asarray(result, np.float32)

    @contextmanager
    def _least_busy(self) -> Iterator[int]:
        """The device with the fewest runs, for one more."""
        with self._counting:
            device = min(range(self.devices), key=self._running.__getitem__)
            self._running[device] += 1
        try:
            yield device
        finally:
            with self._counting:
                self._running[device] -= 1

    def leave_to_parent(self) -> None:
        """Open anew what this process needs. What its parent opened is never destroyed: that would wait or crash."""
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))  # the end of Python destroys all but this
        self._lock, self._opened = threading.Lock(), {}
        self._counting, self._running = threading.Lock(), [0] * self.devices

    def _feed(self, batch: Batch, numbers: Mapping[str, int]) -> Mapping[str, NDArray[Any]]:
        available = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
        available |= {name: np.array(number, np.int64) for name, number in numbers.items()}
        if "position_ids" in self.inputs:
            available["position_ids"] = np.maximum(batch.mask.cumsum(axis=1) - 1, 0)
        return {
            name: available[name].astype(np.int32) if kind == "tensor(int32)" else available[name]
            for name, kind in self.inputs.items()
        }

    def _open(self, device: int, *, wide: bool) -> _Opened:
        with self._lock:
            key = (device, wide or self.threads == 1)
            if key not in self._opened:
                session = self._load(self._devices[device], self.threads if wide else 1)
                self._opened[key] = _Opened(session, self._runner(session))
            return self._opened[key]

    def _runner(self, session: onnxruntime.InferenceSession) -> _Run:
        if session.get_providers()[0] != CUDA:
            return lambda output, feed: session.run([output], feed)[0]
        from fastrank.engine import pinned_memory

        memory = pinned_memory.cuda_memory(int(session.get_provider_options()[CUDA].get("device_id", 0)))
        return partial(pinned_memory.run, session, memory=memory, sized=self._build is not None)

    def _load(self, providers: Sequence[OnnxProvider], threads: int) -> onnxruntime.InferenceSession:
        settings = self._onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.enable_cpu_mem_arena = self._options.enable_cpu_mem_arena
        # Planning which buffers may share memory takes half of an int8 model's start; the arena gives them back anyway.
        settings.enable_mem_reuse = list(providers) != [CPU]
        settings.log_severity_level = 3  # errors
        if self._finished:
            settings.graph_optimization_level = self._onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        model: str | bytes = str(self._path)
        if self._build:
            # The graph points into the checkpoint: nothing is written, nothing is copied.
            model = self._build()
            weights = str(self._path.resolve().parent)
            settings.add_session_config_entry("session.model_external_initializers_file_folder_path", weights)
        version = self._onnxruntime.__version__
        try:
            # Without its own fallback to the CPU, which prints to standard output.
            return self._onnxruntime.InferenceSession(model, settings, providers=list(providers), enable_fallback=0)
        except Exception as error:
            # Providers raise exceptions of Python's, all else onnxruntime's own.
            if isinstance(error, (RuntimeError, ValueError)) and list(providers) != [CPU]:
                raise ProviderError(f"onnxruntime {version} cannot start {providers[0]}: {error}") from error
            raise ModelLoadError(f"onnxruntime {version} cannot load {self._path}: {error}") from error
