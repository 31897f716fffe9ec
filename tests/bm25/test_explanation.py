"""What makes up a score of BM25."""

import json
import math

import numpy as np
import pytest

from fastrank.bm25 import BM25, BM25Index, analysis

CORPUS = ["A dog runs.", "Running is fun", "cats and dogs", "The dog sleeps", "", "to be or not to be"]


@pytest.fixture
def index():
    return BM25Index.build(CORPUS)


@pytest.mark.parametrize("query", ["running dogs dogs zebra", "dog", "zebra", "", "to be", "!?", "the dog"])
@pytest.mark.parametrize("document", ["A dog runs with the dog.", "", "nothing of it", "to be", *CORPUS])
def test_the_parts_are_the_score(index, query, document):
    found = index.explain(query, document)
    score = float(index.scores(query, [document])[0])
    assert found.score == score
    assert sum(term.score for term in found.terms) == pytest.approx(score, abs=1e-6)


def test_each_number_by_hand(index):
    found = index.explain("running dogs dogs zebra", "A dog runs with the dog.")
    assert [term.words for term in found.terms] == [("dogs", "dog"), ("running", "runs"), ("zebra",)]
    dog, run, zebra = found.terms
    assert (dog.query_count, dog.document_count, dog.document_frequency) == (2, 2, 3)
    assert (run.query_count, run.document_count, run.document_frequency) == (1, 1, 2)
    assert zebra[1:4] == (1, 0, 0)
    assert (zebra.weight, zebra.score) == (0, 0)
    assert dog.idf == pytest.approx(math.log1p((6 - 3 + 0.5) / 3.5))
    average = (2 + 2 + 2 + 2 + 0 + 0) / 6
    assert (found.length, found.documents) == (3, 6)
    assert found.avg_len == pytest.approx(average)
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / average)
    assert dog.weight == pytest.approx(2 / (2 + norm))
    assert dog.score == pytest.approx(2 * dog.idf * 2 / (2 + norm))


def test_deleted_documents_do_not_count(index):
    index.delete([0, 3])
    assert index.explain("dog", "dog").terms[0].document_frequency == 1


def test_an_empty_index_takes_the_document_itself():
    found = BM25Index().explain("dog", "dog cat")
    assert (found.documents, found.avg_len, found.terms[0].document_frequency) == (1, 2, 1)
    assert found.score == BM25Index().scores("dog", ["dog cat"])[0]


def test_as_data_and_text(index):
    found = index.explain("dogs zebra", "dog")
    data = json.loads(json.dumps(found.as_dict()))
    assert data["terms"][0]["words"] == ["dogs", "dog"]
    assert data["score"] == found.score
    lines = found.text().split("\n")
    assert lines[0].split() == ["term", "in", "document", "documents", "idf", "weight", "score"]
    assert lines[1].startswith("dogs, dog")
    assert lines[3].startswith(f"BM25 {found.score:.4f}: the sum")


@pytest.mark.parametrize("analyzer", [None, *analysis.ANALYZERS, str.split])
@pytest.mark.parametrize(
    "text", ["The _ foxes' café 3.5 x_y parseHTTP", "北京 dog ไทย", "", "\ud800 a\0b", "İstanbul IRMAK" * 20]
)
def test_words_have_the_ids_of_the_text(analyzer, text):
    bm25 = BM25(None, analyzer=analyzer)
    words = bm25.words(text)
    ids = bm25.token_ids(text)
    kept = [term for _, term in words if term != analysis.DROPPED]
    assert kept == [term for term in ids if term != analysis.DROPPED]
    assert all(isinstance(word, str) for word, _ in words)


@pytest.mark.parametrize("arguments", [(3, "a"), ("a", None)])
def test_mistakes(index, arguments):
    with pytest.raises(TypeError, match=r"(query|document) must be a string"):
        index.explain(*arguments)


def test_float32_as_in_search(index):
    positions, scores = index.search("running dogs")
    for position, score in zip(positions, scores, strict=True):
        assert np.float32(index.explain("running dogs", CORPUS[position]).score) == pytest.approx(score, rel=1e-6)
