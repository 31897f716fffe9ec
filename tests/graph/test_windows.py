"""Texts about as long as a sliding window: at it and across it, alone and padded, equal to transformers."""

import json

import numpy as np
import pytest
import support
from support.checkpoints import FIXTURES, inputs_of, load

EXPECTED = json.loads((support.FIXTURES / "windows.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", EXPECTED)
def test_texts_at_and_across_the_window(name):
    session = load(FIXTURES / name)
    for case in EXPECTED[name]:
        (states,) = session.run(
            None, inputs_of({"input_ids": [case["input_ids"]], "attention_mask": [[1] * len(case["input_ids"])]})
        )
        np.testing.assert_allclose(states[0], case["states"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_same_texts_padded(name):
    cases = EXPECTED[name]
    longest = max(len(case["input_ids"]) for case in cases)
    ids = [case["input_ids"] + [0] * (longest - len(case["input_ids"])) for case in cases]
    mask = [[1] * len(case["input_ids"]) + [0] * (longest - len(case["input_ids"])) for case in cases]
    (states,) = load(FIXTURES / name).run(None, inputs_of({"input_ids": ids, "attention_mask": mask}))
    for case, row in zip(cases, states, strict=True):
        np.testing.assert_allclose(row[: len(case["input_ids"])], case["states"], rtol=0, atol=1e-5)
