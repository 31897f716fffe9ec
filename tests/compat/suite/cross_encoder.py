"""TextCrossEncoder as FastEmbed's tests use it."""

import numpy as np
import pytest
from fastembed.rerank.cross_encoder import TextCrossEncoder

NAME = "Xenova/ms-marco-MiniLM-L-6-v2"
QUERY = "What is the capital of France?"
DOCUMENTS = ["Paris is the capital of France.", "Berlin is the capital of Germany.", "", "cat " * 700]
PAIRS = [(QUERY, document) for document in DOCUMENTS]


@pytest.fixture(scope="module")
def model():
    return TextCrossEncoder(NAME.lower())


def test_scores(model, record):
    scores = list(model.rerank(QUERY, DOCUMENTS))
    assert all(type(score) is float for score in scores)
    for batch_size in (1, 3, 64):
        np.testing.assert_allclose(list(model.rerank_pairs(PAIRS, batch_size=batch_size)), scores, atol=1e-5)
    np.testing.assert_allclose(list(model.rerank(QUERY, DOCUMENTS * 5, batch_size=3)), scores * 5, atol=1e-5)
    np.testing.assert_allclose(list(model.rerank(QUERY, iter(DOCUMENTS), parallel=2)), scores, atol=1e-5)
    record("scores", scores)
    assert list(model.rerank(QUERY, [])) == []


def test_workers_give_the_same(model):
    one, two = (list(model.rerank_pairs(PAIRS * 5, batch_size=10, parallel=n)) for n in (None, 2))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_lazy_model_is_loaded_when_it_is_used():
    lazy = TextCrossEncoder(model_name=NAME, lazy_load=True)
    assert not hasattr(lazy.model, "model")
    list(lazy.rerank(QUERY, DOCUMENTS))
    assert hasattr(lazy.model, "model")


def test_token_count(model, record):
    counts = [model.token_count([pair]) for pair in PAIRS]
    assert model.token_count(PAIRS) == model.token_count(PAIRS, batch_size=1) == sum(counts)
    record("counts", counts)


def test_session():
    assert TextCrossEncoder(NAME).model.model.get_session_options().enable_cpu_mem_arena is True
    without = TextCrossEncoder(NAME, enable_cpu_mem_arena=False)
    assert without.model.model.get_session_options().enable_cpu_mem_arena is False
