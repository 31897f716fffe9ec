"""A file of raw arrays that can be memory-mapped: what BM25 saves.

    magic (8 bytes) | version (uint32) | CRC-32 of the header (uint32) | length of the header (uint64)
    header: JSON {"format": ..., "arrays": [[name, dtype, items, CRC-32], ...], ...}
    the arrays in this order, each at the next multiple of 64 bytes, with zeros in between

All numbers are little-endian, all arrays have one dimension and one of DTYPES. A file ends with its last array.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastrank.errors import ModelLoadError

DTYPES = ("|u1", "<u2", "<u4", "<i8", "<f4")

_MAGIC = b"fastrank"
_PREFIX = struct.Struct("<8sIIQ")
_ALIGNMENT = 64
_MAX_HEADER = 1 << 28  # bytes: a header names arrays and settings
_BLOCK = 1 << 26  # bytes whose CRC is computed at once


def write(path: Path, kind: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file under another name and move it into place when it is complete and on the disk.

    Args:
        path: the file; an earlier one is replaced.
        kind: what the file holds.
        version: of the layout of `header` and `arrays`.
        header: further values, as JSON can hold them.
        arrays: by name, one dimension each.
    """
    stored = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    table = [[name, array.dtype.str, len(array), _crc(array)] for name, array in stored.items()]
    blob = json.dumps({**header, "format": kind, "arrays": table}).encode()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        with unfinished.open("wb") as file:
            file.write(_PREFIX.pack(_MAGIC, version, zlib.crc32(blob), len(blob)))
            file.write(blob)
            for array in stored.values():
                file.write(bytes(-file.tell() % _ALIGNMENT))
                file.write(_bytes(array))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def read(
    path: Path, kind: str, version: int, *, mmap: bool = False, verify: bool = True
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a file that `write` wrote; the arrays are read-only.

    Args:
        path: the file.
        kind: what it must hold.
        version: what its version must be.
        mmap: map the arrays instead of reading them.
        verify: compare the arrays with their CRCs, which reads them once.

    Raises:
        FileNotFoundError: there is no such file.
        ModelLoadError: the file is damaged, of another version or kind, or not of this format at all.
    """
    with path.open("rb") as file, damage(path, kind):
        size = os.fstat(file.fileno()).st_size
        header = _header(file, path, kind, version, size)
        content: NDArray[np.uint8]
        if mmap:
            content = np.memmap(file, np.uint8, mode="r").view(np.ndarray)
        else:
            file.seek(0)
            content = np.fromfile(file, np.uint8)
            content.flags.writeable = False
        return header, _arrays(header.pop("arrays"), content, verify=verify)


@contextmanager
def damage(path: Path, kind: str = "file") -> Iterator[None]:
    """Whatever goes wrong inside becomes a `ModelLoadError` that names the file."""
    try:
        yield
    except (OSError, MemoryError, ModelLoadError):
        raise
    except Exception as error:  # damaged bytes raise a dozen kinds
        article = "an" if kind[0] in "aeiou" else "a"
        raise ModelLoadError(f"{path} is not {article} {kind}, or a damaged one: {error}") from error


def checked(arrays: Mapping[str, NDArray[Any]], name: str, *dtypes: str) -> NDArray[Any]:
    """An array of a file.

    Raises:
        ValueError: there is none of this name, or its dtype is another.
    """
    array = arrays.get(name)
    if array is None or array.dtype.str not in dtypes:
        stored = "missing" if array is None else array.dtype.str
        raise ValueError(f"array {name} is {stored}, expected {' or '.join(dtypes)}")
    return array


def _header(file: BinaryIO, path: Path, kind: str, version: int, size: int) -> dict[str, Any]:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise ValueError(f"it has {size} bytes")
    magic, stored_version, crc, length = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise ValueError("it begins with other bytes")
    if stored_version != version:
        raise ModelLoadError(f"{path} has version {stored_version} of the format, this fastrank reads {version}")
    if length > min(size, _MAX_HEADER):
        raise ValueError("its header is cut off")
    blob = file.read(length)
    if zlib.crc32(blob) != crc:
        raise ValueError("its header has changed")
    header: dict[str, Any] = json.loads(blob)
    if header["format"] != kind:
        raise ValueError(f"it holds a {header['format']}")
    return header


def _arrays(table: Any, content: NDArray[np.uint8], *, verify: bool) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    length = int.from_bytes(content[16:24].tobytes(), "little")
    end = _PREFIX.size + length
    for name, dtype, items, crc in table:
        if type(name) is not str or name in arrays or dtype not in DTYPES or type(items) is not int or items < 0:
            raise ValueError("its table of arrays is malformed")
        start = end + -end % _ALIGNMENT
        end = start + items * np.dtype(dtype).itemsize
        if end > len(content):
            raise ValueError(f"array {name} is cut off")
        arrays[name] = content[start:end].view(dtype)
        if verify and _crc(arrays[name]) != crc:
            raise ValueError(f"array {name} has changed")
    if end != len(content):
        raise ValueError(f"it has {len(content)} bytes, expected {end}")
    return arrays


def _bytes(array: NDArray[Any]) -> memoryview:
    return memoryview(array.view(np.uint8))  # type: ignore[arg-type]  # arrays are buffers; typeshed says so from 3.12


def _crc(array: NDArray[Any]) -> int:
    content, crc = _bytes(array), 0
    for start in range(0, len(content), _BLOCK):
        crc = zlib.crc32(content[start : start + _BLOCK], crc)
    return crc
