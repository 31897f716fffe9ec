"""Collect the nodes, constants and weights of one ONNX graph."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from fastrank.errors import ModelLoadError
from fastrank.graph import proto

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fastrank.graph.safetensors import Tensor

_DTYPES: Final = {"F32": proto.FLOAT, "F16": proto.FLOAT16, "BF16": proto.BFLOAT16}


class Graph:
    """An ONNX graph being written. Values are referred to by name, which every method returns.

    Args:
        path: What to call the checkpoint in messages.
        tensors: Its tensors. Weights point into files by their names, so the graph belongs into the files' folder.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self.prefix = ""
        """What may stand before every tensor's name; checkpoints saved with a head have one ("bert.")."""
        self.hint = ""
        """What to add to the message about a missing tensor."""
        self._path = path
        self._tensors = tensors
        self._nodes: list[bytes] = []
        self._initializers: dict[str, bytes] = {}
        self._casts: dict[str, str] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """An input of the graph; a dimension given as a string is free."""
        self._inputs.append(proto.value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Make a value an output of the graph under the given name."""
        self._nodes.append(proto.node("Identity", [value], [name], {}))
        self._outputs.append(proto.value_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, **attributes: proto.Attribute) -> str:
        """The (first) output of an operator of the default ONNX domain."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(proto.node(kind, inputs, [name], attributes))
        return name

    def split(self, value: str, count: int) -> list[str]:
        """A value cut into equal parts along its last axis."""
        names = [f"Split_{len(self._nodes)}_{part}" for part in range(count)]
        self._nodes.append(proto.node("Split", [value], names, {"axis": -1}))
        return names

    def real(self, value: float) -> str:
        """A float32 scalar."""
        return self._constant(f"real_{value!r}", proto.FLOAT, [], struct.pack("<f", value))

    def reals(self, name: str, values: Sequence[float]) -> str:
        """A 1-D float32 tensor, under a name of its own."""
        return self._constant(name, proto.FLOAT, [len(values)], struct.pack(f"<{len(values)}f", *values))

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self._constant(f"integer_{value}", proto.INT64, [], struct.pack("<q", value))

    def integers(self, *values: int) -> str:
        """A 1-D int64 tensor."""
        name = "_".join(map(str, ("integers", *values)))
        return self._constant(name, proto.INT64, [len(values)], struct.pack(f"<{len(values)}q", *values))

    def has(self, name: str) -> bool:
        """Whether the checkpoint has the tensor, with or without the prefix."""
        return name in self._tensors or self.prefix + name in self._tensors

    def has_any(self, prefix: str) -> bool:
        """Whether the checkpoint has tensors whose names begin so."""
        return any(name.startswith(prefix) for name in self._tensors)

    def rows(self, name: str) -> int:
        """The first size of a tensor of the checkpoint: how many labels a classifier has.

        Raises:
            ModelLoadError: The tensor is missing, or has no first size or an empty one.
        """
        found = self._find(name)
        shape = self._tensors[found].shape
        if not shape or not shape[0]:
            raise ModelLoadError(f"{self._path}: tensor {found!r} has the shape {list(shape)}, which has no rows")
        return shape[0]

    def weight(self, name: str, *shape: int, alias: str = "") -> str:
        """A float32 tensor of the checkpoint; F16 and BF16 are cast, once, when the session is made.

        Args:
            name: The tensor's name, without the prefix.
            shape: The sizes it must have.
            alias: Another name that checkpoints give to the same tensor.

        Returns:
            The tensor.

        Raises:
            ModelLoadError: The tensor is missing, or its shape or dtype is not the expected one.
        """
        return self._as_float(*self._stored(name, shape, alias))

    def copied(self, path: Path, tensors: Mapping[str, Tensor], name: str, *shape: int) -> str:
        """A float32 tensor of another safetensors file, whose bytes become part of the graph: for small ones.

        Args:
            path: The file.
            tensors: Its header.
            name: The tensor's name in it.
            shape: The sizes it must have.

        Raises:
            ModelLoadError: As `weight`, or the file cannot be read.
        """
        tensor = tensors.get(name)
        if tensor is None:
            raise ModelLoadError(f"{path}: no tensor {name!r}")
        dtype = _dtype(name, tensor, shape)
        try:
            with path.open("rb") as file:
                file.seek(tensor.offset)
                raw = file.read(tensor.length)
        except OSError as error:
            raise ModelLoadError(f"{path}: cannot be read: {error}") from error
        own = f"{path.parent.name}/{name}"
        self._initializers[own] = proto.inline_tensor(own, dtype, shape, raw)
        return self._as_float(own, dtype)

    def lookup(self, name: str, indices: str, *shape: int) -> str:
        """Rows of a tensor of the checkpoint, as float32: `tensor[indices]`, along the first axis.

        Only the rows are cast, so that a large F16 table stays where it is: mapped into memory from the file.

        Raises:
            ModelLoadError: As `weight`.
        """
        stored, dtype = self._stored(name, shape)
        rows = self.op("Gather", stored, indices)
        return rows if dtype == proto.FLOAT else self.op("Cast", rows, to=proto.FLOAT)

    def to_bytes(self) -> bytes:
        """The serialized ModelProto."""
        return proto.model("encoder", self._nodes, list(self._initializers.values()), self._inputs, self._outputs)

    def _constant(self, name: str, dtype: int, shape: list[int], raw: bytes) -> str:
        self._initializers[name] = proto.inline_tensor(name, dtype, shape, raw)
        return name

    def _find(self, name: str, alias: str = "") -> str:
        wanted = [name, self.prefix + name]
        if alias:
            wanted += [alias, self.prefix + alias]
        found = next((candidate for candidate in wanted if candidate in self._tensors), None)
        if found is None:
            raise ModelLoadError(
                f"{self._path}: no tensor {name!r}, with or without the prefix {self.prefix!r}{self.hint}"
            )
        return found

    def _stored(self, name: str, shape: Sequence[int], alias: str = "") -> tuple[str, int]:
        found = self._find(name, alias)
        tensor = self._tensors[found]
        dtype = _dtype(found, tensor, shape)
        self._initializers[found] = proto.external_tensor(
            found, dtype, shape, tensor.file.name, offset=tensor.offset, length=tensor.length
        )
        return found, dtype

    def _as_float(self, stored: str, dtype: int) -> str:
        if dtype == proto.FLOAT:
            return stored
        if stored not in self._casts:
            self._casts[stored] = self.op("Cast", stored, to=proto.FLOAT)
        return self._casts[stored]


def _dtype(name: str, tensor: Tensor, shape: Sequence[int]) -> int:
    """The number of a tensor's dtype, once shape and dtype are found to be as expected."""
    where = f"{tensor.file}: tensor {name!r} has the"
    if tensor.shape != tuple(shape):
        raise ModelLoadError(f"{where} shape {list(tensor.shape)}; config.json asks for {list(shape)}")
    if tensor.dtype not in _DTYPES:
        raise ModelLoadError(f"{where} dtype {tensor.dtype}; supported: {', '.join(_DTYPES)}")
    return _DTYPES[tensor.dtype]
