"""Models pickle as their configuration, and load their weights where they arrive."""

import ast
import copy
import pickle

import numpy as np
import pytest
from support import tiny_models
from support.processes import run_python

from fastrank import (
    LateInteractionTextEmbedding,
    ModelSource,
    PoolingType,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)

TEXTS = ["the cat", "fast red dog", ""]


@pytest.fixture
def models(tmp_path, tiny):
    """By name: a model, and what it computes."""
    TextCrossEncoder.add_custom_model("acme/pairs", ModelSource(hf="acme/pairs"))
    LateInteractionTextEmbedding.add_custom_model("acme/late", ModelSource(hf="acme/late"), dim=16)
    pairs = tiny_models.write_model(tmp_path / "pairs", tiny_models.tiny_cross_encoder())
    return {
        "dense": (
            TextEmbedding("any/tiny", specific_model_path=tiny, pooling=PoolingType.MEAN, threads=1),
            lambda model: np.stack(list(model.embed(TEXTS))),
        ),
        "late": (
            LateInteractionTextEmbedding("acme/late", specific_model_path=tiny),
            lambda model: np.concatenate(list(model.embed(TEXTS[:2]))),
        ),
        "cross-encoder": (
            TextCrossEncoder("acme/pairs", specific_model_path=pairs, max_length=20),
            lambda model: list(model.rerank("cat", TEXTS)),
        ),
        "bm25": (
            SparseTextEmbedding("Qdrant/bm25", language="german", idf=True).fit(["der Hund", "die Katze"]),
            lambda model: [vector.as_dict() for vector in model.embed(["Hunde und Katzen"])],
        ),
    }


KINDS = pytest.mark.parametrize("kind", ["dense", "late", "cross-encoder", "bm25"])


@KINDS
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, *(lambda model, n=n: pickle.loads(pickle.dumps(model, n)) for n in (2, 5))],  # noqa: S301
    ids=["copy", "deepcopy", "pickle 2", "pickle 5"],
)
def test_a_copy_is_a_model_of_its_own(models, kind, copied):
    model, run = models[kind]
    expected = run(model)
    other = copied(model)
    assert type(other) is type(model)
    assert other.model_name == model.model_name
    other.close()
    np.testing.assert_equal(run(model), expected)
    np.testing.assert_equal(run(copied(model)), expected)


def test_weights_are_not_pickled(models):
    model, run = models["dense"]
    run(model)
    assert len(pickle.dumps(model)) < 2_000


@KINDS
def test_a_closed_or_lazy_model_pickles_too(models, kind):
    model, run = models[kind]
    expected = run(model)
    model.close()
    np.testing.assert_equal(run(pickle.loads(pickle.dumps(model))), expected)  # noqa: S301 - our own


@KINDS
def test_another_process_takes_a_model_also_a_custom_one(models, kind):
    model, run = models[kind]
    expected, text = run(model), pickle.dumps(model)
    code = f"""
import pickle, sys
model = pickle.loads({text!r})
texts = {TEXTS!r}
if {kind!r} == "cross-encoder":
    print(list(model.rerank("cat", texts)))
elif {kind!r} == "bm25":
    print([vector.as_dict() for vector in model.embed(["Hunde und Katzen"])])
else:
    print([vector.tolist() for vector in model.embed(texts[: 2 if {kind!r} == "late" else 3])])
"""
    found = ast.literal_eval(run_python("-c", code, check=True).stdout)
    if kind == "late":
        found = np.concatenate(found)
    elif kind == "dense":
        found = np.stack(found).astype(np.float32)
    np.testing.assert_equal(found, expected)
