"""The index against scores computed one by one, and its file."""

import json
import math
import random
import threading
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastrank.bm25 import BM25, BM25Index
from fastrank.errors import ModelLoadError

WORDS = [f"w{number}" for number in range(60)]


def corpus(documents, seed=0):
    dice = random.Random(seed)
    return [" ".join(dice.choices(WORDS, weights=range(60, 0, -1), k=dice.randrange(30))) for _ in range(documents)]


def brute_force(texts, query, scored=None, k1=1.2, b=0.75):
    """Lucene's formula, word by word; the statistics are those of `texts`."""
    bags = [Counter(text.split()) for text in texts]
    average = sum(bag.total() for bag in bags) / len(bags)
    scores = []
    for bag in bags if scored is None else [Counter(text.split()) for text in scored]:
        score = 0.0
        for word in query.split():
            n = sum(word in other for other in bags)
            idf = math.log(1 + (len(bags) - n + 0.5) / (n + 0.5))
            f = bag[word]
            score += idf * f / (f + k1 * (1 - b + b * bag.total() / average))
        scores.append(score)
    return scores


def plain(texts, **options):
    return BM25Index.build(texts, disable_stemmer=True, **options)


@pytest.mark.parametrize("options", [{}, {"k": 0.9, "b": 0.4}, {"k": 2.0, "b": 0.0}])
def test_search_finds_what_brute_force_finds(options):
    texts = corpus(700)
    index = plain(iter(texts), **options)
    assert len(index) == 700
    parameters = {"k1": options.get("k", 1.2), "b": options.get("b", 0.75)}
    for query in ("w3 w50", "w59", "w1 w1 w2", "w7 unknown w40 w41 w42"):
        expected = np.array(brute_force(texts, query, **parameters))
        positions, scores = index.search(query, 1000)
        assert (positions.dtype, scores.dtype) == (np.int64, np.float32)
        assert sorted(positions.tolist()) == np.flatnonzero(expected).tolist()
        assert scores == pytest.approx(expected[positions], rel=1e-5)
        assert all(scores[:-1] >= scores[1:])
        for k in (1, 7, len(positions)):
            best, values = index.search(query, k)
            assert (best.tolist(), values.tolist()) == (positions[:k].tolist(), scores[:k].tolist())


def test_equal_scores_come_in_the_order_of_documents():
    index = plain(["a b", "a", "b a", "a", "c", "a"])
    assert index.search("a", 10)[0].tolist() == [1, 3, 5, 0, 2]
    assert index.search("a", 2)[0].tolist() == [1, 3]
    assert index.search("a", 4)[0].tolist() == [1, 3, 5, 0]


def test_the_order_of_words_in_a_query_changes_nothing():
    index = plain(corpus(300))
    assert index.search("w1 w30 w5 w17")[1].tolist() == index.search("w17 w5 w30 w1")[1].tolist()


def test_adding_in_parts_is_adding_at_once():
    texts = corpus(600)
    whole = plain(texts)
    parts = BM25Index(BM25(disable_stemmer=True))
    for start in (0, 1, 257, 500):
        parts.add(texts[start : {0: 1, 1: 257, 257: 500, 500: 600}[start]])
        parts.search("w1")
    for mine, other in zip(parts._postings, whole._postings, strict=True):
        assert mine.tolist() == other.tolist()
        assert mine.dtype == other.dtype
    assert parts.search("w9 w2")[1].tolist() == whole.search("w9 w2")[1].tolist()


@pytest.mark.parametrize("texts", [[], [""], ["the", ""]])
def test_an_index_without_words(texts):
    index = BM25Index.build(texts)
    positions, scores = index.search("fox")
    assert positions.tolist() == scores.tolist() == []
    assert len(index) == len(texts)


def test_a_query_without_words_finds_nothing():
    index = BM25Index.build(["fox"])
    assert index.search("the, of")[0].tolist() == index.search("")[0].tolist() == []
    assert index.scores("", ["fox", "dog"]).tolist() == [0, 0]


def test_scores_of_other_documents_use_the_statistics_of_the_index():
    texts, others = corpus(400), [*corpus(40, seed=1), "", "new words"]
    found = plain(texts).scores("w3 w50 w50 new", others)
    assert found.dtype == np.float32
    assert found == pytest.approx(brute_force(texts, "w3 w50 w50 new", others), rel=1e-5)


def test_scores_equal_those_of_search():
    texts = corpus(300)
    index = plain(texts)
    positions, scores = index.search("w1 w30 w5 w17 w1", 300)
    assert index.scores("w1 w30 w5 w17 w1", texts)[positions].tolist() == scores.tolist()


def test_an_empty_index_scores_documents_by_their_own_statistics():
    texts = corpus(50)
    index = BM25Index(BM25(disable_stemmer=True))
    assert index.scores("w3 w9", texts) == pytest.approx(brute_force(texts, "w3 w9"), rel=1e-5)
    assert index.scores("w3", []).shape == (0,)
    assert len(index) == 0


def test_stems_and_analyzers_are_used():
    assert BM25Index.build(["Barking dogs", "a cat"]).search("dog barks")[0].tolist() == [0]
    chinese = BM25Index.build(
        ["\u6211\u7231\u5317\u4eac", "\u4e0a\u6d77\u5f88\u5927"], language=None, analyzer="bigram"
    )
    assert chinese.search("\u5317\u4eac")[0].tolist() == [0]


@pytest.mark.parametrize("bad", [None, b"x", 3])
def test_bad_input_is_named(bad):
    index = BM25Index.build(["a fox"])
    with pytest.raises(TypeError, match="query must be a string"):
        index.search(bad)
    with pytest.raises(TypeError, match=r"texts\[1\] must be a string"):
        index.add(["good", bad])
    with pytest.raises(TypeError, match=r"documents\[0\] must be a string"):
        index.scores("fox", [bad])
    assert len(index) == 1
    with pytest.raises(ValueError, match="k must be >= 1"):
        index.search("fox", 0)


def test_threads_search_while_documents_are_added():
    index, stop, seen = plain(corpus(50)), threading.Event(), []

    def search():
        while not stop.is_set():
            positions, scores = index.search("w1 w2", 5)
            seen.append(len(positions) == len(scores) == 5)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(search) for _ in range(4)]
        for seed in range(20):
            index.add(corpus(20, seed))
        stop.set()
        for each in running:
            each.result()
    assert len(index) == 450
    assert seen
    assert all(seen)


def test_texts_are_not_kept_while_building():
    text, texts = "some words " * 5000, 100
    tracemalloc.start()
    try:
        index = plain(text + str(number) for number in range(texts))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) == texts
    assert peak < len(text) * texts / 2


# -- the file -------------------------------------------------------------------------------------------------------


def test_a_saved_index_answers_the_same(tmp_path):
    index = BM25Index.build(corpus(200), language="german", k=0.9, stopwords={"w3"}, analyzer="unicode")
    path = tmp_path / "words.index"
    index.save(path)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["words.index"]
    other = BM25Index.load(str(path))
    for query in ("w1 w2 w3", "w40"):
        assert [each.tolist() for each in other.search(query)] == [each.tolist() for each in index.search(query)]
    assert other.bm25.settings() == index.bm25.settings()
    other.add(["w1"])
    assert len(other) == 201


def test_saving_replaces_the_file_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "index"
    plain(["one"]).save(path)
    monkeypatch.setattr(np, "savez", lambda file, **_: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plain(["two"]).save(path)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["index"]
    assert len(BM25Index.load(path).search("one")[0]) == 1
    plain(["two"]).save(path)
    assert len(BM25Index.load(path).search("two")[0]) == 1


def test_damaged_files_are_refused_or_harmless(tmp_path):
    index = plain(corpus(30))
    good, bad = tmp_path / "good", tmp_path / "bad"
    index.save(good)
    expected = [each.tolist() for each in index.search("w1 w2 w3", 30)]
    data = good.read_bytes()
    dice = random.Random(0)
    refused = 0
    cases = [data[:length] for length in dice.sample(range(len(data)), 60)]
    for _ in range(200):
        at = dice.randrange(len(data))
        cases.append(data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :])
    for case in cases:
        bad.write_bytes(case)
        try:
            found = [each.tolist() for each in BM25Index.load(bad).search("w1 w2 w3", 30)]
        except ModelLoadError as error:
            assert str(bad) in str(error)  # noqa: PT017 - either outcome is right
            refused += 1
        else:
            assert found == expected
    assert refused > 200


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"\x80\x04N.", b"\x93NUMPY\x01\x00v\x00{"])
def test_other_files_are_no_index(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="is no BM25 index"):
        BM25Index.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        BM25Index.load(tmp_path / "nothing")


def rewritten(path, **changes):
    """The file with some of its arrays replaced."""
    with np.load(path) as file:
        arrays = {**file, **changes}
    with path.open("wb") as out:
        np.savez(out, **arrays)


def header(path, **changes):
    with np.load(path) as file:
        content = {**json.loads(file["header"].tobytes()), **changes}
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": np.array([0, 9], np.int32)}, "do not fit together"),
        ({"documents": np.array([0, -1], np.int32)}, "do not fit together"),
        ({"starts": np.array([0, 2, 1])}, "do not fit together"),
        ({"starts": np.array([0, 2])}, "do not fit together"),
        ({"counts": np.array([1, 0], np.int32)}, "do not fit together"),
        ({"terms": np.array([5, 5])}, "do not fit together"),
        ({"lengths": np.array([1.0, 1.0])}, "lengths has type float64"),
        ({"lengths": np.array([None, 1], object)}, "no BM25 index"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    path = tmp_path / "index"
    plain(["one", "two"]).save(path)
    rewritten(path, **changes)
    with pytest.raises(ModelLoadError, match=message):
        BM25Index.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2 of the index format, this fastrank reads 1: build it anew"),
        ({"format": "other"}, "something else"),
        ({"settings": {}}, "settings are not those of BM25"),
        ({"settings": 3}, "no BM25 index"),
        ({"settings": {**BM25().settings(), "b": 7, "stemmer": False}}, "b must be between 0 and 1"),
    ],
)
def test_other_headers_are_refused(tmp_path, changes, message):
    path = tmp_path / "index"
    plain(["one", "two"]).save(path)
    rewritten(path, header=header(path, **changes))
    with pytest.raises(ModelLoadError, match=message):
        BM25Index.load(path)


class Shouting:
    def stem_word(self, word):
        return word.upper()


@pytest.mark.parametrize("own", [{"stemmer": Shouting()}, {"analyzer": str.split}])
def test_code_of_ones_own_is_given_again(tmp_path, own):
    path = tmp_path / "index"
    BM25Index.build(["one two"], **own).save(path)
    assert len(BM25Index.load(path, **own).search("one")[0]) == 1
    (name,) = own
    with pytest.raises(ValueError, match=f"was built with an? {name} of your own: {name}="):
        BM25Index.load(path)
    plain(["one"]).save(path)
    with pytest.raises(ValueError, match="was not built with"):
        BM25Index.load(path, **own)
