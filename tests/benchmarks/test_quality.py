"""The benchmark command: metrics against values computed by hand, readers against small and broken files."""

from __future__ import annotations

import gzip
import importlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastrank.errors import ModelNotFoundError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmarks folder, which is no package."""
    names = ("common.beir", "common.machine", "common.metrics", "common.search", "quality")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


class TestMetrics:
    def test_ndcg_with_graded_relevance(self, bench):
        judged = {"a": 3, "b": 2, "c": 1, "z": 0}
        dcg = 2 / math.log2(2) + 0 + 3 / math.log2(4) + 1 / math.log2(5)
        ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
        assert bench.metrics.ndcg(["b", "z", "a", "c"], judged) == pytest.approx(dcg / ideal)
        assert bench.metrics.ndcg(["b", "z", "a", "c"], judged) == pytest.approx(0.825450, abs=1e-6)

    def test_ndcg_of_the_ideal_ranking_is_1(self, bench):
        assert bench.metrics.ndcg(["a", "b", "x"], {"b": 1, "a": 2}) == 1

    def test_ndcg_counts_relevant_documents_that_were_not_found(self, bench):
        assert bench.metrics.ndcg(["a"], {"a": 1, "missing": 1}) == pytest.approx(1 / (1 + 1 / math.log2(3)))

    def test_ndcg_looks_at_the_first_k_only(self, bench):
        ranking = [f"x{i}" for i in range(10)] + ["a"]
        assert bench.metrics.ndcg(ranking, {"a": 1}) == 0
        assert bench.metrics.ndcg(ranking, {"a": 1}, k=11) == pytest.approx(1 / math.log2(12))
        assert bench.metrics.ndcg([f"a{i}" for i in range(10)], {f"a{i}": 1 for i in range(20)}) == 1

    def test_negative_relevance_is_no_gain_and_no_loss(self, bench):
        assert bench.metrics.ndcg(["bad", "a"], {"bad": -1, "a": 1}) == pytest.approx(1 / math.log2(3))

    def test_nothing_relevant_is_0(self, bench):
        for metric in (bench.metrics.ndcg, bench.metrics.reciprocal_rank, bench.metrics.recall):
            assert metric(["a"], {"a": 0}) == 0
            assert metric([], {"a": 1}) == 0

    def test_reciprocal_rank(self, bench):
        judged = {"a": 1, "b": 2, "z": 0}
        assert bench.metrics.reciprocal_rank(["z", "x", "b", "a"], judged) == pytest.approx(1 / 3)
        assert bench.metrics.reciprocal_rank(["z", "x", "b", "a"], judged, k=2) == 0

    def test_recall(self, bench):
        judged = {"a": 1, "b": 2, "missing": 1, "z": 0}
        assert bench.metrics.recall(["z", "a", "x", "b"], judged) == pytest.approx(2 / 3)
        assert bench.metrics.recall(["z", "a", "x", "b"], judged, k=2) == pytest.approx(1 / 3)

    def test_equal_scores_are_ordered_by_descending_id(self, bench):
        scores = [(1.0, "b"), (1.0, "é"), (2.0, "a"), (1.0, "c"), (1.0, "10"), (1.0, "9")]
        assert [d for _, d in bench.metrics.ranked(scores, 5)] == ["a", "é", "c", "b", "9"]

    def test_means_are_over_all_judged_queries(self, bench):
        qrels = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 0}, "q4": {"a": 1}}
        found = bench.metrics.evaluate({"q1": ["a"], "q2": ["x", "b"], "q3": ["c"]}, qrels)
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
    def test_spearman(self, bench, first, second, expected):
        assert bench.metrics.spearman(first, second) == pytest.approx(expected)
        assert bench.metrics.spearman(second, first) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("first", "second"), [([1, 1], [1, 2]), ([], []), ([1, 2], [1, 2, 3]), ([1, math.nan], [1, 2])]
    )
    def test_spearman_of_nonsense_is_an_error(self, bench, first, second):
        with pytest.raises(ValueError, match=r"correlat"):
            bench.metrics.spearman(first, second)


class TestSearch:
    @pytest.mark.parametrize("block", [1, 3, 7, 40])
    @pytest.mark.parametrize("levels", [2, 1000])
    def test_blocks_find_what_a_full_sort_finds(self, bench, block, levels):
        queries, documents = ["q", "d5", "p"], [f"d{i}" for i in range(40)]
        scores = np.random.default_rng(0).integers(0, levels, (3, 40)).astype(np.float32)
        best = bench.search.Best(queries, 6)
        for start in range(0, 40, block):
            best.add(documents[start : start + block], scores[:, start : start + block].copy())
        for row, query in enumerate(queries):
            order = sorted(zip(scores[row].tolist(), documents, strict=True), reverse=True)
            assert best.rankings()[query] == [d for _, d in order if d != query][:6]

    def test_vectors_are_compared_by_dot_product(self, bench, monkeypatch):
        monkeypatch.setattr(bench.search, "_QUERIES_AT_ONCE", 2)
        best = bench.search.Best(["x", "y", "z"], 2)
        best.add_vectors(np.eye(3, dtype=np.float32), ["a", "b"], np.array([[1, 0, 3], [0, 1, 2]], np.float32))
        assert best.rankings() == {"x": ["a", "b"], "y": ["b", "a"], "z": ["a", "b"]}

    def test_fewer_documents_than_asked_for(self, bench):
        best = bench.search.Best(["a"], 10)
        best.add(["a", "b"], np.ones((1, 2), np.float32))
        assert best.rankings() == {"a": ["b"]}


CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "purr"},
    {"_id": "d2", "title": "", "text": "dogs bark "},
    {"_id": 3, "text": "birds\u2028sing"},
]
QUERIES = [{"_id": "q1", "text": "cats"}, {"_id": "q2", "text": "dogs"}, {"_id": "d1", "text": "not judged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\n"
STS = (
    "split\tgenre\tdataset\tyear\tsid\tscore\tsentence1\tsentence2\r\n"
    "train\tg\td\t2012\t1\t5.0\tcats\tcats\r\n"
    'test\tg\td\t2012\t2\t5.000\tcats\tcats " purr\r\n'
    "test\tg\td\t2012\t3\t1.500\tcats\tdogs\r\n"
    "test\tg\td\t2012\t4\t0.000\tcats\tpigeon\r\n"
)


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    (root / "qrels").mkdir(parents=True)
    (root / "corpus.jsonl").write_text(lines(CORPUS) + "\n", encoding="utf-8")
    (root / "queries.jsonl").write_text(lines(QUERIES), encoding="utf-8")
    (root / "qrels" / "test.tsv").write_text(QRELS, encoding="utf-8")
    return root


class TestReaders:
    def test_folder(self, bench, folder):
        dataset = bench.beir.load(folder)
        assert dataset.name == "pets"
        assert dataset.queries == {"q1": "cats", "q2": "dogs"}
        assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
        assert [*dataset.documents()] == [("d1", "Cats purr"), ("d2", "dogs bark"), ("3", "birds\u2028sing")]
        assert [*dataset.documents()] == [*dataset.documents()]

    def test_limit(self, bench, folder):
        assert [document.id for document in bench.beir.load(folder, limit=2).documents()] == ["d1", "d2"]

    def test_compressed_files(self, bench, folder):
        plain = bench.beir.load(folder)
        documents = [*plain.documents()]
        for path in [p for p in folder.rglob("*") if p.is_file()]:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        packed = bench.beir.load(folder)
        assert (packed.queries, packed.qrels, [*packed.documents()]) == (plain.queries, plain.qrels, documents)

    @pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
    def test_missing_file(self, bench, folder, name):
        (folder / name).unlink()
        with pytest.raises(bench.beir.DataError, match=rf"no BEIR folder: {name} .* is missing"):
            bench.beir.load(folder)

    def test_missing_folder(self, bench, tmp_path):
        with pytest.raises(bench.beir.DataError, match="is no folder"):
            bench.beir.load(tmp_path / "none")

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
    def test_damaged_files_are_named(self, bench, folder, name, content, message):
        if name.endswith(".gz"):
            (folder / "corpus.jsonl").unlink()
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(bench.beir.DataError, match=message):
            list(bench.beir.load(folder).documents())

    @pytest.mark.parametrize("packed", [False, True])
    def test_sts_reads_the_rows_of_one_split(self, bench, tmp_path, packed):
        path = tmp_path / ("sts.tsv.gz" if packed else "sts.tsv")
        path.write_bytes(gzip.compress(STS.encode()) if packed else STS.encode())
        pairs = bench.beir.sts(path)
        assert pairs == (["cats"] * 3, ['cats " purr', "dogs", "pigeon"], [5.0, 1.5, 0.0])
        assert bench.beir.sts(path, "train").second == ["cats"]
        assert bench.beir.sts(path, limit=2).gold == [5.0, 1.5]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("a\tb\n", r"no column 'split' in the header"),
            (STS + "test\t1\n", r"sts.tsv:6: 2 columns where the header has 8"),
            (STS.replace("1.500", "-"), r"sts.tsv:4: the score must be a number"),
            (STS.replace("test", "dev"), r"no pair whose split is 'test'"),
        ],
    )
    def test_damaged_sts(self, bench, tmp_path, content, message):
        (tmp_path / "sts.tsv").write_text(content, encoding="utf-8", newline="")
        with pytest.raises(bench.beir.DataError, match=message):
            bench.beir.sts(tmp_path / "sts.tsv")


class StubModel:
    """Counts letters: enough for texts of the same words to be near each other."""

    made = ()

    def __init__(self, name, **options):
        StubModel.made += ((name, options),)

    def embed(self, documents):
        for text in [documents] if isinstance(documents, str) else documents:
            vector = np.full(26, 0.01, np.float32)
            for letter in text.lower():
                if "a" <= letter <= "z":
                    vector[ord(letter) - ord("a")] += 1
            yield vector

    query_embed = passage_embed = embed


class TestCommand:
    @pytest.fixture(autouse=True)
    def _stub(self, bench, monkeypatch):
        monkeypatch.setattr("fastrank.TextEmbedding", StubModel, raising=False)
        monkeypatch.setattr(StubModel, "made", ())
        bench.quality.text_embedding.cache_clear()
        yield
        bench.quality.text_embedding.cache_clear()

    def test_report(self, bench, folder, tmp_path, capsys):
        (tmp_path / "sts.tsv").write_text(STS, encoding="utf-8", newline="")
        arguments = [str(folder), "--sts", str(tmp_path / "sts.tsv"), "--json", str(tmp_path / "out.json")]
        assert (
            bench.quality.main(
                [*arguments, "--model", "m", "--max-length", "99", "--threads", "1", "--precision", "int8"]
            )
            == 0
        )
        assert StubModel.made == (("m", {"max_length": 99, "threads": 1, "precision": "int8"}),)
        report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        (found,) = report["retrieval"]
        assert found["documents/s"] > 0
        del found["documents/s"], found["seconds"]
        assert found == {
            "dataset": "pets",
            "documents": 3,
            "queries": 2,
            "ndcg@10": 1.0,
            "mrr@10": 1.0,
            "recall@100": 1.0,
        }
        assert report["sts"][0]["pairs"] == 3
        assert report["sts"][0]["spearman"] == pytest.approx(1)
        assert report["limit"] is None
        assert set(report["machine"]) == {"cpu", "cores", "system", "python", "onnxruntime", "numpy", "fastrank"}
        assert all(report["machine"].values())
        printed = capsys.readouterr().out
        for text in (report["machine"]["cpu"], "model m", "ndcg@10", "pets", "spearman", "sts.tsv"):
            assert text in printed

    def test_maxsim_ranks_the_best_by_words(self, bench, folder, monkeypatch):
        class Tokens(StubModel):
            def embed(self, documents):
                for vector in super().embed(documents):
                    yield np.stack([vector, vector[::-1]])

            query_embed = embed

        monkeypatch.setattr("fastrank.LateInteractionTextEmbedding", Tokens, raising=False)
        dataset = bench.beir.load(folder)
        words = bench.quality.bm25(bench.quality.Options("m", None, None, "cosine"), dataset)
        found = bench.quality.colbert(bench.quality.Options("m", None, None, "cosine"), dataset)
        assert {query: set(ids) for query, ids in found.rankings.items()} == {
            query: set(ids) for query, ids in words.rankings.items()
        }
        letters = StubModel("m")
        texts = {document.id: document.text for document in dataset.documents()}
        for query, ids in found.rankings.items():
            (asked,) = letters.embed(dataset.queries[query])
            scores = [
                max(asked @ v, asked @ v[::-1]) + max(asked[::-1] @ v, asked @ v)
                for v in letters.embed(texts[each] for each in ids)
            ]
            assert scores == sorted(scores, reverse=True)

    def test_unknown_model_is_one_line(self, bench, folder, monkeypatch, capsys):
        def refuse(_name, **_options):
            raise ModelNotFoundError("no model of this name")

        monkeypatch.setattr("fastrank.TextEmbedding", refuse)
        with pytest.raises(SystemExit) as caught:
            bench.quality.main([str(folder), "--model", "m"])
        assert caught.value.code == 2
        assert "error: no model of this name\n" in capsys.readouterr().err

    @pytest.mark.parametrize("block", [1, 2, 100])
    def test_blocks_do_not_matter(self, bench, folder, monkeypatch, block):
        monkeypatch.setattr(bench.quality, "BLOCK", block)
        outcome = bench.quality.dense(bench.quality.Options("m", None, None, "cosine"), bench.beir.load(folder))
        assert outcome.documents == 3
        assert outcome.rankings == {"q1": ["d1", "d2", "3"], "q2": ["d2", "3", "d1"]}

    def test_dot_product_prefers_long_vectors(self, bench, folder):
        (folder / "corpus.jsonl").write_text(
            lines([{"_id": "short", "text": "cats"}, {"_id": "long", "text": "cats cats dogs"}]), encoding="utf-8"
        )
        found = {}
        for similarity in ("cosine", "dot"):
            options = bench.quality.Options("m", None, None, similarity)
            found[similarity] = bench.quality.dense(options, bench.beir.load(folder)).rankings["q1"][0]
        assert found == {"cosine": "short", "dot": "long"}

    def test_limited_figures_say_so(self, bench, folder, capsys):
        assert bench.quality.main([str(folder), "--limit", "1"]) == 0
        assert "LIMITED to 1" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "at least one BEIR folder"),
            (["nowhere"], "nowhere is no folder"),
            (["--sts", "nowhere.tsv"], "nowhere.tsv cannot be read"),
            (["nowhere", "--limit", "0"], "must be >= 1"),
            (["nowhere", "--method", "none"], "invalid choice"),
        ],
    )
    def test_errors_are_one_line_and_status_2(self, bench, capsys, arguments, message):
        with pytest.raises(SystemExit) as caught:
            bench.quality.main(arguments)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
        assert StubModel.made == ()
