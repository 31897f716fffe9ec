"""Tensors of a file that `torch.save` wrote, without running the pickle in it.

Such a file is a zip archive: `data.pkl` describes a dict of tensors, and the members `data/0`, `data/1`, ... hold their
numbers, uncompressed. A pickle is a program; here its instructions are read as data, and only those are known that
describe a dict of contiguous tensors. Anything else is refused, before a number is read.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastrank.errors import ModelLoadError

_MOST_BYTES: Final = 1 << 30  # of a file: a layer of a model, not a model
_MOST_MEMBERS: Final = 64
_MOST_DESCRIPTION: Final = 65_536  # bytes of data.pkl
_DIMENSIONS: Final = 8
_STORAGES: Final[Mapping[str, tuple[str, int]]] = {
    "torch FloatStorage": ("F32", 4),
    "torch HalfStorage": ("F16", 2),
    "torch BFloat16Storage": ("BF16", 2),
}
_ORDERED: Final = "collections OrderedDict"
_TENSOR: Final = "torch._utils _rebuild_tensor_v2"
_PARAMETER: Final = "torch._utils _rebuild_parameter"


class TorchTensor(NamedTuple):
    """A tensor of the file.

    Attributes:
        dtype: "F32", "F16" or "BF16", as safetensors calls it.
        shape: its shape.
        member: the member of the archive that holds it, alone and in order.
    """

    dtype: str
    shape: tuple[int, ...]
    member: str


def read_header(path: Path) -> dict[str, TorchTensor]:
    """The tensors of a file, by name; their numbers are not read.

    Raises:
        ModelLoadError: the file is missing, damaged, hostile, or holds something else than a dict of tensors.
    """
    with _opened(path) as archive:
        return _tensors(archive)


def read_bytes(path: Path, tensor: TorchTensor) -> bytes:
    """The numbers of a tensor, little-endian, checked against the archive's CRC-32.

    Raises:
        ModelLoadError: the file is missing, damaged or another one by now.
    """
    with _opened(path) as archive:
        return archive.read(tensor.member)


def _tensors(archive: zipfile.ZipFile) -> dict[str, TorchTensor]:
    members = {info.filename: info for info in archive.infolist()}
    described = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(members) != len(archive.infolist()) or len(described) != 1:
        raise ValueError("there is not one data.pkl in it")
    root = described[0].removesuffix("data.pkl")
    if (order := members.get(root + "byteorder")) and archive.read(order) != b"little":
        raise ValueError("its numbers are not little-endian")
    if members[described[0]].file_size > _MOST_DESCRIPTION:
        raise ValueError(f"its data.pkl has more than {_MOST_DESCRIPTION} bytes")
    tensors = {}
    for name, (storage, shape) in _described(archive.read(described[0])).items():
        dtype, width = _STORAGES[storage.kind]
        member, count = f"{root}data/{storage.key}", math.prod(shape)
        if member not in members:
            raise ValueError(f"the numbers of {name} are missing")
        if members[member].file_size != count * width or storage.numbers != count:
            raise ValueError(f"{name} has another number of bytes than its shape {shape} needs")
        tensors[name] = TorchTensor(dtype, shape, member)
    return tensors


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    for number, info in enumerate(archive.infolist()):
        if number >= _MOST_MEMBERS or info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"member {info.filename!r:.100} is compressed, encrypted or one too many")
        if info.file_size > size:
            raise ValueError(f"member {info.filename!r:.100} is larger than the file")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, whose members are all stored as they are.

    Raises:
        ModelLoadError: it cannot be used; the message says why.
    """
    try:
        size = path.stat().st_size if path.is_file() else 0  # opening a pipe would wait forever
        if size <= _MOST_BYTES:
            with zipfile.ZipFile(path) as archive:
                _check_members(archive, size)
                yield archive
                return
    except Exception as error:  # zipfile and pickletools raise many kinds for damaged files
        raise ModelLoadError(
            f"{path} is no file of tensors that torch.save wrote, or not one that fastrank reads: {error}. "
            "Save the state dict of the layer anew with torch.save"
        ) from error
    raise ModelLoadError(f"{path} has {size} bytes, which no layer has; at most {_MOST_BYTES} are read")


# -- data.pkl, read as data -----------------------------------------------------------------------------------------


class _Global(NamedTuple):
    """A name that a pickle would import; nothing is imported."""

    name: str


class _Storage(NamedTuple):
    """Where numbers are: their type, the member's name, and how many."""

    kind: str
    key: str
    numbers: int


class _Tensor(NamedTuple):
    storage: _Storage
    shape: tuple[int, ...]


_MARK: Final = object()
_CONSTANTS: Final[Mapping[str, Callable[[], Any]]] = {
    "MARK": lambda: _MARK,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "NEWFALSE": lambda: False,
    "NEWTRUE": lambda: True,
    "NONE": lambda: None,
}
_VALUES: Final = ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1")
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _described(content: bytes) -> dict[str, _Tensor]:
    """The dict of tensors that a pickle describes.

    Raises:
        ValueError: it has an instruction, or a value, that no such pickle has.
    """
    reader = _Reader()
    for instruction, argument, _ in pickletools.genops(content):
        if instruction.name == "STOP":
            break
        reader.follow(instruction.name, argument)
    (found,) = reader.stack
    if not isinstance(found, dict) or not found:
        raise ValueError("its data.pkl describes no dict")
    if other := [key for key, value in found.items() if type(key) is not str or not isinstance(value, _Tensor)]:
        raise ValueError(f"its data.pkl has {other[0]!r:.100}, which is no tensor")
    return found


class _Reader:
    """Follows the instructions of a pickle, as far as they describe tensors."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._known: Mapping[str, Callable[[Any], None]] = {
            "PROTO": lambda _version: None,
            "GLOBAL": self._name,
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "TUPLE": lambda _: self.stack.append(tuple(self._to_mark())),
            "BINPERSID": lambda _: self.stack.append(_storage(self.stack.pop())),
            "REDUCE": lambda _: self.stack.append(_reduced(*self._popped(2))),
            "SETITEM": lambda _: self._set(self._popped(2)),
            "SETITEMS": lambda _: self._set(self._to_mark()),
            "BUILD": self._ignore_attributes,
        }

    def follow(self, name: str, argument: Any) -> None:
        """Do what one instruction says.

        Raises:
            ValueError: it is none of those that describe tensors.
        """
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self._popped(_TUPLES[name])))
        elif name in self._known:
            self._known[name](argument)
        else:
            raise ValueError(f"its data.pkl has the instruction {name}")

    def _name(self, name: str) -> None:
        if name not in (_ORDERED, _TENSOR, _PARAMETER, *_STORAGES):
            raise ValueError(f"its data.pkl names {name!r:.100}")
        self.stack.append(_Global(name))

    def _remember(self, key: int) -> None:
        self._memo[key] = self.stack[-1]

    def _recall(self, key: int) -> None:
        self.stack.append(self._memo[key])

    def _set(self, values: list[Any]) -> None:
        holder = self.stack[-1]
        if not isinstance(holder, dict):
            raise ValueError("its data.pkl is damaged")  # noqa: TRY004 - caught as such
        holder.update(zip(values[::2], values[1::2], strict=True))

    def _ignore_attributes(self, _: Any) -> None:
        """The attributes of a state dict: versions of layers."""
        state = self.stack.pop()
        if not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise ValueError("its data.pkl sets attributes")

    def _popped(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("its data.pkl is damaged")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def _to_mark(self) -> list[Any]:
        position = next((n for n in range(len(self.stack) - 1, -1, -1) if self.stack[n] is _MARK), None)
        if position is None:
            raise ValueError("its data.pkl is damaged")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values


def _storage(value: Any) -> _Storage:
    if isinstance(value, tuple) and len(value) == 5 and value[0] == "storage" and isinstance(value[1], _Global):
        _, storage, key, _, count = value
        if storage.name in _STORAGES and str(key).isdecimal() and type(count) is int:
            return _Storage(storage.name, str(key), count)
    raise ValueError("its data.pkl describes no storage of float32, float16 or bfloat16")


def _reduced(function: Any, arguments: Any) -> Any:
    """What a call would return; nothing is called."""
    name = function.name if isinstance(function, _Global) else None
    if name == _ORDERED and arguments == ():
        return {}
    if name == _PARAMETER and isinstance(arguments, tuple) and arguments and isinstance(arguments[0], _Tensor):
        return arguments[0]
    if name != _TENSOR or not isinstance(arguments, tuple) or len(arguments) not in (6, 7):
        raise ValueError("its data.pkl calls something")
    storage, offset, shape, strides, *_ = arguments
    sizes = isinstance(shape, tuple) and len(shape) <= _DIMENSIONS and all(type(n) is int and n > 0 for n in shape)
    if not isinstance(storage, _Storage) or not sizes or offset != 0 or strides != _contiguous(shape):
        raise ValueError("a tensor in it is a view of another, or not in order")
    return _Tensor(storage, shape)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))
