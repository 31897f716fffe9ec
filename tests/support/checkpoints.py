"""Checkpoints on disk and what they should give, for the tests of `fastrank.graph`."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime

import support
from fastrank import graph
from fastrank.graph.safetensors import read_header

FIXTURES = support.FIXTURES / "graph"
NAMES = sorted(folder.name for folder in FIXTURES.iterdir())
EXPECTED = {name: json.loads((FIXTURES / name / "expected.json").read_text()) for name in NAMES}
OUTPUTS = {
    "encoder": ["last_hidden_state"],
    "attention": ["last_hidden_state", "attention"],
    "masked-lm": ["logits"],
    "sequence-classification": ["logits"],
    "logit-score": ["logits"],
    "token-weights": ["token_weights"],
}
SUMMARIES = {"attention", "last_hidden_state", "logits", "splade", "token_weights"}


def heads_of(name):
    """The heads for which a fixture has expectations, that of the checkpoint first."""
    stored = EXPECTED[name]["one"]
    if "logits" in stored:
        classifies = "logit-score" if name.endswith("logit_score") else "sequence-classification"
        yield "masked-lm" if "splade" in stored else classifies
    if "token_weights" in stored:
        yield "token-weights"
    if "attention" in stored:
        yield "attention"
    yield "encoder"


SCORE_TOKENS = (9, 4)  # of the fixtures' scores
build = functools.partial(graph.build, score_tokens=SCORE_TOKENS)
HEADS = [(name, head) for name in NAMES for head in heads_of(name)]


def inputs_of(case, rows=slice(None), width=None):
    """What to feed for a case."""
    return {k: np.array(v, np.int64)[rows, :width] for k, v in case.items() if k not in SUMMARIES}


def copy_of(name, tmp_path):
    """A copy of a fixture, to be damaged."""
    return Path(shutil.copytree(FIXTURES / name, tmp_path / "checkpoint", copy_function=shutil.copyfile))


def load(folder, head="encoder", *, optimized=None, half=False, unpadded=False, plain=False):
    """A session; `optimized` is where to write the graph that onnxruntime makes of it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    model = build(folder, head, half=half, unpadded=unpadded, plain=plain)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def edit_config(folder, **fields):
    path = folder / "config.json"
    values = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def read_tensors(folder):
    data = (folder / "model.safetensors").read_bytes()
    return {
        name: (tensor.dtype, tensor.shape, data[tensor.offset : tensor.offset + tensor.length])
        for name, tensor in read_header(folder / "model.safetensors").items()
    }


def write_tensors(folder, tensors, pad=0):
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + pad)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
