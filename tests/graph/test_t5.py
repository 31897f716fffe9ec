"""T5: what its configurations say, and where its word embeddings lie."""

import numpy as np
import pytest
from support.checkpoints import EXPECTED, build, copy_of, edit_config, inputs_of, load, read_tensors, write_tensors

from fastrank.errors import ModelLoadError


@pytest.mark.parametrize("other", ["encoder.embed_tokens.weight", "transformer.shared.weight"])
def test_word_embeddings_are_found_by_their_other_names(other, tmp_path):
    folder, case = copy_of("t5", tmp_path), EXPECTED["t5"]["padded"]
    tensors = read_tensors(folder)
    write_tensors(folder, {other if name == "shared.weight" else name: value for name, value in tensors.items()})
    (states,) = load(folder).run(None, inputs_of(case))
    np.testing.assert_allclose(states, case["last_hidden_state"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), [("t5", "relu"), ("mt5", "gated-gelu")])
def test_the_kind_of_the_feed_forward_blocks_has_a_default(name, kind, tmp_path):
    folder = copy_of(name, tmp_path)
    expected = build(folder)
    edit_config(folder, feed_forward_proj=...)
    assert build(folder) == expected
    edit_config(folder, feed_forward_proj=kind)
    assert build(folder) == expected


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"feed_forward_proj": "gated-mish"}, "'feed_forward_proj' is 'gated-mish'; supported: 'relu', 'gated-gelu'"),
        ({"is_decoder": True}, "'is_decoder' is True; supported: False"),
        ({"d_model": ...}, "'d_model' is missing; expected an integer"),
        ({"relative_attention_num_buckets": 2}, "'relative_attention_num_buckets' is 2; expected an integer from 4"),
    ],
)
def test_a_bad_field_is_named(fields, says, tmp_path):
    folder = copy_of("t5", tmp_path)
    edit_config(folder, **fields)
    with pytest.raises(ModelLoadError) as caught:
        build(folder)
    assert str(caught.value).startswith(f"{folder / 'config.json'}: field ")
    assert says in str(caught.value)
