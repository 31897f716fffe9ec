"""Running a model with onnxruntime: sessions, threads, and onnxruntime's errors."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrank.engine import cpu, providers
from fastrank.engine.batching import Batch
from fastrank.engine.ending import native_calls
from fastrank.engine.forking import no_fork
from fastrank.engine.options import OnnxProvider, Options
from fastrank.engine.providers import CPU, CUDA, ExecutionDevice, Run
from fastrank.engine.scheduler import Group, Scheduler
from fastrank.errors import ModelLoadError, ProviderError

if TYPE_CHECKING:
    import onnxruntime

_TEXTS_A_THREAD = 64  # of a window
_LARGE = 400_000_000  # bytes of weights of which no second copy is worth its memory

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Model(NamedTuple):
    """What a session opens.

    Attributes:
        path: an ONNX graph, or a checkpoint.
        build: writes the graph of a checkpoint, whose weights stay where they are; None: `path` is the graph.
        build_elsewhere: writes the graph for other devices than the CPU; None: the same.
        optimize: whether onnxruntime optimizes the graph.
    """

    path: Path
    build: Callable[[], bytes] | None = None
    build_elsewhere: Callable[[], bytes] | None = None
    optimize: bool = True


class Use(NamedTuple):
    """How an ONNX graph is run.

    Attributes:
        output: the output that counts; None: its first.
        extra_inputs: scalar inputs beside the tokens.
    """

    output: str | None = None
    extra_inputs: Mapping[str, int] = MappingProxyType({})


class _FilesChangedError(ModelLoadError):
    """The model's files are not those that it was loaded from."""


class _Opened(NamedTuple):
    session: onnxruntime.InferenceSession
    run: Run


class Session:
    """One model in memory, shared by all threads. `run` may be called from many at a time.

    On a CPU there are two onnxruntime sessions over the same weights, each opened when first needed: `intra_op` uses
    all threads inside one run, which is best for a single text; the other uses one thread per run, which is best when
    many batches run in parallel. Each packs the weights for itself, so that large models have the first only: their
    products are large enough to gain nothing by the other. Of several GPUs each has a session of its own; a batch goes
    to the least busy one.

    Args:
        model: what to open.
        options: provider and threads.
        extra_inputs: scalar inputs beside the tokens, by name, with their default values.

    Raises:
        ProviderError: a provider that was asked for is not available, or cannot be started.
        ModelLoadError: onnxruntime cannot load the graph.
    """

    def __init__(self, model: Model, options: Options, extra_inputs: Mapping[str, int] = MappingProxyType({})) -> None:
        self._model, self._options, self._extra_inputs = model, options, extra_inputs
        self._onnxruntime = providers.load_onnxruntime()
        self._files = identity(model.path)
        self._is_large = sum(size for _, size, *_ in self._files) > _LARGE
        self._graphs: dict[bool, bytes] = {}  # by whether it is for the CPU alone
        self._devices = providers.devices(options, self._onnxruntime.get_available_providers())
        self.threads = options.threads or cpu.available()
        self._forget_opened()
        _sessions.add(self)
        if not self._devices[0].only_cpu:
            providers.find_cuda(self._onnxruntime)
        first = self._first()
        self.provider: str = first.get_providers()[0]
        self.on_cpu = self._devices[0].runs_on_cpu(first)
        if options.demands_cuda and CUDA not in first.get_providers() and self.on_cpu:
            raise ProviderError(
                f"CUDA was asked for, but onnxruntime could not start {CUDA} (standard error says why) and fell "
                f"back to {first.get_providers()}. Its version must fit the installed CUDA and cuDNN."
            )
        self._limits = self._devices[0].limits(first)
        runs = self._limits.runs
        self.groups: dict[Any, Group[Any]] = {}  # of jobs that run together
        self.scheduler = Scheduler(self.threads if runs is None else runs * self.devices)
        self.inputs = {value.name: value.type for value in first.get_inputs()}
        self.outputs = [value.name for value in first.get_outputs()]
        widths = [value.shape[-1] for value in first.get_outputs() if value.shape]
        self._widest = max((width for width in widths if isinstance(width, int)), default=1)
        supported = {"input_ids", "attention_mask", "token_type_ids", "position_ids", *extra_inputs}
        if unknown := set(self.inputs) - supported:
            names = ", ".join(sorted(unknown))
            raise ModelLoadError(f"{model.path} has inputs that fastrank cannot supply: {names}")

    @property
    def budget(self) -> int:
        """Tokens a batch should have at most."""
        tokens, output_bytes = self._limits.tokens, self._limits.output_bytes
        return tokens if output_bytes is None else max(512, min(tokens, output_bytes // (4 * self._widest)))

    @property
    def square(self) -> int | None:
        """What `texts x longest x longest` of a batch should be at most; None: no limit."""
        return self._limits.square

    @property
    def window(self) -> int:
        """How many texts to read ahead, so that those of similar length can run together and all threads have work.

        At the end of a window threads wait for the last batch. benchmarks/window.py shows what that costs.
        """
        return max(self._limits.window, _TEXTS_A_THREAD * self.threads) if self.on_cpu else self._limits.window

    @property
    def devices(self) -> int:
        """How many GPUs have a session each, or will have; 1 on a CPU."""
        return len(self._devices)

    @property
    def workers(self) -> int:
        """How many batches run at a time: one per thread, or two per GPU."""
        return self.scheduler.workers

    def run(
        self,
        batch: Batch,
        output: str | None = None,
        *,
        intra_op: bool = True,
        extra_inputs: Mapping[str, int] = MappingProxyType({}),
    ) -> NDArray[np.float32]:
        """The named output (None: the first) for a batch, as float32, in the shape that the model returns.

        Args:
            batch: texts.
            output: its name.
            intra_op: use all threads in this run; else one.
            extra_inputs: scalar inputs that differ from the session's.

        Raises:
            ModelLoadError: onnxruntime failed while running, there is no such output, or a file of the model changed
                since it was loaded, before all of it was opened.
        """
        if output is not None and output not in self.outputs:
            raise ModelLoadError(f"Output {output!r} not found in the model, available outputs: {self.outputs}")
        name, feed = output or self.outputs[0], self._feed(batch, {**self._extra_inputs, **extra_inputs})
        with self._least_busy() as device:
            opened = self._open(device, intra_op=intra_op or not self.on_cpu)
            native_calls.refuse()  # with its own error
            try:
                with native_calls:
                    result = opened.run(name, feed)
            except Exception as error:
                shape = "x".join(str(n) for n in batch.ids.shape)
                where = f" on {self._devices[device].name}" if self.devices > 1 else ""
                raise ModelLoadError(
                    f"{self._model.path} failed on a batch of {shape} tokens{where}: {error}"
                ) from error
        return np.asarray(result, np.float32)

    def leave_to_parent(self) -> None:
        """In a forked child: open anew what this process needs.

        onnxruntime's threads stayed with the parent, and destroying its sessions without them would wait or crash.
        """
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))  # the end of Python destroys all but this
        self._forget_opened()

    def _forget_opened(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[tuple[int, bool], _Opened] = {}
        self._running = [0] * len(self._devices)
        self._counting = threading.Lock()

    def _first(self) -> onnxruntime.InferenceSession:
        """The session of the first device; where CUDA is only tried and does not start, one on the CPU, silently."""
        options, device = self._options, self._devices[0]
        if options.providers is not None or options.demands_cuda or device.only_cpu:
            return self._open(0, intra_op=True).session
        self._onnxruntime.set_default_logger_severity(4)
        try:
            first = self._open(0, intra_op=True).session
            if not device.runs_on_cpu(first):
                return first
        except ProviderError:
            pass
        finally:
            self._onnxruntime.set_default_logger_severity(2)  # its default; it has no getter
        self._devices = [ExecutionDevice([CPU])]
        self._opened.clear()
        return self._open(0, intra_op=True).session

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

    def _feed(self, batch: Batch, extra_inputs: Mapping[str, int]) -> Mapping[str, NDArray[Any]]:
        available = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
        available |= {name: np.array(value, np.int64) for name, value in extra_inputs.items()}
        if "position_ids" in self.inputs:
            available["position_ids"] = np.maximum(batch.mask.cumsum(axis=1) - 1, 0)
        return {
            name: available[name].astype(np.int32) if kind == "tensor(int32)" else available[name]
            for name, kind in self.inputs.items()
        }

    def _open(self, device: int, *, intra_op: bool) -> _Opened:
        with self._lock:
            intra_op = intra_op or self._is_large
            key = (device, intra_op or self.threads == 1)
            if key not in self._opened:
                try:
                    with no_fork:
                        session = self._load(self._devices[device].providers, self.threads if intra_op else 1)
                except _FilesChangedError:
                    if (other := self._opened.get((device, not key[1]))) is None:
                        raise
                    self._opened[key] = other  # the weights that were loaded, with another number of threads
                    return other
                run = self._devices[device].runner(session, sized=self._model.build is not None)
                self._opened[key] = _Opened(session, run)
            return self._opened[key]

    def _graph_for(self, device_providers: Sequence[OnnxProvider], build: Callable[[], bytes]) -> bytes:
        """The graph of a checkpoint, written once a kind of device."""
        on_cpu = list(device_providers) == [CPU]
        if on_cpu not in self._graphs:
            self._graphs[on_cpu] = build() if on_cpu else (self._model.build_elsewhere or build)()
        return self._graphs[on_cpu]

    def _load(self, device_providers: Sequence[OnnxProvider], threads: int) -> onnxruntime.InferenceSession:
        settings = self._onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.enable_cpu_mem_arena = self._options.enable_cpu_mem_arena
        # Planning which buffers may share memory takes half of an int8 model's start; the arena gives them back anyway.
        settings.enable_mem_reuse = list(device_providers) != [CPU]
        settings.log_severity_level = 3  # errors
        if not self._model.optimize:
            settings.graph_optimization_level = self._onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        path = self._model.path
        try:
            now = identity(path)
        except OSError as error:  # in a child that became another user, say
            raise _FilesChangedError(f"{path} cannot be opened again by this process: {error}") from error
        if self._files != now:
            changed = sorted({name for name, *_ in set(self._files) ^ set(now)}) or [path.name]
            raise _FilesChangedError(
                f"{', '.join(changed)} in {path.parent} changed since this model was loaded, so it cannot be opened "
                "again. Load the model again."
            )
        model: str | bytes = str(path)
        if self._model.build:
            # The graph points into the checkpoint: nothing is written, nothing is copied.
            model = self._graph_for(device_providers, self._model.build)
            weights = str(path.resolve().parent)
            settings.add_session_config_entry("session.model_external_initializers_file_folder_path", weights)
        version = self._onnxruntime.__version__
        try:
            # Without its own fallback to the CPU, which prints to standard output.
            return self._onnxruntime.InferenceSession(
                model, settings, providers=list(device_providers), enable_fallback=0
            )
        except Exception as error:
            # Providers raise Python's exceptions, everything else raises onnxruntime's own.
            if isinstance(error, (RuntimeError, ValueError)) and list(device_providers) != [CPU]:
                raise ProviderError(f"onnxruntime {version} cannot start {device_providers[0]}: {error}") from error
            raise ModelLoadError(f"onnxruntime {version} cannot load {path}: {error}") from error


def runs_on_gpu(options: Options, graph: bytes) -> bool:
    """Whether sessions with these options run on a GPU, found out by opening a small graph."""
    return not Session(Model(Path("a trial of onnxruntime"), lambda: graph), options).on_cpu


def run_once(graph: bytes, batch: Batch) -> NDArray[np.float32]:
    """The first output of a graph without weights, for one batch, on one thread of the CPU."""
    return Session(Model(Path("a trial of onnxruntime"), lambda: graph), Options(threads=1, cuda=False)).run(batch)


def normalise(path: Path, target: Path, data: str) -> None:
    """Write an ONNX graph anew to the file `target`, by onnxruntime, with constants folded and nothing fused.

    Weights of a kilobyte and more go to the file `data` beside it.

    Raises:
        ModelLoadError: onnxruntime cannot load it.
    """
    onnxruntime = providers.load_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.log_severity_level = 3  # errors
    settings.intra_op_num_threads = 1
    settings.optimized_model_filepath = str(target)
    settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", data)
    settings.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    settings.add_session_config_entry("session.disable_prepacking", "1")
    try:
        with no_fork:
            onnxruntime.InferenceSession(str(path), settings, providers=[CPU], enable_fallback=0)
    except Exception as error:
        raise ModelLoadError(f"onnxruntime {onnxruntime.__version__} cannot load {path}: {error}") from error


def identity(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """(name, bytes, modified, inode) of the files that hold a model's weights: the file, its shards, its external data.

    Sessions are opened when they are needed, from the same files or not at all.
    """
    files = []
    for file in sorted(path.parent.iterdir()) if path.is_file() else ():
        if file.name.startswith(path.name) or (path.suffix == ".json" and file.suffix == ".safetensors"):
            try:
                found = file.stat()
            except OSError:
                continue
            files.append((file.name, found.st_size, found.st_mtime_ns, found.st_ino))
    return tuple(files)


def _forked() -> None:
    for session in list(_sessions):
        session.leave_to_parent()
    if "onnxruntime" in sys.modules:
        _end_without_destructors()


def _end_without_destructors() -> None:
    """Let this forked child end by `_exit`, after Python has finished.

    The destructors of onnxruntime's library wait for its telemetry thread, which only the parent has. glibc calls what
    is registered last first, with the exit status.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)  # noqa: SLF001 - its name


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
