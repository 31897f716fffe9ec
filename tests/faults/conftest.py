"""Models for the rows that need one."""

import pytest
from support import pinned_model

from fastrank import ModelSource, PoolingType, SparseTextEmbedding, TextEmbedding
from fastrank.models import registry
from fastrank.models.spec import TEXT_EMBEDDING, DenseTask


@pytest.fixture
def dense(hub, monkeypatch):
    """acme/tiny as an entry of the registry, pinned, with its files in the hub."""
    commit = hub.add_repo(pinned_model.REPO, pinned_model.FILES)
    spec = pinned_model.entry(commit, tasks={TEXT_EMBEDDING: DenseTask(16, "mean", normalize=True)})
    monkeypatch.setitem(registry._custom, (pinned_model.REPO, TEXT_EMBEDDING), spec)
    return spec


@pytest.fixture
def custom():
    """acme/tiny as a custom model: nothing says what its files should be."""

    def add(dim=16, pooling=PoolingType.MEAN):
        source = ModelSource(hf=pinned_model.REPO)
        TextEmbedding.add_custom_model(pinned_model.REPO, pooling, True, source, dim, max_length=64)
        return pinned_model.REPO

    return add


@pytest.fixture
def model(custom, tiny):
    with TextEmbedding(custom(), specific_model_path=tiny, threads=2) as loaded:
        yield loaded


@pytest.fixture
def bm25():
    return SparseTextEmbedding("Qdrant/bm25")
