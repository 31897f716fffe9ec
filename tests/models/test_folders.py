"""Folders whose files differ in one field: our numbers change as sentence-transformers' do, or the folder is refused.

`cases.json` beside each model is written by tests/fixtures/make/folders.py and its sisters.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import support
from support.scripts import script

from fastrank import LateInteractionTextEmbedding, SparseTextEmbedding, TextCrossEncoder, TextEmbedding
from fastrank.errors import ModelLoadError

FOLDERS = support.FIXTURES / "folders"
CLASSES = {
    "multi_vector": LateInteractionTextEmbedding,
    "pylate": LateInteractionTextEmbedding,
    "colbert": LateInteractionTextEmbedding,
    "sparse": SparseTextEmbedding,
    "inference_free": SparseTextEmbedding,
    "cross_encoder": TextCrossEncoder,
}
change = script("folder_cases", support.FIXTURES / "make").change
ANSWERS = {path.parent.name: json.loads(path.read_text()) for path in sorted(FOLDERS.glob("*/cases.json"))}
CASES = [pytest.param(kind, case, id=f"{kind}: {case['name']}") for kind in ANSWERS for case in ANSWERS[kind]["cases"]]


def outputs(kind, folder):
    """What we compute, under the names of the reference's answers."""
    if kind == "cross_encoder":
        scores = {}
        for activation in ("auto", "none"):
            with TextCrossEncoder("any/name", specific_model_path=folder, activation=activation) as model:
                scores[activation] = list(model.rerank_pairs([tuple(pair) for pair in ANSWERS[kind]["pairs"]]))
        return scores
    texts = ANSWERS[kind]["texts"]
    with CLASSES.get(kind, TextEmbedding)("any/name", specific_model_path=folder) as model:
        found = {name: list(getattr(model, name)(texts)) for name in ("embed", "query_embed", "passage_embed")}
    if CLASSES.get(kind) is SparseTextEmbedding:
        return {name: [dense(kind, vector) for vector in vectors] for name, vectors in found.items()}
    return found


def dense(kind, vector):
    row = np.zeros(len(ANSWERS[kind]["cases"][0]["embed"][0]))
    row[vector.indices] = vector.values
    return row


def in_order(kind, rows):
    """Pooled tokens in one order: clusters have none."""
    rows = np.asarray(rows)
    return rows[np.lexsort(rows.round(4).T)] if kind == "multi_vector" and len(rows) else rows


NONE = ("missing", "null")
# Folders that the reference takes and we refuse: what they ask for is not applied here, and never passed over.
# Without the numbers of modules and the routes before them.
REFUSED = {
    "Dense/config.json bias null",
    'Dense/config.json {"activation_function": "torch.nn.modules.activation.Tanhshrink"}',
    'Dense/config.json {"module_output_name": "sentence_embedding"}',
    'MultiVectorMask/config.json {"keep_only_token_ids": [7, 8, 9]}',
    "Normalize/config.json module_input_name null",
    'Normalize/config.json {"module_output_name": "sentence_embedding"}',
    'Normalize/config.json {"module_output_name": "token_embeddings"}',
    # PyLate gives a token that the vocabulary lacks a vector of chance.
    *(f"config_sentence_transformers.json {text}_prefix {what}" for text in ("query", "document") for what in NONE),
    'config_sentence_transformers.json {"document_prefix": "[Q] ", "query_prefix": "[unused1]"}',
    'config_sentence_transformers.json {"something_else": 1}',
    "artifact.metadata dim missing",
    "artifact.metadata dim null",
    'artifact.metadata {"dim": 4}',
    'artifact.metadata {"similarity": "other"}',
    "config_sentence_transformers.json model_type null",
    'config_sentence_transformers.json {"activation_fn": "torch.nn.modules.activation.Tanh"}',
    'router_config.json {"more": 1}',
    'router_config.json {"parameters.route_mappings": {"anything": "query"}}',
    'sentence_bert_config.json {"config_args": {"hidden_act": "relu"}}',
    'sentence_bert_config.json {"processing_kwargs": {"text": {"add_special_tokens": false}}}',
    "the average later",
    "tokenizer_config.json add_prefix_space null",
}
OF_BERT = {f"tokenizer_config.json {name}_token null" for name in ("cls", "sep", "unk")}
OF_TOKENS = ("multi_vector", "layers")  # whose Normalize says that it reads them
# model2vec reads config.json, sentence-transformers modules.json.
DISAGREE = {
    "config.json normalize missing",
    'config.json {"normalize": "<null>"}',
    "a Normalize that config.json does not want",
    "no Normalize though config.json wants one",
}
WITHOUT_CLASS = (
    "multi_vector",
    "sparse",
    "roberta",
    "xlm_roberta",
    "pylate",
    "colbert",
    "white_space",
)  # or of another
# Here the reference puts a new module behind, with weights of chance; or is a version of which the folder does not say
# that it saved it: sentence-transformers 5, which always removes white space.
OTHERS_ANSWER = {
    ("inference_free", "config_sentence_transformers.json model_type missing"),
    ("white_space", "config_sentence_transformers.json __version__ missing"),
    ("colbert", 'artifact.metadata {"mask_punctuation": false}'),  # PyLate passes it over; ColBERT, which wrote it, not
}


def is_refused(kind, name):
    name = re.sub(r"^(?:[a-z]+_)?\d_(?:(?:Transformer|SparseStaticEmbedding|Router)/(?!config\.json))?", "", name)
    if kind == "model2vec" and (name in DISAGREE or re.match(r"modules\.json \d\.(path|type) ", name)):
        return True
    if kind in OF_TOKENS and name == "Normalize/config.json module_input_name missing":
        return True
    return name in REFUSED or (kind not in WITHOUT_CLASS and name in OF_BERT)


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_a_changed_folder_gives_the_references_numbers_or_is_refused(tmp_path, kind, case):
    folder = Path(shutil.copytree(FOLDERS / kind, tmp_path / "folder", copy_function=shutil.copyfile))
    change(folder, case["files"])
    refused = is_refused(kind, case["name"])
    try:
        found = outputs(kind, folder)
    except (ModelLoadError, ValueError):
        assert refused or "error" in case
        return
    assert not refused or "error" in case
    expected = case if "as" not in case else next(each for each in ANSWERS[kind]["cases"] if each["name"] == case["as"])
    if (kind, case["name"]) in OTHERS_ANSWER:
        return
    for name in expected.keys() & found.keys():
        assert len(found[name]) == len(expected[name])
        for ours, theirs in zip(found[name], expected[name], strict=True):
            np.testing.assert_allclose(in_order(kind, ours), in_order(kind, theirs), atol=1e-5)
