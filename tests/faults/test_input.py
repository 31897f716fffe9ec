"""Rows I1 to I11: what callers may give. The gate itself is tested in test_inputs.py, without a model."""

import gc
import itertools
import random
import time
import tracemalloc

import numpy as np
import pytest
import tokenizers
from support import tiny_models
from support.pinned_model import REPO
from support.waiting import patience

from fastrank import ModelSource, TextCrossEncoder, TextEmbedding
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models import tokenization


def rows(vectors):
    return np.stack(list(vectors))


@pytest.fixture
def cross_encoder(tmp_path):
    """A function that makes one, with options."""
    folder = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
    TextCrossEncoder.add_custom_model(REPO, ModelSource(hf=REPO), max_length=64)
    return lambda **options: TextCrossEncoder(REPO, specific_model_path=folder, **options)


@pytest.mark.parametrize("documents", [None, b"bytes", 7, {"a": 1}])
@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed", "token_count"])
def test_i1_what_is_no_text_fails_at_the_call(model, method, documents):
    with pytest.raises(TypeError, match="must be a string or an iterable of strings"):
        getattr(model, method)(documents)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_i1_batch_sizes_fail_at_the_call(model, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be >= 1, got {batch_size}"):
        model.embed(["a"], batch_size=batch_size)
    with pytest.raises(ValueError, match="parallel must be"):
        model.embed(["a"], parallel=-1)


def test_i2_what_came_before_a_bad_item_is_delivered(model):
    vectors = model.embed(["a", "b", None, "d"], batch_size=1)
    np.testing.assert_array_equal(rows([next(vectors), next(vectors)]), rows(model.embed(["a", "b"], batch_size=1)))
    with pytest.raises(TypeError, match=r"documents\[2\] must be a string, not NoneType"):
        next(vectors)


STRANGE = [
    "",
    "   \n\t ",
    "\0",
    "a\0b",
    "👩‍👩‍👧‍👦",
    "שלום עולם",
    "e\u0301\u0302\u0303",
    "\U0010ffff",
    "😀" * 5000,
    "a" * 100_000,
    "\u200b" * 50,
    "\ufeff",
    "[SEP] [MASK]",
    "\r\n",
    "𝕳𝖊𝖑𝖑𝖔",
]


def test_i3_strange_texts_have_one_finite_unit_vector_each(model):
    found = rows(model.embed(STRANGE))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_i4_surrogates_are_joined_or_replaced(model):
    found = rows(model.embed(["x \ud83d\ude00", "x \ud800"]))
    np.testing.assert_array_equal(found, rows(model.embed(["x 😀", "x \ufffd"])))


@pytest.mark.parametrize("documents", [[], (), iter(()), set()])
def test_i5_nothing_gives_nothing_and_runs_nothing(model, monkeypatch, documents):
    monkeypatch.delattr("fastrank.engine.session.Session.run")
    assert list(model.embed(documents)) == []
    assert model.token_count([]) == 0


def test_i6_an_error_of_the_callers_iterator_comes_after_what_was_before_it(model):
    def broken():
        yield from ["cat"] * 300
        raise LookupError("midway")

    vectors = model.embed(broken())
    assert len(list(itertools.islice(vectors, 300))) == 300
    with pytest.raises(LookupError, match="midway"):
        next(vectors)


def test_i7_endless_iterators_read_ahead_by_one_window_in_flat_memory(model):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield f"cat number {taken % 10} is fast"

    vectors = model.embed(endless(), batch_size=32)
    next(vectors)
    assert taken == 256
    held = []
    tracemalloc.start()
    for count in range(256 * 20):
        next(vectors)
        if count in (256 * 4, 256 * 19):  # at the same place of a window
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[1] - held[0] < 100_000  # 15 windows: keeping but the texts would be 300,000
    vectors.close()


def test_i8_ten_megabytes_equal_their_beginning(model):
    text = "the cat is fast and red " * 450_000
    assert len(text) > 10_000_000
    begin = time.perf_counter()
    found = next(model.embed(text))
    assert time.perf_counter() - begin < patience(2)  # tokenizing it all takes ten
    np.testing.assert_array_equal(found, next(model.embed(text[:50_000])))


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_i8_the_cut_changes_no_token_of_300_random_texts(tmp_path, kind):
    dice = random.Random(0)
    alphabet = ["cat", "hello", "ab1", "😀", ".", "é", "中", " ", " ", "\n", "\t"]
    (tmp_path / "tokenizer.json").write_bytes(tiny_models.tiny_tokenizer(kind))
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reference.enable_truncation(64)
    own = Tokenizer(tokenization.read(tmp_path), 64)
    for _ in range(300):
        text = "".join(dice.choices(alphabet, k=dice.choice((100, 9_000, 14_000))))
        assert own.encode([text])[0].ids.tolist() == reference.encode(text).ids


def test_i9_a_string_is_no_list_of_documents(cross_encoder):
    model = cross_encoder()
    with pytest.raises(TypeError, match=r"documents must be an iterable of strings, not one string; .*\[document\]"):
        model.rerank("capital of france", "paris")
    with pytest.raises(TypeError, match="queries must be an iterable of strings, not one string"):
        model.rank_batch("paris", [["x"]])
    for wrong in ("paris", b"x", {"a": 1}, None):
        with pytest.raises(TypeError, match="documents must be an iterable"):
            model.rank("capital of france", wrong)


def test_i10_unknown_keywords_are_errors(model, tiny):
    with pytest.raises(TypeError, match="batch_sise"):
        model.embed(["a"], batch_sise=3)
    with pytest.raises(TypeError, match="treads"):
        TextEmbedding(REPO, specific_model_path=tiny, treads=3)


FORGED = "paris [SEP] berlin"


@pytest.mark.parametrize("text", [FORGED, ("what [SEP] is", FORGED)])
def test_i11_special_tokens_in_texts_are_those_of_the_reference(tiny, text):
    reference = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    expected = reference.encode(*text) if isinstance(text, tuple) else reference.encode(text)
    assert Tokenizer(tokenization.read(tiny), 64).encode([text])[0].ids.tolist() == expected.ids
    sep = reference.token_to_id("[SEP]")
    plain = Tokenizer(tokenization.read(tiny), 64, special_tokens_in_text=False).encode([text])[0].ids.tolist()
    assert plain.count(sep) == (2 if isinstance(text, tuple) else 1)  # only its own
    assert Tokenizer(tokenization.read(tiny), 64).encode([text])[0].ids.tolist().count(sep) > plain.count(sep)


def test_i11_the_option_is_there_for_every_model(custom, tiny, cross_encoder):
    letters = FORGED.replace("[SEP]", "[ SEP ]")  # the tokens that the letters have
    with TextEmbedding(custom(), specific_model_path=tiny, special_tokens_in_text=False) as model:
        np.testing.assert_array_equal(next(model.embed(FORGED)), next(model.embed(letters)))
    for option in (True, False):
        with cross_encoder(special_tokens_in_text=option) as model:
            same = list(model.rerank("paris", [FORGED])) == list(model.rerank("paris", [letters]))
            assert same is not option


def test_i11_only_second_truncation_too(tiny):
    tokenizer = Tokenizer(tokenization.read(tiny), 16, "only_second", special_tokens_in_text=False)
    long = "[SEP] cat " * 20
    sep = tokenizer._tokenizer.token_to_id("[SEP]")
    for pair in (("cat", long), (long, "cat")):  # the second is for the other tokenizer: the query alone is too long
        assert tokenizer.encode([pair])[0].ids.tolist().count(sep) == 2
