"""SparseTextEmbedding and Bm25 as FastEmbed's tests use them."""

import numpy as np
import pytest
from fastembed import SparseEmbedding, SparseTextEmbedding
from fastembed.common.utils import get_all_punctuation, remove_non_alphanumeric
from fastembed.sparse.bm25 import Bm25, supported_languages
from fastembed.sparse.utils.tokenizer import SimpleTokenizer

BM25, BM42 = "Qdrant/bm25", "Qdrant/bm42-all-minilm-l6-v2-attentions"
SPLADE, COIL = "prithivida/Splade_PP_en_v1", "Qdrant/minicoil-v1"
FREE = "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-gte"
TEXTS = ["Hello World", "The cats rank a red document, cat!", "flag embedding of 42 dogs", ".", ""]
WORDS = ["The", "QUICK", "brown", "foxes", "is", "A", "test", "sentence", ".", "!", "_", "x" * 41]


class Suffixes:
    def stem_word(self, word):
        for suffix in ("ami", "ach"):
            word = word.removesuffix(suffix)
        return word


@pytest.mark.parametrize("name", [SPLADE, FREE, BM42, COIL, BM25])
def test_vectors(name, record):
    model = SparseTextEmbedding(name)
    for method in ("embed", "query_embed", "passage_embed"):
        vectors = list(getattr(model, method)(TEXTS))
        assert all(isinstance(vector, SparseEmbedding) for vector in vectors)
        record(method, vectors)
    record("tokens", [model.token_count(text) for text in TEXTS])
    (one,) = model.embed(TEXTS[0])
    assert one.as_object().keys() == {"values", "indices"}
    assert SparseEmbedding.from_dict(one.as_dict()).as_dict() == one.as_dict()


@pytest.mark.parametrize("name", [BM42, BM25])
def test_queries_of_words_weigh_one(name):
    model = SparseTextEmbedding(name)
    (query,) = model.query_embed(["I must not fear. Fear is the mind-killer."])
    assert np.array_equal(query.values, np.ones(len(query.indices)))
    (nothing,) = model.embed(["."])
    assert len(nothing.indices) == 0


@pytest.mark.parametrize("name", [SPLADE, BM25])
def test_workers_give_the_same(name):
    model, texts = SparseTextEmbedding(name), ["hello world", "flag embedding", "Mangez-vous?"] * 12
    one, two = (list(model.embed(texts, batch_size=10, parallel=n)) for n in (None, 2))
    for a, b in zip(one, two, strict=True):
        assert a.indices.tolist() == b.indices.tolist()
        np.testing.assert_allclose(a.values, b.values, atol=1e-3)


@pytest.mark.parametrize("name", [SPLADE, BM42])
def test_a_lazy_model_is_loaded_when_it_is_used(name):
    model = SparseTextEmbedding(model_name=name, lazy_load=True)
    assert not hasattr(model.model, "model")
    list(model.embed(TEXTS))
    assert hasattr(model.model, "model")
    for method in ("query_embed", "passage_embed"):
        list(getattr(SparseTextEmbedding(name, lazy_load=True), method)(TEXTS))


def test_queries_that_need_no_model_run_none(record):
    model = SparseTextEmbedding(FREE, lazy_load=True)
    record("query_embed", list(model.query_embed(["hello world", "flag text"])))
    assert not hasattr(model.model, "model")


@pytest.mark.parametrize("name", [SPLADE, COIL, BM42])
def test_session(name):
    assert SparseTextEmbedding(name).model.model.get_session_options().enable_cpu_mem_arena is True
    without = SparseTextEmbedding(name, enable_cpu_mem_arena=False)
    assert without.model.model.get_session_options().enable_cpu_mem_arena is False


@pytest.mark.parametrize("options", [{}, {"language": "french"}, {"k": 1.5, "b": 0.3, "avg_len": 12.0}])
def test_bm25_alone_and_inside(options, record):
    alone, inside = Bm25(BM25, **options), SparseTextEmbedding(BM25, **options).model
    assert isinstance(inside, Bm25)
    texts = ["Mangez-vous vraiment des grenouilles?", "Je suis au lit", "History is merely a list of surprises..."]
    record("raw_embed", alone.raw_embed(texts))
    for method in ("embed", "query_embed"):
        for a, b in zip(getattr(alone, method)(texts), getattr(inside, method)(texts), strict=True):
            assert dict(zip(a.indices.tolist(), a.values.tolist(), strict=True)) == b.as_dict()
    record("settings", [getattr(inside, name) for name in ("k", "b", "avg_len", "language", "token_max_length")])
    record("stop words", sorted(inside.stopwords))
    record("words", alone.token_count(texts))


@pytest.mark.parametrize("disable_stemmer", [True, False])
def test_stems_without_stop_words_and_punctuation(disable_stemmer, record):
    model = Bm25(BM25, language="english", disable_stemmer=disable_stemmer)
    record("stemmer", model.stemmer is None)
    record("by default", model._stem(WORDS))
    model.stopwords, model.punctuation = {"the", "is", "a"}, {".", ",", "!"}
    assert model._stem(WORDS)[0] == "quick"
    record("own words", model._stem(WORDS))


def test_stop_words_that_are_set_count_from_then_on(record):
    model = SparseTextEmbedding(BM25)
    original = model.model.stopwords.copy()
    model.model.stopwords = {"hello"}
    record("own", list(model.embed("the hello world")))
    model.model.stopwords = original
    record("original", list(model.embed("the hello world")))


@pytest.mark.parametrize("stopwords", [None, set(), {"The", "FOX"}])
@pytest.mark.parametrize("disable_stemmer", [True, False])
def test_which_stop_words_count(stopwords, disable_stemmer, record):
    model = Bm25(BM25, stopwords=stopwords, disable_stemmer=disable_stemmer)
    record("stems", model._stem(["THE", "and", "FOX"]))


def test_a_stemmer_of_ones_own(record):
    model = SparseTextEmbedding(BM25, language="polish", stemmer=Suffixes(), stopwords={"W"}, k=1.0, b=0.0)
    text = "Kotami kotach w domach!"
    (document,), (query,) = model.embed(text), model.query_embed(text)
    kot, dom = Bm25.compute_token_id("kot"), Bm25.compute_token_id("dom")
    assert document.as_dict() == pytest.approx({kot: 4 / 3, dom: 1.0})
    assert query.as_dict() == {kot: 1.0, dom: 1.0}
    record("id", kot)
    with pytest.raises(ValueError, match="polish language is not supported"):
        Bm25(BM25, language="polish", stopwords=set())
    with pytest.raises(ValueError, match="stemmer cannot be supplied with disable_stemmer=True"):
        Bm25(BM25, stemmer=Suffixes(), disable_stemmer=True)


@pytest.mark.parametrize("language", ["english", "french", "russian", "turkish", "tamil"])
def test_languages(language, record):
    texts = [
        "Über den größten Flüssen!",
        "L'élève s'écrie : « Où est mon crayon ? »",
        "привет мир!",
        "Öğretmen İstanbul",
    ]
    model = SparseTextEmbedding(BM25, language=language)
    record("embed", list(model.embed(texts)))
    record("query_embed", list(model.query_embed(texts)))


def test_words(record):
    text = "It's a truth: naïve_café (42)…"
    record("words", SimpleTokenizer.tokenize(text))
    record("letters", remove_non_alphanumeric(text))
    record("punctuation", len(get_all_punctuation()))
    record("languages", supported_languages)
