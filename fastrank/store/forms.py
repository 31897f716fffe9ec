"""Whether a file is what its name says, for files whose hash nobody states: a login page under a model's name is not.

ONNX: the top-level fields of a ModelProto fill the file (github.com/onnx/onnx, onnx.proto). safetensors: the header
describes every byte of the file. JSON: an object or a list. NumPy: the header's shape fills the file. All but JSON are
read by their headers alone, so that gigabytes take no time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from fastrank.errors import IntegrityError, ModelLoadError
from fastrank.graph.safetensors import read_header
from fastrank.models.config import MAX_BYTES

MAX_TOKENIZER: Final = 100_000_000  # bytes; the largest known, of multilingual models, have 35 MB
MAX_WEIGHTS: Final = 20 << 30

_ONNX_FIELDS: Final = {1: 0, 7: 2, 8: 2}  # ir_version, graph, opset_import: field number -> wire type
_MOST_FIELDS: Final = 100_000  # a ModelProto has some dozens: properties, operator sets, functions
_NUMPY_HEADER: Final = 65536


def size_limit(path: str) -> int:
    """The largest size in bytes that a file of this name may have if nobody states its size."""
    if path.endswith("tokenizer.json"):
        return MAX_TOKENIZER
    return MAX_BYTES if _is_json(path) else MAX_WEIGHTS


def is_checkable(path: str) -> bool:
    """Whether files of this name have a form that `check_form` knows."""
    return _checker(path) is not None


def check_form(file: Path, path: str) -> None:
    """Check that `file`, which is called `path` in its repository, has the form that its name promises.

    A file of a name without a form, such as external data, passes: see `is_checkable`.

    Raises:
        IntegrityError: it has not: it is cut, or something else altogether.
    """
    if check := _checker(path):
        try:
            check(file)
        except (ValueError, OSError, ModelLoadError, RecursionError) as error:
            raise IntegrityError(
                f"{path} is not {_kind(path)}: {_reason(error, file)}. A proxy or a login page may have answered "
                "instead of the hub, or the answer was cut"
            ) from error


def _checker(path: str) -> Callable[[Path], object] | None:
    if _is_json(path):
        return _check_tokenizer if path.endswith("tokenizer.json") else _read_json
    checkers = {".onnx": _check_onnx, ".safetensors": _check_safetensors, ".npy": _check_numpy}
    return checkers.get(PurePosixPath(path).suffix)


def _is_json(path: str) -> bool:
    return path.endswith(".json") or PurePosixPath(path).name == "artifact.metadata"


def _kind(path: str) -> str:
    if _is_json(path):
        return "JSON of the kind it should be"
    kinds = {".onnx": "an ONNX graph", ".safetensors": "a safetensors file", ".npy": "a NumPy array"}
    return kinds[PurePosixPath(path).suffix]


def _reason(error: Exception, file: Path) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).removeprefix(f"{file}: ").rstrip(".")


def _read_json(file: Path) -> object:
    if (size := file.stat().st_size) > (limit := size_limit(file.name)):
        raise ValueError(f"it has {size} bytes, at most {limit} are read")
    content = json.loads(file.read_bytes())
    if not isinstance(content, dict | list):
        raise ValueError("it is neither an object nor a list")  # noqa: TRY004 - one kind of error for one fault
    return content


def _check_tokenizer(file: Path) -> None:
    content = _read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError('it has no "model"')  # noqa: TRY004 - as above


def _check_safetensors(file: Path) -> None:
    if not read_header(file):
        raise ValueError("it has no tensors")


def _check_onnx(file: Path) -> None:
    """Walk over the top-level fields; each says its own length, and together they fill the file."""
    size = file.stat().st_size
    found: dict[int, int] = {}
    with file.open("rb") as stream:
        for _ in range(_MOST_FIELDS):
            if (position := stream.tell()) == size:
                break
            tag = _varint(stream)
            field, wire = tag >> 3, tag & 7
            if wire == 0:
                _varint(stream)
            elif wire in (1, 2, 5):
                length = {1: 8, 5: 4}.get(wire) or _varint(stream)
                if stream.tell() + length > size:
                    raise ValueError(f"it has {size} bytes, and a field at byte {position} does not end in them")
                stream.seek(length, 1)
            else:
                raise ValueError(f"byte {position} begins no field of a protobuf message")
            found.setdefault(field, wire)
        else:
            raise ValueError(f"it has more than {_MOST_FIELDS} fields")
    if missing := [field for field, wire in _ONNX_FIELDS.items() if found.get(field) != wire]:
        names = {1: "ir_version", 7: "graph", 8: "opset_import"}
        raise ValueError(f"it has no {' and no '.join(names[field] for field in missing)}")


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        if not (byte := stream.read(1)):
            raise ValueError("it ends in the middle of a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number has more than 10 bytes")


def _check_numpy(file: Path) -> None:
    """Format: numpy.lib.format. Magic, version, header length, a Python dict as text, the data."""
    with file.open("rb") as stream:
        magic = stream.read(8)
        if len(magic) < 8 or not magic.startswith(b"\x93NUMPY"):
            raise ValueError("it does not begin as one")
        length = int.from_bytes(stream.read(2 if magic[6] == 1 else 4), "little")
        header = stream.read(min(length, _NUMPY_HEADER)).decode("latin-1")
        start = stream.tell()
    dtype = re.search(r"'descr': *'[<>|=]?[a-z](\d{1,3})'", header)
    shape = re.search(r"'shape': *\(([\d, ]*)\)", header)
    if not dtype or not shape:
        raise ValueError("its header states no dtype and shape")
    sizes = [int(text) for text in shape[1].replace(" ", "").split(",") if text]
    expected = start + math.prod(sizes) * int(dtype[1])
    if (size := file.stat().st_size) != expected:
        raise ValueError(f"it has {size} bytes, its header describes {expected}")
