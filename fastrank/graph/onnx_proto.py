"""Write ONNX protobuf messages, without the `onnx` package.

Source: onnx/onnx.proto of the ONNX project, IR version 8; the numbers below are that file's field numbers.
A message is bytes: a run of fields, each a key (field number and wire type) followed by a value.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLOAT: Final = 1
UINT8: Final = 2
INT8: Final = 3
INT32: Final = 6
INT64: Final = 7
BOOL: Final = 9
FLOAT16: Final = 10
DOUBLE: Final = 11
BFLOAT16: Final = 16

IR_VERSION: Final = 8
OPSET: Final = 17  # the first with LayerNormalization; every onnxruntime since 1.12 runs it
ONNXRUNTIME: Final = "com.microsoft"  # the domain of onnxruntime's own operators; int8 graphs use some

_ONE_BYTE: Final = tuple(bytes([value]) for value in range(128))

Attribute = int | float | str | list[int] | bytes  # bytes: a graph


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: dict[str, Attribute], domain: str = ""
) -> bytes:
    """A NodeProto; the default domain is ONNX's own. An input that is left out is an empty string."""
    message = b"".join([_text(1, name) for name in inputs] + [_text(2, name) for name in outputs]) + _text(4, kind)
    message += b"".join(_bytes(5, _attribute(name, value)) for name, value in attributes.items())
    return message + (_text(7, domain) if domain else b"")


def inline_tensor(name: str, dtype: int, shape: Sequence[int], raw: bytes) -> bytes:
    """A TensorProto that holds its own little-endian data."""
    return _tensor_head(name, dtype, shape) + _bytes(9, raw)


def external_tensor(name: str, dtype: int, shape: Sequence[int], location: str, *, offset: int, length: int) -> bytes:
    """A TensorProto whose data are `length` bytes at `offset` of the file `location`, relative to the model."""
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    data = b"".join(_bytes(13, _text(1, key) + _text(2, value)) for key, value in entries.items())
    return _tensor_head(name, dtype, shape) + data + _integer(14, 1)


def value_info(name: str, dtype: int, shape: Sequence[int | str] | None) -> bytes:
    """A ValueInfoProto; a dimension is a size, or the name of a size that is free. None: any shape."""
    if shape is None:
        return _text(1, name) + _bytes(2, _bytes(1, _integer(1, dtype)))
    dims = b"".join(_bytes(1, _text(2, size) if isinstance(size, str) else _integer(1, size)) for size in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _integer(1, dtype) + _bytes(2, dims)))


def graph(
    name: str,
    nodes: Sequence[bytes],
    initializers: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
) -> bytes:
    """A GraphProto of the given NodeProto, TensorProto and ValueInfoProto messages."""
    message = b"".join(_bytes(1, each) for each in nodes) + _text(2, name)
    message += b"".join(_bytes(5, each) for each in initializers)
    message += b"".join(_bytes(11, each) for each in inputs)
    return message + b"".join(_bytes(12, each) for each in outputs)


def model(
    name: str,
    nodes: Sequence[bytes],
    initializers: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    domains: Mapping[str, int],
) -> bytes:
    """A ModelProto of one graph; `domains` are those of its operators, with their versions."""
    body = graph(name, nodes, initializers, inputs, outputs)
    opsets = b"".join(_bytes(8, _text(1, name) + _integer(2, version)) for name, version in domains.items())
    return _integer(1, IR_VERSION) + _text(2, "fastrank") + _bytes(7, body) + opsets


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _integer(3, value) + _integer(20, 2)
    if isinstance(value, float):
        return _text(1, name) + _key(2, 5) + struct.pack("<f", value) + _integer(20, 1)
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _integer(20, 3)
    if isinstance(value, bytes):
        return _text(1, name) + _bytes(6, value) + _integer(20, 5)
    return _text(1, name) + b"".join(_integer(8, item) for item in value) + _integer(20, 7)


def _tensor_head(name: str, dtype: int, shape: Sequence[int]) -> bytes:
    return b"".join(_integer(1, size) for size in shape) + _integer(2, dtype) + _text(8, name)


def _integer(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _varint(len(value)) + value


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(value: int) -> bytes:
    if 0 <= value < 128:
        return _ONE_BYTE[value]
    value &= (1 << 64) - 1  # negative numbers are written as their 64-bit two's complement
    out = bytearray()
    while value >> 7:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
