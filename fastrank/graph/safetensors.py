"""Read safetensors files: the header, which says where each tensor's bytes lie, and single tensors as float32.

Format (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON object
`{name: {"dtype", "shape", "data_offsets": [begin, end]}}`, then the data. Offsets count from the end of the header;
the tensors must cover the data without gap or overlap. The file is taken to be hostile: everything is checked.
"""

from __future__ import annotations

import json
import math
import reprlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastrank.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

MAX_HEADER: Final = 10_000_000  # encoders have 10 to 100 kB; the 100 MB that the format allows take 1.5 GB to parse
MAX_RANK: Final = 16
MAX_SIZE: Final = 2**63 - 1

_ITEM_SIZES: Final = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"], 1),
    **dict.fromkeys(["U16", "I16", "F16", "BF16"], 2),
    **dict.fromkeys(["U32", "I32", "F32"], 4),
    **dict.fromkeys(["U64", "I64", "F64", "C64"], 8),
}


_FLOATS: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


class Tensor(NamedTuple):
    """One tensor of a safetensors file.

    Attributes:
        dtype: The format's name, such as "F32" or "BF16".
        shape: Empty for a scalar.
        offset: Of its first byte, from the start of the FILE.
        length: In bytes.
        file: The file.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int
    file: Path


def read_float32(name: str, tensor: Tensor, rows: slice = slice(None)) -> NDArray[np.float32]:
    """A copy of some rows of a tensor (by default all) as float32; only those rows are read.

    Raises:
        ModelLoadError: The tensor is not of floats, or the file cannot be read.
    """
    import numpy as np  # reading a header does not need it

    if tensor.dtype not in _FLOATS:
        raise ModelLoadError(
            f"{tensor.file}: tensor {name!r:.200} has the dtype {tensor.dtype}; supported: {', '.join(_FLOATS)}"
        )
    if not tensor.length:  # which cannot be mapped
        return np.zeros(tensor.shape, np.float32)[rows]
    try:
        stored = np.memmap(tensor.file, _FLOATS[tensor.dtype], "r", tensor.offset, tensor.shape or (1,))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{tensor.file}: cannot be read: {error}") from error
    values = stored.reshape(tensor.shape)[rows] if tensor.shape else stored.reshape(())
    if tensor.dtype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def read_bytes(name: str, tensor: Tensor) -> NDArray[np.uint8]:
    """The bytes of a tensor, uint8 of its shape with its last size in bytes; they stay in the file until they are used.

    Raises:
        ModelLoadError: The file cannot be read.
    """
    import numpy as np

    shape = (*tensor.shape[:-1], -1) if tensor.shape else (1, -1)
    if not tensor.length:
        return np.zeros(tensor.shape, np.uint8)
    try:
        return np.memmap(tensor.file, np.uint8, "r", tensor.offset, (tensor.length,)).reshape(shape)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{tensor.file}: tensor {name!r:.200} cannot be read: {error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The strings that whoever wrote the file put into its header; empty if it has none.

    Raises:
        ModelLoadError: As `read_header`.
    """
    found = _header(path)[0].get("__metadata__", {})
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by name, in the order of their data.

    Raises:
        ModelLoadError: The file cannot be read or breaks the format; the message names the file and the fault.
    """
    entries, start, size = _header(path)
    entries.pop("__metadata__", None)
    tensors = {name: _tensor(path, name, entry, start) for name, entry in entries.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].length)))
    _check_cover(path, tensors, start, size)
    return tensors


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of a file as it stands there, where its data begin, and the file's size in bytes."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise ModelLoadError(f"{path}: there is no such file")
        size = path.stat().st_size
        with path.open("rb") as file:
            header_length = int.from_bytes(file.read(8), "little")
            if size < 8 + header_length or header_length > MAX_HEADER:
                raise ModelLoadError(
                    f"{path}: the header claims {header_length} bytes, the file has {size} and a header at most "
                    f"{MAX_HEADER}; the file is cut or is not a safetensors file"
                )
            header = file.read(header_length)
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error}") from error
    try:
        entries = json.loads(header.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: the header is not valid JSON: {error}") from error
    if not isinstance(entries, dict):
        raise ModelLoadError(f"{path}: the header is not a JSON object")
    return entries, 8 + header_length, size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key occurs twice")
    return entries


def _tensor(path: Path, name: str, entry: Any, start: int) -> Tensor:
    where = f"{path}: tensor {name!r:.200}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ModelLoadError(f"{where} is not an object with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_SIZES:
        raise ModelLoadError(f"{where} has the unknown dtype {reprlib.repr(dtype)}")
    if not _are_sizes(shape) or len(shape) > MAX_RANK:
        raise ModelLoadError(f"{where} has the shape {reprlib.repr(shape)}, not a list of at most {MAX_RANK} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ModelLoadError(f"{where} has the data_offsets {reprlib.repr(offsets)}, not [begin, end]")
    begin, end = offsets
    length = math.prod(shape) * _ITEM_SIZES[dtype]
    if end - begin != length:
        raise ModelLoadError(f"{where} spans [{begin}, {end}], but {dtype} {shape} takes {length} bytes")
    return Tensor(dtype, tuple(shape), start + begin, length, path)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= MAX_SIZE for item in value)


def _check_cover(path: Path, tensors: dict[str, Tensor], start: int, size: int) -> None:
    expected = start
    for name, tensor in tensors.items():
        if tensor.offset != expected:
            fault = "overlaps the one before" if tensor.offset < expected else "leaves a gap to the one before"
            raise ModelLoadError(f"{path}: the data of tensor {name!r:.200} {fault}")
        expected += tensor.length
    if expected != size:
        raise ModelLoadError(f"{path}: the header describes {expected} bytes, the file has {size}")
