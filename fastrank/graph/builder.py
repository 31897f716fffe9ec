"""Collect the nodes, constants and weights of one ONNX graph."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from fastrank.errors import ModelLoadError
from fastrank.graph import onnx_proto

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fastrank.graph.safetensors import Tensor

_DTYPES: Final = {"F32": onnx_proto.FLOAT, "F16": onnx_proto.FLOAT16, "BF16": onnx_proto.BFLOAT16}
_INTEGERS: Final = (onnx_proto.INT8, onnx_proto.INT32, onnx_proto.INT64)
T = TypeVar("T")


class Rounding(NamedTuple):
    """How activations become int8.

    Attributes:
        each_row: By a scale of each row; else by one of all.
        levels: Steps to each side of 0. 127 is all there is; processors without VNNI add products of two in 16 bits,
            where only 63 have room.
    """

    each_row: bool = True
    levels: int = 127


_BY_ROW: Final = Rounding()


class Graph:
    """An ONNX graph being written. Values are referred to by name, which every method returns.

    Args:
        path: What to call the checkpoint in messages.
        tensors: Its tensors. Weights point into files by their names, so the graph belongs into the files' folder.
        rounding: Of activations, where weights are int8.
        half: Compute in float16; what float16 has no room for stays float32, and so do outputs.
        unpadded: All tokens are attended to, so attention needs no mask.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        rounding: Rounding = _BY_ROW,
        *,
        half: bool = False,
        unpadded: bool = False,
    ) -> None:
        self.prefix = ""
        """What may stand before every tensor's name; checkpoints saved with a head have one ("bert.")."""
        self.hint = ""
        """What to add to the message about a missing tensor."""
        self.rounding = rounding
        self.in_int8 = any(tensor.dtype == "I8" for tensor in tensors.values())
        """Whether the checkpoint has weights in int8."""
        self.half = half
        self.unpadded = unpadded
        """Whether the graph computes in float16; else in float32."""
        self._path = path
        self._tensors = tensors
        self._nodes: list[bytes] = []
        self._initializers: dict[str, bytes] = {}
        self._casts: dict[tuple[str, int], str] = {}
        self._domains = {"": onnx_proto.OPSET}
        self._made: dict[str, object] = {}
        self.used: dict[str, Tensor] = {}
        """The tensors of the checkpoint that the graph needs, by their full names."""
        self.tables: list[str] = []
        """Those of them that are only looked into, row by row."""
        self.factors: dict[str, list[str]] = {}
        """By value: the full names of the weights it is multiplied by."""
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` returned when it was first asked for under this key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """An input of the graph; a dimension given as a string is free."""
        self._inputs.append(onnx_proto.value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Make a value an output of the graph under the given name; in half precision, one that is float becomes it."""
        if self.half and dtype == onnx_proto.FLOAT:
            self._nodes.append(onnx_proto.node("Cast", [value], [name], {"to": onnx_proto.FLOAT}))
        else:
            self._nodes.append(onnx_proto.node("Identity", [value], [name], {}))
        self._outputs.append(onnx_proto.value_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: onnx_proto.Attribute) -> str:
        """The (first) output of an operator, of ONNX's own domain or of another."""
        name = f"{kind}_{len(self._nodes)}"
        self._domains.setdefault(domain, 1)
        self._nodes.append(onnx_proto.node(kind, inputs, [name], attributes, domain))
        return name

    def ops(self, kind: str, count: int, *inputs: str, **attributes: onnx_proto.Attribute) -> list[str]:
        """Several outputs of an operator of ONNX's own domain."""
        names = [f"{kind}_{len(self._nodes)}_{part}" for part in range(count)]
        self._nodes.append(onnx_proto.node(kind, inputs, names, attributes))
        return names

    def split(self, value: str, count: int) -> list[str]:
        """A value cut into equal parts along its last axis."""
        return self.ops("Split", count, value, axis=-1)

    def exact(self, value: str) -> str:
        """A value as float32, where half precision has no room for what comes next; else itself."""
        return self.op("Cast", value, to=onnx_proto.FLOAT) if self.half else value

    def rough(self, value: str) -> str:
        """A float32 value as what the graph computes in."""
        return self.op("Cast", value, to=onnx_proto.FLOAT16) if self.half else value

    def real(self, value: float, *, exact: bool = False) -> str:
        """A scalar of what the graph computes in; `exact`: float32 in any case."""
        if self.half and not exact:
            return self._constant(f"half_{value!r}", onnx_proto.FLOAT16, [], struct.pack("<e", value))
        return self._constant(f"real_{value!r}", onnx_proto.FLOAT, [], struct.pack("<f", value))

    def reals(self, name: str, values: Sequence[float]) -> str:
        """A 1-D float32 tensor, under a name of its own."""
        return self._constant(name, onnx_proto.FLOAT, [len(values)], struct.pack(f"<{len(values)}f", *values))

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self._constant(f"integer_{value}", onnx_proto.INT64, [], struct.pack("<q", value))

    def octets(self, *values: int) -> str:
        """A uint8 scalar, or a 1-D tensor of several."""
        name = "_".join(map(str, ("octets", *values)))
        return self._constant(name, onnx_proto.UINT8, [len(values)] if len(values) > 1 else [], bytes(values))

    def integers(self, *values: int) -> str:
        """A 1-D int64 tensor."""
        name = "_".join(map(str, ("integers", *values)))
        return self._constant(name, onnx_proto.INT64, [len(values)], struct.pack(f"<{len(values)}q", *values))

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
        return shape[-1] if self.is_int8(name) else shape[0]  # in int8, weights are stored transposed

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """The sizes of a tensor of the checkpoint, where configurations say them in several ways or not at all.

        Raises:
            ModelLoadError: The tensor is missing, has another number of dimensions, or is empty.
        """
        found = self._find(name)
        tensor = self._tensors[found]
        if len(tensor.shape) != rank or 0 in tensor.shape:
            raise ModelLoadError(
                f"{tensor.file}: tensor {found!r} has the shape {list(tensor.shape)}; expected {rank} sizes above 0"
            )
        return tensor.shape

    def weight(self, name: str, *shape: int, alias: str = "", exact: bool = False) -> str:
        """A tensor of the checkpoint in what the graph computes in; another dtype is cast once, as the session is made.

        Args:
            name: The tensor's name, without the prefix.
            shape: The sizes it must have.
            alias: Another name that checkpoints give to the same tensor.
            exact: As float32 in any case.

        Returns:
            The tensor.

        Raises:
            ModelLoadError: The tensor is missing, or its shape or dtype is not the expected one.
        """
        return self._as_real(*self._stored(name, shape, alias), exact=exact)

    def copied(self, path: Path, tensors: Mapping[str, Tensor], name: str, *shape: int) -> str:
        """As `weight`, of another safetensors file, whose bytes become part of the graph: for small ones.

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
        self._initializers[own] = onnx_proto.inline_tensor(own, dtype, shape, raw)
        return self._as_real(own, dtype)

    def int8(self, name: str, *shape: int) -> str:
        """An int8 tensor of the checkpoint.

        Raises:
            ModelLoadError: The tensor is missing, or its shape or dtype is not the expected one.
        """
        return self._stored(name, shape, dtypes={"I8": onnx_proto.INT8})[0]

    def is_int8(self, name: str) -> bool:
        """Whether the checkpoint has this weight in int8."""
        return self.has(f"{name}.scale") and self.has(name) and self._tensors[self._find(name)].dtype == "I8"

    def multiplied(self, x: str, weight: str) -> None:
        """Note that a value is multiplied by a weight of the checkpoint: what `int8` quantizes."""
        self.factors.setdefault(x, []).append(self._find(weight))

    def lookup(self, name: str, indices: str, *shape: int) -> str:
        """Rows of a tensor of the checkpoint, in what the graph computes in: `tensor[indices]`, along the first axis.

        For float32 only the rows are cast, so that a large F16 table stays where it is: mapped into memory from the
        file. For float16 it is the table, as it goes to a GPU's memory, where it then takes half.

        Raises:
            ModelLoadError: As `weight`.
        """
        if self.has(f"{name}.rows"):
            rows = self.op("Cast", self.op("Gather", self.int8(f"{name}.rows", *shape), indices), to=onnx_proto.FLOAT)
            scales = self.op("Gather", self.weight(f"{name}.rows.scale", shape[0]), indices)
            return self.op("Mul", rows, self.op("Unsqueeze", scales, self.integers(-1)))
        stored, dtype = self._stored(name, shape)
        self.tables.append(stored)
        if self.half:
            return self.op("Gather", self._as_real(stored, dtype), indices)
        rows = self.op("Gather", stored, indices)
        return rows if dtype == onnx_proto.FLOAT else self.op("Cast", rows, to=onnx_proto.FLOAT)

    def gather(self, name: str, indices: str, shape: Sequence[int], dtypes: Mapping[str, int]) -> str:
        """Rows of a tensor of the checkpoint, as it is stored: `tensor[indices]`, along the first axis.

        In half precision a table of real numbers is float16.

        Raises:
            ModelLoadError: The tensor is missing, or its shape or dtype is not the expected one.
        """
        stored, dtype = self._stored(name, shape, dtypes=dtypes)
        if self.half and dtype not in _INTEGERS:
            stored = self._as_real(stored, dtype)
        return self.op("Gather", stored, indices)

    def to_bytes(self) -> bytes:
        """The serialized ModelProto."""
        return onnx_proto.model(
            "encoder", self._nodes, list(self._initializers.values()), self._inputs, self._outputs, self._domains
        )

    def _constant(self, name: str, dtype: int, shape: list[int], raw: bytes) -> str:
        self._initializers[name] = onnx_proto.inline_tensor(name, dtype, shape, raw)
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

    def _stored(
        self, name: str, shape: Sequence[int], alias: str = "", dtypes: Mapping[str, int] = _DTYPES
    ) -> tuple[str, int]:
        found = self._find(name, alias)
        tensor = self._tensors[found]
        dtype = _dtype(found, tensor, shape, dtypes)
        self.used[found] = tensor
        self._initializers[found] = onnx_proto.external_tensor(
            found, dtype, shape, tensor.file.name, offset=tensor.offset, length=tensor.length
        )
        return found, dtype

    def _as_real(self, stored: str, dtype: int, *, exact: bool = False) -> str:
        wanted = onnx_proto.FLOAT16 if self.half and not exact else onnx_proto.FLOAT
        if dtype == wanted:
            return stored
        if (stored, wanted) not in self._casts:
            self._casts[stored, wanted] = self.op("Cast", stored, to=wanted)
        return self._casts[stored, wanted]


def _dtype(name: str, tensor: Tensor, shape: Sequence[int], dtypes: Mapping[str, int] = _DTYPES) -> int:
    """The number of a tensor's dtype, once shape and dtype are found to be as expected."""
    where = f"{tensor.file}: tensor {name!r} has the"
    if tensor.shape != tuple(shape):
        raise ModelLoadError(f"{where} shape {list(tensor.shape)}; config.json asks for {list(shape)}")
    if tensor.dtype not in dtypes:
        raise ModelLoadError(f"{where} dtype {tensor.dtype}; supported: {', '.join(dtypes)}")
    return dtypes[tensor.dtype]
