"""Checkpoints in shards: what an index may say, and what it may not."""

import json
import os
import shutil
import time

import numpy as np
import onnx
import pytest
from support.checkpoints import FIXTURES, copy_of, load, read_tensors, write_tensors

from fastrank.errors import ModelLoadError
from fastrank.graph import build

INDEX = "model.safetensors.index.json"
CASE = json.loads((FIXTURES / "bert" / "expected.json").read_text())["padded"]
FEEDS = {name: np.array(CASE[name], np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_index(folder, weight_map, **fields):
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map, **fields}))


@pytest.fixture
def sharded(tmp_path):
    """The tiny BERT in two shards, as `save_pretrained(max_shard_size=...)` writes it; and what its index says."""
    folder = copy_of("bert", tmp_path)
    tensors = read_tensors(folder)
    names = list(tensors)
    weight_map = {name: (FIRST, SECOND)[2 * place // len(names)] for place, name in enumerate(names)}
    for file in (FIRST, SECOND):
        write_tensors(folder, {name: tensors[name] for name in names if weight_map[name] == file})
        (folder / "model.safetensors").rename(folder / file)
    write_index(folder, weight_map)
    return folder, weight_map


def refused(folder):
    started = time.process_time()
    with pytest.raises(ModelLoadError) as caught:
        build(folder)
    assert time.process_time() - started < 5
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_shards_equal_one_file(sharded):
    folder, _ = sharded
    (hidden,) = load(folder).run(None, FEEDS)
    np.testing.assert_allclose(hidden, CASE["last_hidden_state"], rtol=0, atol=1e-5)


def test_onnx_checker_accepts_shards(sharded):
    folder, weight_map = sharded
    (folder / "model.onnx").write_bytes(build(folder))
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    places = {
        item.name: {entry.key: entry.value for entry in item.external_data}["location"]
        for item in model.graph.initializer
        if item.external_data
    }
    assert places == weight_map


def test_a_single_file_comes_before_an_index(sharded):
    folder, _ = sharded
    shutil.copyfile(FIXTURES / "bert" / "model.safetensors", folder / "model.safetensors")
    (folder / INDEX).write_text("damaged")
    assert build(folder) == build(FIXTURES / "bert")


def test_shards_in_the_layout_of_the_hubs_cache_are_read(sharded, tmp_path):
    folder, weight_map = sharded
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"blob{number}")
        try:
            (snapshot / path.name).symlink_to(os.path.join("..", "..", "blobs", f"blob{number}"))  # noqa: PTH118
        except OSError:
            pytest.skip("links need a privilege here")
    graph = onnx.load_model_from_string(build(snapshot)).graph
    found = {entry.value for item in graph.initializer for entry in item.external_data if entry.key == "location"}
    assert found == {(snapshot / file).resolve().name for file in weight_map.values()}


@pytest.mark.parametrize(
    "file",
    [
        "../model.safetensors",
        "..",
        ".",
        "",
        "sub/model.safetensors",
        "/etc/passwd",
        "..\\model.safetensors",
        "C:\\model.safetensors",
        "C:model.safetensors",
        "\\\\server\\share\\model.safetensors",
        "a\0b",
    ],
)
def test_a_path_is_no_name_of_a_shard(sharded, tmp_path, file):
    folder, weight_map = sharded
    shutil.copyfile(FIXTURES / "bert" / "model.safetensors", tmp_path / "model.safetensors")
    write_index(folder, dict.fromkeys(weight_map, file))
    assert refused(folder) == (
        f"{folder / INDEX}: weight_map names the file {file!r}; only the name of a file beside the index is followed"
    )


@pytest.mark.parametrize("target", ["../outside.safetensors", "sub/inside.safetensors"])
def test_a_shard_that_links_elsewhere_is_refused(sharded, target):
    folder, _ = sharded
    (folder / "sub").mkdir()
    (folder / FIRST).rename(folder / target)
    try:
        (folder / FIRST).symlink_to(target)
    except OSError:
        pytest.skip("links need a privilege here")
    assert refused(folder) == f"{folder / INDEX}: weight_map names the file {FIRST!r}, a link that leaves the folder"


def test_a_missing_shard_is_named(sharded):
    folder, _ = sharded
    (folder / SECOND).unlink()
    assert refused(folder) == f"{folder / INDEX}: weight_map names the file {SECOND!r}, which is missing"


def test_a_tensor_that_is_not_in_its_shard_is_named(sharded):
    folder, weight_map = sharded
    name = next(name for name, file in weight_map.items() if file == SECOND)
    write_index(folder, weight_map | {name: FIRST})
    assert refused(folder) == (f"{folder / INDEX}: tensor {name!r} should be in {FIRST!r}, which has no such tensor")


def test_a_tensor_that_the_index_does_not_name_is_missing(sharded):
    folder, weight_map = sharded
    name = "encoder.layer.1.output.dense.weight"
    del weight_map[name]
    write_index(folder, weight_map)
    assert refused(folder).startswith(f"{folder / INDEX}: no tensor {name!r}")


def test_a_damaged_shard_is_named(sharded):
    folder, _ = sharded
    data = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(data[:-1])
    assert refused(folder).startswith(f"{folder / SECOND}: the header describes")
    (folder / SECOND).write_bytes((2**31).to_bytes(8, "little") + data[8:])
    assert refused(folder).startswith(f"{folder / SECOND}: the header claims 2147483648 bytes")


def test_a_wrong_shape_names_the_shard(sharded):
    folder, weight_map = sharded
    name = "encoder.layer.0.output.dense.weight"
    data = (folder / weight_map[name]).read_bytes()
    assert b"[32,48]" in data.replace(b" ", b"")
    (folder / weight_map[name]).write_bytes(data.replace(b"[32, 48]", b"[48, 32]"))
    assert f"{folder / weight_map[name]}: tensor {name!r} has the shape [48, 32]" in refused(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("[" * 200_000, "not valid JSON"),
        ('{"weight_map": ' + "{" * 3, "not valid JSON"),
        ('{"weight_map": ' * 100_000, "not valid JSON"),
        ("{}", "weight_map must be an object"),
        ('{"weight_map": []}', "weight_map must be an object"),
        ('{"weight_map": {"a": 7}}', "weight_map must be an object that names a file for each tensor"),
        ('{"weight_map": {"a": ["b"]}}', "weight_map must be an object that names a file for each tensor"),
        (json.dumps({"weight_map": {str(n): f"{n}.safetensors" for n in range(2000)}}), "names 2000 files; at most"),
        ('{"weight_map": {}}', "no tensor 'embeddings.word_embeddings.weight'"),
    ],
)
def test_a_damaged_index_is_refused(sharded, content, says):
    folder, _ = sharded
    (folder / INDEX).write_text(content)
    message = refused(folder)
    assert message.startswith(f"{folder / INDEX}: ")
    assert says in message


def test_a_huge_index_is_not_read(sharded):
    folder, _ = sharded
    with (folder / INDEX).open("wb") as file:
        file.truncate(2**31)
    assert "larger than" in refused(folder)
