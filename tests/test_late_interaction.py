"""Token vectors and their scores, on models small enough to check by hand."""

import inspect
import string

import numpy as np
import pytest
from conftest import REAL
from tiny_models import DIM, tiny_encoder, vocabulary, write_model

import fastrank
from fastrank import LateInteractionTextEmbedding, ModelSource, TextCrossEncoder, TextEmbedding
from fastrank.errors import ModelLoadError, ModelNotFoundError, OutputError
from fastrank.maxsim import maxsim
from fastrank.registry import PoolingType

NAME = "acme/colbert"
IDS = {token: number for number, token in enumerate(vocabulary())}
QUERY, DOCUMENT = IDS["[unused0]"], IDS["[unused1]"]
COLBERT = {
    "query_marker": QUERY,
    "document_marker": DOCUMENT,
    "query_length": 8,
    "skip": string.punctuation,
}


def add(name=NAME, **settings):
    LateInteractionTextEmbedding.add_custom_model(name, ModelSource(hf=name), DIM, **settings)


@pytest.fixture
def states(tiny):
    """(ids, mask) -> all states, by the session that the models here use."""
    session = LateInteractionTextEmbedding(REAL, specific_model_path=tiny)._engine.get().session

    def run(ids, mask=None):
        from fastrank.schedule import Batch

        ids = np.array([ids])
        batch = Batch([0], ids, np.ones_like(ids) if mask is None else np.array([mask]), np.zeros_like(ids))
        return session.run(batch)[0]

    return run


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def plain(tiny):
    """Token vectors of all tokens, of length 1."""
    add("acme/plain", projection=False)
    return LateInteractionTextEmbedding("acme/plain", specific_model_path=tiny)


@pytest.fixture
def colbert(tiny):
    add(**COLBERT)
    return LateInteractionTextEmbedding(NAME, specific_model_path=tiny)


def ids(*tokens):
    return [IDS[token] for token in tokens]


def test_without_settings_all_tokens_have_vectors(plain, states):
    for method in (plain.embed, plain.query_embed, plain.passage_embed):
        (vectors,) = method("hello, world")
        assert (vectors.dtype, vectors.shape) == (np.float32, (5, DIM))
        expected = unit(states(ids("[CLS]", "hello", ",", "world", "[SEP]")))
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_documents_get_a_marker_and_lose_punctuation(colbert, states):
    (vectors,) = colbert.embed("hello, world!")
    expected = unit(states([IDS["[CLS]"], DOCUMENT, *ids("hello", ",", "world", "!", "[SEP]")]))
    np.testing.assert_allclose(vectors, expected[[0, 1, 2, 4, 6]], atol=1e-6)


@pytest.mark.parametrize(("attend", "mask"), [(False, [1, 1, 1, 1, 0, 0, 0, 0]), (True, [1] * 8)])
def test_short_queries_are_filled_up(tiny, states, attend, mask):
    add(**COLBERT, attend_to_masks=attend)
    model = LateInteractionTextEmbedding(NAME, specific_model_path=tiny)
    (vectors,) = model.query_embed("hello")
    expected = unit(states([IDS["[CLS]"], QUERY, IDS["hello"], IDS["[SEP]"], *[IDS["[MASK]"]] * 4], mask))
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_queries_of_the_length_and_longer_ones_are_not(colbert, states):
    same, longer = colbert.query_embed(["cat " * 5, "cat! " * 7])
    np.testing.assert_allclose(same, unit(states([IDS["[CLS]"], QUERY, *ids("cat") * 5, IDS["[SEP]"]])), atol=1e-6)
    assert longer.shape == (17, DIM)  # punctuation counts in queries


def test_a_batch_changes_nothing(colbert):
    texts = ["cat", "the quick red dog of france! " * 9, "", "?!", "hello world"]
    for method in (colbert.embed, colbert.query_embed):
        together, alone = list(method(texts)), [next(method(text)) for text in texts]
        assert [v.shape for v in together] == [v.shape for v in alone]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_empty_and_punctuation_only_documents_keep_their_special_tokens(colbert):
    assert [len(vectors) for vectors in colbert.embed(["", "?!...", " "])] == [3, 3, 3]


def test_limits_count_the_marker(tiny):
    add(**COLBERT, query_max_length=10)
    model = LateInteractionTextEmbedding(NAME, specific_model_path=tiny, max_length=12)
    assert len(next(model.embed("cat " * 600))) == 12
    assert len(next(model.query_embed("cat " * 600))) == 10
    default = LateInteractionTextEmbedding(NAME, specific_model_path=tiny)
    assert len(next(default.embed("cat " * 600))) == 512
    with pytest.raises(ValueError, match="3 special tokens"):
        LateInteractionTextEmbedding(NAME, specific_model_path=tiny, max_length=3)


def test_markers_as_tokens_and_elsewhere(tiny, states):
    add(document_marker="[unused1]", marker_position=0)
    (vectors,) = LateInteractionTextEmbedding(NAME, specific_model_path=tiny).embed("cat")
    np.testing.assert_allclose(vectors, unit(states([DOCUMENT, *ids("[CLS]", "cat", "[SEP]")])), atol=1e-6)
    add("acme/wrong", document_marker="[D]")
    with pytest.raises(ModelLoadError, match=r"no token '\[D\]'"):
        LateInteractionTextEmbedding("acme/wrong", specific_model_path=tiny)


def test_normalize(tiny, states):
    raw = states(ids("[CLS]", "cat", "[SEP]"))
    for normalize, query, document in [("documents", raw, unit(raw)), ("none", raw, raw)]:
        add(f"acme/{normalize}", normalize=normalize)
        model = LateInteractionTextEmbedding(f"acme/{normalize}", specific_model_path=tiny)
        np.testing.assert_allclose(next(model.query_embed("cat")), query, atol=1e-6)
        np.testing.assert_allclose(next(model.embed("cat")), document, atol=1e-6)


def test_token_count_is_fastembeds(colbert):
    assert colbert.token_count("hello, world") == 5
    assert colbert.token_count(["hello, world", "cat"], include_extension=True) == 6 + 4
    assert colbert.token_count(["hello, world", "cat"], is_doc=False) == 8
    assert colbert.token_count(["hello, world", "cat " * 9], is_doc=False, include_extension=True) == 8 + 12


def test_rerank_is_maxsim(colbert):
    documents = ["paris is the capital of france", "", "a red dog"]
    query = next(colbert.query_embed("capital of france"))
    expected = [(query @ vectors.T).max(axis=1).sum() for vectors in colbert.embed(documents)]
    scores = list(colbert.rerank("capital of france", documents))
    assert [type(score) for score in scores] == [float] * 3
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(maxsim(query, list(colbert.embed(documents))), expected, atol=1e-5)
    ranked = colbert.rank("capital of france", [{"text": document} for document in documents], top_k=2)
    assert [r.score for r in ranked] == sorted(scores, reverse=True)[:2]
    assert ranked[0].text == {"text": documents[ranked[0].index]}


def test_rerank_checks_at_the_call_and_is_lazy(colbert):
    with pytest.raises(TypeError, match="query must be a string"):
        colbert.rerank(None, ["cat"])
    with pytest.raises(TypeError, match="not one string"):
        colbert.rerank("cat", "dog")
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        colbert.rerank("cat", ["dog"], batch_size=0)
    endless = (word for word in iter(lambda: "dog", None))
    scores = colbert.rerank("cat", endless)
    assert next(scores) == pytest.approx(next(scores), abs=1e-6)
    scores = colbert.rerank("cat", ["dog", 3])
    next(scores)
    with pytest.raises(TypeError, match=r"documents\[1\] must be a string"):
        next(scores)


def test_nan_is_named(tmp_path):
    add(**COLBERT)
    model = LateInteractionTextEmbedding(
        NAME, specific_model_path=write_model(tmp_path / "nan", tiny_encoder(nan=True))
    )
    with pytest.raises(OutputError, match=r"documents\[1\]"):
        list(model.embed(["cat", "nan"]))


def test_a_model_of_another_width_is_refused(tmp_path):
    add(**COLBERT)
    model = LateInteractionTextEmbedding(NAME, specific_model_path=write_model(tmp_path / "wide", tiny_encoder(24)))
    with pytest.raises(ModelLoadError, match="vectors of 24 numbers, not of 16"):
        next(model.embed("cat"))


def test_sizes_names_and_lists():
    rows = {row["model"]: row for row in LateInteractionTextEmbedding.list_supported_models()}
    assert LateInteractionTextEmbedding.get_embedding_size("colbert-ir/ColBERTv2.0") == 128
    for name, dim in [
        ("colbert-ir/colbertv2.0", 128),
        ("answerdotai/answerai-colbert-small-v1", 96),
        ("jinaai/jina-colbert-v2", 128),
        ("lightonai/LateOn", 128),
        ("lightonai/mLateOn", 128),
        (REAL, 384),
    ]:
        assert rows[name]["dim"] == dim
    assert list(rows[REAL]) == [
        *("model", "sources", "model_file", "description", "license", "size_in_GB", "additional_files", "dim", "tasks"),
    ]
    with pytest.raises(ModelNotFoundError, match=r"Did you mean colbert-ir/colbertv2\.0"):
        LateInteractionTextEmbedding("colbertv2")


def test_custom_models_are_checked():
    with pytest.raises(ValueError, match="normalize must be one of"):
        add(normalize="yes")
    with pytest.raises(ValueError, match="dim must be >= 1"):
        LateInteractionTextEmbedding.add_custom_model(NAME, ModelSource(hf=NAME), 0)
    add()
    with pytest.raises(ValueError, match="already registered in LateInteractionTextEmbedding"):
        add()
    TextEmbedding.add_custom_model(
        NAME, PoolingType.MEAN, True, ModelSource(hf=NAME), DIM
    )  # another class, another list


@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed", "rerank", "__init__"])
def test_signatures_begin_as_those_of_the_sisters(method):
    sister = TextCrossEncoder if method == "rerank" else TextEmbedding
    ours = list(inspect.signature(getattr(LateInteractionTextEmbedding, method)).parameters)
    theirs = list(inspect.signature(getattr(sister, method)).parameters)
    assert ours == [name for name in theirs if name not in ("normalize", "pooling", "prefixes")]


def test_import_path():
    assert fastrank.late_interaction.LateInteractionTextEmbedding is fastrank.LateInteractionTextEmbedding


def test_close(colbert):
    with colbert:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        colbert.embed("cat")


@pytest.mark.real_model
def test_the_real_model_finds_the_answer(real_model_folder):
    with LateInteractionTextEmbedding(REAL, specific_model_path=real_model_folder) as model:
        assert model.embedding_size == 384
        (vectors,) = model.embed("hello world")
        assert vectors.shape == (4, 384)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        best = model.rank("capital of France", ["Berlin is big.", "Paris is the capital.", "Cats purr."], 1)
        assert best[0].index == 1
