"""DuckDB with functions of fastrank. Tiny models with random weights show the wiring alone."""

import numpy as np
import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

duckdb = host("duckdb")
host("pyarrow")
from fastrank import LateInteractionTextEmbedding, TextCrossEncoder, TextEmbedding  # noqa: E402
from fastrank.errors import ModelNotFoundError  # noqa: E402
from fastrank.integrations.duckdb import register  # noqa: E402

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", None, "", "fast red cats"]


@pytest.fixture
def connection():
    with duckdb.connect() as opened:
        opened.execute("CREATE TABLE texts AS SELECT unnest(range(5)) AS id, unnest(?::VARCHAR[]) AS text", [TEXTS])
        yield opened


def options(model):
    return {"options": {"specific_model_path": model["specific_model_path"]}}


def test_embed(connection, tiny_dense):
    register(connection, tiny_dense["model_name"], **options(tiny_dense))
    rows = connection.execute("SELECT embed(text) AS v, embed_query(text), typeof(v) FROM texts ORDER BY id").fetchall()
    with TextEmbedding(**tiny_dense) as model:
        for text, (passage, query, kind) in zip(TEXTS, rows, strict=True):
            assert kind == "FLOAT[16]"
            if text is None:
                assert passage is query is None
            else:
                assert passage == pytest.approx(next(model.passage_embed(text)), abs=1e-6)
                assert query == pytest.approx(next(model.query_embed(text)), abs=1e-6)


def test_searching(connection, tiny_dense):
    register(connection, tiny_dense["model_name"], **options(tiny_dense))
    found = connection.execute(
        "SELECT id FROM texts WHERE text IS NOT NULL ORDER BY array_cosine_distance(embed(text), embed_query(?))",
        [QUERY],
    ).fetchall()
    with TextEmbedding(**tiny_dense) as model:
        query = next(model.query_embed(QUERY))
        cosines = {
            n: float(next(model.passage_embed(text)) @ query) for n, text in enumerate(TEXTS) if text is not None
        }
    assert [row[0] for row in found] == sorted(cosines, key=lambda n: -cosines[n])


def test_many_rows(connection, tiny_dense):
    register(connection, tiny_dense["model_name"], **options(tiny_dense))
    found = connection.execute(
        "SELECT embed(t.text)::FLOAT[] AS v FROM (SELECT 'cat ' || (i % 7) AS text FROM range(6000) r(i)) t"
    ).fetchnumpy()["v"]
    assert len(found) == 6000
    with TextEmbedding(**tiny_dense) as model:
        expected = np.stack(list(model.passage_embed([f"cat {n}" for n in range(7)])))
    vectors = np.stack([np.asarray(each) for each in found])
    distances = np.abs(vectors[:, None] - expected[None]).max(axis=2).min(axis=1)
    assert distances.max() < 1e-5


@pytest.mark.parametrize("kind", ["cross-encoder", "late"])
def test_rerank(connection, tiny_cross_encoder, tiny_late, kind):
    model = tiny_late if kind == "late" else tiny_cross_encoder
    of_class = LateInteractionTextEmbedding if kind == "late" else TextCrossEncoder
    more = {"reranker_options": options(model)["options"], "late_interaction": kind == "late"}
    register(connection, reranker=model["model_name"], prefix="my_", **more)
    rows = connection.execute(
        "SELECT my_rerank(?, text), my_rerank(text, 'cat') FROM texts ORDER BY id", [QUERY]
    ).fetchall()
    with of_class(**model) as ours:
        for text, (score, other) in zip(TEXTS, rows, strict=True):
            if text is None:
                assert score is other is None
            else:
                assert score == pytest.approx(next(ours.rerank(QUERY, [text])), abs=1e-5)
                assert other == pytest.approx(next(ours.rerank(text, ["cat"])), abs=1e-5)
    assert connection.execute("SELECT my_rerank(NULL, 'a')").fetchone() == (None,)


def test_mistakes(connection):
    with pytest.raises(ValueError, match="Name a model for embed"):
        register(connection)
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        register(connection, "acme/none")
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        register(connection, reranker="acme/none")
    with pytest.raises(TypeError, match="max_lenght"):
        register(connection, "BAAI/bge-small-en-v1.5", options={"max_lenght": 3})


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    folder = {"specific_model_path": real["specific_model_path"]}
    with duckdb.connect() as connection:
        register(connection, real["model_name"], reranker=real["model_name"], options=folder, reranker_options=folder)
        connection.execute("CREATE TABLE notes AS SELECT unnest(?::VARCHAR[]) AS note", [NOTES])
        for order in ("array_cosine_distance(embed(note), embed_query($q))", "-rerank($q, note)"):
            select = f"SELECT note FROM notes ORDER BY {order} LIMIT 1"  # noqa: S608 - our own
            assert connection.execute(select, {"q": QUESTION}).fetchone() == (ANSWER,)


def test_without_the_host():
    done = run_python("-c", "import sys; sys.modules['duckdb'] = None; import fastrank.integrations.duckdb")
    assert done.stderr.endswith("(in a checkout: pip install '.[duckdb]')\n")
