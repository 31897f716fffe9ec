"""Evaluation: metrics against values computed by hand and trec_eval, readers against broken files, significance."""

from __future__ import annotations

import gzip
import itertools
import math

import numpy as np
import pytest
from support import tiny_models
from support.pets import QRELS, QUERIES, lines, write_pets

from fastrank import TextCrossEncoder
from fastrank.bm25 import BM25
from fastrank.errors import FastrankError
from fastrank.evaluation import beir, compare, hybrid, load, methods, metrics, read_run, reranked, search, write_run


@pytest.fixture
def folder(tmp_path):
    return write_pets(tmp_path / "pets")


class TestMetrics:
    def test_ndcg_with_graded_relevance(self):
        judged = {"a": 3, "b": 2, "c": 1, "z": 0}
        dcg = 2 / math.log2(2) + 0 + 3 / math.log2(4) + 1 / math.log2(5)
        ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
        assert metrics.ndcg(["b", "z", "a", "c"], judged) == pytest.approx(dcg / ideal)
        assert metrics.ndcg(["b", "z", "a", "c"], judged) == pytest.approx(0.825450, abs=1e-6)

    def test_ndcg_of_the_ideal_ranking_is_1(self):
        assert metrics.ndcg(["a", "b", "x"], {"b": 1, "a": 2}) == 1

    def test_ndcg_counts_relevant_documents_that_were_not_found(self):
        assert metrics.ndcg(["a"], {"a": 1, "missing": 1}) == pytest.approx(1 / (1 + 1 / math.log2(3)))

    def test_ndcg_looks_at_the_first_k_only(self):
        ranking = [f"x{i}" for i in range(10)] + ["a"]
        assert metrics.ndcg(ranking, {"a": 1}) == 0
        assert metrics.ndcg(ranking, {"a": 1}, k=11) == pytest.approx(1 / math.log2(12))
        assert metrics.ndcg([f"a{i}" for i in range(10)], {f"a{i}": 1 for i in range(20)}) == 1

    def test_negative_relevance_is_no_gain_and_no_loss(self):
        assert metrics.ndcg(["bad", "a"], {"bad": -1, "a": 1}) == pytest.approx(1 / math.log2(3))

    def test_nothing_relevant_is_0(self):
        for metric in (metrics.ndcg, metrics.reciprocal_rank, metrics.recall):
            assert metric(["a"], {"a": 0}) == 0
            assert metric([], {"a": 1}) == 0

    def test_reciprocal_rank(self):
        judged = {"a": 1, "b": 2, "z": 0}
        assert metrics.reciprocal_rank(["z", "x", "b", "a"], judged) == pytest.approx(1 / 3)
        assert metrics.reciprocal_rank(["z", "x", "b", "a"], judged, k=2) == 0

    def test_recall(self):
        judged = {"a": 1, "b": 2, "missing": 1, "z": 0}
        assert metrics.recall(["z", "a", "x", "b"], judged) == pytest.approx(2 / 3)
        assert metrics.recall(["z", "a", "x", "b"], judged, k=2) == pytest.approx(1 / 3)

    def test_equal_scores_are_ordered_by_descending_id(self):
        scores = [(1.0, "b"), (1.0, "é"), (2.0, "a"), (1.0, "c"), (1.0, "10"), (1.0, "9")]
        assert [d for _, d in metrics.ranked(scores, 5)] == ["a", "é", "c", "b", "9"]

    def test_means_are_over_all_judged_queries(self):
        qrels = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 0}, "q4": {"a": 1}}
        found = metrics.evaluate({"q1": ["a"], "q2": ["x", "b"], "q3": ["c"]}, qrels)
        assert found == {
            "ndcg@10": pytest.approx((1 + 1 / math.log2(3)) / 4),
            "mrr@10": pytest.approx(1.5 / 4),
            "recall@100": pytest.approx(2 / 4),
        }

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ([1, 2, 3, 4], [10, 20, 30, 1000], 1),
            ([1, 2, 3, 4], [5, 4, 3, 2], -1),
            ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 * 4 / (5 * 24)
            ([1, 2, 2, 4], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),  # ranks 1, 2.5, 2.5, 4
            ([0, 0, 1, 1], [0, 1, 0, 1], 0),
        ],
    )
    def test_spearman(self, first, second, expected):
        assert metrics.spearman(first, second) == pytest.approx(expected)
        assert metrics.spearman(second, first) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("first", "second"), [([1, 1], [1, 2]), ([], []), ([1, 2], [1, 2, 3]), ([1, math.nan], [1, 2])]
    )
    def test_spearman_of_nonsense_is_an_error(self, first, second):
        with pytest.raises(ValueError, match=r"correlat"):
            metrics.spearman(first, second)


class TestSearch:
    @pytest.mark.parametrize("block", [1, 3, 7, 40])
    @pytest.mark.parametrize("levels", [2, 1000])
    def test_blocks_find_what_a_full_sort_finds(self, block, levels):
        queries, documents = ["q", "d5", "p"], [f"d{i}" for i in range(40)]
        scores = np.random.default_rng(0).integers(0, levels, (3, 40)).astype(np.float32)
        best = search.Best(queries, 6)
        for start in range(0, 40, block):
            best.add(documents[start : start + block], scores[:, start : start + block].copy())
        for row, query in enumerate(queries):
            order = sorted(zip(scores[row].tolist(), documents, strict=True), reverse=True)
            assert best.rankings()[query] == [d for _, d in order if d != query][:6]

    def test_vectors_are_compared_by_dot_product(self, monkeypatch):
        monkeypatch.setattr(search, "_QUERIES_AT_ONCE", 2)
        best = search.Best(["x", "y", "z"], 2)
        best.add_vectors(np.eye(3, dtype=np.float32), ["a", "b"], np.array([[1, 0, 3], [0, 1, 2]], np.float32))
        assert best.rankings() == {"x": ["a", "b"], "y": ["b", "a"], "z": ["a", "b"]}

    def test_fewer_documents_than_asked_for(self):
        best = search.Best(["a"], 10)
        best.add(["a", "b"], np.ones((1, 2), np.float32))
        assert best.rankings() == {"a": ["b"]}


class TestReaders:
    def test_folder(self, folder):
        dataset = beir.load(folder)
        assert dataset.name == "pets"
        assert dataset.queries == {"q1": "cats", "q2": "dogs"}
        assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
        assert [*dataset.documents()] == [("d1", "Cats purr"), ("d2", "dogs bark"), ("3", "birds\u2028sing")]
        assert [*dataset.documents()] == [*dataset.documents()]

    def test_limit(self, folder):
        assert [document.id for document in beir.load(folder, limit=2).documents()] == ["d1", "d2"]

    def test_compressed_files(self, folder):
        plain = beir.load(folder)
        documents = [*plain.documents()]
        for path in [p for p in folder.rglob("*") if p.is_file()]:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        packed = beir.load(folder)
        assert (packed.queries, packed.qrels, [*packed.documents()]) == (plain.queries, plain.qrels, documents)

    @pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
    def test_missing_file(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(beir.DataError, match=rf"no BEIR folder: {name} .* is missing"):
            beir.load(folder)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(beir.DataError, match="is no folder"):
            beir.load(tmp_path / "none")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("corpus.jsonl", "{\n", r"corpus.jsonl:1: no JSON"),
            ("corpus.jsonl", "\n[]\n", r"corpus.jsonl:2: not a JSON object"),
            ("corpus.jsonl", '{"_id": "a"}\n', r"corpus.jsonl:1: 'text' must be a string"),
            ("corpus.jsonl", '{"_id": "a", "text": ""}\n' * 2, r"corpus.jsonl:2: the id 'a' occurs twice"),
            ("corpus.jsonl", b'{"_id": "\xff"}', r"corpus.jsonl cannot be read: .*utf-8"),
            ("corpus.jsonl.gz", b"plain", r"corpus.jsonl.gz cannot be read: Not a gzipped file"),
            ("corpus.jsonl.gz", gzip.compress(b"x" * 99, mtime=0)[:20], r"corpus.jsonl.gz cannot be read"),
            ("queries.jsonl", lines(QUERIES[:1]), r"judges the query 'q2', which .*queries.jsonl does not have"),
            ("qrels/test.tsv", "q1 0 d1 1\n", r"test.tsv:1: the header must be query-id corpus-id score"),
            ("qrels/test.tsv", QRELS + "q1\td3\n", r"test.tsv:5: 2 columns where the header has 3"),
            ("qrels/test.tsv", QRELS + "q1\td3\thigh\n", r"test.tsv:5: the score must be a number, not 'high'"),
            ("qrels/test.tsv", QRELS + "q1\td3\t0.5\n", r"test.tsv:5: the score must be a whole number"),
            ("qrels/test.tsv", QRELS.split("q1", maxsplit=1)[0], r"test.tsv judges nothing"),
        ],
    )
    def test_damaged_files_are_named(self, folder, name, content, message):
        if name.endswith(".gz"):
            (folder / "corpus.jsonl").unlink()
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(beir.DataError, match=message):
            list(beir.load(folder).documents())


class TestSignificance:
    def test_every_way_to_toss_is_counted_where_they_are_few(self):
        dice = np.random.default_rng(0)
        first, second = dice.normal(0.3, 1, 9), dice.normal(0, 1, 9)
        differences = first - second
        ways = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=9)]
        found = compare(dict(zip("abcdefghi", first, strict=True)), dict(zip("abcdefghi", second, strict=True)))
        assert found.p == np.mean(np.array(ways) >= abs(differences.sum()) - 1e-12)
        assert found.difference == pytest.approx(differences.mean())
        assert (found.better, found.worse, found.equal) == ((differences > 0).sum(), (differences < 0).sum(), 0)

    def test_random_ways_are_near_and_repeatable(self):
        dice = np.random.default_rng(1)
        first = {str(number): value for number, value in enumerate(dice.normal(0.1, 1, 200))}
        second = {str(number): value for number, value in enumerate(dice.normal(0, 1, 200))}
        found = compare(first, second)
        assert found == compare(first, second)
        assert found.p != compare(first, second, seed=1).p
        differences = np.array(list(first.values())) - np.array(list(second.values()))
        t = differences.mean() / (differences.std(ddof=1) / math.sqrt(200))
        assert found.p == pytest.approx(math.erfc(abs(t) / math.sqrt(2)), abs=0.02)

    def test_it_equals_scipys(self):
        stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
        dice = np.random.default_rng(2)
        first, second = dice.random(12).round(1), dice.random(12).round(1)
        theirs = stats.permutation_test(
            (first, second),
            lambda a, b, axis: (a - b).mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
        )
        names = list("abcdefghijkl")
        assert compare(dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True))).p == pytest.approx(
            theirs.pvalue
        )

    def test_no_difference_is_chance(self):
        assert compare({"a": 0.5, "b": 1.0}, {"a": 0.5, "b": 1.0}) == (0, 1, 0, 0, 2)

    def test_a_difference_on_one_query_shows_nothing(self):
        assert compare({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 0.0}).p == 1

    def test_the_same_difference_on_many_queries_shows_much(self):
        first, second = {str(n): 0.6 for n in range(60)}, {str(n): 0.5 for n in range(60)}
        assert compare(first, second, rounds=999).p == 1 / 1000
        assert compare(second, first, rounds=999)[:4] == (pytest.approx(-0.1), 1 / 1000, 0, 60)

    def test_mistakes(self):
        with pytest.raises(ValueError, match="only one of them has 'b'"):
            compare({"a": 1}, {"a": 1, "b": 1})
        with pytest.raises(ValueError, match="No queries"):
            compare({}, {})
        with pytest.raises(ValueError, match="rounds must be >= 1"):
            compare({"a": 1}, {"a": 0}, rounds=0)


class TestRuns:
    def test_what_is_written_is_read(self, tmp_path):
        rankings = {"q1": ["b", "a", *(f"d{n}" for n in range(98))], "q2": ["a"], "ä": ["é"]}
        write_run(tmp_path / "run", rankings, "mine")
        assert read_run(tmp_path / "run") == rankings
        assert (tmp_path / "run").read_text(encoding="utf-8").splitlines()[1] == "q1 Q0 a 2 0.5 mine"

    def test_scores_decide_as_in_trec_eval(self, tmp_path):
        (tmp_path / "run").write_text("q\tQ0\ta\t1\t2\tx\nq Q0 b 2 3.5 x\n\nq Q0 c 3 2 x\n")
        assert read_run(tmp_path / "run") == {"q": ["b", "c", "a"]}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("q Q0 a 1 x\n", "run:1: 5 columns where a run has 6"),
            ("q Q0 a 1 x x\n", "run:1: the score must be a number, not 'x'"),
            ("q Q0 a 1 2 x\nq Q0 a 2 1 x\n", "run:2: 'a' is ranked twice for query 'q'"),
            ("", "ranks nothing"),
        ],
    )
    def test_damaged_files_are_named(self, tmp_path, content, message):
        (tmp_path / "run").write_text(content)
        with pytest.raises(beir.DataError, match=message):
            read_run(tmp_path / "run")

    def test_ids_with_white_space_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="white space: 'a b'"):
            write_run(tmp_path / "run", {"q": ["a b"]})
        assert not (tmp_path / "run").exists()


class TestMethods:
    def test_words(self, folder):
        found = methods.bm25(BM25(), load(folder))
        assert found.rankings == {"q1": ["d1"], "q2": ["d2"]}
        assert found.documents == 3

    def test_a_document_is_no_result_of_itself(self, folder):
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nd1\td2\t1\n")
        (folder / "queries.jsonl").write_text(lines([{"_id": "d1", "text": "cats purr dogs"}]), encoding="utf-8")
        assert methods.bm25(BM25(), load(folder)).rankings == {"d1": ["d2"]}

    def test_fusion(self):
        first = methods.Outcome({"q": ["a", "b", "c"], "only": ["x"]}, 3, 1.0)
        second = methods.Outcome({"q": ["c", "a"]}, 3, 2.0)
        assert hybrid([first, second]) == methods.Outcome({"q": ["a", "c", "b"], "only": ["x"]}, 3, 3.0)
        assert hybrid([first, second], 1).rankings["q"] == ["a"]

    def test_a_cross_encoder_ranks_candidates_alone(self, folder, tmp_path):
        from fastrank import ModelSource

        TextCrossEncoder.add_custom_model("acme/tiny", ModelSource(hf="acme/tiny"), max_length=64)
        path = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
        model = TextCrossEncoder("acme/tiny", specific_model_path=path)
        candidates = methods.Outcome({"q1": ["d1", "3"], "q2": []}, 3, 0.0)
        found = reranked(model, candidates, load(folder))
        scores = list(model.rerank("cats", ["Cats purr", "birds\u2028sing"]))
        assert found.rankings == {"q1": ["d1", "3"] if scores[0] > scores[1] else ["3", "d1"], "q2": []}

    @pytest.mark.parametrize("seed", range(3))
    def test_sparse_vectors_by_dot_product(self, seed):
        dice = np.random.default_rng(seed)
        dense = dice.normal(size=(9, 12)) * (dice.random((9, 12)) < 0.4)
        dense[3] = 0
        ids = [np.flatnonzero(row) * 1000 + 7 for row in dense]
        index = search.SparseIndex(ids, [row[np.flatnonzero(row)] for row in dense])
        query = dice.normal(size=14)
        found = index.scores(np.arange(14)[::-1] * 1000 + 7, query[::-1])
        assert found == pytest.approx(dense @ query[:12], abs=1e-6)
        assert search.SparseIndex([], []).scores(np.array([1]), np.array([1.0])).shape == (0,)

    def test_another_split(self, folder):
        (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t1\n")
        assert load(folder, split="dev").qrels == {"q2": {"d1": 1}}
        with pytest.raises(beir.DataError, match=r"qrels/train.tsv .* is missing"):
            load(folder, split="train")

    def test_errors_are_fastranks(self):
        assert issubclass(beir.DataError, FastrankError)


@pytest.mark.parametrize("name", ["map@10", "ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@1.5", "", "ndcg@²"])
def test_metrics_that_there_are_not(name):
    with pytest.raises(ValueError, match="There is no metric"):
        metrics.metric(name)


def test_any_k():
    qrels = {"q": {"a": 1, "b": 1}}
    assert metrics.evaluate({"q": ["x", "a", "b"]}, qrels, ["recall@2", "mrr@1", "ndcg@3"]) == {
        "recall@2": 0.5,
        "mrr@1": 0,
        "ndcg@3": pytest.approx((1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3))),
    }


def test_metrics_equal_trec_evals():
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval is not installed")
    dice = np.random.default_rng(0)
    documents = [f"d{number}" for number in range(30)]
    qrels = {
        f"q{number}": {each: int(dice.integers(0, 4)) for each in dice.choice(documents, 8, replace=False).tolist()}
        for number in range(40)
    }
    scores = {
        query: {each: float(dice.integers(0, 12)) for each in dice.choice(documents, 20, replace=False).tolist()}
        for query in qrels
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10", "recip_rank"}).evaluate(scores)
    run = {
        query: [each for _, each in metrics.ranked([(score, each) for each, score in of.items()], 20)]
        for query, of in scores.items()
    }
    ours = metrics.per_query(run, qrels, ["ndcg@10", "recall@10", "mrr@20"])
    for name, theirs_name in {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "mrr@20": "recip_rank"}.items():
        assert ours[name] == {query: pytest.approx(theirs[query][theirs_name]) for query in qrels}
