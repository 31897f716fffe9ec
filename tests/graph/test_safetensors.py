"""Headers of safetensors files: the sound ones are read, the damaged and hostile ones refused with a reason."""

import json
import time

import numpy as np
import pytest
import support

from fastrank.errors import ModelLoadError
from fastrank.graph.safetensors import MAX_HEADER, Tensor, read_float32, read_header

FIXTURE = support.FIXTURES / "graph" / "bert" / "model.safetensors"


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.fixture
def write(tmp_path):
    def write(header, data=b""):
        path = tmp_path / "model.safetensors"
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    return write


def test_tensors_are_found(write):
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry(8, 12, "BF16", [2, 1]),
        "a": entry(0, 8),
        "empty": entry(8, 8, shape=[0, 3]),
        "scalar": entry(12, 20, "I64", []),
    }
    path = write(header, bytes(20))
    start = path.stat().st_size - 20
    assert read_header(path) == {
        "a": Tensor("F32", (2,), start, 8, path),
        "empty": Tensor("F32", (0, 3), start + 8, 0, path),
        "b": Tensor("BF16", (2, 1), start + 8, 4, path),
        "scalar": Tensor("I64", (), start + 12, 8, path),
    }
    assert list(read_header(path)) == ["a", "empty", "b", "scalar"]


def test_a_file_without_tensors_is_empty(write):
    assert read_header(write({})) == {}


@pytest.mark.parametrize(
    ("header", "size", "says"),
    [
        (b"", 0, "not valid JSON"),
        (b"nonsense", 0, "not valid JSON"),
        (b"\xff\xff", 0, "not valid JSON"),
        (b"[" * 300_000, 0, "not valid JSON"),
        (b'{"a": ' * 100_000, 0, "not valid JSON"),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', 4, "tensor 'a'|not valid JSON"),
        (b'{"a": 1, "a": 2}', 0, "a key occurs twice"),
        (b"[]", 0, "not a JSON object"),
        ({"a": 7}, 0, "tensor 'a' is not an object with"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, "tensor 'a' is not an object with"),
        ({"a": entry(0, 4, dtype="F31")}, 4, "tensor 'a' has the unknown dtype 'F31'"),
        ({"a": entry(0, 4, dtype=["F32"])}, 4, "tensor 'a' has the unknown dtype"),
        ({"a": entry(0, 4, shape=4)}, 4, "tensor 'a' has the shape 4,"),
        ({"a": entry(0, 4, shape=[1.0])}, 4, "tensor 'a' has the shape"),
        ({"a": entry(0, 4, shape=[True])}, 4, "tensor 'a' has the shape"),
        ({"a": entry(0, 4, shape=[-1, -1])}, 4, "tensor 'a' has the shape"),
        ({"a": entry(0, 4, shape=[10**100])}, 4, "tensor 'a' has the shape"),
        ({"a": entry(0, 4, shape=[2**63 - 1] * 100_000)}, 4, "tensor 'a' has the shape"),
        ({"a": entry(0, 4, shape=[2**62, 4])}, 4, "tensor 'a' spans"),
        ({"a": entry(0, 4, shape=[2])}, 4, "takes 8 bytes"),
        ({"a": entry(4, 0, shape=[1])}, 4, "tensor 'a' spans"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, 4, "tensor 'a' has the data_offsets"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, 4, "tensor 'a' has the data_offsets"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": "04"}}, 4, "tensor 'a' has the data_offsets"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "the data of tensor 'b' overlaps the one before"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "the data of tensor 'b' overlaps the one before"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "the data of tensor 'b' leaves a gap"),
        ({"a": entry(4, 8)}, 8, "the data of tensor 'a' leaves a gap"),
        ({"a": entry(0, 8)}, 7, "the file has"),
        ({"a": entry(0, 8)}, 9, "the file has"),
        ({"a": entry(0, 2**62)}, 8, "the file has"),
        ({"\ud800" + "x" * 10_000: 7}, 0, r"tensor '\\ud800x+ is not"),
    ],
)
def test_a_broken_header_is_refused(write, header, size, says):
    path = write(header, bytes(size))
    started = time.process_time()
    with pytest.raises(ModelLoadError, match=says) as caught:
        read_header(path)
    assert time.process_time() - started < 5
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("length", [2**31, 2**64 - 1, MAX_HEADER + 1])
def test_a_header_that_claims_too_much_is_not_read(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelLoadError, match=f"the header claims {length} bytes, the file has 10"):
        read_header(path)


def test_a_header_of_2_gb_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((2**31).to_bytes(8, "little"))
        file.truncate(2**31 + 100)
    with pytest.raises(ModelLoadError, match="the header claims 2147483648 bytes"):
        read_header(path)


def test_a_cut_file_is_refused_wherever_it_ends(tmp_path):
    data = FIXTURE.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    path = tmp_path / "model.safetensors"
    for size in [0, 1, 7, 8, 9, header - 1, header, header + 1, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(ModelLoadError, match=r"the file has|not valid JSON"):
            read_header(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelLoadError, match="there is no such file"):
        read_header(tmp_path)


VALUES = np.array([[1.0, -2.5], [0.0, 1e-3], [65504.0, -0.125]], np.float32)
STORED = {
    "F64": VALUES.astype("<f8"),
    "F32": VALUES,
    "F16": VALUES.astype("<f2"),
    "BF16": (VALUES.view("<u4") >> 16).astype("<u2"),
}
READ = {**STORED, "BF16": ((VALUES.view("<u4") >> 16) << 16).astype("<u4").view("<f4")}


@pytest.mark.parametrize("dtype", STORED)
def test_a_tensor_of_floats_is_read_as_float32(write, dtype):
    """Not aligned: what comes before has an odd number of bytes."""
    raw = STORED[dtype].tobytes()
    path = write({"odd": entry(0, 3, "I8", [3]), "a": entry(3, 3 + len(raw), dtype, [3, 2])}, bytes(3) + raw)
    tensor = read_header(path)["a"]
    found = read_float32("a", tensor)
    assert (found.dtype, found.flags.owndata or found.base.flags.owndata) == (np.float32, True)
    np.testing.assert_array_equal(found, READ[dtype].astype(np.float32))
    np.testing.assert_array_equal(read_float32("a", tensor, slice(1, 2)), READ[dtype][1:2].astype(np.float32))


def test_tensors_without_numbers_or_sizes_are_read(write):
    path = write({"empty": entry(0, 0, shape=[0, 3]), "scalar": entry(0, 4, shape=[])}, np.float32(7).tobytes())
    tensors = read_header(path)
    assert read_float32("empty", tensors["empty"]).shape == (0, 3)
    assert read_float32("scalar", tensors["scalar"]) == 7


def test_a_tensor_that_is_not_of_floats_or_gone_is_refused(write):
    path = write({"a": entry(0, 4, "I8", [4]), "b": entry(4, 8)}, bytes(8))
    tensors = read_header(path)
    with pytest.raises(ModelLoadError, match="tensor 'a' has the dtype I8; supported: F32, F16, BF16, F64"):
        read_float32("a", tensors["a"])
    path.unlink()
    with pytest.raises(ModelLoadError, match="cannot be read"):
        read_float32("b", tensors["b"])
