"""The tables of fields, walked both ways: what is applied is read, what is read is in a table; docs show them."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import support

from fastrank.errors import ModelLoadError
from fastrank.models import (
    colbert,
    encoder_config,
    fields,
    multi_vector,
    router,
    sentence_transformers,
    sparse_encoder,
    tokenization,
)
from fastrank.models.config import Config

FOLDERS = support.FIXTURES / "folders"
FILES = {
    "modules.json": fields.MODULES,
    "sentence_bert_config.json": fields.TRANSFORMER,
    "config_sentence_transformers.json": fields.SENTENCE_TRANSFORMERS,
    "tokenizer_config.json": fields.TOKENIZER,
    "artifact.metadata": fields.COLBERT,
    "1_Pooling/config.json": fields.POOLING,
    "2_Dense/config.json": fields.DENSE,
    "1_Dense/config.json": fields.DENSE,
    "3_LayerNorm/config.json": fields.LAYER_NORM,
    "4_Normalize/config.json": fields.NORMALIZE,
    "3_Normalize/config.json": fields.NORMALIZE,
    "1_SpladePooling/config.json": fields.SPLADE_POOLING,
    "router_config.json": fields.ROUTER,
    "router_config.json: parameters": fields.ROUTER_PARAMETERS,
    "1_WeightedLayerPooling/config.json": fields.WEIGHTED_LAYERS,
    "query_0_SparseStaticEmbedding/config.json": fields.SPARSE_STATIC,
    "2_MultiVectorMask/config.json": fields.MULTI_VECTOR_MASK,
    "4_HierarchicalTokenPooling/config.json": fields.TOKEN_POOLING,
}
# Read from the file by their own means, not by a getter.
READ_OTHERWISE = {("modules.json", "type"), ("modules.json", "path"), ("1_Pooling/config.json", "pooling_mode")}
READ_OTHERWISE |= {("sentence_bert_config.json", name) for name in ("max_seq_length", "do_lower_case")}
READ_OTHERWISE |= {("tokenizer_config.json", "model_max_length")}


@pytest.fixture
def read(monkeypatch, tmp_path):
    """(file, field) of all that is read of the fixtures' folders."""
    found = set()
    get = Config._get

    def recorded(config, field, default):
        if not config._within or config._within == "parameters.":
            path = config.path
            name = path.name if not re.match(r"(\w+_)?\d_", path.parent.name) else f"{path.parent.name}/{path.name}"
            found.add((name + (": parameters" if config._within else ""), field))
        return get(config, field, default)

    monkeypatch.setattr(Config, "_get", recorded)
    for kind in ("dense", "roberta", "xlm_roberta", "multi_vector", "cross_encoder", "sparse"):
        tokenization.read(FOLDERS / kind)
    sentence_transformers.pooled(FOLDERS / "dense")
    multi_vector.read(FOLDERS / "multi_vector")
    sparse_encoder.read(FOLDERS / "sparse")
    sparse_encoder.read(FOLDERS / "inference_free", "query")
    for name in ("layers", "router"):
        sentence_transformers.pooled(FOLDERS / name, router.route(FOLDERS / name))
    encoder_config.encoder(FOLDERS / "cross_encoder", "CrossEncoder")
    for name in ("pylate_bert", "pylate_modernbert", "colbert"):
        colbert.read("x", support.FIXTURES / "late_interaction" / name)
    old = Path(shutil.copytree(FOLDERS / "dense", tmp_path / "old", copy_function=shutil.copyfile))
    (old / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16}))
    sentence_transformers.pooled(old)
    return found


def test_every_applied_field_is_read(read):
    by_table = {}
    for name, table in FILES.items():
        by_table.setdefault(id(table), set()).update(field for file, field in read | READ_OTHERWISE if file == name)
    for table in FILES.values():
        assert set(table.applied) - by_table[id(table)] == set(), table.file


def test_every_field_that_is_read_is_in_a_table(read):
    for name, field in read:
        if name in FILES:
            table = FILES[name]
            assert field in {*table.applied, *table.harmless, *table.refused}, (name, field)


def test_no_field_is_in_two_groups():
    for table in fields.ALL:
        groups = [set(table.applied), set(table.harmless), set(table.refused)]
        assert sum(map(len, groups)) == len(set.union(*groups)), table.file


@pytest.mark.parametrize("name", [*FILES])
def test_an_unknown_field_is_refused_by_file_and_name(tmp_path, name):
    if name == "modules.json" or FILES[name].others:
        return
    path = tmp_path / Path(name).name
    path.write_text(json.dumps({"brand_new": 1}))
    with pytest.raises(ModelLoadError, match=rf"{path.name}: field 'brand_new' is 1; fastrank does not know"):
        Config.read(path).known(FILES[name])


def test_halves_of_characters_are_refused(tmp_path):
    """No tokenizer takes them, so that they would be an error at each text."""
    path = tmp_path / "config_sentence_transformers.json"
    path.write_text('{"prompts": {"query": "\\ud83d\\ude00"}}')
    assert Config.read(path).section("prompts").string("query") == "\U0001f600"
    path.write_text('{"prompts": {"query": "\\uD83D"}}')
    with pytest.raises(ModelLoadError, match=r"config_sentence_transformers\.json: not valid JSON: .*surrogates"):
        Config.read(path)


def test_docs_have_the_tables():
    sys.path.insert(0, str(support.ROOT / "scripts"))
    import folders_table

    page = folders_table.PAGE.read_text(encoding="utf-8")
    assert folders_table.written(page) == page, "run python scripts/folders_table.py"
