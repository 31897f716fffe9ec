"""A run whose inputs and outputs lie in memory that a GPU reads and writes by itself: page-locked ("pinned") memory.

From ordinary memory CUDA copies through a buffer of its own, and the GPU waits. onnxruntime's Python API gives out
page-locked memory only for plugin providers, of which its packages have none (1.31); so blocks are locked here, by the
CUDA runtime that the provider has loaded. For onnxruntime they are ordinary memory: nothing depends on the lock.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_CUDA_RUNTIMES = ("libcudart.so.13", "libcudart.so.12", "cudart64_13.dll", "cudart64_12.dll")
_PORTABLE = 1  # cudaHostRegisterPortable: locked for all GPUs
_SMALLEST = 1 << 16  # bytes of a block; sizes are powers of two, so that blocks fit again
_MOST = 1 << 28  # bytes locked at a time: what is locked cannot be swapped out


def run(
    session: Any, output: str, feed: Mapping[str, NDArray[Any]], *, memory: HostMemory, sized: bool
) -> NDArray[Any]:
    """One output of an `onnxruntime.InferenceSession`; many threads may call this for one session.

    Args:
        session: runs.
        output: its name.
        feed: an array for each input.
        memory: where arrays lie.
        sized: the graph states the output's sizes in terms of its inputs', and rightly: so its array is made ahead.

    Returns:
        The output, of the dtype and shape that the graph gives.
    """
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_cpu_input(name, memory.copy(value))  # which goes to the device here, and is kept until the end
    shape = _shape(session, output, feed) if sized else None
    if shape is None:
        binding.bind_output(output)
        session.run_with_iobinding(binding)
        found: NDArray[Any] = binding.get_outputs()[0].numpy()
        return found
    result = memory.empty(shape, np.float32)
    binding.bind_output(output, "cpu", 0, np.float32, shape, result.ctypes.data)
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    return result


def _shape(session: Any, output: str, feed: Mapping[str, NDArray[Any]]) -> Sequence[int] | None:
    """The sizes of a float32 output, as those of the inputs say; None: they do not."""
    stated = {value.name: value for value in session.get_outputs()}[output]
    sizes: dict[str | int, int] = {}
    for value in session.get_inputs():
        sizes.update(zip(value.shape, feed[value.name].shape, strict=True))
    shape = [size if isinstance(size, int) else sizes.get(size, 0) for size in stated.shape]
    return shape if all(shape) and stated.type == "tensor(float)" else None


class HostMemory:
    """Arrays in page-locked memory; in ordinary memory where it cannot be locked, or enough is.

    A block is used again once nothing refers to its array nor to a view of that. Threads may share this.

    Args:
        lock: locks a block of so many bytes at an address, and returns what unlocks it. OSError: it cannot.
            None: nothing is locked.
    """

    def __init__(self, lock: Callable[[int, int], Callable[[], object]] | None = None) -> None:
        self._lock = lock
        self._free: dict[int, list[_Block]] = {}
        self._locked = 0
        self._counting = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array whose numbers may be anything."""
        length = math.prod(shape) * np.dtype(dtype).itemsize
        size = max(_SMALLEST, 1 << (length - 1).bit_length())
        if (block := self._block(size)) is None:
            return np.empty(shape, dtype)
        return np.asarray(_Loan(block, self._free[size]))[:length].view(dtype).reshape(shape)

    def copy(self, values: NDArray[Any]) -> NDArray[Any]:
        """The same numbers in this memory."""
        copied = self.empty(values.shape, values.dtype)
        copied[...] = values
        return copied

    def _block(self, size: int) -> _Block | None:
        if self._lock is None:
            return None
        with suppress(IndexError):
            return self._free.setdefault(size, []).pop()
        with self._counting:
            if self._locked + size > _MOST:
                return None
            try:
                block = _Block(size, self._lock)
            except OSError:
                self._lock = None  # there is no use in trying again
                return None
            self._locked += size
            return block


class _Block:
    """Whole pages, locked until nothing refers to them."""

    def __init__(self, size: int, lock: Callable[[int, int], Callable[[], object]]) -> None:
        # Shared, as mmap is unless told: a fork must not give the parent other pages than those that are locked.
        self.bytes = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        unlock = weakref.finalize(self, lock(self.bytes.ctypes.data, size))
        unlock.atexit = False  # the end of the process does it


class _Loan:
    """What all views of an array refer to in the end: when they are gone, its block is free again."""

    def __init__(self, block: _Block, free: list[_Block]) -> None:
        self._block, self._free = block, free
        self.__array_interface__ = block.bytes.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._block)


def cuda_memory(device: int) -> HostMemory:
    """Memory locked for a GPU; ordinary memory, if there is no CUDA runtime."""
    runtime = _cuda_runtime()
    return HostMemory(partial(_cuda_lock, runtime, device) if runtime else None)


@cache
def _cuda_runtime() -> ctypes.CDLL | None:
    for name in _CUDA_RUNTIMES:  # found by these names once the provider has loaded one of them, wherever it lies
        with suppress(OSError):
            return ctypes.CDLL(name)
    return None


def _cuda_lock(runtime: ctypes.CDLL, device: int, address: int, size: int) -> Callable[[], object]:
    pointer = ctypes.c_void_p(address)
    # Without a device of its own, this thread would set up the first GPU, whoever uses that.
    if runtime.cudaSetDevice(device) or runtime.cudaHostRegister(pointer, ctypes.c_size_t(size), _PORTABLE):
        raise OSError("the CUDA runtime locks no memory")
    return partial(runtime.cudaHostUnregister, pointer)
