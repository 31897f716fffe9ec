"""The index against scores computed one by one, and its file."""

import copy
import math
import pickle
import random
import threading
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from fastrank.bm25 import BM25, BM25Index, array_file, index_file, ranking, segment, weights
from fastrank.bm25 import index as index_module
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


def answers(index, queries=("w1", "w3 w50", "w9 w2 w2", "w59 unknown", "w1 w5 w20 w30"), k=1000):
    """What an index says: ids and scores to the last bit."""
    return [[each.tolist() for each in index.search(query, k)] for query in queries]


def test_adding_in_parts_is_adding_at_once():
    texts = corpus(600)
    whole = plain(texts)
    parts = BM25Index(BM25(disable_stemmer=True))
    for start, end in pairwise((0, 1, 257, 500, 599, 600)):
        parts.add(texts[start:end])
        assert answers(parts) == answers(plain(texts[:end]))
    assert answers(parts) == answers(whole)
    parts.compact()
    assert answers(parts) == answers(whole)
    for mine, other in zip(parts._snapshot.parts[0].segment, whole._snapshot.parts[0].segment, strict=True):
        assert mine.tolist() == other.tolist()
        assert mine.dtype == other.dtype


def test_adding_one_by_one_sorts_each_document_once(monkeypatch):
    sorted_words, make = [], segment.from_batches

    def from_batches(batches):
        sorted_words.extend(len(batch.ids) for batch in batches)
        return make(batches)

    monkeypatch.setattr(segment, "from_batches", from_batches)
    texts = corpus(500)
    index = BM25Index(BM25(disable_stemmer=True))
    for text in texts:
        index.add(text)
    assert sum(sorted_words) == sum(len(text.split()) for text in texts)
    assert len(index._snapshot.parts) <= 6
    assert answers(index) == answers(plain(texts))


@pytest.mark.parametrize(("words", "documents"), [(1, 10**9), (50, 10**9), (10**9, 1), (10**9, 7)])
def test_runs_of_any_size_make_the_same_index(monkeypatch, words, documents):
    expected = answers(plain(corpus(200)))
    monkeypatch.setattr(weights, "_BATCH", 3)
    monkeypatch.setattr(index_module, "_RUN_WORDS", words)
    monkeypatch.setattr(index_module, "_RUN_DOCUMENTS", documents)
    assert answers(plain(corpus(200))) == expected


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_of_any_size_give_the_same_arrays(monkeypatch, block):
    def made():
        index = plain(corpus(90)).add(corpus(80, seed=1)).add(corpus(70, seed=2))
        index.delete(range(40, 130))
        index.compact()
        part = index._snapshot.parts[0]
        return [each.tolist() for each in (*part.segment, part.numbers, index._snapshot.weights[0].all())]

    expected = made()
    monkeypatch.setattr(segment, "_BLOCK", block)
    assert made() == expected


def test_counts_and_positions_of_any_size():
    texts = ["a " * 300 + "b", *["b c"] * 70_000, "a " * 70_000 + "d"]
    index = plain(texts)
    part = index._snapshot.parts[0].segment
    assert (part.documents.dtype, part.counts.dtype) == (np.uint32, np.uint32)
    assert index.search("a d")[0].tolist() == [70_001, 0]
    assert index.search("c", 3)[0].tolist() == [1, 2, 3]


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
    text, texts = ("x" * 500 + " ") * 100 + "some words ", 200
    tracemalloc.start()
    try:
        index = plain(text + str(number) for number in range(texts))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) == texts
    assert peak < len(text) * texts / 2


# -- stop words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "best"),
    [("to be or not to be", 0), ("The Who", 1), ("IT", 2), ("don't", 3), ("who", 1)],
)
def test_a_query_of_stop_words_finds_them(query, best):
    index = BM25Index.build(["To be, or not to be.", "A song by The Who", "He works in IT", "Don't go", "fox"])
    assert index.search(query)[0][0] == best
    assert 4 not in index.search(query)[0]
    assert index.scores(query, ["fox", "To be, or not: who does it? Don't!"])[0] == 0
    assert index.scores(query, ["fox", "To be, or not: who does it? Don't!"])[1] > 0


def test_stop_words_beside_other_words_change_nothing():
    index = BM25Index.build(["the fox and the dog", "the cat", "who is the fox", ""])
    for query, same in (("fox", "the fox who is"), ("unheard", "the unheard")):
        assert [each.tolist() for each in index.search(query)] == [each.tolist() for each in index.search(same)]


def test_stop_words_do_not_count_in_lengths():
    short, long = BM25Index.build(["fox dog", "cat"]), BM25Index.build(["the fox is a dog", "the cat"])
    assert [each.tolist() for each in short.search("fox")] == [each.tolist() for each in long.search("fox")]


def test_stop_words_have_ids_of_their_own():
    index = BM25Index.build(["haves"], stopwords={"have"})  # one stem
    assert index.search("have")[0].tolist() == []
    assert index.search("haves")[0].tolist() == [0]


# -- deleting -------------------------------------------------------------------------------------------------------


def test_deleting_is_never_having_added():
    texts, dice = corpus(400), random.Random(0)
    index = plain(texts[:250]).add(texts[250:390]).add(texts[390:])
    left = list(range(400))
    while len(left) > 5:
        gone = dice.sample(left, max(1, len(left) // 5))
        index.delete(gone)
        left = [number for number in left if number not in gone]
        fresh = plain([texts[number] for number in left])
        expected = [[[left[at] for at in ids], scores] for ids, scores in answers(fresh)]
        assert answers(index) == expected
        assert index.ids.tolist() == left
        assert len(index) == len(left)
    index.compact()
    assert answers(index) == expected
    assert index.scores("w1 w3", texts[:30]).tolist() == fresh.scores("w1 w3", texts[:30]).tolist()


def test_numbers_of_deleted_documents_are_not_used_again():
    index = plain(["a", "b", "c"])
    index.delete([1, 2])
    index.add(["d"])
    assert index.ids.tolist() == [0, 3]
    assert index.search("d")[0].tolist() == [3]
    index.delete(index.ids)
    assert len(index) == len(index.ids) == len(index.search("a")[0]) == 0
    assert index.add("a").ids.tolist() == [4]


@pytest.mark.parametrize("bad", [7, -1, [0, 9], "0", [0, "x"], 1 << 62])
def test_a_document_that_is_not_there_cannot_be_deleted(bad):
    index = plain(["a", "b"])
    with pytest.raises(KeyError, match="No document has the id"):
        index.delete(bad)
    assert len(index) == 2
    index.delete(0)
    with pytest.raises(KeyError, match="No document has the id 0"):
        index.delete(0)
    assert 0 not in index
    assert 1 in index


def test_deleted_documents_leave_the_memory():
    index = plain(corpus(100))
    postings = index._snapshot.parts[0].segment.postings
    index.delete(range(30))
    assert index._snapshot.parts[0].segment.postings == postings
    index.compact()
    assert 0 < index._snapshot.parts[0].segment.postings < postings
    index.delete(range(30, 80))  # more than half
    assert index._snapshot.parts[0].alive is None


# -- ids of one's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [["a", "b\u00e9", "", "\U0001f600d"], [7, -1, 1 << 40, 0], np.array([4, 3, 2, 1])])
def test_ids_are_given_back(tmp_path, ids):
    names = list(ids)
    index = plain(["x y", "x", "z x", "y"], ids=ids)
    assert index.ids.tolist() == names
    assert index.search("x")[0].tolist() == [names[at] for at in plain(["x y", "x", "z x", "y"]).search("x")[0]]
    assert index.search("nothing")[0].dtype == index.ids.dtype
    index.delete(names[1])
    assert names[1] not in index
    assert names[2] in index
    index.save(tmp_path / "index")
    for other in (index, BM25Index.load(tmp_path / "index"), pickle.loads(pickle.dumps(index))):  # noqa: S301 - ours
        other.add(["x"], ids=[names[1]])
        other.compact()
        assert other.ids.tolist() == [names[0], *names[2:], names[1]]
        assert other.search("z")[0].tolist() == [names[2]]
        other.delete(names)
        assert len(other) == 0


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["c"], ValueError, "2 texts need as many ids, got 1"),
        (["c", "a"], ValueError, r"ids\[1\] is taken: 'a'"),
        (["c", "c"], ValueError, r"ids\[1\] is taken: 'c'"),
        (["c", 3], TypeError, r"ids\[1\] must be str like the others, not int"),
        ([True, False], TypeError, r"ids\[0\] must be an integer or a string, not bool"),
        (["c", None], TypeError, r"ids\[1\] must be an integer or a string, not NoneType"),
        (["c", "\ud800"], ValueError, r"ids\[1\] has a lone surrogate"),
        ([1, 1 << 63], ValueError, r"ids\[1\] must have at most 64 bits"),
        (None, ValueError, "The documents of this index have ids: give ids="),
    ],
)
def test_bad_ids_add_nothing(ids, error, message):
    index = plain(["x", "y"], ids=["a", "b"])
    with pytest.raises(error, match=message):
        index.add(["new", "new"], ids=ids)
    assert index.ids.tolist() == ["a", "b"]
    assert index.search("new")[0].tolist() == []


def test_ids_are_for_all_documents_or_none():
    with pytest.raises(ValueError, match="have no ids of their own: leave out ids="):
        plain(["x"]).add(["y"], ids=[5])


# -- filters and batches --------------------------------------------------------------------------------------------


def test_a_mask_filters_and_changes_no_score():
    index = plain(corpus(300)).add(corpus(200, seed=1))
    index.delete(range(0, 120, 7))
    mask = np.random.default_rng(0).random(len(index)) < 0.3
    allowed = set(index.ids[mask].tolist())
    for query in ("w1", "w3 w50", "w1 w5 w20 w30"):
        ids, scores = index.search(query, 1000)
        kept = [at for at, number in enumerate(ids.tolist()) if number in allowed]
        found = index.search(query, 1000, mask=mask)
        assert [each.tolist() for each in found] == [ids[kept].tolist(), scores[kept].tolist()]
        assert index.search(query, 3, mask=mask)[0].tolist() == ids[kept[:3]].tolist()
        assert index.search(query, mask=np.zeros(len(index), bool))[0].tolist() == []


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True], ValueError, "mask has 1 values, the index has 2 documents"),
        ([0, 1], TypeError, "mask must be booleans in one dimension, not int64 in 1"),
        ([[True, False]], TypeError, "not bool in 2"),
    ],
)
def test_a_mask_that_does_not_fit(mask, error, message):
    with pytest.raises(error, match=message):
        plain(["a", "b"]).search("a", mask=mask)


def test_a_batch_is_its_queries():
    index = plain(corpus(300))
    queries = ["w1", "", "w3 w50", "unknown"]
    for mask in (None, np.arange(300) % 2 == 0):
        found = index.search_batch(iter(queries), 7, mask=mask)
        assert [[each.tolist() for each in pair] for pair in found] == [
            [each.tolist() for each in index.search(query, 7, mask=mask)] for query in queries
        ]
    assert index.search_batch([]) == []
    with pytest.raises(TypeError, match=r"queries\[1\] must be a string"):
        index.search_batch(["a", None])
    with pytest.raises(TypeError, match="queries must be an iterable of strings"):
        index.search_batch("a")


# -- searching ------------------------------------------------------------------------------------------------------


def test_long_lists_of_postings_are_ranked_exactly():
    dice = np.random.default_rng(0)
    counts = dice.integers(1, 9, 30_000)
    index = plain(
        f"{'a ' * count}{'b ' * (number % 3)}{'c' * (number % 5 == 0)}" for number, count in enumerate(counts)
    )
    everything = index.search("a b c", 30_000)
    assert len(everything[0]) == 30_000
    assert all(everything[1][:-1] >= everything[1][1:])
    ties = everything[1][:-1] == everything[1][1:]
    assert all(everything[0][:-1][ties] < everything[0][1:][ties])
    for k in (1, 10, 5000, 9000):
        for mine, whole in zip(index.search("a b c", k), everything, strict=True):
            assert mine.tolist() == whole[:k].tolist()


def test_an_interrupted_search_leaves_no_scores_behind(monkeypatch):
    index = plain(corpus(200))
    expected = answers(index)
    monkeypatch.setattr(ranking._Selection, "add", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        index.search("w1 w2")
    monkeypatch.undo()
    assert answers(index) == expected


def test_threads_search_indexes_of_different_sizes():
    indexes = [plain(corpus(size, seed=size)) for size in (10, 300, 40, 900)]
    expected = [answers(index) for index in indexes]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(answers, indexes * 20))
    assert found == expected * 20


def test_threads_search_while_documents_come_and_go():
    texts = corpus(300)
    index, stop = plain(texts), threading.Event()
    expected = answers(index)

    def search():
        while not stop.is_set():
            for ids, scores in index.search_batch(["w1 w2", "new"], 5):
                assert len(ids) == len(scores) <= 5
                assert all(scores[:-1] >= scores[1:])

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(search) for _ in range(4)]
        try:
            for seed in range(20):
                before = index._next_number
                index.add([*corpus(20, seed), "new"])
                index.delete(range(before, before + 21))
        finally:
            stop.set()
        for each in running:
            each.result()
    assert answers(index) == expected


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda index: pickle.loads(pickle.dumps(index))])  # noqa: S301 - ours
def test_copies_live_their_own_lives(copied):
    index = plain(corpus(100))
    index.delete([3, 5])
    expected = answers(index)
    other = copied(index)
    assert answers(other) == expected
    other.add("w1 w2")
    assert other.ids[-1] == 100
    assert answers(index) == expected


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
    monkeypatch.setattr(array_file.os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plain(["two"]).save(path)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["index"]
    assert len(BM25Index.load(path).search("one")[0]) == 1
    plain(["two"]).save(path)
    assert len(BM25Index.load(path).search("two")[0]) == 1


@pytest.mark.parametrize("mmap", [False, True])
def test_damaged_files_are_refused_or_harmless(tmp_path, mmap):
    index = plain(corpus(30), ids=[f"id{number}" for number in range(30)]).add(corpus(2, seed=1), ids=["a", "b"])
    index.delete(["id4", "b"])
    good = tmp_path / "good"
    index.save(good)
    expected = [each.tolist() for each in index.search("w1 w2 w3", 30)]
    data = good.read_bytes()
    dice = random.Random(0)
    refused = 0
    cases = [data[:length] for length in dice.sample(range(len(data)), 60)]
    cases += [data + b"\0", data * 2]
    for _ in range(200):
        at = dice.randrange(len(data))
        cases.append(data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :])
    for number, case in enumerate(cases):
        bad = tmp_path / str(number)
        bad.write_bytes(case)
        try:
            found = [each.tolist() for each in BM25Index.load(bad, mmap=mmap).search("w1 w2 w3", 30)]
        except ModelLoadError as error:
            assert str(bad) in str(error)  # noqa: PT017 - either outcome is right
            refused += 1
        else:
            assert found == expected  # the damage is between the arrays
    assert refused > 200


@pytest.mark.parametrize("verify", [False, True])
def test_a_mapped_index_is_the_same_and_can_be_saved_over_itself(tmp_path, verify):
    path, texts = tmp_path / "index", corpus(300)
    index = plain(texts)
    index.save(path)
    mapped = BM25Index.load(path, mmap=True, verify=verify)
    assert answers(mapped) == answers(index)
    arrays = mapped._snapshot.parts[0].segment
    assert all(isinstance(array.base, np.ndarray) and not array.flags.writeable for array in arrays)
    mapped.add(corpus(50, seed=1))
    mapped.delete([0, 5])
    expected = answers(mapped)
    mapped.save(path)
    assert answers(mapped) == answers(BM25Index.load(path, mmap=True)) == answers(BM25Index.load(path)) == expected


def test_a_loaded_index_has_nothing_to_compute(tmp_path, monkeypatch):
    index = plain(corpus(100))
    index.save(tmp_path / "index")
    expected = answers(index)
    monkeypatch.setattr(segment.Weights, "_compute", lambda *_: 1 / 0)
    assert answers(BM25Index.load(tmp_path / "index")) == expected


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"\x80\x04N.", b"\x93NUMPY\x01\x00v\x00{"])
def test_other_files_are_no_index(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="is not a fastrank BM25 index, or a damaged one"):
        BM25Index.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        BM25Index.load(tmp_path / "nothing")


def rewritten(path, arrays=(), **header):
    """The file with some of its arrays and of its header replaced."""
    old, stored = array_file.read(path, index_file.FORMAT, index_file.VERSION)
    kind = header.pop("format", index_file.FORMAT)
    version = header.pop("version", index_file.VERSION)
    array_file.write(path, kind, version, {**old, **header}, {**stored, **dict(arrays)})


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("documents", np.array([0, 9], np.uint8), "do not fit together"),
        ("starts", np.array([0, 2, 1]), "do not fit together"),
        ("starts", np.array([0, 2]), "do not fit together"),
        ("starts", np.array([0, 1, 1 << 62]), "do not fit together"),
        ("starts", np.array([-1, 1, 2]), "do not fit together"),
        ("starts", np.zeros(0, np.int64), "do not fit together"),
        ("counts", np.array([1, 0], np.uint8), "do not fit together"),
        ("counts", np.array([1], np.uint8), "do not fit together"),
        ("terms", np.array([5, 5], np.uint32), "do not fit together"),
        ("lengths", np.array([1.0, 1.0], np.float32), "lengths is <f4, expected <u4"),
        ("lengths", np.zeros(0, np.uint32), "do not fit together"),
        ("weights", np.array([0.5, np.nan], np.float32), "do not fit together"),
        ("weights", np.array([0.5, 2], np.float32), "do not fit together"),
        ("weights", np.array([0.5], np.float32), "do not fit together"),
        ("numbers", np.array([1, 0]), "do not fit together"),
        ("numbers", np.array([-1, 0]), "not in order"),
        ("numbers", np.array([0, 5]), "next document is taken"),
        ("deleted", np.array([2], np.uint32), "do not fit together"),
        ("deleted", np.array([0, 0], np.uint32), "do not fit together"),
        ("deleted", np.array([0, 1], np.uint32), "do not fit together"),
        ("ids", np.array([4]), "do not fit together"),
        ("ids.text", np.zeros(1, np.uint8), "array 0.ids.ends is missing"),
        ("more", np.zeros(1, np.uint8), "further arrays: 0.more"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, name, array, message):
    path = tmp_path / "index"
    plain(["one", "two"]).save(path)
    rewritten(path, {f"0.{name}": array})
    with pytest.raises(ModelLoadError, match=message):
        BM25Index.load(path)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (b"ab", [1, 1]),
        (b"ab", [2, 1]),
        (b"ab", [-1, 2]),
        (b"\xff\xfe", [1, 2]),
        ("\u00e9".encode(), [1, 2]),
        (b"ab", [3, 2]),
    ],
)
def test_document_ids_that_do_not_fit_are_refused(tmp_path, text, ends):
    path = tmp_path / "index"
    plain(["one", "two"], ids=["a", "b"]).save(path)
    rewritten(path, {"0.ids.text": np.frombuffer(text, np.uint8), "0.ids.ends": np.array(ends)})
    with pytest.raises(ModelLoadError, match=r"document ids|codec"):
        BM25Index.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "version 3 of the format, this fastrank reads 2"),
        ({"format": "other"}, "it holds a other"),
        ({"settings": {}}, "settings are not those of BM25"),
        ({"settings": 3}, "settings are not those of BM25"),
        ({"settings": {**BM25().settings(), "b": 7}}, "b must be between 0 and 1"),
        ({"settings": {**BM25().settings(), "k": 10**400}}, "is damaged"),
        ({"settings": {**BM25().settings(), "stopwords": [1]}}, "is damaged"),
        ({"parts": "x"}, "is not a fastrank BM25 index"),
        ({"parts": 2}, "array 1.terms is missing"),
        ({"parts": 0}, "further arrays"),
        ({"next_number": 1}, "next document is taken"),
        ({"next_number": 1 << 70}, "next document is taken"),
        ({"next_number": 2.0}, "next document is taken"),
        ({"avg_len": None}, "is not a fastrank BM25 index"),
    ],
)
def test_other_headers_are_refused(tmp_path, changes, message):
    path = tmp_path / "index"
    plain(["one", "two"]).save(path)
    rewritten(path, **changes)
    with pytest.raises(ModelLoadError, match=message):
        BM25Index.load(path)


def test_weights_for_another_average_are_computed_anew(tmp_path):
    path = tmp_path / "index"
    index = plain(corpus(50))
    index.save(path)
    rewritten(path, avg_len=1.0)
    assert answers(BM25Index.load(path)) == answers(index)


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
