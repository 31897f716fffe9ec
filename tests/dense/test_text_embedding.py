"""TextEmbedding over tiny models: results, order, laziness, options, life cycle.

Bad input, threads, forks and devices are in tests/faults.
"""

import threading
import warnings

import numpy as np
import pytest
from support import tiny_models

import fastrank
from fastrank import ModelSource, PoolingType, TextEmbedding
from fastrank.errors import ModelLoadError, ModelNotFoundError, ProviderError
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import TEXT_EMBEDDING, DenseTask, Prefixes

NAME = "acme/tiny"
TEXTS = ["hello world", "the cat", "", "fast red dog in paris " * 20, "rank the documents for a query", "é 中 😀"]


@pytest.fixture
def known():
    """Register acme/tiny with the given settings."""

    def add(dim=16, pooling="mean", normalize=True, prefixes=None, output=None):
        settings = DenseTask(dim, pooling, normalize, prefixes or Prefixes(), output)
        spec = custom_spec(
            NAME, TEXT_EMBEDDING, settings, ModelSource(hf=NAME), model_file="onnx/model.onnx", max_length=64
        )
        registry._custom[NAME, TEXT_EMBEDDING] = spec

    add()
    return add


@pytest.fixture
def model(known, tiny):
    with TextEmbedding(NAME, specific_model_path=tiny, threads=2) as loaded:
        yield loaded


def rows(vectors):
    return np.stack(list(vectors))


# -- results ----------------------------------------------------------------------------------------------------------


def test_vectors_are_float32_unit_rows_in_order(model):
    vectors = list(model.embed(TEXTS))
    assert [v.shape for v in vectors] == [(16,)] * len(TEXTS)
    assert {v.dtype for v in vectors} == {np.dtype("float32")}
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(next(model.embed(text)), vector, atol=1e-6)


def test_results_are_the_graphs_own(model, tiny):
    """Mean over the tokens of what onnxruntime returns for one unpadded text."""
    import onnxruntime
    import tokenizers

    session = onnxruntime.InferenceSession(str(tiny / "onnx" / "model.onnx"))
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    for text in TEXTS[:3]:
        ids = np.array([tokenizer.encode(text).ids])
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = session.run(None, feed)[0][0].mean(axis=0)
        np.testing.assert_allclose(next(model.embed(text)), mean / np.linalg.norm(mean), atol=1e-6)


def test_order_is_kept_over_many_windows_and_threads(model):
    texts = [f"cat {n} {'dog ' * (n * 7 % 50)}" for n in range(700)]
    whole = rows(model.embed(texts, parallel=4))
    some = [0, 255, 256, 300, 511, 512, 699]
    np.testing.assert_allclose(whole[some], rows(model.embed([texts[n] for n in some])), atol=1e-6)


@pytest.mark.parametrize("parallel", [None, 0, 1, 2, 5])
def test_parallel_changes_nothing(model, parallel):
    texts = [f"cat {'dog ' * n}" for n in range(60)]
    np.testing.assert_allclose(rows(model.embed(texts, parallel=parallel)), rows(model.embed(texts)), atol=1e-6)


@pytest.mark.parametrize(("pooling", "expected"), [("cls", 0), ("last-token", -1)])
def test_poolings_take_the_right_token(known, tiny, pooling, expected):
    known(pooling=pooling, normalize=False)
    with TextEmbedding(NAME, specific_model_path=tiny) as model:
        from fastrank.engine.batching import collate

        pipeline = model._model.get().documents
        tokens = pipeline.tokenizer.encode(["hello"])
        states = pipeline.session.run(collate(tokens, [0], 0))
        np.testing.assert_allclose(rows(model.embed(["hello", "the cat is red"]))[0], states[0, expected], atol=1e-6)


def test_graphs_that_pool_by_themselves(known, tmp_path):
    folder = tiny_models.write_model(tmp_path / "pooled", tiny_models.tiny_pooled())
    found = {}
    for pooling in ("none", "cls"):
        known(pooling=pooling, normalize=False)
        with TextEmbedding(NAME, specific_model_path=folder) as model:
            found[pooling] = rows(model.embed(TEXTS))
    np.testing.assert_array_equal(found["none"], found["cls"])
    known(pooling="mean")
    with TextEmbedding(NAME, specific_model_path=folder) as model, pytest.raises(ModelLoadError, match="cannot take"):
        list(model.embed(TEXTS))


def test_a_graph_without_token_type_ids(known, tmp_path):
    folder = tiny_models.write_model(tmp_path / "plain", tiny_models.tiny_encoder(segments=False))
    with TextEmbedding(NAME, specific_model_path=folder) as model:
        assert rows(model.embed(TEXTS)).shape == (len(TEXTS), 16)


def test_named_outputs(known, tiny):
    known(output="last_hidden_state")
    assert len(list(TextEmbedding(NAME, specific_model_path=tiny).embed(TEXTS))) == len(TEXTS)
    known(output="pooler")
    model = TextEmbedding(NAME, specific_model_path=tiny)
    with pytest.raises(ModelLoadError, match="Output 'pooler' not found in the model, available outputs: "):
        list(model.embed(TEXTS))


def test_normalize_and_max_length_of_the_caller(known, tiny):
    with TextEmbedding(NAME, specific_model_path=tiny, normalize=False, max_length=5) as model:
        assert np.linalg.norm(next(model.embed("hello world"))) != pytest.approx(1, abs=1e-3)
        assert model.token_count(["cat " * 100, "cat"]) == 5 + 3
        cut = next(model.embed("the cat is fast and red"))
        np.testing.assert_allclose(cut, next(model.embed("the cat is")), atol=1e-6)


def test_prefixes(known, tiny):
    known(prefixes=Prefixes(query="search ", passage="document "))
    with TextEmbedding(NAME, specific_model_path=tiny) as model:
        plain = rows(model.embed(TEXTS))
        np.testing.assert_array_equal(rows(model.query_embed(TEXTS)), rows(model.embed(["search " + t for t in TEXTS])))
        np.testing.assert_array_equal(
            rows(model.passage_embed(TEXTS)), rows(model.embed(["document " + t for t in TEXTS]))
        )
        np.testing.assert_array_equal(rows(model.query_embed(TEXTS, prefixes=False)), plain)
        np.testing.assert_array_equal(rows(model.passage_embed(TEXTS, prefixes=False)), plain)
    with TextEmbedding(NAME, specific_model_path=tiny, prefixes=False) as model:
        np.testing.assert_array_equal(rows(model.query_embed(TEXTS)), plain)
        np.testing.assert_array_equal(
            rows(model.query_embed(TEXTS, prefixes=True)), rows(model.embed(["search " + t for t in TEXTS]))
        )


def test_sizes_and_counts(model):
    assert model.embedding_size == TextEmbedding.get_embedding_size("ACME/tiny") == 16
    assert TextEmbedding.get_embedding_size("baai/bge-small-EN-v1.5") == 384
    assert model.token_count("hello world") == 4
    assert model.token_count(TEXTS, batch_size=2) == sum(model.token_count(t) for t in TEXTS)


# -- bad input --------------------------------------------------------------------------------------------------------


def test_unknown_models_are_found_out_at_once():
    with pytest.raises(ModelNotFoundError, match="Did you mean"):
        TextEmbedding("all-MiniLM-L6", lazy_load=True)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"threads": 0}, ValueError, "threads must be >= 1"),
        ({"max_length": "long"}, TypeError, "max_length must be an integer"),
        ({"max_length": 2}, ValueError, "max_length=2 leaves no room"),
        ({"cuda": "gpu"}, ValueError, "cuda must be True, False, 'auto', 'cuda' or 'cpu', not 'gpu'"),
        ({"providers": "CPUExecutionProvider"}, TypeError, "providers must be a list"),
        ({"variant": "int3"}, ValueError, "has no variant 'int3'"),
    ],
)
def test_wrong_options(known, tiny, options, error, text):
    with pytest.raises(error, match=text):
        TextEmbedding(NAME, specific_model_path=tiny, **options)


# -- devices ----------------------------------------------------------------------------------------------------------


def test_providers_are_used_as_given(known, tiny):
    with TextEmbedding(NAME, specific_model_path=tiny, providers=[("CPUExecutionProvider", {})]) as model:
        assert len(list(model.embed(TEXTS))) == len(TEXTS)
    with pytest.raises(ProviderError, match="Provider NoSuchProvider is not available"):
        TextEmbedding(NAME, specific_model_path=tiny, providers=["NoSuchProvider"])
    with pytest.warns(UserWarning, match="mutually exclusive"):
        TextEmbedding(NAME, specific_model_path=tiny, providers=["CPUExecutionProvider"], cuda=True)


# -- life cycle -------------------------------------------------------------------------------------------------------


def test_lazy_load_touches_nothing_until_needed(known, tmp_path):
    model = TextEmbedding(NAME, specific_model_path=tmp_path / "not there yet", lazy_load=True)
    with pytest.raises(ModelLoadError, match="does not exist"):
        model.embed(["a"])
    tiny_models.write_model(tmp_path / "not there yet")
    assert len(list(model.embed(["a"]))) == 1


def test_threads_that_start_together_load_once(known, tiny, monkeypatch):
    import fastrank.engine.loading as module

    loads = []
    real = module.Session
    monkeypatch.setattr(module, "Session", lambda *a, **k: loads.append(1) or real(*a, **k))
    model = TextEmbedding(NAME, specific_model_path=tiny, lazy_load=True)
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        list(model.embed(TEXTS))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


def test_a_closed_model_says_so_and_running_iterators_finish(known, tiny):
    with TextEmbedding(NAME, specific_model_path=tiny) as model:
        running = model.embed(["a", "b"])
        next(running)
    assert len(list(running)) == 1
    with pytest.raises(RuntimeError, match="closed"):
        model.embed(["a"])


# -- the registry's face ----------------------------------------------------------------------------------------------


def test_list_supported_models_has_fastembeds_keys_and_is_the_callers_own():
    first = TextEmbedding.list_supported_models()
    keys = [
        "model",
        "sources",
        "model_file",
        "description",
        "license",
        "size_in_GB",
        "additional_files",
        "dim",
        "tasks",
    ]
    assert all(set(keys) == set(row) for row in first)
    assert first[0]["model"] == "BAAI/bge-small-en-v1.5"
    first[0].clear()
    first[1]["sources"]["hf"] = "changed"
    second = TextEmbedding.list_supported_models()
    assert second[0]["dim"] == 384
    assert second[1]["sources"]["hf"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_custom_models(tiny):
    TextEmbedding.add_custom_model(
        "Acme/Own", PoolingType.CLS, False, ModelSource(hf="acme/own"), 16, description="ours", query_prefix="search "
    )
    assert TextEmbedding.list_supported_models()[-1]["model"] == "Acme/Own"
    with TextEmbedding("acme/OWN", specific_model_path=tiny) as model:
        assert model.model_name == "Acme/Own"
        np.testing.assert_array_equal(next(model.query_embed("cat")), next(model.embed("search cat")))
    with pytest.raises(ValueError, match="Model acme/own is already registered in TextEmbedding"):
        TextEmbedding.add_custom_model("acme/own", PoolingType.MEAN, True, ModelSource(hf="acme/own"), 16)
    with pytest.raises(ValueError, match="already registered"):
        TextEmbedding.add_custom_model("baai/BGE-small-en-v1.5", PoolingType.MEAN, True, ModelSource(hf="a/b"), 16)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": "no slash"}, "model 'no slash' is not valid"),
        ({"sources": ModelSource(hf="https://x/y")}, "sources.hf 'https://x/y' is not valid"),
        ({"sources": ModelSource(url="https://x/y.tar.gz")}, "unpacks no archives"),
        ({"model_file": "../model.onnx"}, "file '../model.onnx' is not valid"),
        ({"additional_files": ["/etc/passwd"]}, "file '/etc/passwd' is not valid"),
        ({"dim": 0}, "dim must be >= 1"),
        ({"pooling": "MAX"}, "'MAX' is not a valid PoolingType"),
    ],
)
def test_custom_models_that_are_refused(change, text):
    arguments = {
        "model": "a/b",
        "pooling": PoolingType.MEAN,
        "normalization": True,
        "sources": ModelSource(hf="a/b"),
        "dim": 4,
    }
    with pytest.raises(ValueError, match=text):
        TextEmbedding.add_custom_model(**arguments | change)


def test_model_source_needs_a_source():
    with pytest.raises(ValueError, match="At least one source should be set, current sources: hf=None, url=None"):
        fastrank.ModelSource()


def test_nothing_warns(known, tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with TextEmbedding(NAME, specific_model_path=tiny) as model:
            list(model.embed(TEXTS))
