"""Tensors in files of torch.save: read without running the pickle; anything else in them is refused."""

import contextlib
import io
import pickle
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import support

from fastrank.engine.linear import linear
from fastrank.errors import ModelLoadError
from fastrank.models import torch_file
from fastrank.models.token_heads import TokenHead

FOLDER = support.FIXTURES / "hybrid" / "bge_m3"


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def written(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def content():
    return members(FOLDER / "sparse_linear.pt")


def test_tensors_are_read(tmp_path):
    tensors = torch_file.read_header(FOLDER / "colbert_linear.pt")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == {
        "weight": ("F16", (24, 32)),
        "bias": ("F16", (24,)),
    }
    content = members(FOLDER / "colbert_linear.pt")
    weight = np.frombuffer(content["colbert_linear/data/0"], "<f2").reshape(24, 32).astype(np.float32)
    bias = np.frombuffer(content["colbert_linear/data/1"], "<f2").astype(np.float32)
    states = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
    made = linear(TokenHead(FOLDER / "colbert_linear.pt", 24))(states)
    np.testing.assert_allclose(made, states @ weight.T + bias, atol=1e-6)


@pytest.mark.parametrize(("old", "new", "dtype"), [("Half", "Float", "F32"), ("Half", "BFloat16", "BF16")])
def test_other_types_of_numbers(content, tmp_path, old, new, dtype):
    root = "sparse_linear"
    content[f"{root}/data.pkl"] = content[f"{root}/data.pkl"].replace(
        f"{old}Storage".encode(), f"{new}Storage".encode()
    )
    if dtype == "F32":
        for n in (0, 1):
            values = np.frombuffer(content[f"{root}/data/{n}"], "<f2").astype("<f4")
            content[f"{root}/data/{n}"] = values.tobytes()
    path = written(tmp_path / "a.pt", content)
    assert {tensor.dtype for tensor in torch_file.read_header(path).values()} == {dtype}
    made = linear(TokenHead(path, 1))(np.ones((1, 32), np.float32))
    same = linear(TokenHead(FOLDER / "sparse_linear.pt", 1))(np.ones((1, 32), np.float32))
    assert np.allclose(made, same) == (dtype == "F32")


class Touch:
    """What a hostile pickle would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def hostile(tmp_path):
    """Pickles that say something else than a dict of tensors."""
    yield pickle.dumps({"weight": Touch(tmp_path / "ran")}, 2)
    yield b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    yield pickle.dumps({"weight": [1, 2]}, 2)
    yield pickle.dumps([1], 2)
    yield pickle.dumps({}, 2)
    yield pickle.dumps({1: 2}, 2)
    yield pickle.dumps({"weight": np.ones(3)}, 2)
    yield b"." * 10
    yield b""
    yield b"\x80\x02" + b"(" * 1000 + b"."
    yield b"\x80\x02}q\x00h\x07."  # a memo that was never made
    yield b"\x80\x02}X\x01\x00\x00\x00a}s}b."


def test_a_hostile_pickle_does_not_run(tmp_path, content):
    for description in hostile(tmp_path):
        path = written(tmp_path / "a.pt", content | {"sparse_linear/data.pkl": description})
        with pytest.raises(ModelLoadError, match=r"a\.pt"):
            torch_file.read_header(path)
        path.write_bytes(description)  # as torch saved before 1.6
        with pytest.raises(ModelLoadError, match=r"a\.pt"):
            torch_file.read_header(path)
    assert not (tmp_path / "ran").exists()


ROOT = "sparse_linear/"
LIES = {
    "short": lambda content: content | {ROOT + "data/0": content[ROOT + "data/0"][:-2]},
    "long": lambda content: content | {ROOT + "data/0": content[ROOT + "data/0"] + b"\0\0"},
    "missing": lambda content: {name: data for name, data in content.items() if name != ROOT + "data/1"},
    "big-endian": lambda content: content | {ROOT + "byteorder": b"big"},
    "two": lambda content: content | {"other/data.pkl": content[ROOT + "data.pkl"]},
    "none": lambda content: {name: data for name, data in content.items() if name != ROOT + "data.pkl"},
    "many": lambda content: content | {f"{ROOT}{n}": b"" for n in range(100)},
    "large": lambda content: content | {ROOT + "data.pkl": content[ROOT + "data.pkl"] + b"0" * 70_000},
    "integers": lambda content: (
        content | {ROOT + "data.pkl": content[ROOT + "data.pkl"].replace(b"HalfStorage", b"LongStorage")}
    ),
}


@pytest.mark.parametrize("kind", LIES)
def test_an_archive_that_lies_is_refused(kind, content, tmp_path):
    with pytest.raises(ModelLoadError, match=r"a\.pt is no file of tensors"):
        torch_file.read_header(written(tmp_path / "a.pt", LIES[kind](content)))


def test_compressed_members_are_refused(content, tmp_path):
    path = written(tmp_path / "a.pt", content | {"bomb": b"0" * 10_000_000}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelLoadError, match="compressed, encrypted or one too many"):
        torch_file.read_header(path)


def test_a_view_or_an_offset_is_refused(content, tmp_path):
    description = content["sparse_linear/data.pkl"]
    for old, new in [(b"K\x01K \x86", b"K K\x01\x86"), (b"QK\x00", b"QK\x01")]:
        assert old in description
        path = written(tmp_path / "a.pt", content | {"sparse_linear/data.pkl": description.replace(old, new)})
        with pytest.raises(ModelLoadError):
            linear(TokenHead(path, 1))


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.pt"):
        with pytest.raises(ModelLoadError):
            torch_file.read_header(path)


def test_any_damage_is_an_error_of_the_model(tmp_path):
    original = (FOLDER / "sparse_linear.pt").read_bytes()
    path = tmp_path / "a.pt"
    for seed in range(600):
        random_ = random.Random(seed)
        damaged = bytearray(original)
        for _ in range(random_.choice([1, 1, 3, 20])):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        if random_.random() < 0.2:
            damaged = damaged[: random_.randrange(len(damaged))]
        path.write_bytes(damaged)
        try:
            head = TokenHead(path, 1)
            assert linear(head)(np.zeros((1, 32), np.float32)).shape == (1, 1)
        except ModelLoadError:
            pass


def test_any_pickle_is_an_error_or_tensors(tmp_path, content):
    description = content["sparse_linear/data.pkl"]
    path = tmp_path / "a.pt"
    for seed in range(600):
        random_ = random.Random(seed)
        damaged = bytearray(description)
        for _ in range(random_.choice([1, 2, 5])):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        written(path, content | {"sparse_linear/data.pkl": bytes(damaged)})
        with contextlib.suppress(ModelLoadError):
            torch_file.read_header(path)


def test_an_overlong_name_in_the_archive_is_refused(tmp_path, content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    damaged = stream.getvalue()
    size = struct.pack("<I", len(content["sparse_linear/data/0"]))
    (tmp_path / "a.pt").write_bytes(damaged.replace(size, struct.pack("<I", 2**31 - 1)))
    with pytest.raises(ModelLoadError):
        torch_file.read_header(tmp_path / "a.pt")
