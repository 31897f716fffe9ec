"""`fastrank explain` over tiny models."""

import io
import json
from xml.etree import ElementTree as ET

import pytest
from support import tiny_models

from fastrank import LateInteractionTextEmbedding, ModelSource, PoolingType, TextEmbedding, cli
from fastrank.bm25 import BM25Index
from fastrank.fusion import reciprocal_rank_fusion

NAME = "acme/tiny"
LINES = ["the cat is red", "", "paris is the capital of france", "fast dog and fast cat"]
FILLED = [line for line in LINES if line]


@pytest.fixture
def folder(tmp_path):
    TextEmbedding.add_custom_model(NAME, PoolingType.MEAN, True, ModelSource(hf=NAME), 16, max_length=64)
    LateInteractionTextEmbedding.add_custom_model(
        NAME, ModelSource(hf=NAME), dim=tiny_models.DIM, max_length=64, projection=False
    )
    return str(tiny_models.write_model(tmp_path / "tiny", tiny_models.tiny_encoder()))


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return str(path)


@pytest.fixture
def explain(folder, capsys):
    def run(*arguments):
        status = cli.main(["explain", *arguments, "--model", NAME, "--path", folder])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_tokens_of_the_best_document(explain, documents, folder):
    status, out, _ = explain("red cat", documents, "--json")
    assert status == 0
    found = json.loads(out)
    with LateInteractionTextEmbedding(NAME, specific_model_path=folder) as model:
        best = model.rank("red cat", FILLED)[0]
        assert found["score"] == pytest.approx(best.score, rel=1e-5)
        assert found["similarities"] == model.explain("red cat", FILLED[best.index]).similarities.tolist()
    assert (found["rank"], LINES[found["index"]], found["text"]) == (1, FILLED[best.index], FILLED[best.index])


def test_a_row_and_its_rank(explain, documents, folder):
    with LateInteractionTextEmbedding(NAME, specific_model_path=folder) as model:
        order = [FILLED[each.index] for each in model.rank("red cat", FILLED)]
    for index in (0, 2, 3):
        found = json.loads(explain("red cat", documents, "--index", str(index), "--json")[1])
        assert (found["index"], found["rank"]) == (index, order.index(LINES[index]) + 1)
    assert len(explain("red cat", documents, "--top-k", "2", "--json")[1].splitlines()) == 2


def test_pictures(explain, tmp_path):
    svg, html = tmp_path / "heat.svg", tmp_path / "heat.html"
    status, out, _ = explain("red cat", "--text", "a red cat", "--svg", str(svg), "--html", str(html))
    assert (status, out.splitlines()[0]) == (0, "rank 1, index 0: a red cat")
    assert "MaxSim" in out.splitlines()[-1]
    assert ET.parse(svg).getroot().tag.endswith("svg")  # noqa: S314 - our own
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_terms(explain, documents):
    status, out, _ = explain("cats fast", documents, "--method", "bm25", "--json")
    found = json.loads(out)
    assert (status, found["index"]) == (0, 3)
    assert {tuple(term["words"]) for term in found["terms"]} == {("fast",), ("cats", "cat")}
    assert found["score"] == pytest.approx(BM25Index().scores("cats fast", FILLED)[2])
    assert "BM25" in explain("cats fast", documents, "--method", "bm25")[1]


def test_ranks_that_were_fused(explain, documents, folder):
    status, out, _ = explain("cats fast", documents, "--method", "hybrid", "--top-k", "3", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    with TextEmbedding(NAME, specific_model_path=folder) as model:
        query = next(model.query_embed("cats fast"))
        cosines = [float(query @ vector) for vector in model.passage_embed(FILLED)]
    words = BM25Index().scores("cats fast", FILLED).tolist()
    by_words = sorted((n for n in range(3) if words[n] > 0), key=lambda n: -words[n])
    by_meaning = sorted(range(3), key=lambda n: -cosines[n])
    fused = reciprocal_rank_fusion([by_words, by_meaning])
    assert status == 0
    assert [(LINES.index(FILLED[position]), score) for position, score in fused] == [
        (each["index"], each["score"]) for each in found
    ]
    for each in found:
        position = FILLED.index(LINES[each["index"]])
        assert each["rankings"]["dense"]["rank"] == by_meaning.index(position) + 1
        rank = by_words.index(position) + 1 if position in by_words else None
        assert each["rankings"]["bm25"]["rank"] == rank
        assert sum(of["part"] for of in each["rankings"].values()) == pytest.approx(each["score"])
    assert "RRF" in explain("cats fast", documents, "--method", "hybrid")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "bm25", "--svg", "x.svg"], "--svg draws tokens: it needs --method colbert"),
        (["--index", "1"], "that row is blank"),
        (["--index", "9"], "has rows 0 to 3"),
        (["--text", "a"], "name one of them"),
        (["--html", "none/x.html"], "there is no folder"),
    ],
)
def test_mistakes(explain, documents, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = explain("cat", documents, *arguments)
    assert (status, out) == (1, "")
    assert message in err


def test_a_forgotten_query_does_not_wait(explain, documents, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    status, _, err = explain(documents)
    assert status == 1
    assert f"the query is missing. Run: fastrank explain QUERY {documents}" in err
