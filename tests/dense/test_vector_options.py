"""`truncate_dim`, `output_dtype`, `prompt`: against sentence-transformers (tests/fixtures/make/vector_options.py)."""

import asyncio
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import DIM, tiny_encoder, tiny_pooled, write_model

from fastrank import LateInteractionTextEmbedding, ModelSource, SparseTextEmbedding, TextCrossEncoder, TextEmbedding
from fastrank.models import registry
from fastrank.models.spec import LATE_INTERACTION, TEXT_EMBEDDING, PoolingType
from fastrank.postprocess import quantize, truncate

FIXTURES = Path(__file__).parents[1] / "fixtures"
ANSWERS = json.loads((FIXTURES / "small_vectors.json").read_text(encoding="utf-8"))
TEXTS = ANSWERS["texts"]
FOLDER = FIXTURES / "folders" / "dense"


def saved(**options):
    return TextEmbedding("acme/saved", specific_model_path=FOLDER, **options)


def rows(vectors):
    return np.stack(list(vectors))


async def gathered(iterator):
    return [item async for item in iterator]


@pytest.fixture
def tiny_late(tmp_path):
    LateInteractionTextEmbedding.add_custom_model("acme/late", ModelSource(hf="acme/late"), DIM, projection=False)
    return write_model(tmp_path / "late")


@pytest.mark.parametrize("dim", [12, 8, 3])
def test_truncated_vectors_equal_sentence_transformers(dim):
    expected = ANSWERS["truncated"][str(dim)]
    per_call = rows(saved().embed(TEXTS, prompt="", truncate_dim=dim))
    np.testing.assert_allclose(per_call, expected, atol=1e-5)
    model = saved(truncate_dim=dim)
    assert model.embedding_size == dim
    np.testing.assert_allclose(rows(model.embed(TEXTS, prompt="")), expected, atol=1e-5)
    np.testing.assert_allclose(
        np.stack(asyncio.run(gathered(model.aembed(TEXTS, prompt="", truncate_dim=dim)))), expected, atol=1e-5
    )
    assert pickle.loads(pickle.dumps(model)).embedding_size == dim  # noqa: S301


@pytest.mark.parametrize("dtype", ANSWERS["quantized"])
def test_quantized_vectors_equal_sentence_transformers(dtype):
    needed = {"ranges": ANSWERS["ranges"]} if dtype in ("int8", "uint8") else {}
    expected = np.array(ANSWERS["quantized"][dtype])
    model = saved(prefixes=False)
    for found in (
        rows(model.embed(TEXTS, output_dtype=dtype, **needed)),
        rows(saved(prefixes=False, output_dtype=dtype, **needed).embed(TEXTS)),
        np.stack(asyncio.run(gathered(model.aembed(TEXTS, output_dtype=dtype, **needed)))),
    ):
        if dtype == "float32":
            np.testing.assert_allclose(found, expected, atol=1e-5)
        else:  # a number at the edge of a step may fall to either side
            assert (found != expected).mean() < 0.04
            assert np.abs(found.astype(int) - expected).max() <= (1 if "int8" in dtype else 0)


def test_quantization_is_the_library_function_of_the_floats():
    model = saved()
    floats = rows(model.embed(TEXTS))
    ranges = model.calibrate(TEXTS)
    assert np.array_equal(
        ranges, [rows(model.passage_embed(TEXTS)).min(axis=0), rows(model.passage_embed(TEXTS)).max(0)]
    )
    for dtype in ("float16", "int8", "uint8", "binary", "ubinary"):
        needed = {"ranges": ranges} if dtype in ("int8", "uint8") else {}
        found = rows(model.embed(TEXTS, output_dtype=dtype, **needed))
        assert np.array_equal(found, quantize(floats, dtype, ranges))
    short = rows(model.embed(TEXTS, truncate_dim=8, output_dtype="int8", ranges=model.calibrate(TEXTS, truncate_dim=8)))
    assert np.array_equal(short, quantize(truncate(floats, 8), "int8", model.calibrate(TEXTS, truncate_dim=8)))
    assert np.array_equal(
        rows(model.query_embed(TEXTS, output_dtype="int8", ranges="unit")),
        np.rint(rows(model.query_embed(TEXTS)) * 127),
    )


def test_token_vectors_too(tiny_late):
    model = LateInteractionTextEmbedding("acme/late", specific_model_path=tiny_late)
    floats = list(model.embed(TEXTS))
    ranges = model.calibrate(TEXTS)
    for found, whole in zip(model.embed(TEXTS, output_dtype="int8", ranges=ranges), floats, strict=True):
        assert np.array_equal(found, quantize(whole, "int8", ranges))
    short = LateInteractionTextEmbedding("acme/late", specific_model_path=tiny_late, truncate_dim=4)
    assert short.embedding_size == 4
    for found, of_instance, whole in zip(
        model.query_embed(TEXTS, truncate_dim=4), short.query_embed(TEXTS), model.query_embed(TEXTS), strict=True
    ):
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(found, truncate(whole, 4, normalize=True), atol=1e-6)
        np.testing.assert_allclose(of_instance, found, atol=1e-6)
    packed = asyncio.run(gathered(model.aembed(TEXTS, output_dtype="ubinary")))
    assert [each.shape for each in packed] == [(len(whole), DIM // 8) for whole in floats]


def test_a_model_that_does_not_normalize_is_not_normalized_again(tmp_path):
    TextEmbedding.add_custom_model("acme/raw", PoolingType.MEAN, False, ModelSource(hf="acme/raw"), DIM)
    model = TextEmbedding("acme/raw", specific_model_path=write_model(tmp_path / "raw"))
    whole = rows(model.embed(TEXTS))
    assert np.array_equal(rows(model.embed(TEXTS, truncate_dim=4)), whole[:, :4])
    graph = write_model(tmp_path / "pooled", tiny_pooled())
    TextEmbedding.add_custom_model("acme/graph", PoolingType.DISABLED, False, ModelSource(hf="acme/graph"), DIM)
    pooled = TextEmbedding("acme/graph", specific_model_path=graph)  # its vectors are not of length 1 either
    assert np.array_equal(rows(pooled.embed(TEXTS, truncate_dim=4)), rows(pooled.embed(TEXTS))[:, :4])


def test_nomic_embed_is_normalized_as_its_card_says(tmp_path):
    name = "nomic-ai/nomic-embed-text-v1.5"
    folder = write_model(tmp_path / "nomic", tiny_encoder(768))
    model = TextEmbedding(name, specific_model_path=folder)
    whole = rows(model.embed(TEXTS))
    normed = (whole - whole.mean(axis=1, keepdims=True)) / np.sqrt(whole.var(axis=1, keepdims=True) + 1e-5)
    expected = normed[:, :256] / np.linalg.norm(normed[:, :256], axis=1, keepdims=True)
    np.testing.assert_allclose(rows(model.embed(TEXTS, truncate_dim=256)), expected, atol=1e-5)
    np.testing.assert_allclose(
        rows(TextEmbedding(name, specific_model_path=folder, truncate_dim=256).embed(TEXTS)), expected, atol=1e-5
    )


def test_dims_that_a_model_was_trained_for_are_no_warning(tmp_path, caplog):
    TextEmbedding.add_custom_model(
        "acme/mrl", PoolingType.MEAN, True, ModelSource(hf="acme/mrl"), DIM, truncate_dims=[8, 4]
    )
    model = TextEmbedding("acme/mrl", specific_model_path=write_model(tmp_path / "mrl"))
    with caplog.at_level(logging.WARNING, "fastrank"):
        for dim in (8, 4, DIM):
            next(model.embed("hello", truncate_dim=dim))
        assert not caplog.records
        for _ in range(2):
            next(model.embed("hello", truncate_dim=5))
        assert [record.getMessage() for record in caplog.records] == [
            "acme/mrl was trained for vectors of 4, 8 numbers (Matryoshka), not of 5."
        ]
        caplog.clear()
        saved(truncate_dim=6)
        assert "nothing is known of a training for shorter vectors" in caplog.text


def test_the_registry_states_trained_dims_within_the_vectors():
    stated = [
        (spec.name, settings)
        for task in (TEXT_EMBEDDING, LATE_INTERACTION)
        for spec in registry.entries(task)
        if (settings := spec.tasks[task]).matryoshka is not None
    ]
    assert len(stated) >= 9
    for name, settings in stated:
        assert all(0 < dim < settings.dim for dim in settings.matryoshka.dims), name
        assert settings.matryoshka.dims or settings.matryoshka.least
    assert dict(stated)["Qwen/Qwen3-Embedding-0.6B"].matryoshka.fits(100)
    assert not dict(stated)["google/embeddinggemma-300m"].matryoshka.fits(100)


def test_a_prompt_of_the_call_takes_the_place_of_the_prefix():
    model = saved()
    expected = ANSWERS["prompted"]
    for found in (
        model.embed(TEXTS, prompt="dog: red "),
        model.query_embed(TEXTS, prompt="dog: red "),
        model.passage_embed(TEXTS, prefixes=False, prompt="dog: red "),
    ):
        np.testing.assert_allclose(rows(found), expected, atol=1e-5)
    found = asyncio.run(gathered(model.apassage_embed(TEXTS, prompt="dog: red ")))
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)
    assert np.array_equal(rows(model.embed(TEXTS, prompt="")), rows(saved(prefixes=False).embed(TEXTS)))


def test_prompts_of_rerankers_are_put_before_the_query(tmp_path, tiny_late):
    folder = FIXTURES / "folders" / "cross_encoder"
    model = TextCrossEncoder("acme/ce", specific_model_path=folder)
    plain = list(model.rerank_pairs([("cat hello", text) for text in TEXTS], prompt=""))
    assert list(model.rerank("hello", TEXTS, prompt="cat ")) == pytest.approx(plain, abs=1e-5)
    late = LateInteractionTextEmbedding("acme/late", specific_model_path=tiny_late)
    expected = list(late.rerank("cat hello", TEXTS))
    assert list(late.rerank("hello", TEXTS, prompt="cat ")) == expected
    assert asyncio.run(gathered(late.arerank("hello", TEXTS, prompt="cat "))) == expected
    with pytest.raises(ValueError, match="would be taken for words"):
        SparseTextEmbedding("Qdrant/bm25").embed(TEXTS, prompt="query: ")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"truncate_dim": 0}, ValueError, "truncate_dim must be >= 1"),
        ({"truncate_dim": "8"}, TypeError, "truncate_dim must be an integer"),
        ({"truncate_dim": 13}, ValueError, "truncate_dim=13 is more than the 12 dimensions"),
        ({"output_dtype": "int4"}, ValueError, "output_dtype must be one of 'float32'"),
        ({"output_dtype": "int8"}, ValueError, r"needs ranges: ranges=model.calibrate"),
        ({"output_dtype": "binary", "ranges": "unit"}, ValueError, "ranges are for"),
        ({"output_dtype": "int8", "ranges": "units"}, ValueError, "or 'unit', not 'units'"),
        ({"output_dtype": "int8", "ranges": np.zeros((2, 11))}, ValueError, r"shape \(2, 12\), not \(2, 11\)"),
        ({"output_dtype": "int8", "ranges": np.zeros((2, 12)), "truncate_dim": 4}, ValueError, r"\(2, 4\)"),
        ({"prompt": 3}, TypeError, "prompt must be a string"),
        ({"overflow": "cut"}, ValueError, "overflow must be one of 'truncate', 'error', 'chunk'"),
        ({"chunk_size": 4}, ValueError, 'are for overflow="chunk"'),
        ({"overflow": "chunk", "chunk_size": 4, "chunk_overlap": 4}, ValueError, "must be less than chunk_size"),
        ({"overflow": "chunk", "chunk_overlap": -1}, ValueError, "chunk_overlap must be >= 0"),
        ({"on_truncated": 1}, TypeError, "on_truncated must be a function"),
        ({"show_progress": "yes"}, TypeError, "show_progress must be True or False"),
        ({"truncate": 8}, TypeError, r"embed\(\) got an unexpected keyword argument 'truncate'"),
    ],
)
def test_bad_values_are_errors_at_the_call(options, error, text):
    model = saved()
    with pytest.raises(error, match=text):
        model.embed(TEXTS, **options)  # not iterated over
    with pytest.raises(error, match=text.replace("embed", "aembed")):
        model.aembed(TEXTS, **options)


@pytest.mark.parametrize("options", [{"truncate_dim": 13}, {"output_dtype": "int8"}, {"overflow": "cut"}])
def test_bad_values_are_errors_of_the_constructor(options):
    with pytest.raises(ValueError, match="|".join(options)):
        saved(**options)


def test_progress_counts_texts(capsys):
    model = saved()
    list(model.embed(TEXTS, show_progress=True))
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err
    asyncio.run(gathered(model.aquery_embed(iter(TEXTS), show_progress=True)))
    assert f"{len(TEXTS)}text" in capsys.readouterr().err
    model.query_embed(TEXTS)
    late = LateInteractionTextEmbedding("acme/multi", specific_model_path=FIXTURES / "folders" / "multi_vector")
    late.rank("cat", TEXTS, show_progress=True)
    assert "rerank: 100%" in capsys.readouterr().err.replace("\r", "\n")
    list(model.embed(TEXTS))
    assert capsys.readouterr().err == ""
    list(SparseTextEmbedding("Qdrant/bm25").embed(TEXTS, show_progress=True))
    assert "5/5" in capsys.readouterr().err
