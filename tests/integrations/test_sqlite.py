"""A real SQLite with sqlite-vec. Tiny models with random weights show the wiring alone."""

import sqlite3

import numpy as np
import pytest
from support.hosts import check_fused_by_rank, host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

host("sqlite_vec")
if not hasattr(sqlite3.Connection, "enable_load_extension"):  # a build of Python that leaves it out
    sqlite3 = host("pysqlite3.dbapi2")

from fastrank import TextEmbedding  # noqa: E402
from fastrank.errors import ModelNotFoundError  # noqa: E402
from fastrank.integrations.sqlite import FastrankSQLite, Hit  # noqa: E402

TEXTS = ["the cat is red", "one dog", "paris is the capital of france", 'fast "red" cats', ""]


def table(model, connection=None, **more):
    connection = sqlite3.connect(":memory:") if connection is None else connection
    return FastrankSQLite(connection, "texts", **model, **more)


def test_dense(tiny_dense):
    store = table(tiny_dense)
    assert store.add(TEXTS) == [1, 2, 3, 4, 5]
    with TextEmbedding(**tiny_dense) as model:
        passages, query = np.stack(list(model.passage_embed(TEXTS))), next(model.query_embed("red cat"))
    cosines = passages @ query
    found = store.search("red cat", 3, "dense")
    order = np.argsort(-cosines)[:3].tolist()
    assert [hit.id - 1 for hit in found] == order
    assert [hit.score for hit in found] == [pytest.approx(cosines[each], abs=1e-5) for each in order]
    assert [hit.text for hit in found] == [TEXTS[each] for each in order]


def test_words(tiny_dense):
    store = table(tiny_dense)
    store.add(TEXTS)
    found = store.search('cats" OR NEAR(* -red', method="words")
    assert {hit.id for hit in found} == {1, 4}
    assert found[0].score >= found[1].score > 0
    assert store.search("zebra", method="words") == store.search("!?", method="words") == []


def test_hybrid_is_both_fused_by_rank(tiny_dense):
    store = table(tiny_dense)
    store.add(TEXTS)
    found = check_fused_by_rank(store, "red cat")
    assert isinstance(found[0], Hit)


def test_ids_deletion_and_a_file(tiny_dense, tmp_path):
    store = table(tiny_dense, sqlite3.connect(tmp_path / "texts.db"))
    assert store.add(TEXTS[:3], ids=[7, 5, 9]) == [7, 5, 9]
    store.delete(5)
    store.delete([1, 9])
    store.connection.close()
    again = table(tiny_dense, sqlite3.connect(tmp_path / "texts.db"))
    assert [hit.id for hit in again.search("dog cat paris")] == [7]
    assert again.add("one dog") == [8]
    assert [hit.id for hit in again.search("dog", method="words")] == [8]
    assert again.search("cat", method="words")[0].text == TEXTS[0]
    with pytest.raises(ValueError, match="The vectors of texts are those of acme/tiny"):
        FastrankSQLite(again.connection, "texts", "sentence-transformers/all-MiniLM-L6-v2")


def test_all_or_nothing(tiny_dense):
    store = table(tiny_dense)
    store.add("one dog", ids=[2])
    with pytest.raises(sqlite3.IntegrityError):
        store.add(["red", "cat"], ids=[1, 2])
    assert [hit.id for hit in store.search("red cat dog")] == [2]
    for texts, ids, error, message in (
        (["a", 3], None, TypeError, r"texts\[1\] must be a string, not int"),
        (["a", "b"], [1], ValueError, "2 texts need as many ids, got 1"),
        (["a", "b"], [3, 3], ValueError, "An id is given twice"),
        (["a"], ["x"], TypeError, r"ids\[0\] must be an integer, not str"),
    ):
        with pytest.raises(error, match=message):
            store.add(texts, ids)
    assert len(store.search("red cat dog")) == 1


def test_mistakes(tiny_dense):
    connection = sqlite3.connect(":memory:")
    with pytest.raises(ValueError, match="name must be letters"):
        FastrankSQLite(connection, "a; DROP TABLE b", **tiny_dense)
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        FastrankSQLite(connection, model_name="acme/none")
    store = table(tiny_dense)
    for arguments, error, message in (
        ((3,), TypeError, "query must be a string"),
        (("a", 0), ValueError, "k must be >= 1"),
        (("a", 1, "none"), ValueError, "method must be one of hybrid, dense, words"),
    ):
        with pytest.raises(error, match=message):
            store.search(*arguments)


def test_a_python_that_cannot_load_extensions_says_so(tiny_dense):
    class Bare:
        pass

    with pytest.raises(RuntimeError, match=r"cannot load extensions.*pysqlite3"):
        FastrankSQLite(Bare(), **tiny_dense)


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    store = table(real)
    store.add(NOTES)
    assert store.search(QUESTION, 1, "dense")[0].text == ANSWER
    assert ANSWER in [hit.text for hit in store.search(QUESTION, 3)]


def test_without_the_host():
    done = run_python("-c", "import sys; sys.modules['sqlite_vec'] = None; import fastrank.integrations.sqlite")
    assert done.stderr.endswith("(in a checkout: pip install '.[sqlite]')\n")
