"""EuroBERT: the poolings of its classifier."""

import numpy as np
import pytest
from support.checkpoints import EXPECTED, build, copy_of, edit_config, inputs_of, load

from fastrank.errors import ModelLoadError

NAME, HEAD = "eurobert_classifier", "sequence-classification"


@pytest.mark.parametrize("field", ["classifier_pooling", "clf_pooling"])
def test_both_names_of_the_pooling_mean_the_same(field, tmp_path):
    folder = copy_of(NAME, tmp_path)
    late = build(folder, HEAD)
    edit_config(folder, classifier_pooling=...)
    assert build(folder, HEAD) == late  # the default
    built = {late}
    for pooling in ("bos", "mean"):
        edit_config(folder, **{field: pooling})
        built.add(build(folder, HEAD))
    assert len(built) == 3
    edit_config(folder, **{field: "late"})
    assert build(folder, HEAD) == late


def test_the_first_token_is_read_with_pooling_bos(tmp_path):
    folder = copy_of(NAME, tmp_path)
    edit_config(folder, classifier_pooling="bos")
    case = EXPECTED[NAME]["padded"]
    feeds = inputs_of(case)
    (bos,) = load(folder, HEAD).run(None, feeds)
    edit_config(folder, classifier_pooling="mean")
    (mean,) = load(folder, HEAD).run(None, feeds)
    single = np.array(case["attention_mask"]).sum(axis=1) == 1
    assert single.any()
    np.testing.assert_allclose(bos[single], mean[single], rtol=0, atol=1e-5)
    assert np.abs(bos[~single] - mean[~single]).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"classifier_pooling": "max"}, "'classifier_pooling' is 'max'; supported: 'bos', 'mean', 'late'"),
        ({"mlp_bias": 1}, "'mlp_bias' is 1; supported: True, False"),
        ({"rope_scaling": {"type": "linear"}}, "'rope_scaling.factor' is missing; rope_type 'linear' needs one"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, ".type' is 'dynamic'; supported: "),
    ],
)
def test_a_bad_field_is_named(fields, says, tmp_path):
    folder = copy_of(NAME, tmp_path)
    edit_config(folder, **fields)
    with pytest.raises(ModelLoadError) as caught:
        build(folder, HEAD)
    assert says in str(caught.value)
