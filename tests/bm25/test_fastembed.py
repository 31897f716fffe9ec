"""Ids, values and counts equal FastEmbed's: those it computed once (golden.json), and those of an installed one."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fastrank.bm25 import BM25, LANGUAGES
from fastrank.bm25.languages import stopwords

CASES = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))["cases"]


def name(case):
    return ",".join(f"{key}={value}" for key, value in case["options"].items()) or "defaults"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_golden_vectors(case):
    bm25 = BM25(**case["options"])
    texts = [result["text"] for result in case["results"]]
    for (ids, values), (found, ones), result in zip(
        bm25.documents(texts), bm25.queries(texts), case["results"], strict=True
    ):
        assert (ids.tolist(), values.tolist()) == (result["ids"], result["values"]), result["text"]
        assert (ids.dtype, values.dtype) == (np.int64, np.float64)
        assert sorted(found.tolist()) == result["query"]
        assert ones.tolist() == [1] * len(found)
        assert (found.dtype, ones.dtype) == (np.int64, np.int64)
        assert bm25.token_count([result["text"]]) == result["tokens"]


def test_golden_vectors_cover_every_language():
    assert {case["options"].get("language") for case in CASES}.issuperset(LANGUAGES)
    assert len(LANGUAGES) == 18


def test_a_batch_gives_what_single_texts_give():
    texts = [result["text"] for case in CASES for result in case["results"]] * 8
    bm25 = BM25()
    for (ids, values), text in zip(bm25.documents(texts), texts, strict=True):
        ((alone, weights),) = bm25.documents([text])
        assert (ids.tolist(), values.tolist()) == (alone.tolist(), weights.tolist())


def test_ids_fill_more_than_31_bits():
    assert BM25(disable_stemmer=True).documents(["AD1U66PI!"])[0][0].tolist() == [2**31]


# Words of NLTK's lists that FastEmbed's tokenizer can make (so no "don't"), and PostgreSQL's Hungarian "ill.".
SIZES = {
    "arabic": 598,
    "danish": 94,
    "dutch": 101,
    "english": 153,
    "finnish": 229,
    "french": 157,
    "german": 232,
    "greek": 259,
    "hungarian": 198,
    "italian": 279,
    "norwegian": 172,
    "portuguese": 207,
    "romanian": 352,
    "russian": 151,
    "spanish": 313,
    "swedish": 114,
    "tamil": 0,
    "turkish": 53,
}


def test_stop_words():
    assert {language: len(stopwords(language)) for language in LANGUAGES} == SIZES
    assert {"unsere", "dass", "ist"} < stopwords("german")
    assert "unse" not in stopwords("german")
    assert all(word == word.strip().lower() and word[0] not in "+-#" for lang in LANGUAGES for word in stopwords(lang))


# -- against what is installed --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fastembed_files(tmp_path_factory):
    """Our lists as FastEmbed reads them; that they are right is what the golden vectors show."""
    folder = tmp_path_factory.mktemp("fastembed")
    for language in LANGUAGES:
        if words := stopwords(language):
            (folder / f"{language}.txt").write_text("\n".join(sorted(words)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def peer(fastembed_files):
    """FastEmbed's Bm25 for some options."""
    pytest.importorskip("fastembed", minversion="0.9", reason="FastEmbed 0.9 is not installed: nothing to compare with")
    from fastembed.sparse.bm25 import Bm25

    def make(**options):
        return Bm25("Qdrant/bm25", cache_dir=fastembed_files, specific_model_path=str(fastembed_files), **options)

    return make


def test_any_text_has_fastembeds_vectors(peer):
    pytest.importorskip("hypothesis", reason="Hypothesis is not installed: no texts to compare")
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    english, german = peer(), peer(language="german", k=0.7, b=1.0, avg_len=3.5, token_max_length=7)
    pairs = [(english, BM25()), (german, BM25("german", k=0.7, b=1.0, avg_len=3.5, token_max_length=7))]
    wild = st.characters(exclude_categories=["Cs"])
    awkward = st.sampled_from(
        [*"aAzZ09_ .'-\t\u03a3\u03c3\u0130\u0131\u0345\u00df\u02b0\u24b6\u00b7\u0301\u00a0\u2014\u4e2d", "the", "Die"]
    )
    texts = st.lists(st.one_of(wild, awkward), max_size=40).map("".join)
    seen = []

    @settings(max_examples=600, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(texts, max_size=3))
    def compare(batch):
        seen.append(batch)
        for theirs, ours in pairs:
            for (ids, values), (query, _), document, wanted in zip(
                ours.documents(batch), ours.queries(batch), theirs.embed(batch), theirs.query_embed(batch), strict=True
            ):
                assert (ids.tolist(), values.tolist()) == (document.indices.tolist(), document.values.tolist())
                assert sorted(query.tolist()) == sorted(wanted.indices.tolist())
            assert ours.token_count(batch) == theirs.token_count(batch)

    compare()
    assert len(seen) >= 600


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_letter_has_fastembeds_vectors(peer, language):
    letters = [chr(point) for point in range(0x3000) if unicodedata.category(chr(point)) != "Cn"]
    texts = [
        "".join(letters),
        " ".join(letters),
        *(f"{one}{two}{one.upper()}" for one, two in zip(letters, letters[7:], strict=False)),
    ]
    ours = BM25(language).documents(texts)
    for (ids, values), document in zip(ours, peer(language=language).embed(texts), strict=True):
        assert (ids.tolist(), values.tolist()) == (document.indices.tolist(), document.values.tolist())


def test_qdrants_own_bm25_agrees_on_plain_words():
    edge = pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed: nothing to compare with")
    for language in sorted(set(LANGUAGES) - {"tamil"}):
        theirs, ours = edge.Bm25(edge.Bm25Config(language=language)), BM25(language)
        (case,) = [case for case in CASES if case["options"] == {"language": language}]
        # Qdrant parts words at "_" and lower-cases the dotted I in another way.
        texts = [text for result in case["results"] if not {"_", "\u0130"} & set(text := result["text"])]
        assert texts
        for text, (ids, values) in zip(texts, ours.documents(texts), strict=True):
            document = theirs.embed_document(text)
            wanted = dict(zip(document.indices, document.values, strict=True))
            assert dict(zip(ids.tolist(), values.tolist(), strict=True)) == pytest.approx(wanted, rel=1e-6)
            assert sorted(theirs.embed_query(text).indices) == sorted(ids.tolist())
