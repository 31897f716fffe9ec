"""Programs written for FastEmbed give the same results on fastrank, both ways, as on FastEmbed where that is there."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from conftest import REAL
from hub_standin import HubStandIn

from fastrank.bm25.languages import stopwords
from fastrank.compat import classes, shim
from fastrank.errors import ModelNotFoundError
from fastrank.graph import build

PROGRAMS = Path(__file__).with_name("programs")
SETTINGS = {"pad_token": "[PAD]"}  # of tokenizer_config.json


def for_fastembed(folder, **settings):
    """The files that FastEmbed wants beside a model."""
    (folder / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, **settings}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"cls_token": "[CLS]", "sep_token": "[SEP]"}))
    return folder


@pytest.fixture
def folders(tmp_path, real_model_folder):
    """The real all-MiniLM-L6-v2 as FastEmbed has it, BM25's stop words, and a tiny encoder or cross-encoder."""
    minilm = tmp_path / "minilm"
    minilm.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        shutil.copyfile(real_model_folder / name, minilm / name)
    (minilm / "model.onnx").write_bytes(build(real_model_folder))
    bm25 = tmp_path / "bm25"
    bm25.mkdir()
    (bm25 / "english.txt").write_text("\n".join(sorted(stopwords("english"))))
    (bm25 / "config.json").write_text("{}")
    return for_fastembed(minilm, model_max_length=512, max_length=128), bm25


@pytest.fixture
def run(folders, tmp_path, monkeypatch):
    """Runs a program unchanged on FastEmbed ("real"), with our line before it ("line"), or through us ("-m")."""
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def start(name, how, third):
        program = PROGRAMS / name
        if how == "line":
            changed = "import fastrank.compat.fastembed\n" + program.read_text()
            (program := tmp_path / name).write_text(changed)
        command = [sys.executable, *(["-m", "fastrank.compat.fastembed"] if how == "-m" else []), str(program)]
        done = subprocess.run(
            [*command, *map(str, [*folders, third])], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return start


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        if name in ("dense", "scores", "pairs", "sparse"):
            flat = [np.concatenate([np.ravel(row) for row in each]) for each in (found[name], value)] if value else []
            np.testing.assert_allclose(*flat, atol=1e-5)
        else:
            assert found[name] == value, name


@pytest.mark.real_model
@pytest.mark.parametrize("name", ["search.py", "rerank.py", "own_model.py"])
def test_a_program_gives_what_it_gives_on_fastembed(run, tmp_path, name):
    third = None
    if name == "rerank.py":  # weights drawn at random: this is about the way, not the ranking
        third = tiny_models.write_model(tmp_path / "third", tiny_models.tiny_cross_encoder())
    elif name == "own_model.py":
        third = tiny_models.write_model(tmp_path / "third")
    if third:
        for_fastembed(third, model_max_length=100, max_length=48)
    line, through = run(name, "line", third), run(name, "-m", third)
    assert line == through
    if name == "search.py":
        assert line["best"] == 0
        assert line["size"] == [384, 384]
    elif name == "rerank.py":
        assert line["found"][0] == 2
    else:
        assert line["tokens"] == 48
        assert line["lengths"] == [8, 9, 16]
    if importlib.util.find_spec("fastembed"):
        assert_same(line, run(name, "real", third))
