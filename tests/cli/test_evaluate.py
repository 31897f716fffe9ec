"""`fastrank eval` over a small collection and a tiny model."""

import json

import pytest
from support import tiny_models

from fastrank import (
    LateInteractionTextEmbedding,
    ModelSource,
    PoolingType,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
    cli,
)
from fastrank.evaluation import read_run

NAME = "acme/tiny"
CORPUS = {"a": "the red cat", "b": "a fast dog", "c": "paris is the capital", "d": "red dogs and red cats"}
QUERIES = {"1": "cat", "2": "fast", "3": "capital"}
JUDGED = {"1": "d", "2": "b", "3": "c"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    (root / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": each, "title": "", "text": text}) for each, text in CORPUS.items()]
    (root / "corpus.jsonl").write_text("\n".join(rows))
    rows = [json.dumps({"_id": each, "text": text}) for each, text in QUERIES.items()]
    (root / "queries.jsonl").write_text("\n".join(rows))
    rows = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t1" for query, document in JUDGED.items())]
    (root / "qrels" / "test.tsv").write_text("\n".join(rows))
    return root


@pytest.fixture
def evaluate(folder, capsys):
    def run(*arguments):
        status = cli.main(["eval", str(folder), *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def tiny(tmp_path):
    TextEmbedding.add_custom_model(NAME, PoolingType.MEAN, True, ModelSource(hf=NAME), 16, max_length=64)
    LateInteractionTextEmbedding.add_custom_model(
        NAME, ModelSource(hf=NAME), dim=tiny_models.DIM, max_length=64, projection=False
    )
    return str(tiny_models.write_model(tmp_path / "tiny", tiny_models.tiny_encoder()))


def test_a_table(evaluate):
    status, out, _ = evaluate("--method", "bm25")
    assert status == 0
    head, columns, row = out.splitlines()
    assert head == "pets, test: 3 queries"
    assert columns.split() == ["nDCG@10", "MRR@10", "Recall@100", "seconds"]
    name, ndcg, mrr, recall, _ = row.split()
    # Query 1 finds the shorter "a" first.
    assert (name, float(mrr), float(recall)) == ("bm25", pytest.approx(2.5 / 3, abs=1e-4), 1)
    assert float(ndcg) == pytest.approx((2 + 0.63093) / 3, abs=1e-4)


def test_two_methods_and_what_chance_says(evaluate, tiny):
    status, out, _ = evaluate("--method", "bm25", "--against", "dense", "--model", NAME, "--path", tiny, "--json")
    assert status == 0
    found = json.loads(out)
    assert (found["collection"], found["queries"]) == ("pets", 3)
    first, second = found["methods"]
    assert (first["method"], second["method"]) == ("bm25", f"dense {NAME}")
    compared = found["comparison"]["mrr@10"]
    assert compared["difference"] == pytest.approx(first["mrr@10"] - second["mrr@10"])
    assert compared["better"] + compared["worse"] + compared["equal"] == 3
    assert 0.25 <= compared["p"] <= 1  # of at most three queries, whatever they say
    assert found["test"] == {"name": "paired randomisation, two-sided", "rounds": 10_000, "seed": 0}
    _, out, _ = evaluate("--method", "bm25", "--against", "dense", "--model", NAME, "--path", tiny)
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["bm25", "dense", "difference", "p", "queries", "p:"]


def test_rankings_are_saved_and_compared_with(evaluate, tmp_path):
    run = str(tmp_path / "bigram.run")
    assert evaluate("--method", "bm25", "--analyzer", "bigram", "--save-run", run)[0] == 0
    assert read_run(run) == {"1": ["a", "d"], "2": ["b"], "3": ["c"]}
    status, out, _ = evaluate("--method", "bm25", "--against", run, "--metrics", "recall@1,mrr@5", "--json")
    found = json.loads(out)
    assert (status, found["methods"][1]["method"]) == (0, run)
    assert found["comparison"] == {
        name: {"difference": 0, "p": 1, "better": 0, "worse": 0, "equal": 3} for name in ("recall@1", "mrr@5")
    }


@pytest.mark.parametrize("method", ["hybrid", "colbert", "cross-encoder", "sparse"])
def test_other_methods(evaluate, tiny, tmp_path, method):
    if method == "cross-encoder":
        TextCrossEncoder.add_custom_model(NAME, ModelSource(hf=NAME), max_length=64)
        tiny = str(tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder()))
    if method == "sparse":
        SparseTextEmbedding.add_custom_model(NAME, ModelSource(hf=NAME), vocab_size=16, max_length=64)
    status, out, err = evaluate("--method", method, "--model", NAME, "--path", tiny, "--json", "--depth", "100")
    assert status == 0, err
    (found,) = json.loads(out)["methods"]
    assert found["method"] == f"{method} {NAME}"
    assert found["recall@100"] == 1
    assert 0.3 < found["ndcg@10"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "map@10"], "There is no metric 'map@10'"),
        (["--metrics", "recall@1000"], "looks at 1000 documents: give --depth 1000"),
        (["--against", "nothing"], "neither a method"),
        (["--against-model", "m"], "--against-model needs --against"),
        (["--method", "cross-encoder"], "needs --model"),
        (["--method", "sparse"], "needs --model"),
        (["--method", "sparse", "--model", "Qdrant/bm25"], "leaves the IDF to a vector store"),
        (["--method", "bm25", "--against", "cross-encoder"], "needs --model"),
        (["--split", "dev"], "qrels/dev.tsv"),
        (["other", "--save-run", "x"], "there are 2 FOLDERs"),
    ],
)
def test_mistakes(evaluate, arguments, message):
    status, out, err = evaluate(*arguments)
    assert (status, out) == (1, "")
    assert message in err


def test_a_part_of_a_collection_says_so(evaluate):
    _, out, _ = evaluate("--method", "bm25", "--limit", "2")
    assert "LIMITED to 2 documents" in out
