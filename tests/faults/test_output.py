"""Rows O1 to O3: what a model may return."""

import numpy as np
import pytest
from support import tiny_models

from fastrank import (
    LateInteractionTextEmbedding,
    ModelSource,
    PoolingType,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)
from fastrank.engine.session import Session
from fastrank.errors import ModelLoadError, OutputError


@pytest.fixture
def returning(monkeypatch):
    """Make the model return this number everywhere for texts of four tokens."""

    def patch(number, real=Session.run):
        def run(self, batch, *arguments, **options):
            states = real(self, batch, *arguments, **options)
            states[batch.mask.sum(axis=1) == 4] = number
            return states

        monkeypatch.setattr(Session, "run", run)

    return patch


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_o1_nan_and_infinity_name_the_text(model, returning, number):
    returning(number)
    texts = ["cat"] * 300 + ["red cat"] + ["cat"]
    with pytest.raises(OutputError, match=r"NaN or infinity for documents\[300\]"):
        list(model.embed(texts))


def test_o1_of_the_model_itself(custom, tmp_path):
    folder = tiny_models.write_model(tmp_path / "nan", tiny_models.tiny_encoder(nan=True))
    with (
        TextEmbedding(custom(), specific_model_path=folder) as model,
        pytest.raises(OutputError, match=r"documents\[1\]"),
    ):
        list(model.embed(["cat", "nan"]))


def test_o2_a_zero_vector_stays_zero_without_a_warning(model, returning):
    returning(0.0)
    cat, nothing = model.embed(["cat", "red cat"])  # warnings are errors here
    assert np.linalg.norm(cat) == pytest.approx(1)
    assert nothing.tolist() == [0.0] * 16


def test_o3_another_dim_than_stated_is_found_at_the_first_run(custom, tiny):
    model = TextEmbedding(custom(dim=32), specific_model_path=tiny)
    with pytest.raises(ModelLoadError, match="returns 16-dimensional vectors; expected 32"):
        list(model.embed("x"))


def test_o3_another_rank_than_the_pooling_takes(custom, tmp_path):
    folder = tiny_models.write_model(tmp_path / "pooled", tiny_models.tiny_pooled())
    model = TextEmbedding(custom(pooling=PoolingType.MEAN), specific_model_path=folder)
    with pytest.raises(ModelLoadError, match=r"output has shape \(1, 16\), which its pooling cannot take"):
        list(model.embed("x"))


SHAPES = [(), (0,), (1,), (7,), (2, 0), (2, 3), (3, 2, 16), (2, 1, 16), (2, 3, 0), (2, 0, 16), (2, 2, 3, 3), (2, 12, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("task", ["dense", "cls", "late", "splade", "bm42", "pairs"])
def test_o4_outputs_of_odd_shapes_are_model_errors(tiny, tmp_path, monkeypatch, task, shape):
    """Never an IndexError of numpy's, and never a result where the shape is wrong."""
    LateInteractionTextEmbedding.add_custom_model("odd/late", ModelSource(hf="odd/late"), dim=16)
    TextCrossEncoder.add_custom_model("odd/pairs", ModelSource(hf="odd/pairs"))
    pairs = tiny_models.write_model(tmp_path, tiny_models.tiny_cross_encoder())
    calls = {
        "dense": lambda: TextEmbedding("odd/a", specific_model_path=tiny, pooling=PoolingType.MEAN).embed(TWO),
        "cls": lambda: TextEmbedding("odd/a", specific_model_path=tiny, pooling=PoolingType.CLS).embed(TWO),
        "late": lambda: LateInteractionTextEmbedding("odd/late", specific_model_path=tiny).embed(TWO),
        "splade": lambda: SparseTextEmbedding("odd/sparse", specific_model_path=tiny).embed(TWO),
        "bm42": lambda: SparseTextEmbedding("Qdrant/bm42-all-minilm-l6-v2-attentions", specific_model_path=tiny).embed(
            TWO
        ),
        "pairs": lambda: TextCrossEncoder("odd/pairs", specific_model_path=pairs).rerank("cat", TWO),
    }
    monkeypatch.setattr(Session, "run", lambda *_args, **_options: np.ones(shape, np.float32))
    fits = (task == "cls" and shape == (2, 3)) or (task in ("dense", "cls") and shape in ((2, 3, 0), (2, 1, 16)))
    try:
        found = list(calls[task]())
    except ModelLoadError:
        return
    assert len(found) == 2
    assert fits or shape[0] == 2, (task, shape)


TWO = ["cat", "dog"]
