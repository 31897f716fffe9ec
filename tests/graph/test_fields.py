"""No field of a configuration is skipped in silence: it is read, known to change nothing, or refused by name."""

import json

import pytest
from support.checkpoints import FIXTURES, NAMES, build, copy_of, edit_config, heads_of

from fastrank import graph
from fastrank.errors import ModelLoadError
from fastrank.graph import IGNORED_FIELDS

UNUSED = {
    "max_position_embeddings": lambda _: True,  # positions are no table
    "_sliding_window_pattern": lambda config: "layer_types" in config,
    "sliding_window_pattern": lambda config: "layer_types" in config,
    "max_window_layers": lambda config: "layer_types" in config,  # which says more
    "sliding_window": lambda config: "sliding_attention" not in config["layer_types"],
    "use_sliding_window": lambda config: "sliding_attention" not in config["layer_types"],
}
"""Fields that are read and checked, and when they have no effect."""
OTHERS = (True, 3, 0.25, "x", ["x"], {"x": 1})


def architecture_of(name):
    return graph._architecture(json.loads((FIXTURES / name / "config.json").read_text())["model_type"])


SWEPT = [(name, next(heads_of(name))) for name in NAMES if hasattr(architecture_of(name), "IGNORED_FIELDS")]


@pytest.mark.parametrize(("name", "head"), SWEPT)
def test_every_field_is_read_ignored_on_purpose_or_refused(name, head, tmp_path):
    folder = copy_of(name, tmp_path)
    stored, expected = (folder / "config.json").read_text(), build(folder, head)
    config = json.loads(stored)
    ignored = IGNORED_FIELDS | architecture_of(name).IGNORED_FIELDS
    ignored |= {field for field, is_unused in UNUSED.items() if field in config and is_unused(config)}
    for field in config.keys() - ignored:
        for value in (value for value in OTHERS if value != config[field]):
            (folder / "config.json").write_text(stored)
            edit_config(folder, **{field: value})
            try:
                assert build(folder, head) != expected, (field, value)
            except ModelLoadError as error:
                assert "field '" in str(error) or "tensor" in str(error), field  # noqa: PT017


@pytest.mark.parametrize("value", [True, False, 7, 0, "x", ["x"], {"x": 1}])
@pytest.mark.parametrize(("name", "head"), SWEPT)
def test_an_unknown_field_is_refused_by_name(name, head, value, tmp_path):
    folder = copy_of(name, tmp_path)
    edit_config(folder, residual_scale=value)
    with pytest.raises(ModelLoadError, match=r"field 'residual_scale' is .*fastrank does not know this field"):
        build(folder, head)


@pytest.mark.parametrize("value", [None, "", [], {}])
@pytest.mark.parametrize(("name", "head"), SWEPT)
def test_an_unknown_field_that_asks_for_nothing_is_taken(name, head, value, tmp_path):
    folder = copy_of(name, tmp_path)
    expected = build(folder, head)
    edit_config(folder, residual_scale=value)
    assert build(folder, head) == expected


@pytest.mark.parametrize("name", [name for name, _ in SWEPT])
def test_ignored_fields_change_nothing(name, tmp_path):
    folder = copy_of(name, tmp_path)
    expected = build(folder)
    ignored = (IGNORED_FIELDS | architecture_of(name).IGNORED_FIELDS) - {"model_type", "auto_map"}
    edit_config(folder, **dict.fromkeys(ignored, 1))
    assert build(folder) == expected


@pytest.mark.parametrize(
    "name", [name for name, _ in SWEPT if "rope_parameters" in (FIXTURES / name / "config.json").read_text()]
)
def test_an_unknown_field_of_the_rotary_section_is_refused(name, tmp_path):
    folder = copy_of(name, tmp_path)
    rotary = json.loads((folder / "config.json").read_text())["rope_parameters"]
    edit_config(folder, rope_parameters=rotary | {"attention_factor": 0.5})
    with pytest.raises(
        ModelLoadError, match=r"field 'rope_parameters\.attention_factor' is 0\.5; fastrank does not know"
    ):
        build(folder)


@pytest.mark.parametrize("name", ["gte_classifier", "qwen3", "eurobert_classifier"])
def test_a_rotation_of_a_part_of_each_head_is_refused(name, tmp_path):
    folder = copy_of(name, tmp_path)
    expected = build(folder)
    rotary = json.loads((folder / "config.json").read_text())["rope_parameters"]
    edit_config(folder, rope_parameters=rotary | {"partial_rotary_factor": 1.0})
    assert build(folder) == expected
    edit_config(folder, rope_parameters=rotary | {"partial_rotary_factor": 0.5})
    with pytest.raises(ModelLoadError, match=r"'rope_parameters\.partial_rotary_factor' is 0\.5; supported: 1, 1\.0"):
        build(folder)


def test_both_names_of_rope_scaling_mean_the_same(tmp_path):
    folder = copy_of("new_masked_lm", tmp_path)
    expected = build(folder)
    edit_config(folder, rope_scaling=None, rope_parameters={"rope_type": "ntk", "factor": 2.5, "rope_theta": 500.0})
    assert build(folder) == expected
    edit_config(folder, rope_parameters={"rope_type": "ntk", "factor": 1.5, "rope_theta": 500.0})
    assert build(folder) != expected
    edit_config(folder, rope_parameters={"rope_type": "yarn", "factor": 2.5})
    with pytest.raises(
        ModelLoadError, match=r"field 'rope_parameters\.rope_type' is 'yarn'; supported: 'default', 'ntk'"
    ):
        build(folder)


@pytest.mark.parametrize(("model_type", "theta"), [("new", 10_000.0), ("gte", 160_000.0)])
def test_the_default_rotary_base_of_gte_depends_on_who_saved_it(model_type, theta, tmp_path):
    folder = copy_of("new", tmp_path)
    edit_config(folder, model_type=model_type, rope_theta=theta)
    expected = build(folder)
    edit_config(folder, rope_theta=...)
    assert build(folder) == expected
