"""Read ONNX models: nodes and initializers, without the `onnx` package. What is not read is kept as bytes.

Source: onnx/onnx.proto of the ONNX project; the numbers below are that file's field numbers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.graph import onnx_proto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SIZES: Final = {0: 0, 1: 8, 2: 0, 5: 4}  # bytes of a value by wire type; 0: they say it themselves
_EXTERNAL: Final = 1  # a tensor's data_location


class Node(NamedTuple):
    """A NodeProto.

    Attributes:
        kind: Its operator.
        domain: The operator's; empty: ONNX's own.
        inputs: Names of values; empty where one is left out.
        outputs: Likewise.
        numbers: Its attributes that are one number.
        has_graph: Whether an attribute is a graph, as of If, Loop and Scan.
        raw: The message.
    """

    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: dict[str, float]
    has_graph: bool
    raw: bytes


class Initializer(NamedTuple):
    """A TensorProto.

    Attributes:
        name: The value's.
        dtype: ONNX's number of it.
        shape: Its sizes.
        offset: Of its first byte in the file of external data; None: the data are in the message.
        length: Of external data, in bytes.
        raw: The message.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    offset: int | None
    length: int
    raw: bytes


class OnnxModel(NamedTuple):
    """A ModelProto.

    Attributes:
        opset: The version of ONNX's own operators.
        domains: Versions of the operators of each domain; that of ONNX's own is empty.
        nodes: In an order in which they can run.
        initializers: By name.
        inputs: ValueInfoProto messages.
        outputs: Likewise.
        has_functions: Whether it brings functions of its own.
    """

    opset: int
    domains: dict[str, int]
    nodes: list[Node]
    initializers: dict[str, Initializer]
    inputs: list[bytes]
    outputs: list[bytes]
    has_functions: bool


def read(content: bytes, path: Path) -> OnnxModel:
    """The model in a serialized ModelProto; `path` is its name in messages.

    Raises:
        ModelLoadError: It is not one.
    """
    try:
        return _model(memoryview(content))
    except (ValueError, IndexError, struct.error) as error:
        raise ModelLoadError(f"{path} is not an ONNX graph: {error}") from error


def _model(message: memoryview) -> OnnxModel:
    domains: dict[str, int] = {}
    graph, has_functions = memoryview(b""), False
    for number, value in _fields(message):
        if number == 7:
            graph = _view(value)
        elif number == 8:
            fields = dict(_fields(_view(value)))
            name = _text(fields.get(1, b""))
            domains["" if name == "ai.onnx" else name] = _integer(fields.get(2, 0))
        elif number == 25:
            has_functions = True
    if "" not in domains:
        raise ValueError("it states no version of its operators")
    parts: dict[int, list[memoryview]] = {1: [], 5: [], 11: [], 12: []}
    for number, value in _fields(graph):
        if number == 15:
            raise ValueError("it has sparse tensors")
        if number in parts:
            parts[number].append(_view(value))
    nodes, initializers = map(_node, parts[1]), map(_initializer, parts[5])
    return OnnxModel(
        domains[""],
        domains,
        list(nodes),
        {tensor.name: tensor for tensor in initializers},
        list(map(bytes, parts[11])),
        list(map(bytes, parts[12])),
        has_functions,
    )


def _node(message: memoryview) -> Node:
    inputs, outputs, kind, domain = [], [], "", ""
    numbers: dict[str, float] = {}
    has_graph = False
    for number, value in _fields(message):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            attribute = dict(_fields(_view(value)))
            has_graph |= 6 in attribute or 11 in attribute
            of = _integer(attribute.get(20, 0))
            if of in (1, 2):
                name = _text(attribute[1])
                stored = attribute.get(of + 1, 0)
                numbers[name] = struct.unpack("<f", stored)[0] if isinstance(stored, memoryview) else _signed(stored)
    domain = "" if domain == "ai.onnx" else domain
    return Node(kind, domain, tuple(inputs), tuple(outputs), numbers, has_graph, bytes(message))


def _initializer(message: memoryview) -> Initializer:
    name, dtype, location = "", 0, 0
    shape: list[int] = []
    entries: dict[str, str] = {}
    for number, value in _fields(message):
        if number == 1:
            shape += [value] if isinstance(value, int) else list(_varints(value))
        elif number == 2:
            dtype = _integer(value)
        elif number == 8:
            name = _text(value)
        elif number == 13:
            entry = dict(_fields(_view(value)))
            entries[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
        elif number == 14:
            location = _integer(value)
    external = location == _EXTERNAL
    offset = int(entries.get("offset", "0")) if external else None
    return Initializer(name, dtype, tuple(shape), offset, int(entries.get("length", "0")), bytes(message))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value); a value is a number, or the bytes of a message, a text or a number of fixed size."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire not in _SIZES:
            raise ValueError(f"byte {at} begins no field of a protobuf message")
        if wire == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = _SIZES[wire]
        if not size:
            size, at = _varint(message, at)
        if at + size > len(message):
            raise ValueError(f"a field at byte {at} does not end in the message")
        yield key >> 3, message[at : at + size]
        at += size


def _varints(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 10 bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message should be")  # noqa: TRY004 - one kind of error for one fault
    return value


def _text(value: int | memoryview | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else bytes(_view(value)).decode()


def _integer(value: int | memoryview | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a message stands where a number should be")  # noqa: TRY004 - as above
    return value


DTYPES: Final = {  # of external data, by ONNX's number: as safetensors calls it
    onnx_proto.FLOAT: "F32",
    onnx_proto.UINT8: "U8",
    onnx_proto.INT8: "I8",
    onnx_proto.INT32: "I32",
    onnx_proto.INT64: "I64",
    onnx_proto.BOOL: "BOOL",
    onnx_proto.FLOAT16: "F16",
    onnx_proto.DOUBLE: "F64",
    onnx_proto.BFLOAT16: "BF16",
}
