"""Runs with inputs and outputs in page-locked ("pinned") memory, which a GPU reads and writes directly.

From pageable memory CUDA copies through a buffer of its own, and the GPU waits. onnxruntime's Python API offers pinned
memory only for plugin providers, of which its packages have none (1.31); so blocks are pinned here, with the CUDA
runtime that the provider has loaded. To onnxruntime they are ordinary memory: nothing depends on pinning.
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
    """The shape of a float32 output, derived from the inputs' shapes; None if it cannot be."""
    stated = {value.name: value for value in session.get_outputs()}[output]
    sizes: dict[str | int, int] = {}
    for value in session.get_inputs():
        sizes.update(zip(value.shape, feed[value.name].shape, strict=True))
    shape = [size if isinstance(size, int) else sizes.get(size, 0) for size in stated.shape]
    return shape if all(shape) and stated.type == "tensor(float)" else None


class HostMemory:
    """Arrays in pinned memory; in ordinary memory where pinning fails or enough is pinned.

    A block is reused once nothing refers to its array or a view of it. Threads may share an instance.

    Args:
        lock: pins a block, given address and size in bytes, and returns what unpins it. OSError: it cannot. None:
            nothing is pinned.
    """

    def __init__(self, lock: Callable[[int, int], Callable[[], object]] | None = None) -> None:
        self._lock = lock
        self._free: dict[int, list[_Block]] = {}
        self._locked = 0
        self._counting = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialized array."""
        length = math.prod(shape) * np.dtype(dtype).itemsize
        size = max(_SMALLEST, 1 << (length - 1).bit_length())
        if (block := self._block(size)) is None:
            return np.empty(shape, dtype)
        return np.asarray(_Loan(block, self._free[size]))[:length].view(dtype).reshape(shape)

    def copy(self, values: NDArray[Any]) -> NDArray[Any]:
        """A copy of `values` in this memory."""
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
    """Whole pages, pinned until nothing refers to them."""

    def __init__(self, size: int, lock: Callable[[int, int], Callable[[], object]]) -> None:
        # A shared mapping (mmap's default): after a fork the parent must keep the pages that are pinned.
        self.bytes = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        unlock = weakref.finalize(self, lock(self.bytes.ctypes.data, size))
        unlock.atexit = False  # the end of the process does it


class _Loan:
    """The base of all views of an array: when they are gone, its block is free again."""

    def __init__(self, block: _Block, free: list[_Block]) -> None:
        self._block, self._free = block, free
        self.__array_interface__ = block.bytes.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._block)


def cuda_memory(device: int) -> HostMemory:
    """Memory pinned for a GPU; ordinary memory without a CUDA runtime."""
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
        raise OSError("the CUDA runtime cannot pin memory")
    return partial(runtime.cudaHostUnregister, pointer)
