"""Rows I1 to I11: what callers may give. The gate itself is tested in test_inputs.py, without a model."""

import gc
import importlib
import itertools
import random
import resource
import time
import tracemalloc
from enum import Enum

import numpy as np
import pytest
import tokenizers
from support import tiny_models
from support.pinned_model import REPO
from support.waiting import patience

from fastrank import ModelSource, PoolingType, TextCrossEncoder, TextEmbedding
from fastrank.bm25 import BM25Index
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models import tokenization
from fastrank.postprocess import pool_tokens


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


HUGE = {  # texts of few tokens, and shorter ones that have the same
    "one word": ("deadbeef" * 1_250_000, "deadbeef" * 20),
    "one word of accents": ("déjà" * 2_000_000, "déjà" * 40),
    "spaces": (" " * 10_000_000, " "),
    "words far apart": ("cat" + " " * 5_000_000 + "dog" + "\u200b" * 5_000_000 + "s", "cat dogs"),
    "a long word between": ("the " + "x1" * 4_000_000 + " cat", "the " + "x1" * 100 + " cat"),
}


@pytest.mark.parametrize("kind", HUGE)
def test_i8_huge_texts_of_few_tokens_cost_little(tmp_path, kind):
    huge, short = HUGE[kind]
    (tmp_path / "tokenizer.json").write_bytes(tiny_models.tiny_tokenizer())
    own = Tokenizer(tokenization.read(tmp_path), 64)
    begin = time.process_time()
    found = own.encode([huge])[0].ids
    assert time.process_time() - begin < patience(2)  # tokenizing it all takes ten
    np.testing.assert_array_equal(found, own.encode([short])[0].ids)


def longest_first(first, second, room):
    """Two lists of tokens, truncated as `tokenizers` does it."""
    short, long = sorted((len(first), len(second)))
    if short + long > room:
        long = short if short > room else max(short, room - short)
        if short + long > room:
            short, long = room // 2, room - room // 2
    most = (short, long) if len(first) <= len(second) else (long, short)
    return first[: most[0]], second[: most[1]]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_i8_the_cut_changes_no_token_of_pairs_with_huge_sides(tmp_path, kind):
    dice = random.Random(1)
    alphabet = ["cat ", "hello", "ab1 ", "😀", ".", "é", "中", " " * 200, "\n" * 90, " " + "x" * 120]
    (tmp_path / "tokenizer.json").write_bytes(tiny_models.tiny_tokenizer(kind))
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reference.no_truncation()
    start, *middle, end = reference.encode("", "").ids
    own = Tokenizer(tokenization.read(tmp_path, registered=True), 64, pairs=True)

    def side():
        return "".join(dice.choices(alphabet, k=dice.choice((0, 3, 60, 600, 3_000))))

    for n in range(60):
        pair = (side(), side()) if n % 3 else (text := side(), text + dice.choice(("", "cat", " " * 20_000)))
        tokens = [reference.encode(text, add_special_tokens=False).ids for text in pair]
        first, second = longest_first(*tokens, 62 - len(middle))
        found = own.encode([pair])[0]
        assert found.ids.tolist() == [start, *first, *middle, *second, end]
        if kind == "wordpiece":
            assert found.types.tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)


def test_i8_two_huge_texts_are_truncated_in_little_time_and_memory(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(tiny_models.tiny_tokenizer())
    own = Tokenizer(tokenization.read(tmp_path), 64, pairs=True)
    huge = "the cat is fast and red " * 10_000
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(own.encode([(huge, huge), (huge, huge[:-9]), (huge[:20_000], huge)])[2].ids) == 64
    assert time.process_time() - begin < patience(20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800_000  # kB, on Linux


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


# -- what looks like text ---------------------------------------------------------------------------------------------


class Colour(str, Enum):  # noqa: UP042 - a StrEnum would print itself right
    """A string that prints itself as something else."""

    RED = "the red cat"

    def __str__(self):
        return "Colour.RED"


def test_i12_a_subclass_of_str_counts_by_its_characters(model, cross_encoder, bm25):
    scores = cross_encoder()
    np.testing.assert_array_equal(next(model.embed([Colour.RED])), next(model.embed(["the red cat"])))
    assert next(bm25.embed(Colour.RED)).as_dict() == next(bm25.embed("the red cat")).as_dict()
    assert list(scores.rerank(Colour.RED, [Colour.RED])) == list(scores.rerank("the red cat", ["the red cat"]))
    accented = type("Accented", (str,), {"__str__": lambda _self: "x"})("é")
    np.testing.assert_array_equal(next(model.embed(accented)), next(model.embed("é")))


class Frame:
    """What DataFrames of pandas, polars and others have in common: iteration gives the names of the columns."""

    columns = ("title", "body")

    def __iter__(self):
        return iter(self.columns)

    def __getitem__(self, name):
        return [f"{name} {n}" for n in range(3)]


def tables():
    yield pytest.param(Frame(), id="any")
    for module, make in (
        ("pandas", lambda found: found.DataFrame({"title": ["a"], "body": ["b"]})),
        ("polars", lambda found: found.DataFrame({"title": ["a"], "body": ["b"]})),
        ("pyarrow", lambda found: found.table({"title": ["a"], "body": ["b"]})),
    ):
        if importlib.util.find_spec(module):
            yield pytest.param(make(importlib.import_module(module)), id=module)


@pytest.mark.parametrize("table", list(tables()))
def test_i13_a_table_is_no_list_of_texts(model, cross_encoder, bm25, table):
    scores = cross_encoder()
    calls = [
        lambda: model.embed(table),
        lambda: model.query_embed(table),
        lambda: bm25.embed(table),
        lambda: scores.rerank("query", table),
        lambda: scores.rank("query", table),
        lambda: scores.rank_batch(["query"], [table]),
        lambda: scores.rerank_pairs(table),
        lambda: BM25Index.build(table),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"pass one column, such as \['title'\]. Its columns: title, body"):
            call()
    assert len(list(model.embed(Frame()["title"]))) == 3


def test_i14_rows_of_an_array_are_pairs(cross_encoder):
    scores = cross_encoder()
    pairs = [("a cat", "the cat"), ("a cat", "the dog")]
    assert list(scores.rerank_pairs(np.array(pairs))) == list(scores.rerank_pairs(pairs))
    with pytest.raises(TypeError, match=r"pairs\[0\] must be a pair of strings, not ndarray"):
        list(scores.rerank_pairs(np.array([["a", "b", "c"]])))


def test_i15_a_pair_needs_room_for_both(tmp_path):
    folder = tiny_models.write_model(tmp_path, tiny_models.tiny_cross_encoder())
    TextCrossEncoder.add_custom_model("acme/pairs", ModelSource(hf="acme/pairs"))
    with pytest.raises(ValueError, match="max_length=4 leaves no room for a pair of texts: this model adds 3 special"):
        TextCrossEncoder("acme/pairs", specific_model_path=folder, max_length=4)
    model = TextCrossEncoder("acme/pairs", specific_model_path=folder, max_length=5)
    assert len(set(model.rerank("cat", ["the", "dog", "red"]))) > 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device_ids": "0"}, "device_ids must be a list"),
        ({"device_ids": [None]}, "a device id must be an integer >= 0, not None"),
        ({"device_ids": [-1]}, "not -1"),
        ({"device_ids": [1.5]}, "not 1.5"),
        ({"device_id": True}, "not True"),
        ({"providers": [None]}, "a provider is a name, or .name, options., not None"),
        ({"providers": [({},)]}, "a provider is a name"),
        ({"threads": 2**31}, "threads must be <= 4096"),
    ],
)
def test_i16_options_that_make_no_sense_are_refused_on_any_machine(tiny, options, says):
    with pytest.raises((TypeError, ValueError), match=says):
        TextEmbedding("any/tiny", specific_model_path=tiny, pooling=PoolingType.MEAN, **options)


def test_i17_token_vectors_that_are_not_finite_are_not_pooled():
    vectors = np.full((4, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="vectors must be finite"):
        pool_tokens(vectors, 2)
