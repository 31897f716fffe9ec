import pytest
from conftest import REAL
from support import tiny_models

from fastrank import LateInteractionTextEmbedding, ModelSource, PoolingType, TextCrossEncoder, TextEmbedding
from fastrank.engine import shared

TINY = "acme/tiny"


@pytest.fixture(autouse=True)
def _no_shared_models(monkeypatch):
    monkeypatch.setattr(shared, "_models", {})


@pytest.fixture
def tiny_cross_encoder(tmp_path):
    """Constructor arguments of a tiny cross-encoder. Its weights are random: it shows wiring, not relevance."""
    TextCrossEncoder.add_custom_model(TINY, ModelSource(hf=TINY), max_length=64)
    folder = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
    return {"model_name": TINY, "specific_model_path": str(folder)}


@pytest.fixture
def tiny_dense(tmp_path):
    """Constructor arguments of a tiny model with random weights and prefixes."""
    prefixes = {"query_prefix": "query: ", "passage_prefix": "passage: "}
    TextEmbedding.add_custom_model(
        TINY, PoolingType.MEAN, True, ModelSource(hf=TINY), dim=tiny_models.DIM, max_length=64, **prefixes
    )
    folder = tiny_models.write_model(tmp_path / "dense", tiny_models.tiny_encoder())
    return {"model_name": TINY, "specific_model_path": str(folder)}


@pytest.fixture
def tiny_late(tmp_path):
    """Constructor arguments of a tiny late interaction model with random weights."""
    LateInteractionTextEmbedding.add_custom_model(
        TINY, ModelSource(hf=TINY), dim=tiny_models.DIM, max_length=64, projection=False
    )
    folder = tiny_models.write_model(tmp_path / "late", tiny_models.tiny_encoder())
    return {"model_name": TINY, "specific_model_path": str(folder)}


@pytest.fixture
def real(real_model_folder):
    """Constructor arguments of the real all-MiniLM-L6-v2, dense or as token vectors."""
    return {"model_name": REAL, "specific_model_path": str(real_model_folder)}
