"""TextEmbedding as FastEmbed's tests use it."""

import numpy as np
import pytest
from fastembed import TextEmbedding
from fastembed.text.multitask_embedding import Task

BGE, MINILM = "BAAI/bge-small-en-v1.5", "sentence-transformers/all-MiniLM-L6-v2"
JINA, STATIC, NOMIC = "jinaai/jina-embeddings-v3", "minishlab/potion-base-8M", "nomic-ai/nomic-embed-text-v1.5"
TEXTS = ["hello world", "flag embedding", "", "What, where? The cat's red!", "cat " * 700]


@pytest.mark.parametrize(("name", "dim"), [(BGE, 384), (MINILM, 384), (NOMIC, 768), (STATIC, 256), (JINA, 1024)])
def test_vectors(name, dim, record):
    model = TextEmbedding(name)
    vectors = list(model.embed(TEXTS))
    assert np.stack(vectors).shape == (len(TEXTS), dim)
    assert next(iter(model.embed("hello world"))).shape == (dim,)
    assert list(model.embed([])) == []
    record("embed", vectors)
    record("query_embed", list(model.query_embed(TEXTS[:2])))
    record("passage_embed", list(model.passage_embed(TEXTS[:2])))
    record("embedding_size", model.embedding_size)


def test_batches_and_workers_give_the_same(record):
    model, texts = TextEmbedding(BGE), ["hello world", "flag embedding"] * 20
    one, two, all_cores = (np.stack(list(model.embed(texts, batch_size=10, parallel=n))) for n in (None, 2, 0))
    assert one.shape == (40, 384)
    np.testing.assert_allclose(one, two, atol=1e-3)
    np.testing.assert_allclose(one, all_cores, atol=1e-3)


@pytest.mark.parametrize("name", [BGE, JINA])
def test_a_lazy_model_is_loaded_when_it_is_used(name):
    model = TextEmbedding(name, lazy_load=True)
    assert not hasattr(model.model, "model")
    list(model.embed(TEXTS[:2]))
    assert hasattr(model.model, "model")
    for method in ("query_embed", "passage_embed"):
        list(getattr(TextEmbedding(model_name=name, lazy_load=True), method)(TEXTS[:2]))


def test_sizes_are_known_in_any_case():
    assert TextEmbedding.get_embedding_size(MINILM) == TextEmbedding.get_embedding_size(MINILM.lower()) == 384
    assert TextEmbedding(MINILM.lower(), lazy_load=True).embedding_size == 384
    with pytest.raises(ValueError, match="acme/none"):
        TextEmbedding.get_embedding_size("acme/none")


def test_session(record):
    model = TextEmbedding(MINILM)
    assert model.model.model.get_session_options().enable_cpu_mem_arena is True
    without = TextEmbedding(MINILM, enable_cpu_mem_arena=False).model.model
    assert without.get_session_options().enable_cpu_mem_arena is False
    record("providers", without.get_providers())
    record("folder", (model.model._model_dir / "tokenizer.json").is_file())


@pytest.mark.parametrize("name", [MINILM, STATIC])
def test_token_count(name, record):
    model = TextEmbedding(name)
    texts = ["Name me a couple of cities!", "Berlin is the current capital of Germany.", "", "xyzzy ☃", "cat " * 700]
    assert sum(map(model.token_count, texts)) == model.token_count(texts) == model.token_count(texts, batch_size=1)
    record("counts", [model.token_count(text) for text in texts])


@pytest.mark.parametrize("task", [None, 0, 1, 2, 3, 4, Task.SEPARATION])
def test_task_of_a_call(task, record):
    model = TextEmbedding(JINA)
    record("embed", list(model.embed(TEXTS[:2], task_id=task)))


@pytest.mark.parametrize("task", [0, 3, Task.TEXT_MATCHING])
def test_task_of_an_instance(task, record):
    model = TextEmbedding(JINA, task_id=task)
    vectors = np.stack(list(model.embed(TEXTS[:2])))
    np.testing.assert_allclose(vectors, np.stack(list(TextEmbedding(JINA).embed(TEXTS[:2], task_id=int(task)))))
    record("embed", vectors)
    record("query_embed", list(model.query_embed(TEXTS[:2])))
    record("passage_embed", list(model.passage_embed(TEXTS[:2])))
    record("another task", list(model.embed(TEXTS[:2], task_id=1)))


def test_arguments_that_other_models_have_change_nothing(recwarn, record):
    model = TextEmbedding(BGE, task_id=3, alpha=2.0)
    record("embed", list(model.embed(TEXTS[:2], task_id=2)))
    record("query_embed", list(model.query_embed(TEXTS[0], task_id=2)))
    record("token_count", model.token_count(TEXTS, nonsense=1))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="acme/none is not supported in TextEmbedding"):
        TextEmbedding("acme/none")
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        list(TextEmbedding(BGE).embed("x", batch_size=0))
    with pytest.raises(TypeError):
        list(TextEmbedding(BGE).embed([3]))
