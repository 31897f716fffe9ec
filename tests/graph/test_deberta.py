"""DeBERTa: buckets of distances, what its configurations say in several ways, and what is computed once."""

import numpy as np
import onnx
import pytest
from support.checkpoints import EXPECTED, FIXTURES, build, copy_of, edit_config, inputs_of, load

from fastrank.errors import ModelLoadError
from fastrank.graph.architectures import deberta_v2


def rows_of_transformers(distances, buckets, farthest):
    """`make_log_bucket_position` and what follows it, in numpy's float32."""
    middle = buckets // 2
    far = np.where(np.abs(distances) < middle, middle - 1, np.abs(distances)).astype(np.float32)
    width = np.log(np.float32((farthest - 1) / middle))
    logs = np.ceil(np.log(far / np.float32(middle)) / width * np.float32(middle - 1)) + middle
    places = np.where(np.abs(distances) <= middle, distances, logs * np.sign(distances)).astype(np.int64)
    return np.clip(places + buckets, 0, 2 * buckets - 1)


@pytest.mark.parametrize(("buckets", "farthest"), [(256, 512), (256, 1024), (128, 512), (8, 40), (4, 6), (32, 128)])
def test_buckets_equal_those_of_transformers(buckets, farthest):
    rows = deberta_v2._rows_by_distance(buckets, farthest)
    reach = len(rows) // 2
    distances = np.arange(-reach, reach + 1)
    np.testing.assert_array_equal(rows, rows_of_transformers(distances, buckets, farthest))
    beyond = np.array([-100_000, -reach - 1, reach + 1, 100_000])
    np.testing.assert_array_equal(
        rows_of_transformers(beyond, buckets, farthest), [rows[0], rows[0], rows[-1], rows[-1]]
    )


def test_without_buckets_every_distance_has_a_row():
    assert deberta_v2._rows_by_distance(-1, 3) == [0, 1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize("name", ["deberta_v2", "deberta_v3_classifier"])
def test_both_forms_of_the_comparisons_mean_the_same(name, tmp_path):
    folder = copy_of(name, tmp_path)
    expected = build(folder)
    for value in ("p2c|c2p", "C2P | P2C", ["c2p", "p2c"]):
        edit_config(folder, pos_att_type=value)
        assert build(folder) == expected
    edit_config(folder, pos_att_type="c2p")
    assert build(folder) != expected


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"relative_attention": False}, "'relative_attention' is False; supported: True"),
        ({"relative_attention": ...}, "'relative_attention' is missing; supported: True"),
        ({"conv_kernel_size": 3}, "'conv_kernel_size' is 3; supported: 0"),
        ({"attention_head_size": 4}, "'attention_head_size' is 4; supported: 8"),
        ({"pos_att_type": "p2p"}, "'pos_att_type' is 'p2p'; supported: c2p, p2c"),
        ({"pos_att_type": ["p2p"]}, "'pos_att_type' is ['p2p']; expected a list of: 'c2p', 'p2c'"),
        ({"norm_rel_ebd": 1}, "'norm_rel_ebd' is 1; expected a string"),
        ({"pooler_hidden_size": 16}, "'pooler_hidden_size' is 16; supported: 32"),
        ({"pooler_hidden_act": "laplace"}, "'pooler_hidden_act' is 'laplace'; supported: "),
    ],
)
def test_a_bad_field_is_named(fields, says, tmp_path):
    folder = copy_of("deberta_v3_classifier", tmp_path)
    edit_config(folder, **fields)
    with pytest.raises(ModelLoadError) as caught:
        build(folder, "sequence-classification")
    assert str(caught.value).startswith(f"{folder / 'config.json'}: field ")
    assert says in str(caught.value)


def test_texts_may_be_longer_than_the_buckets_reach(tmp_path):
    """Nothing limits them where positions are not embedded: farther tokens share the last bucket."""
    session = load(FIXTURES / "deberta_v3_classifier")
    feeds = inputs_of(EXPECTED["deberta_v3_classifier"]["longest"])
    long = {key: np.tile(values, 5) for key, values in feeds.items()}
    (states,) = session.run(None, long)
    assert np.isfinite(states).all()
    assert np.abs(states[:, 0] - states[:, 40]).max() > 1e-3


@pytest.mark.parametrize("name", ["deberta_v2", "deberta_v3_classifier"])
def test_positions_are_projected_once_when_the_model_is_loaded(name, tmp_path):
    load(FIXTURES / name, optimized=tmp_path / "optimized.onnx")
    graph = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    layers, per_layer = 2, 6  # queries, keys, values, output, and two of the feed-forward block
    assert sum(node.op_type in ("Gemm", "FusedGemm") for node in graph.node) == layers * per_layer
    assert "GatherElements" not in {node.op_type for node in graph.node}
