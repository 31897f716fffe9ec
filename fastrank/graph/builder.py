"""Build one ONNX graph: its nodes, constants and the weights it takes from a checkpoint."""

from __future__ import annotations

import hashlib
import itertools
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from fastrank.errors import ModelLoadError
from fastrank.graph import onnx_proto

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fastrank.graph.safetensors import Tensor

_DTYPES: Final = {
    "F32": onnx_proto.FLOAT,
    "F16": onnx_proto.FLOAT16,
    "BF16": onnx_proto.BFLOAT16,
    "F64": onnx_proto.DOUBLE,
}
_INTEGERS: Final = (onnx_proto.INT8, onnx_proto.INT32, onnx_proto.INT64)
_STORED: Final = _DTYPES | {
    "BOOL": onnx_proto.BOOL,
    "F64": onnx_proto.DOUBLE,
    "I8": onnx_proto.INT8,
    "I32": onnx_proto.INT32,
    "I64": onnx_proto.INT64,
    "U8": onnx_proto.UINT8,
}
_OF_BYTES: Final = {"I8": onnx_proto.INT8, "U8": onnx_proto.UINT8}
INT4: Final = ".int4"  # ends the name of a weight in 4 bits
T = TypeVar("T")


class ActivationQuantization(NamedTuple):
    """How activations are quantized to 8 bits.

    Attributes:
        per_token: One scale per row (token); else one scale per tensor.
        of_int4: Whether the activations of 4-bit weights are, in blocks, inside the product; else they stay float32.
    """

    per_token: bool = True
    of_int4: bool = False


_PER_TOKEN: Final = ActivationQuantization()


class Graph:
    """An ONNX graph under construction. Every method returns the name of the value it made.

    Args:
        path: The checkpoint's name in error messages.
        tensors: Its tensors. Weights refer to files by name, so the model must be loaded from the files' folder.
        activations: How activations are quantized, where weights are int8.
        half: Compute in float16; what overflows there stays float32, and so do outputs.
        unpadded: Every token is text, so attention needs no mask.
        hidden_count: The states of tokens that the mask hides count too.
        scope: Begins the name of every value that is made here.
        domains: The versions of operators, by domain; that of ONNX's own is empty.
        in_blocks: Attention is computed a block of scores at a time, partly by onnxruntime's own operators.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        activations: ActivationQuantization = _PER_TOKEN,
        *,
        half: bool = False,
        unpadded: bool = False,
        hidden_count: bool = False,
        scope: str = "",
        domains: Mapping[str, int] = MappingProxyType({"": onnx_proto.OPSET}),
        in_blocks: bool = False,
    ) -> None:
        self.prefix = ""
        """An optional prefix of tensor names; checkpoints saved with a head have one ("bert.")."""
        self.hint = ""
        """Appended to the message about a missing tensor."""
        self.score_tokens: tuple[int, int | None] | None = None
        """The ids of the tokens that mean yes and no, for the head "logit-score"."""
        self.activations = activations
        self.in_int8 = any(
            tensor.dtype in _OF_BYTES and (f"{name}.scale" in tensors or name.endswith(INT4))
            for name, tensor in tensors.items()
        )
        """Whether the checkpoint has integer weights, made by `engine.quantize`; such graphs are not optimized."""
        self.half = half
        """Whether the graph computes in float16; else in float32."""
        self.unpadded = unpadded
        """Whether all texts of a batch have the same length, so that attention needs no padding mask."""
        self.hidden_count = hidden_count
        """Whether tokens that the mask hides count, as those do that fill up a query of late interaction."""
        self.in_blocks = in_blocks
        """Whether attention is computed a block of scores at a time; else nodes hand all probabilities on."""
        self._path = path
        self._tensors = tensors
        self._nodes: list[bytes] = []
        self._names = itertools.count()
        self._initializers: dict[str, bytes] = {}
        self._casts: dict[tuple[str, int], str] = {}
        self._scope = scope
        self._domains = dict(domains)
        self.opset = domains[""]
        """The version of ONNX's own operators."""
        self._cached: dict[str, object] = {}
        self.used: dict[str, Tensor] = {}
        """The checkpoint's tensors that the graph uses, by full name."""
        self.embedding_tables: list[str] = []
        """Full names of tensors whose rows are looked up."""
        self.matmul_weights: dict[str, list[str]] = {}
        """Full names of the weights that multiply each activation."""
        self.normed: set[str] = set()
        """Activations that leave a norm: the ones SmoothQuant smooths."""
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def once(self, key: str, make: Callable[[], T]) -> T:
        """`make()`, called once per key."""
        if key not in self._cached:
            self._cached[key] = make()
        return self._cached[key]  # type: ignore[return-value]

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """A graph input; a string in `shape` is a dynamic dimension."""
        self._inputs.append(onnx_proto.value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Make `value` the graph output `name`; float outputs are float32 in half precision too."""
        if self.half and dtype == onnx_proto.FLOAT:
            self._nodes.append(onnx_proto.node("Cast", [value], [name], {"to": onnx_proto.FLOAT}))
        else:
            self._nodes.append(onnx_proto.node("Identity", [value], [name], {}))
        self._outputs.append(onnx_proto.value_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: onnx_proto.Attribute) -> str:
        """Add a node with one output, of ONNX's own domain or of another."""
        name = f"{self._scope}{kind}_{next(self._names)}"
        self._domains.setdefault(domain, 1)
        self._nodes.append(onnx_proto.node(kind, inputs, [name], attributes, domain))
        return name

    def ops(self, kind: str, count: int, *inputs: str, **attributes: onnx_proto.Attribute) -> list[str]:
        """Add a node of ONNX's own domain with `count` outputs."""
        number = next(self._names)
        names = [f"{self._scope}{kind}_{number}_{part}" for part in range(count)]
        self._nodes.append(onnx_proto.node(kind, inputs, names, attributes))
        return names

    def add_node(self, message: bytes) -> None:
        """Add a NodeProto as it is."""
        self._nodes.append(message)

    def add_initializer(self, name: str, message: bytes) -> None:
        """Add a TensorProto as it is."""
        self._initializers[name] = message

    def take_interface(self, inputs: Sequence[bytes], outputs: Sequence[bytes]) -> None:
        """Add ValueInfoProto messages of inputs, and of outputs that nodes yet to be added will make."""
        self._inputs += inputs
        self._outputs += outputs

    def stored(self, name: str) -> str:
        """A tensor of the checkpoint of any dtype, as it is; or a value of this name."""
        if name in self._tensors:
            tensor = self._tensors[name]
            self._initializers[name] = onnx_proto.external_tensor(
                name, _STORED[tensor.dtype], tensor.shape, tensor.file.name, offset=tensor.offset, length=tensor.length
            )
        return name

    def reduce_max(self, x: str, axis: int) -> str:
        """The largest number along an axis, which goes away."""
        if self.opset < 18:
            return self.op("ReduceMax", x, axes=[axis], keepdims=0)
        return self.op("ReduceMax", x, self.integers(axis), keepdims=0)

    def quantize(self, x: str, scale: str, zero: str, *, axis: int | None = None) -> str:
        """`QuantizeLinear`; with an axis, each slice along it has a scale and a zero point of its own."""
        domain = "" if self.opset >= 13 else onnx_proto.ONNXRUNTIME  # before, ONNX's has one scale only
        axes = {} if axis is None else {"axis": axis}
        return self.op("QuantizeLinear", x, scale, zero, domain=domain, **axes)

    def loop(self, count: str, body: Callable[[str], str]) -> str:
        """The results of a loop, float32, stacked along a new first axis.

        Args:
            count: How often to run, an int64 scalar.
            body: Writes the nodes of one run, from its number, int64 [1]; every run's result has the same shape. It may
                use values of the graph around it, but the graph no value of its own.
        """
        outside, self._nodes = self._nodes, []
        number, goes_on = (f"{self._scope}{part}_{next(self._names)}" for part in ("number", "goes_on"))
        result = body(self.op("Unsqueeze", number, self.integers(0)))
        inside = onnx_proto.graph(
            "body",
            [*self._nodes, onnx_proto.node("Identity", [goes_on], [f"{goes_on}_still"], {})],
            [],
            [onnx_proto.value_info(number, onnx_proto.INT64, []), onnx_proto.value_info(goes_on, onnx_proto.BOOL, [])],
            [
                onnx_proto.value_info(f"{goes_on}_still", onnx_proto.BOOL, []),
                onnx_proto.value_info(result, onnx_proto.FLOAT, None),
            ],
        )
        self._nodes = outside
        return self.op("Loop", count, "", body=inside)

    def split(self, value: str, count: int) -> list[str]:
        """Split a value into equal parts along its last axis."""
        return self.ops("Split", count, value, axis=-1)

    def to_float32(self, value: str) -> str:
        """Cast from the compute dtype to float32, where float16 would overflow or lose precision."""
        return self.op("Cast", value, to=onnx_proto.FLOAT) if self.half else value

    def to_compute_dtype(self, value: str) -> str:
        """Cast from float32 to the compute dtype."""
        return self.op("Cast", value, to=onnx_proto.FLOAT16) if self.half else value

    def scalar(self, value: float, *, float32: bool = False) -> str:
        """A constant scalar in the compute dtype, or always in float32."""
        if self.half and not float32:
            return self._constant(f"half_{value!r}", onnx_proto.FLOAT16, [], struct.pack("<e", value))
        return self._constant(f"float_{value!r}", onnx_proto.FLOAT, [], struct.pack("<f", value))

    def floats(self, values: Sequence[float]) -> str:
        """A constant 1-D float32 tensor."""
        raw = struct.pack(f"<{len(values)}f", *values)
        return self._constant(f"floats_{hashlib.sha256(raw).hexdigest()}", onnx_proto.FLOAT, [len(values)], raw)

    def integer(self, value: int) -> str:
        """A constant int64 scalar."""
        return self._constant(f"integer_{value}", onnx_proto.INT64, [], struct.pack("<q", value))

    def uint8(self, *values: int) -> str:
        """A constant uint8 scalar, or a 1-D tensor of several values."""
        name = "_".join(map(str, ("uint8", *values)))
        return self._constant(name, onnx_proto.UINT8, [len(values)] if len(values) > 1 else [], bytes(values))

    def integers(self, *values: int) -> str:
        """A constant 1-D int64 tensor."""
        raw = struct.pack(f"<{len(values)}q", *values)
        name = "_".join(map(str, values)) if len(values) < 8 else hashlib.sha256(raw).hexdigest()
        return self._constant(f"integers_{name}", onnx_proto.INT64, [len(values)], raw)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has the tensor, with or without the prefix."""
        return name in self._tensors or self.prefix + name in self._tensors

    def has_any(self, *prefixes: str) -> bool:
        """Whether the checkpoint has a tensor whose name starts with one of `prefixes`."""
        return any(name.startswith(prefixes) for name in self._tensors)

    def rows(self, name: str) -> int:
        """The number of rows of a weight of the checkpoint, such as the labels of a classifier.

        Raises:
            ModelLoadError: The tensor is missing, or has no first size or an empty one.
        """
        if self.is_int4(name):
            return self._tensors[self._find(name + INT4)].shape[0]
        full_name = self._find(name)
        shape = self._tensors[full_name].shape
        if not shape or not shape[0]:
            raise ModelLoadError(f"{self._path}: tensor {full_name!r} has the shape {list(shape)}, which has no rows")
        return shape[-1] if self.is_int8(name) else shape[0]  # in int8, weights are stored transposed

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of a tensor of the checkpoint, for sizes that configurations omit or spell in several ways.

        Raises:
            ModelLoadError: The tensor is missing, has another rank, or is empty.
        """
        full_name = self._find(name)
        tensor = self._tensors[full_name]
        if len(tensor.shape) != rank or 0 in tensor.shape:
            raise ModelLoadError(
                f"{tensor.file}: tensor {full_name!r} has the shape {list(tensor.shape)}; expected {rank} sizes above 0"
            )
        return tensor.shape

    def weight(self, name: str, *shape: int, alias: str = "", float32: bool = False) -> str:
        """A tensor of the checkpoint in the compute dtype; other dtypes are cast once, when the session is created.

        Args:
            name: The tensor's name, without the prefix.
            shape: The shape it must have.
            alias: Another name under which checkpoints store the tensor.
            float32: Use float32 even in half precision.

        Raises:
            ModelLoadError: The tensor is missing, or its shape or dtype is not the expected one.
        """
        return self._to_compute_dtype(*self._stored(name, shape, alias), float32=float32)

    def weight_rows(self, name: str, start: int, count: int, *shape: int) -> str:
        """As `weight`, but only `count` rows from `start`; they too are read in place. `shape` is the whole tensor's.

        Raises:
            ModelLoadError: As `weight`.
        """
        full_name, dtype = self._stored(name, shape)
        del self._initializers[full_name]
        tensor, part = self._tensors[full_name], f"{full_name}[{start}:{start + count}]"
        row = tensor.length // shape[0]
        self._initializers[part] = onnx_proto.external_tensor(
            part, dtype, (count, *shape[1:]), tensor.file.name, offset=tensor.offset + start * row, length=count * row
        )
        return self._to_compute_dtype(part, dtype)

    def copied(self, path: Path, tensors: Mapping[str, Tensor], name: str, *shape: int) -> str:
        """As `weight`, from another safetensors file whose bytes are copied into the graph: for small tensors.

        Args:
            path: The file.
            tensors: Its header.
            name: The tensor's name in it.
            shape: The shape it must have.

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
        initializer = f"{path.parent.name}/{name}"
        self._initializers[initializer] = onnx_proto.inline_tensor(initializer, dtype, shape, raw)
        return self._to_compute_dtype(initializer, dtype)

    def int8(self, name: str, *shape: int) -> str:
        """A tensor of bytes of the checkpoint, signed or not.

        Raises:
            ModelLoadError: The tensor is missing, or its shape or dtype is not the expected one.
        """
        return self._stored(name, shape, dtypes=_OF_BYTES)[0]

    def is_int8(self, name: str) -> bool:
        """Whether this weight of the checkpoint is in 8 bits."""
        return self.has(f"{name}.scale") and self.has(name) and self._tensors[self._find(name)].dtype in _OF_BYTES

    def is_unsigned(self, name: str) -> bool:
        """Whether this tensor of the checkpoint is of unsigned bytes."""
        return self._tensors[self._find(name)].dtype == "U8"

    def is_int4(self, name: str) -> bool:
        """Whether this weight of the checkpoint is in 4 bits."""
        return self.has(name + INT4)

    def record_matmul(self, x: str, weight: str) -> None:
        """Record that a weight of the checkpoint multiplies `x`, for `graph.recipe`."""
        self.matmul_weights.setdefault(x, []).append(self._find(weight))

    def lookup(self, name: str, indices: str, *shape: int) -> str:
        """Rows of an embedding table of the checkpoint, `table[indices]`, in the compute dtype.

        In float32 only the rows are cast, so that a large F16 table stays memory-mapped. In float16 the table is cast,
        because it goes to a GPU's memory, where it then takes half the space.

        Raises:
            ModelLoadError: As `weight`.
        """
        if self.has(f"{name}.rows"):
            rows = self.op("Cast", self.op("Gather", self.int8(f"{name}.rows", *shape), indices), to=onnx_proto.FLOAT)
            scales = self.op("Gather", self.weight(f"{name}.rows.scale", shape[0]), indices)
            return self.op("Mul", rows, self.op("Unsqueeze", scales, self.integers(-1)))
        stored, dtype = self._stored(name, shape)
        self.embedding_tables.append(stored)
        if self.half:
            return self.op("Gather", self._to_compute_dtype(stored, dtype), indices)
        rows = self.op("Gather", stored, indices)
        return rows if dtype == onnx_proto.FLOAT else self.op("Cast", rows, to=onnx_proto.FLOAT)

    def gather(self, name: str, indices: str, shape: Sequence[int], dtypes: Mapping[str, int]) -> str:
        """Rows of a tensor of the checkpoint, `tensor[indices]`, in the stored dtype.

        In half precision a table of floats is float16.

        Raises:
            ModelLoadError: The tensor is missing, or its shape or dtype is not the expected one.
        """
        stored, dtype = self._stored(name, shape, dtypes=dtypes)
        if self.half and dtype not in _INTEGERS:
            stored = self._to_compute_dtype(stored, dtype)
        return self.op("Gather", stored, indices)

    def to_bytes(self) -> bytes:
        """The serialized ModelProto."""
        return onnx_proto.model(
            "encoder", self._nodes, list(self._initializers.values()), self._inputs, self._outputs, self._domains
        )

    def _constant(self, name: str, dtype: int, shape: list[int], raw: bytes) -> str:
        name = self._scope + name
        self._initializers[name] = onnx_proto.inline_tensor(name, dtype, shape, raw)
        return name

    def _find(self, name: str, alias: str = "") -> str:
        candidates = [name, self.prefix + name]
        if alias:
            candidates += [alias, self.prefix + alias]
        full_name = next((candidate for candidate in candidates if candidate in self._tensors), None)
        if full_name is None:
            raise ModelLoadError(
                f"{self._path}: no tensor {name!r}, with or without the prefix {self.prefix!r}{self.hint}"
            )
        return full_name

    def _stored(
        self, name: str, shape: Sequence[int], alias: str = "", dtypes: Mapping[str, int] = _DTYPES
    ) -> tuple[str, int]:
        """The full name of a tensor of the checkpoint, now an initializer, and its ONNX dtype."""
        full_name = self._find(name, alias)
        tensor = self._tensors[full_name]
        dtype = _dtype(full_name, tensor, shape, dtypes)
        self.used[full_name] = tensor
        self._initializers[full_name] = onnx_proto.external_tensor(
            full_name, dtype, shape, tensor.file.name, offset=tensor.offset, length=tensor.length
        )
        return full_name, dtype

    def _to_compute_dtype(self, stored: str, dtype: int, *, float32: bool = False) -> str:
        target = onnx_proto.FLOAT16 if self.half and not float32 else onnx_proto.FLOAT
        if dtype == target:
            return stored
        if (stored, target) not in self._casts:
            self._casts[stored, target] = self.op("Cast", stored, to=target)
        return self._casts[stored, target]


def _dtype(name: str, tensor: Tensor, shape: Sequence[int], dtypes: Mapping[str, int] = _DTYPES) -> int:
    """The ONNX dtype of a tensor, whose shape and dtype are checked."""
    where = f"{tensor.file}: tensor {name!r} has the"
    if tensor.shape != tuple(shape):
        raise ModelLoadError(f"{where} shape {list(tensor.shape)}; config.json asks for {list(shape)}")
    if tensor.dtype not in dtypes:
        raise ModelLoadError(f"{where} dtype {tensor.dtype}; supported: {', '.join(dtypes)}")
    return dtypes[tensor.dtype]
