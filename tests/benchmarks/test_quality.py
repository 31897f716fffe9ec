"""The benchmark command: metrics against values computed by hand, readers against small and broken files."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.pets import lines, write_pets

from fastrank.errors import ModelNotFoundError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmarks folder, which is no package."""
    names = ("common.beir", "common.machine", "quality")
    package = ("fastrank.evaluation.methods",)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(name) for name in (*names, *package)})
    for name in names:
        del sys.modules[name]


STS = (
    "split\tgenre\tdataset\tyear\tsid\tscore\tsentence1\tsentence2\r\n"
    "train\tg\td\t2012\t1\t5.0\tcats\tcats\r\n"
    'test\tg\td\t2012\t2\t5.000\tcats\tcats " purr\r\n'
    "test\tg\td\t2012\t3\t1.500\tcats\tdogs\r\n"
    "test\tg\td\t2012\t4\t0.000\tcats\tpigeon\r\n"
)


@pytest.fixture
def folder(tmp_path):
    return write_pets(tmp_path / "pets")


class TestSts:
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
        libraries = {"python", "onnxruntime", "numpy", "fastrank"}
        assert set(report["machine"]) == {"cpu", "instructions", "cores", "system", *libraries}
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
        monkeypatch.setattr(bench.methods, "BLOCK", block)
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
