"""SparseTextEmbedding: BM25 through the public class, and the learned models' heads."""

import itertools
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import support
from support import tiny_models

from fastrank import ModelSource, SparseEmbedding, SparseTextEmbedding, graph
from fastrank.engine.batching import Batch
from fastrank.engine.options import Options
from fastrank.engine.session import Model, Session
from fastrank.errors import ModelLoadError, OutputError
from fastrank.models import registry
from fastrank.models.spec import SparseTask
from fastrank.sparse import splade
from fastrank.sparse.bm42 import documents as bm42_head
from fastrank.sparse.settings import resolve

BM25 = "Qdrant/bm25"
FIXTURES = support.FIXTURES / "graph"
DATA = Path(os.environ.get("FASTRANK_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data") / "models"


@pytest.fixture
def bm25():
    return SparseTextEmbedding(BM25)


# -- SparseEmbedding --------------------------------------------------------------------------------------------------


def test_sparse_embedding_has_fastembeds_fields_and_forms():
    vector = SparseEmbedding(np.array([1.5, 2.0]), np.array([7, 3]))
    assert vector.as_dict() == {7: 1.5, 3: 2.0}
    assert list(vector.as_dict()) == [7, 3]
    assert vector.as_object()["values"] is vector.values
    assert vector.as_object()["indices"] is vector.indices
    assert len(vector) == 2
    again = SparseEmbedding.from_dict({7: 1.5, 3: 2.0})
    assert again == vector
    assert again != SparseEmbedding.from_dict({7: 1.5, 3: 2.5})
    assert again.indices.dtype == np.int64
    empty = SparseEmbedding.from_dict({})
    assert (empty.indices.dtype, empty.values.dtype, len(empty)) == (np.int64, np.float64, 0)


# -- BM25 -------------------------------------------------------------------------------------------------------------


def test_bm25_ids_and_values_are_fastembeds(bm25):
    """Golden values of fastembed 0.9.1; more of them in tests/bm25."""
    document = next(bm25.embed("I must not fear. Fear is the mind-killer."))
    assert document.as_dict() == pytest.approx(
        {
            844849131: 1.6697302104951084,
            1432942394: 1.8985336254845782,
            418093614: 1.6697302104951084,
            627261019: 1.6697302104951084,
        },
        abs=1e-12,
    )
    assert (document.indices.dtype, document.values.dtype) == (np.int64, np.float64)
    query = next(bm25.query_embed("hello hello world"))
    assert query.as_dict() == {613153351: 1, 74040069: 1}
    assert (query.indices.dtype, query.values.dtype) == (np.int64, np.int64)
    assert bm25.token_count(["the quick brown fox", "hello"]) == 5


def test_bm25_needs_no_files_and_no_connection(bm25, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    model = SparseTextEmbedding("qdrant/BM25", local_files_only=True)
    assert next(model.embed("hello world")) == next(bm25.embed("hello world"))
    assert list(tmp_path.iterdir()) == []


def test_bm25_that_is_closed(bm25):
    bm25.close()
    with pytest.raises(RuntimeError, match="closed"):
        bm25.embed("x")


def test_bm25_empty_texts(bm25):
    for text in ("", "   ", "the of and", "!?"):
        vector = next(bm25.embed(text))
        assert (len(vector), vector.indices.dtype, vector.values.dtype) == (0, np.int64, np.float64)
    assert list(bm25.embed([])) == []
    assert list(bm25.query_embed(iter(()))) == []


def test_bm25_order_over_windows(bm25):
    texts = [f"word{n} cat" for n in range(1000)]
    whole = list(bm25.embed(texts))
    for n in (0, 255, 256, 999):
        assert whole[n] == next(bm25.embed(texts[n]))
    assert list(bm25.passage_embed(texts)) == whole


def test_bm25_parallel_is_the_same(bm25):
    texts = [f"word{n % 77} cats running" for n in range(1500)]
    assert list(bm25.embed(texts, parallel=2)) == list(bm25.embed(texts))
    vectors = bm25.embed((f"cat {n}" for n in itertools.count()), parallel=2)
    next(vectors)
    vectors.close()  # leaves no workers behind: the test would not end


def test_bm25_parallel_without_semaphores(bm25, monkeypatch):
    """As on AWS Lambda, which has no /dev/shm."""

    def no_semaphores(*_arguments, **_options):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", no_semaphores)
    texts = [f"cat {n}" for n in range(600)]
    assert list(bm25.embed(texts, parallel=2)) == list(bm25.embed(texts))


@pytest.mark.parametrize("parallel", [None, 2])
def test_bm25_bad_items_come_after_what_was_before_them(bm25, parallel):
    found = []

    def collect():
        for vector in bm25.embed(["cat"] * 300 + [None] + ["dog"] * 9, parallel=parallel):
            found.append(vector)  # noqa: PERF402 - what came before the error is kept

    with pytest.raises(TypeError, match=r"documents\[300\] must be a string, not NoneType"):
        collect()
    assert len(found) == 300


@pytest.mark.parametrize("documents", [None, b"bytes", 7, {"a": 1}])
@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed", "token_count", "fit"])
def test_what_is_no_text_fails_at_the_call(bm25, method, documents):
    with pytest.raises(TypeError, match="must be a string or an iterable of strings"):
        getattr(bm25, method)(documents)


def test_arguments_are_checked_at_the_call(bm25):
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        bm25.embed("x", batch_size=0)
    with pytest.raises(ValueError, match="parallel must be"):
        bm25.query_embed("x", parallel=-2)
    with pytest.raises(TypeError, match="batch_sise"):
        bm25.embed("x", batch_sise=1)


def test_bm25_surrogates_and_huge_texts(bm25):
    assert next(bm25.embed("cat \ud83d\ude00 \ud800")) == next(bm25.embed("cat 😀 \ufffd"))
    huge = next(bm25.embed("cats and dogs " * 700_000))
    assert len(huge) == 2


def test_bm25_options_reach_the_engine():
    plain = SparseTextEmbedding(BM25, language="german")
    assert next(plain.embed("Häuser")) == next(plain.embed("Häusern"))
    exact = SparseTextEmbedding(BM25, disable_stemmer=True)
    assert next(exact.embed("cats")) != next(exact.embed("cat"))
    assert next(SparseTextEmbedding(BM25, k=0.0).embed("cat cat")).values.tolist() == [1.0]
    thai = SparseTextEmbedding(BM25, language="thai", analyzer="bigram")
    assert set(next(thai.query_embed("แมว")).indices) & set(next(thai.embed("แมวดำ")).indices)


def test_bm25_unknown_language_lists_the_languages():
    with pytest.raises(ValueError, match=r"polish language is not supported.*arabic.*turkish"):
        SparseTextEmbedding(BM25, language="polish")


def test_options_of_other_models_are_refused():
    with pytest.raises(TypeError, match="Qdrant/bm25 has no option alpha"):
        SparseTextEmbedding(BM25, alpha=0.5)
    with pytest.raises(TypeError, match=r"prithivida/Splade_PP_en_v1 has no option b, k"):
        SparseTextEmbedding("prithivida/Splade_PP_en_v1", k=1.2, b=0.5, lazy_load=True)
    with pytest.raises(TypeError, match="has no corpus statistics"):
        SparseTextEmbedding("prithivida/Splade_PP_en_v1", lazy_load=True).fit(["x"])


def test_bm25_fit_puts_the_idf_into_documents():
    corpus = ["the red cat", "the blue cat", "a green dog barks"]
    model = SparseTextEmbedding(BM25, avg_len="auto", idf=True)
    with pytest.raises(ValueError, match=r"call fit\(corpus\) first"):
        list(model.embed("cat"))
    assert model.fit(corpus) is model
    values = dict(zip(("red", "cat"), next(model.embed("red cat")).values, strict=True))
    ratio = np.log1p((3 - 1 + 0.5) / 1.5) / np.log1p((3 - 2 + 0.5) / 2.5)
    assert values["red"] / values["cat"] == pytest.approx(ratio)


def test_bm25_statistics_are_saved_and_extended(tmp_path):
    texts = ["a cat sat", "a dog", "the cat and the dog ran"]
    model = SparseTextEmbedding(BM25, avg_len="auto", idf=True)
    for text in texts:
        assert model.partial_fit(text) is model
    expected = list(SparseTextEmbedding(BM25, avg_len="auto", idf=True).fit(texts).embed(texts))
    assert list(model.embed(texts)) == expected
    model.save_statistics(tmp_path / "statistics")
    other = SparseTextEmbedding(BM25, avg_len="auto", idf=True).load_statistics(tmp_path / "statistics")
    assert list(other.embed(texts)) == expected
    with pytest.raises(ValueError, match="language"):
        SparseTextEmbedding(BM25, language="german").load_statistics(tmp_path / "statistics")


def test_bm25_ids_fit_into_the_dimensions_asked_for():
    text = " ".join(f"word{n}" for n in range(300))
    assert (
        max(next(SparseTextEmbedding(BM25, dimensions=1000).embed(text)).indices)
        < 1000
        < max(next(SparseTextEmbedding(BM25).embed(text)).indices)
    )


def test_bm25_analyzers_by_name():
    code = SparseTextEmbedding(BM25, analyzer="code", strip_accents=True)
    assert set(next(code.query_embed("getÉtat")).indices) == set(next(code.query_embed("get_etat")).indices)


def test_equality_with_an_installed_fastembed(bm25, tmp_path):
    fastembed = pytest.importorskip("fastembed", reason="fastembed is not installed")
    from fastrank.bm25.languages import stopwords

    (tmp_path / "english.txt").write_text("\n".join(sorted(stopwords("english"))), encoding="utf-8")
    (tmp_path / "config.json").write_text("{}")
    theirs = fastembed.SparseTextEmbedding(BM25, specific_model_path=str(tmp_path))
    texts = ["Hello, World!", "", "cats running", "naïve café", "I can't do it's"]
    for own, other in zip(bm25.embed(texts), theirs.embed(texts), strict=True):
        assert own.indices.tolist() == other.indices.tolist()
        np.testing.assert_array_equal(own.values, other.values)


# -- SPLADE -----------------------------------------------------------------------------------------------------------


class NoTokenizer:
    special_ids = frozenset()
    pieces = ()


def batch_of(case, rows=slice(None)):
    ids, mask, types = (
        np.array(case[name], np.int64)[rows] for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    return Batch(range(len(ids)), ids, mask, types)


def test_splade_equals_a_float64_reference_on_a_checkpoint():
    """`splade` of the fixture: max over tokens of log1p(relu(logit)), in float64, of transformers' BertForMaskedLM."""
    folder = FIXTURES / "bert_masked_lm"
    session = Session(Model(folder / "model.safetensors", lambda: graph.build(folder, "masked-lm")), Options(threads=1))
    head = splade.documents(resolve(SparseTask("splade"), {}, Path()), NoTokenizer())
    cases = json.loads((folder / "expected.json").read_text())
    compared = 0
    for case in cases.values():
        batch = batch_of(case)
        if (np.diff(batch.mask, axis=1) > 0).any() or not batch.mask[:, 0].all():
            continue  # holes in the mask: never made here
        for vector, expected in zip(head(session.run(batch, "logits"), batch), np.array(case["splade"]), strict=True):
            assert vector.values.dtype == np.float32
            assert vector.indices.tolist() == np.flatnonzero(expected > 0).tolist()
            np.testing.assert_allclose(vector.values, expected[vector.indices], atol=1e-5)
            compared += 1
    assert compared >= 4


LOGITS = np.array([[[1.0, -2.0, 0.0, 3.0], [2.0, -1.0, 0.0, -5.0], [9.0, 9.0, 9.0, 9.0]]], np.float32)
ONE = Batch([0], np.array([[4, 5, 0]]), np.array([[1, 1, 0]]), np.zeros((1, 3), np.int64))


def test_splade_leaves_padding_and_special_tokens_out():
    (vector,) = splade.documents(resolve(SparseTask("splade"), {}, Path()), NoTokenizer())(LOGITS.copy(), ONE)
    assert vector.indices.tolist() == [0, 3]
    np.testing.assert_allclose(vector.values, np.log1p([2.0, 3.0]), rtol=1e-6)

    class Special(NoTokenizer):
        special_ids = frozenset({3})

    task = SparseTask("splade", activation="log1p-log1p", skip_special_tokens=True)
    (vector,) = splade.documents(resolve(task, {}, Path()), Special())(LOGITS.copy(), ONE)
    assert vector.indices.tolist() == [0]
    np.testing.assert_allclose(vector.values, np.log1p(np.log1p([2.0])), rtol=1e-6)


def masked_lm(tmp_path, **options):
    """A tiny folder whose graph returns a vocabulary for each token."""
    size = len(tiny_models.vocabulary())
    return tiny_models.write_model(tmp_path / "mlm", tiny_models.tiny_encoder(size, **options))


def test_custom_splade_models(tmp_path):
    SparseTextEmbedding.add_custom_model("acme/splade", ModelSource(hf="acme/splade"), vocab_size=123)
    assert SparseTextEmbedding.list_supported_models()[-1] == {
        "model": "acme/splade",
        "sources": {"hf": "acme/splade", "url": None, "_deprecated_tar_struct": False},
        "model_file": None,
        "description": "",
        "license": "",
        "size_in_GB": 0.0,
        "additional_files": ["tokenizer.json"],
        "requires_idf": None,
        "vocab_size": 123,
    }
    texts = ["hello world", "", "the cat is red " * 9] * 30
    with SparseTextEmbedding("acme/splade", specific_model_path=masked_lm(tmp_path)) as model:
        vectors = list(model.embed(texts, batch_size=7))
        for text, vector in zip(texts[:3], vectors, strict=False):
            alone = next(model.query_embed(text))
            np.testing.assert_array_equal(vector.indices, alone.indices)
            np.testing.assert_allclose(vector.values, alone.values, atol=1e-5)
            assert (vector.indices.dtype, vector.values.dtype) == (np.int64, np.float32)
            assert (vector.values > 0).all()
        assert model.token_count("hello world") == 4
    with pytest.raises(RuntimeError, match="closed"):
        model.embed("x")
    with pytest.raises(ValueError, match="already registered in SparseTextEmbedding"):
        SparseTextEmbedding.add_custom_model("acme/SPLADE", ModelSource(hf="acme/splade"))
    with pytest.raises(ValueError, match="activation must be"):
        SparseTextEmbedding.add_custom_model("acme/other", ModelSource(hf="a/b"), activation="relu")


SAVED = support.FIXTURES / "sparse_encoder"


def test_a_folder_of_sentence_transformers_says_how_it_is_used():
    """`expected.json` is of sentence-transformers 6.2 (scripts/make_modules_fixture.py)."""
    expected = json.loads((SAVED / "expected.json").read_text())
    with SparseTextEmbedding("any/name", specific_model_path=SAVED) as model:
        vectors = list(model.embed(expected["texts"]))
    for vector, values in zip(vectors, expected["vectors"], strict=True):
        found = np.zeros(len(values), np.float32)
        found[vector.indices] = vector.values
        np.testing.assert_allclose(found, values, atol=1e-5)


def test_a_repository_says_how_it_is_used(hub):
    files = {path.relative_to(SAVED).as_posix(): path.read_bytes() for path in SAVED.rglob("*") if path.is_file()}
    hub.add_repo("acme/saved", files)
    SparseTextEmbedding.add_custom_model("acme/saved")
    with SparseTextEmbedding("acme/saved") as fetched, SparseTextEmbedding("x", specific_model_path=SAVED) as given:
        assert next(fetched.embed("hello")).as_dict() == next(given.embed("hello")).as_dict()


def test_a_plain_masked_language_model_is_splade(tmp_path):
    with SparseTextEmbedding("any/name", specific_model_path=masked_lm(tmp_path)) as plain:
        SparseTextEmbedding.add_custom_model("acme/splade", activation="log1p")
        with SparseTextEmbedding("acme/splade", specific_model_path=tmp_path / "mlm") as told:
            assert next(plain.embed("hello")).as_dict() == next(told.embed("hello")).as_dict()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pooling_strategy": "mean"}, "'pooling_strategy' is 'mean'; supported: 'max', 'sum'"),
        ({"activation_function": "gelu"}, "'activation_function' is 'gelu'; supported: 'relu', 'log1p_relu'"),
        (
            None,
            "a sparse encoder is MLMTransformer and SpladePooling, or SparseStaticEmbedding, not Transformer, Pooling",
        ),
    ],
)
def test_sparse_folders_that_are_not_served(tmp_path, change, says):
    folder = Path(shutil.copytree(SAVED, tmp_path / "folder", copy_function=shutil.copyfile))
    if change is None:
        listed = (folder / "modules.json").read_text().replace('SpladePooling"', 'Pooling"')
        (folder / "modules.json").write_text(listed)
    else:
        (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(change))
    with pytest.raises(ModelLoadError, match=says):
        SparseTextEmbedding("any/name", specific_model_path=folder)


def test_a_sparse_folder_with_prompts(tmp_path):
    folder = Path(shutil.copytree(SAVED, tmp_path / "folder", copy_function=shutil.copyfile))
    stated = {"prompts": {"query": "find ", "document": "the "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(stated))
    with SparseTextEmbedding("any/name", specific_model_path=folder) as model:
        for method, prompt in [(model.query_embed, "find "), (model.passage_embed, "the ")]:
            assert next(method("cat")).as_dict() == next(model.embed(f"{prompt}cat")).as_dict()


def test_splade_nan_names_the_text(tmp_path):
    SparseTextEmbedding.add_custom_model("acme/splade", ModelSource(hf="acme/splade"))
    model = SparseTextEmbedding("acme/splade", specific_model_path=masked_lm(tmp_path, nan=True))
    with pytest.raises(OutputError, match=r"documents\[1\]"):
        list(model.embed(["cat", "nan"]))


def test_splade_on_a_graph_that_is_none(tmp_path):
    SparseTextEmbedding.add_custom_model("acme/splade", ModelSource(hf="acme/splade"))
    folder = tiny_models.write_model(tmp_path / "x", tiny_models.tiny_pooled())
    with pytest.raises(ModelLoadError, match=r"SPLADE needs \(texts, tokens, vocabulary\)"):
        list(SparseTextEmbedding("acme/splade", specific_model_path=folder).embed("x"))


def test_queries_that_run_no_model(tmp_path):
    folder = masked_lm(tmp_path)
    (folder / "idf.json").write_text(json.dumps({"hello": 2.5, "world": 1.5, "[CLS]": 9, "unheard of": 3}))
    SparseTextEmbedding.add_custom_model("acme/free", ModelSource(hf="a/b"), query_weights="idf.json")
    model = SparseTextEmbedding("acme/free", specific_model_path=folder)
    ids = {piece: number for number, piece in enumerate(tiny_models.vocabulary())}
    query, nothing = model.query_embed(["world hello hello cat", ""])
    assert query.as_dict() == {ids["hello"]: 2.5, ids["world"]: 1.5}
    assert query.indices.tolist() == sorted(query.indices.tolist())
    assert len(nothing) == 0
    (folder / "idf.json").write_text("[]")
    with pytest.raises(ModelLoadError, match=r"idf\.json is no table"):
        SparseTextEmbedding("acme/free", specific_model_path=folder)


@pytest.mark.skipif(not DATA.is_dir(), reason="other people's models are not on this machine (FASTRANK_TEST_DATA)")
def test_opensearch_query_weights(tmp_path):
    """Values published in qdrant/fastembed, tests/test_sparse_embeddings.py; the table is OpenSearch's."""
    folder = masked_lm(tmp_path)
    with zipfile.ZipFile(DATA / "opensearch-neural-sparse-idf" / "bert-uncased.zip") as archive:
        archive.extractall(folder)
    name = "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-gte"
    query = next(SparseTextEmbedding(name, specific_model_path=folder).query_embed("Hello World"))
    assert query.as_dict() == pytest.approx({2088: 3.42086864, 7592: 6.93775654}, abs=1e-6)


@pytest.mark.skipif(not DATA.is_dir(), reason="other people's models are not on this machine (FASTRANK_TEST_DATA)")
def test_vespas_dummy_splade_model(tmp_path):
    """vespa-engine/vespa, SpladeEmbedderTest: three terms above 1.15, "relief" among them; nothing for no words."""
    with zipfile.ZipFile(DATA / "opensearch-neural-sparse-idf" / "bert-uncased.zip") as archive:
        archive.extract("tokenizer.json", tmp_path)
    model = (DATA / "vespa-dummy-transformers" / "dummy_transformer_mlm.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(model)
    SparseTextEmbedding.add_custom_model("acme/vespa", ModelSource(hf="a/b"), output_name="logits")
    splade = SparseTextEmbedding("acme/vespa", specific_model_path=tmp_path)
    vector = next(splade.embed("what was the manhattan project"))
    pieces = splade._model.get().documents.tokenizer.vocab
    high = {pieces[number] for number, value in vector.as_dict().items() if value > 1.15}
    assert len(high) == 3
    assert "relief" in high


# -- BM42 -------------------------------------------------------------------------------------------------------------

BM42 = "Qdrant/bm42-all-minilm-l6-v2-attentions"


@pytest.fixture
def bm42(real_model_folder):
    with SparseTextEmbedding(BM42, specific_model_path=real_model_folder) as model:
        yield model


@pytest.mark.real_model
def test_bm42_weighs_words_by_real_attention(bm42):
    from fastrank.bm25.terms import terms

    ids = terms("english")
    text = "The octopus taught the biologist to play chess."
    vector = next(bm42.embed(text))
    words = {ids[word]: word for word in re.findall(r"\w+", text.lower())}
    assert set(vector.as_dict()) == {n for n in words if n >= 0}
    weights = {words[number]: value for number, value in vector.as_dict().items()}
    assert weights["octopus"] > weights["play"]
    assert vector.values.dtype == np.float32
    texts = [text, "", ".", "unbelievably transcontinental", "cat " * 400]
    for batched, each in zip(bm42.embed(texts), texts, strict=True):
        alone = next(bm42.embed(each))
        assert batched.indices.tolist() == alone.indices.tolist()
        np.testing.assert_allclose(batched.values, alone.values, atol=1e-6)
    assert [len(v) for v in bm42.embed(["", "."])] == [0, 0]


@pytest.mark.real_model
def test_bm42_queries_are_bm25s(bm42, bm25):
    for text in ("cats running in the garden", "unbelievably transcontinental", ""):
        query = next(bm42.query_embed(text))
        assert set(query.indices.tolist()) == set(next(bm25.query_embed(text)).indices.tolist())
        assert (query.values == 1).all()


@pytest.mark.real_model
def test_bm42_alpha(real_model_folder, bm42):
    with SparseTextEmbedding(BM42, specific_model_path=real_model_folder, alpha=1.0) as model:
        squared = next(model.embed("cats and dogs"))
    np.testing.assert_allclose(squared.values, next(bm42.embed("cats and dogs")).values ** 2, rtol=1e-5)


def test_bm42_sums_pieces_and_takes_the_highest_of_equal_stems():
    class Tokenizer:
        special_ids = frozenset({0, 1})
        vocab = ("[CLS]", "[SEP]", "run", "##ning", "runs", "the", ".", "cat")

    head = bm42_head(resolve(SparseTask("bm42", language="english", alpha=1.0), {}, Path()), Tokenizer())
    ids = np.array([[0, 2, 3, 4, 5, 6, 7, 1]])
    attention = np.zeros((1, 2, 8, 8), np.float32)
    attention[0, :, 0] = [[0.1, 0.2, 0.1, 0.1, 0.3, 0.1, 0.05, 0.05], [0.1, 0.1, 0.2, 0.3, 0.1, 0.1, 0.15, 0.05]]
    (vector,) = head(attention, Batch([0], ids, np.ones_like(ids), np.zeros_like(ids)))
    from fastrank.bm25.terms import term_id

    assert vector.as_dict() == pytest.approx(
        {term_id("run"): np.log1p(0.15 + 0.15), term_id("cat"): np.log1p(0.1)}, abs=1e-6
    )


# -- MiniCOIL ---------------------------------------------------------------------------------------------------------


def test_minicoil_by_hand(tmp_path):
    from fastrank.bm25.terms import term_id

    folder = tiny_models.write_model(tmp_path / "coil", tiny_models.tiny_encoder(8))
    vocabulary = {"vocab": ["cat", "rank"], "stem_mapping": {"cat": "cat", "rank": "rank"}}
    (folder / "minicoil.triplet.model.vocab").write_text(json.dumps(vocabulary))
    matrices = np.random.default_rng(0).normal(size=(3, 8, 4)).astype(np.float32)
    np.save(folder / "minicoil.triplet.model.npy", matrices)
    name = "Qdrant/minicoil-v1"
    with SparseTextEmbedding(name, specific_model_path=folder, max_length=64) as model:
        (document,) = model.embed("the cats rank a document. cat!")
        (query,) = model.query_embed("the cats rank a document. cat!")
        pipeline = model._model.get().documents
    tokens = pipeline.tokenizer.encode(["the cats rank a document. cat!"])[0].ids
    pieces = [pipeline.tokenizer.vocab[number] for number in tokens]
    ids = tokens[None].astype(np.int64)
    states = pipeline.session.run(Batch([0], ids, np.ones_like(ids), np.zeros_like(ids)))[0]
    cats = [at for at, piece in enumerate(pieces) if piece in ("cat", "cats")]
    meaning = np.tanh(states[cats].mean(axis=0) @ matrices[1])
    meaning /= np.linalg.norm(meaning)

    def saturated(count):  # "the" and "a" are stop words, [CLS], [SEP] and punctuation no words: 4 are left
        return count * 2.2 / (count + 1.2 * (0.25 + 0.75 * 4 / 150))

    np.testing.assert_allclose([document.as_dict()[4 + n] for n in range(4)], meaning * saturated(2), rtol=1e-5)
    np.testing.assert_allclose([query.as_dict()[4 + n] for n in range(4)], meaning, rtol=1e-5)
    other = 64_000 + term_id("document") % (2**31 - 1 - 64_000)
    assert document.as_dict()[other] == pytest.approx(saturated(1))
    assert query.as_dict()[other] == 1
    assert set(document.as_dict()) == {*range(4, 12), other}


def test_minicoil_without_its_files(tmp_path):
    with pytest.raises(ModelLoadError, match="has no usable MiniCOIL vocabulary"):
        SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=tiny_models.write_model(tmp_path / "x"))


# -- FastEmbed itself, where it is installed --------------------------------------------------------------------------


def for_fastembed(folder, limit=64):
    """The settings files that FastEmbed wants beside a model."""
    settings = {"model_max_length": limit, "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps({"cls_token": "[CLS]", "sep_token": "[SEP]"}))
    return str(folder)


COMPARED = ["The cats rank a document, cat!", "hello world of red models", "", "dogs'", "nothing-known xyzzy 42"]


def compare(own, other, atol):
    for ours, theirs in zip(own, other, strict=True):
        assert dict(sorted(ours.as_dict().items())) == pytest.approx(dict(sorted(theirs.as_dict().items())), abs=atol)


def test_splade_equals_an_installed_fastembed(tmp_path):
    fastembed = pytest.importorskip("fastembed", reason="fastembed is not installed")
    folder = masked_lm(tmp_path)
    (folder / "onnx" / "model.onnx").rename(folder / "model.onnx")
    name = "prithivida/Splade_PP_en_v1"
    theirs = fastembed.SparseTextEmbedding(name, specific_model_path=for_fastembed(folder))
    own = SparseTextEmbedding(name, specific_model_path=folder, max_length=64)
    compare(own.embed(COMPARED), theirs.embed(COMPARED), 1e-5)


def test_minicoil_equals_an_installed_fastembed(tmp_path):
    fastembed = pytest.importorskip("fastembed", reason="fastembed is not installed")
    from fastrank.bm25.languages import stopwords

    folder = tiny_models.write_model(tmp_path / "coil", tiny_models.tiny_encoder(8))
    vocabulary = {"vocab": ["cat", "rank", "red"], "stem_mapping": {"cat": "cat", "rank": "rank", "red": "red"}}
    (folder / "minicoil.triplet.model.vocab").write_text(json.dumps(vocabulary))
    np.save(folder / "minicoil.triplet.model.npy", np.random.default_rng(0).normal(size=(4, 8, 4)).astype(np.float32))
    (folder / "stopwords.txt").write_text("\n".join(sorted(stopwords("english"))))
    theirs = fastembed.SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=for_fastembed(folder))
    own = SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=folder, max_length=64)
    compare(own.embed(COMPARED), theirs.embed(COMPARED), 1e-5)
    compare(own.query_embed(COMPARED), theirs.query_embed(COMPARED), 1e-5)


@pytest.mark.real_model
def test_bm42_equals_an_installed_fastembed(bm42, real_model_folder, tmp_path):
    fastembed = pytest.importorskip("fastembed", reason="fastembed is not installed")
    import shutil

    import onnx

    from fastrank.bm25.languages import stopwords
    from fastrank.graph import build

    graph = onnx.load_model_from_string(build(real_model_folder, "attention"))
    graph.graph.node.append(onnx.helper.make_node("Identity", ["attention"], ["attention_6"]))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("attention_6", onnx.TensorProto.FLOAT, None))
    onnx.save_model(graph, tmp_path / "model.onnx")
    for file in ("model.safetensors", "tokenizer.json"):
        shutil.copyfile(real_model_folder / file, tmp_path / file)
    (tmp_path / "stopwords.txt").write_text("\n".join(sorted(stopwords("english"))))
    theirs = fastembed.SparseTextEmbedding(BM42, specific_model_path=for_fastembed(tmp_path, 256))
    compare(bm42.embed(COMPARED), theirs.embed(COMPARED), 1e-5)
    compare(bm42.query_embed(COMPARED), theirs.query_embed(COMPARED), 0)


# -- the registry -----------------------------------------------------------------------------------------------------


def test_names_of_fastembed_are_known():
    for name in (
        "Qdrant/bm25",
        "prithivida/Splade_PP_en_v1",
        "prithvida/Splade_PP_en_v1",
        "Qdrant/bm42-all-minilm-l6-v2-attentions",
        "Qdrant/minicoil-v1",
        "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-gte",
    ):
        assert registry.find(name.lower(), "sparse-embedding").name.lower().replace("prithvida", "prithivida")
    row = next(row for row in SparseTextEmbedding.list_supported_models() if row["model"] == BM25)
    assert row["requires_idf"] is True
    assert list(row)[-2:] == ["requires_idf", "vocab_size"]
