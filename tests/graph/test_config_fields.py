"""Fields of config.json and what transformers computes of them; see tests/fixtures/make/config_fields.py."""

import json

import numpy as np
import pytest
import support
from support.checkpoints import copy_of, edit_config, load, read_tensors, write_tensors

from fastrank.errors import ModelLoadError

ANSWERS = json.loads((support.FIXTURES / "config_fields.json").read_text())
IDS = np.array([ANSWERS["ids"]])
VISIBLE = ANSWERS["visible"]


def add_tensors(folder, names):
    """The same tensors as the script adds."""
    tensors = read_tensors(folder)
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    for name in names:
        values = np.arange(tensors["cls.predictions.bias"][1][0], dtype=np.float32) / np.float32(10)
        tensors[name] = ("F32", values.shape, values.tobytes())
    write_tensors(folder, tensors)


def run(folder, head):
    session = load(folder, head)
    feeds = {"input_ids": IDS, "attention_mask": (np.arange(IDS.shape[1]) < VISIBLE).astype(np.int64)[None]}
    feeds["token_type_ids"] = np.zeros_like(IDS)
    taken = {value.name for value in session.get_inputs()}
    return session.run(None, {name: value for name, value in feeds.items() if name in taken})[0][0]


@pytest.mark.parametrize("case", ANSWERS["cases"], ids=lambda case: f"{case['model']} {case['head']} {case['fields']}")
def test_fields_do_what_they_do_in_transformers(tmp_path, case):
    """States of all tokens, those that the mask hides too: some have nothing to attend to in a sliding layer."""
    folder = copy_of(case["model"], tmp_path)
    edit_config(folder, **{field: ... if value is None else value for field, value in case["fields"].items()})
    if case["tensors"]:
        add_tensors(folder, case["tensors"])
    values = run(folder, case["head"])
    np.testing.assert_allclose(values[: len(case["values"])], case["values"], atol=1e-5)


def test_aliases_that_disagree_are_refused(tmp_path):
    folder = copy_of("distilbert_masked_lm", tmp_path)
    edit_config(folder, num_attention_heads=2)
    with pytest.raises(ModelLoadError, match=r"'num_attention_heads' is 2; n_heads, which is the same field, is \d"):
        load(folder)


@pytest.mark.parametrize("name", ["nomic_bert_masked_lm", "qwen3", "eurobert_masked_lm"])
@pytest.mark.parametrize("scaling", [{"rope_type": "longrope", "factor": 4}, {"type": "dynamic", "factor": 2}])
def test_other_scalings_are_refused(tmp_path, name, scaling):
    folder = copy_of(name, tmp_path)
    edit_config(folder, rope_scaling=scaling)
    with pytest.raises(
        ModelLoadError, match=r"'rope_scaling\.(rope_)?type' is '\w+'; supported: 'default', 'linear', "
    ):
        load(folder)
