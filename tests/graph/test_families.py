"""Folders of sentence-transformers with the architectures people run today, through the public classes."""

import json

import numpy as np
import pytest
import support

from fastrank import TextCrossEncoder, TextEmbedding

FIXTURES = support.FIXTURES / "families"
EXPECTED = {folder.name: json.loads((folder / "expected.json").read_text()) for folder in FIXTURES.iterdir()}
EMBEDDERS = sorted(name for name, expected in EXPECTED.items() if "texts" in expected)
RERANKERS = sorted(EXPECTED.keys() - EMBEDDERS)


@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed"])
@pytest.mark.parametrize("name", EMBEDDERS)
def test_vectors_equal_those_of_sentence_transformers(name, method):
    expected = EXPECTED[name]
    with TextEmbedding("acme/own", specific_model_path=FIXTURES / name) as model:
        together = np.array(list(getattr(model, method)(expected["texts"])))
        np.testing.assert_allclose(together, expected[method], rtol=0, atol=1e-5)
        for text, vector in zip(expected["texts"], expected[method], strict=True):
            np.testing.assert_allclose(next(getattr(model, method)(text)), vector, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", EMBEDDERS)
def test_int8_vectors_are_near_and_have_the_same_bits_in_any_batch(name):
    expected = EXPECTED[name]
    with TextEmbedding("acme/own", specific_model_path=FIXTURES / name, precision="int8") as model:
        together = np.array(list(model.embed(expected["texts"])))
        alone = np.array([next(model.embed(text)) for text in expected["texts"]])
    assert np.array_equal(together, alone)
    assert (together * np.array(expected["embed"])).sum(axis=1).min() > 0.98
    assert np.abs(together - np.array(expected["embed"])).max() > 1e-4


@pytest.mark.parametrize("name", RERANKERS)
def test_scores_equal_those_of_sentence_transformers(name):
    expected = EXPECTED[name]
    with TextCrossEncoder("acme/own", specific_model_path=FIXTURES / name) as model:
        scores = list(model.rerank_pairs(expected["pairs"]))
        np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=1e-5)
        for (query, document), score in zip(expected["pairs"], expected["scores"], strict=True):
            np.testing.assert_allclose(list(model.rerank(query, [document])), [score], rtol=0, atol=1e-5)
