"""Folders of sentence-transformers with the architectures people run today, through the public classes."""

import asyncio
import json

import numpy as np
import pytest
import support

from fastrank import TextCrossEncoder, TextEmbedding

FIXTURES = support.FIXTURES / "families"
EXPECTED = {folder.name: json.loads((folder / "expected.json").read_text()) for folder in FIXTURES.iterdir()}
EMBEDDERS = sorted(name for name, expected in EXPECTED.items() if "texts" in expected)
RERANKERS = sorted(name for name, expected in EXPECTED.items() if "scores" in expected)


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


# -- instructions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "prompt"),
    [("qwen3_embedding", "Instruct: rank red\nQuery:{}"), ("embedding_gemma", "task: rank red | query: {}")],
)
def test_an_instruction_takes_the_place_of_the_prompts_own(name, prompt):
    texts = EXPECTED[name]["texts"]
    with TextEmbedding("acme/own", specific_model_path=FIXTURES / name) as model:
        expected = list(model.embed([prompt.format(text) for text in texts]))
        found = list(model.query_embed(texts, instruction="rank red"))

        async def awaited():
            return [vector async for vector in model.aquery_embed(texts, instruction="rank red")]

        with pytest.raises(TypeError, match="instruction"):
            model.query_embed(texts, instruction=7)
        with pytest.raises(ValueError, match="prefixes=False"):
            model.query_embed(texts, instruction="rank red", prefixes=False)
        np.testing.assert_allclose(asyncio.run(awaited()), expected, rtol=0, atol=1e-6)
        assert np.abs(np.array(found) - np.array(list(model.query_embed(texts)))).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_model_without_instructions_takes_none():
    with (
        TextEmbedding("acme/own", specific_model_path=FIXTURES / "gte_multilingual") as model,
        pytest.raises(ValueError, match="acme/own takes no instruction: its query prefix is ''"),
    ):
        model.query_embed("a cat", instruction="find cats")
