"""LateInteractionTextEmbedding and Muvera as FastEmbed's tests use them."""

import numpy as np
import pytest
from fastembed import LateInteractionTextEmbedding
from fastembed.postprocess import Muvera

COLBERT, SMALL = "colbert-ir/colbertv2.0", "answerdotai/answerai-colbert-small-v1"
TEXTS = ["Hello World", "", "What, where? The cat's red!", "cat " * 200]


@pytest.mark.parametrize(("name", "dim"), [(COLBERT, 128), (SMALL, 96)])
def test_vectors(name, dim, record):
    model = LateInteractionTextEmbedding(name)
    for method in ("embed", "query_embed", "passage_embed"):
        vectors = list(getattr(model, method)(TEXTS))
        assert all(each.shape[1] == dim for each in vectors)
        record(method, vectors)
    (alone,) = model.embed(TEXTS[0])
    for each in model.embed(TEXTS[:1] * 10, batch_size=6):
        np.testing.assert_allclose(each, alone, atol=1e-4)
    assert model.embedding_size == LateInteractionTextEmbedding.get_embedding_size(name.upper()) == dim


def test_workers_give_the_same():
    model, texts = LateInteractionTextEmbedding(COLBERT), ["hello world", "flag embedding"] * 10
    one, two = (list(model.embed(texts, batch_size=5, parallel=n)) for n in (None, 2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_lazy_model_is_loaded_when_it_is_used():
    model = LateInteractionTextEmbedding(SMALL, lazy_load=True)
    assert not hasattr(model.model, "model")
    list(model.query_embed(TEXTS[:1]))
    assert hasattr(model.model, "model")


def test_session():
    model = LateInteractionTextEmbedding(SMALL, enable_cpu_mem_arena=False)
    assert model.model.model.get_session_options().enable_cpu_mem_arena is False


@pytest.mark.parametrize("is_doc", [True, False])
@pytest.mark.parametrize("include_extension", [True, False])
def test_token_count(is_doc, include_extension, record):
    model = LateInteractionTextEmbedding(SMALL)
    counts = [model.token_count(text, is_doc=is_doc, include_extension=include_extension) for text in TEXTS]
    assert model.token_count(TEXTS, 1, is_doc, include_extension) == sum(counts)
    record("counts", counts)


def test_muvera(record):
    model = LateInteractionTextEmbedding(SMALL, lazy_load=True)
    muvera = Muvera.from_multivector_model(model, k_sim=3, dim_proj=8, r_reps=4)
    record("size", muvera.embedding_size)
    record("document", muvera.process_document(next(iter(model.embed(TEXTS[2])))))
    record("query", muvera.process_query(next(iter(model.query_embed(TEXTS[2])))))
