"""Attention of long texts, a block of queries at a time: the same numbers, in memory that grows with the length."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import FIXTURES, HEADS, NAMES, copy_of, edit_config, load, read_tensors, write_tensors
from support.processes import run_python

from fastrank.graph import build, query_blocks

LENGTH = 700
UNLIMITED = ("eurobert", "gemma3", "gte", "jina_bert", "modernbert", "nomic_bert", "qwen")
LONG = [name for name in NAMES if name.startswith(UNLIMITED)]


def texts(session, vocabulary, *, padding=True):
    """Two texts, one of them padded."""
    ids = np.random.default_rng(3).integers(5, vocabulary, (2, LENGTH))
    mask = np.ones_like(ids)
    if padding:
        mask[1, LENGTH - 150 :] = 0
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {value.name: known[value.name] for value in session.get_inputs()}


def vocabulary_of(name):
    return json.loads((FIXTURES / name / "config.json").read_text())["vocab_size"]


@pytest.mark.parametrize("unpadded", [False, True])
@pytest.mark.parametrize("name", LONG)
def test_blocks_change_nothing(name, unpadded, monkeypatch):
    monkeypatch.setattr(query_blocks, "_SCORES", 1)  # so that blocks are as small as they can be
    head = next(head for of, head in HEADS if of == name and head != "attention")
    whole = load(FIXTURES / name, head, plain=True)
    blocks = load(FIXTURES / name, head, unpadded=unpadded)
    feeds = texts(whole, vocabulary_of(name), padding=not unpadded)
    (expected,) = whole.run(None, feeds)
    (found,) = blocks.run(None, {value.name: feeds[value.name] for value in blocks.get_inputs()})
    if found.ndim > 1 and found.shape[1] == LENGTH:  # what the states of padding are is nobody's business
        mask = feeds["attention_mask"].astype(bool)
        expected, found = expected[mask], found[mask]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(("rows", "fused"), [(LENGTH, True), (514, False)])
@pytest.mark.parametrize("name", ["bert", "xlm_roberta_classifier", "distilbert_classifier", "electra_classifier"])
def test_learned_positions_decide_how_attention_is_computed(name, rows, fused, tmp_path):
    """A table for long texts, as BGE-M3 has, is worth onnxruntime's fused attention; one of BERT's length is not."""
    folder = copy_of(name, tmp_path)
    tensors = read_tensors(folder)
    table = next(each for each in tensors if each.endswith("position_embeddings.weight"))
    dtype, (_, width), _ = tensors[table]
    values = np.random.default_rng(0).normal(0, 0.1, (rows, width)).astype({"F32": "<f4", "F64": "<f8"}[dtype])
    write_tensors(folder, {**tensors, table: (dtype, [rows, width], values.tobytes())})
    edit_config(folder, max_position_embeddings=rows)
    head = "encoder" if name == "bert" else "sequence-classification"
    content = build(folder, head)
    assert (b"MultiHeadAttention" in content) is fused
    whole, found = load(folder, head, plain=True), load(folder, head)
    ids = np.random.default_rng(3).integers(5, vocabulary_of(name), (2, 500))
    mask = np.ones_like(ids)
    mask[1, 350:] = 0
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    feeds = {value.name: known[value.name] for value in whole.get_inputs()}
    expected, answer = (session.run(None, feeds)[0] for session in (whole, found))
    if answer.ndim > 2:
        expected, answer = expected[mask.astype(bool)], answer[mask.astype(bool)]
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 257])
@pytest.mark.parametrize("window", [2, 16, 128, 300])
def test_windows_of_any_size(window, length, tmp_path):
    folder = copy_of("modernbert_cls", tmp_path)
    edit_config(folder, local_attention=window)
    whole, blocks = load(folder, plain=True), load(folder)
    ids = np.random.default_rng(length).integers(5, vocabulary_of("modernbert_cls"), (2, length))
    mask = np.ones_like(ids)
    mask[1, (length + 1) // 2 :] = 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    found, expected = (session.run(None, feeds)[0][mask.astype(bool)] for session in (blocks, whole))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


PEAK = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from support.checkpoints import FIXTURES, load
session = load(FIXTURES / sys.argv[1])
def run(length):
    ids = np.full((1, length), 7)
    session.run(None, {value.name: ids * (value.name == "input_ids") + (value.name == "attention_mask")
                       for value in session.get_inputs()})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = run(64)
print(run(6000) - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such measure")
@pytest.mark.parametrize(
    "name", ["modernbert_cls", "nomic_bert_masked_lm", "jina_bert_normed", "qwen3", "eurobert_masked_lm"]
)
def test_memory_does_not_grow_with_the_square_of_the_length(name):
    square = 6000**2  # of one head's scores, in float32: four times as many bytes
    assert int(run_python("-c", PEAK, name, Path(__file__).parents[1], check=True).stdout) < 4 * square
