"""Lists of models, models of one's own, and what else FastEmbed's modules offer."""

import importlib.metadata

import fastembed
import numpy as np
import pytest
from fastembed import (
    ImageEmbedding,
    LateInteractionMultimodalEmbedding,
    LateInteractionTextEmbedding,
    SparseTextEmbedding,
    TextEmbedding,
)
from fastembed.common.model_description import BaseModelDescription, DenseModelDescription, ModelSource, PoolingType
from fastembed.common.utils import iter_batch, last_token_pooling, mean_pooling, normalize
from fastembed.rerank.cross_encoder import TextCrossEncoder

E5, MINILM = "intfloat/multilingual-e5-small", "sentence-transformers/all-MiniLM-L6-v2"
L4, L6 = "Xenova/ms-marco-MiniLM-L-4-v2", "Xenova/ms-marco-MiniLM-L-6-v2"
TEXTS = ["hello world", "flag embedding"]
STATES = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
RIGHT, LEFT = np.array([[1, 1, 0, 0], [1, 1, 1, 1]]), np.array([[0, 0, 1, 1], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    "kind",
    [
        *(TextEmbedding, SparseTextEmbedding, LateInteractionTextEmbedding, TextCrossEncoder),
        *(ImageEmbedding, LateInteractionMultimodalEmbedding),
    ],
)
def test_lists(kind):
    rows, objects = kind.list_supported_models(), kind._list_supported_models()
    assert [row["model"] for row in rows] == [each.model for each in objects]
    for row, each in zip(rows, objects, strict=True):
        assert isinstance(each, BaseModelDescription)
        assert each.sources.hf == row["sources"]["hf"]
        assert (each.size_in_GB, each.model_file) == (row["size_in_GB"], row["model_file"])
        if "dim" in row:
            assert isinstance(each, DenseModelDescription)
            assert each.dim == row["dim"] == kind.get_embedding_size(each.model)


@pytest.mark.parametrize("normalization", [True, False])
@pytest.mark.parametrize("pooling", [PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST_TOKEN])
def test_custom_models(pooling, normalization, record):
    name = f"acme/{pooling.name}-{normalization}"
    TextEmbedding.add_custom_model(name, pooling, normalization, ModelSource(hf=E5), dim=384, size_in_gb=0.47)
    model = TextEmbedding(name)
    record("embed", list(model.embed(TEXTS)))
    record("size", [model.embedding_size, TextEmbedding.get_embedding_size(name.upper())])
    (own,) = [each for each in TextEmbedding._list_supported_models() if each.model == name]
    assert (own.sources, own.dim, own.additional_files) == (ModelSource(hf=E5), 384, [])
    with pytest.raises(ValueError, match=f"Model {name} is already registered in TextEmbedding"):
        TextEmbedding.add_custom_model(name, pooling, normalization, ModelSource(hf=E5), 384)


def test_only_names_that_fastembed_ships_are_taken(record):
    with pytest.raises(ValueError, match=f"Model {MINILM} is already registered"):
        TextEmbedding.add_custom_model(MINILM, PoolingType.MEAN, True, ModelSource(hf=MINILM), 384)
    TextEmbedding.add_custom_model(
        E5, pooling=PoolingType.CLS, normalization=False, sources=ModelSource(hf=E5), dim=384
    )
    record("replaced", list(TextEmbedding(E5).embed(TEXTS)))
    assert [row["model"] for row in TextEmbedding.list_supported_models()].count(E5) == 1
    with pytest.raises(ValueError, match=f"Model {L6} is already registered"):
        TextCrossEncoder.add_custom_model(L6, sources=ModelSource(hf=L6), size_in_gb=0.08)
    TextCrossEncoder.add_custom_model(L4, sources=ModelSource(hf=L4), size_in_gb=0.08)
    record("scores", list(TextCrossEncoder(L4).rerank_pairs([("What is AI?", "Artificial intelligence is ...")])))
    with pytest.raises(ValueError, match=f"Model {L4} is already registered"):
        TextCrossEncoder.add_custom_model(L4, sources=ModelSource(hf=L4))


def test_poolings(record):
    record("mean", [mean_pooling(STATES, mask) for mask in (RIGHT, LEFT)])
    record("last", [last_token_pooling(STATES, mask) for mask in (RIGHT, LEFT)])
    record("normalized", [normalize(STATES[:, 0]), normalize(STATES[:, 0].astype(np.float16) * 300)])
    assert list(iter_batch([1, 2, 3, 4, 5], 3)) == [[1, 2, 3], [4, 5]]
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        iter_batch([1], 0)


def test_version():
    assert importlib.metadata.version("fastembed") == fastembed.__version__ == fastembed.version
    assert importlib.metadata.metadata("FastEmbed")["Name"] == "fastembed"
    assert set(fastembed.__all__) <= set(dir(fastembed))
