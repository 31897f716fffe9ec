"""Texts that have more tokens than a model takes: cut and counted, refused, or read in chunks."""

import asyncio
import json
import logging
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import DIM, tiny_cross_encoder, tiny_encoder, tiny_pooled, write_model

from fastrank import (
    LateInteractionTextEmbedding,
    ModelSource,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
    TextTooLongError,
)
from fastrank.engine.chunking import split
from fastrank.maxsim import maxsim
from fastrank.models.spec import PoolingType

FIXTURES = Path(__file__).parents[1] / "fixtures"
ANSWERS = json.loads((FIXTURES / "small_vectors.json").read_text(encoding="utf-8"))
SAVED = FIXTURES / "folders" / "dense"
LONG = (
    "the capital of france is paris. the capital of germany is berlin.\n\n"
    "what is red? a cat is red, and cats search for text. hello world!\n\n" * 3
).strip()
SHORT = "hello world"


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "tiny")


@pytest.fixture
def model(folder):
    TextEmbedding.add_custom_model(
        "acme/tiny", PoolingType.MEAN, True, ModelSource(hf="acme/tiny"), DIM, passage_prefix="document: "
    )
    return TextEmbedding("acme/tiny", specific_model_path=folder, max_length=24)


@pytest.fixture
def reranker(tmp_path):
    TextCrossEncoder.add_custom_model("acme/ce", ModelSource(hf="acme/ce"))
    folder = write_model(tmp_path / "ce", tiny_cross_encoder())
    return TextCrossEncoder("acme/ce", specific_model_path=folder, max_length=24)


@pytest.fixture
def late(folder):
    LateInteractionTextEmbedding.add_custom_model(
        "acme/late",
        ModelSource(hf="acme/late"),
        DIM,
        projection=False,
        document_prefix_token="[unused1]",  # noqa: S106
    )
    return LateInteractionTextEmbedding("acme/late", specific_model_path=folder, max_length=24)


@pytest.fixture
def splade(tmp_path):
    SparseTextEmbedding.add_custom_model("acme/splade", ModelSource(hf="acme/splade"), vocab_size=32)
    folder = write_model(tmp_path / "splade", tiny_encoder(32))
    return SparseTextEmbedding("acme/splade", specific_model_path=folder, max_length=24)


async def gathered(iterator):
    return [item async for item in iterator]


def unit(row):
    return row / np.linalg.norm(row)


# -- cut and counted --------------------------------------------------------------------------------------------------


def test_texts_that_are_cut_are_counted_reported_and_logged_once(model, caplog):
    fits = "hello " * 22  # and [CLS], [SEP]
    positions = []
    with caplog.at_level(logging.WARNING, "fastrank"):
        list(model.embed([fits, LONG, SHORT, fits + "hello"], on_truncated=positions.append))
        list(model.query_embed([LONG]))
        asyncio.run(gathered(model.aembed([SHORT, LONG], on_truncated=positions.append)))
    assert positions == [1, 3, 1]
    assert model.info()["truncated_texts"] == 4
    (record,) = caplog.records
    assert record.getMessage().startswith("acme/tiny: a text has more than 24 tokens, and only the first 24 of them")
    model.token_count([LONG])
    assert model.info()["truncated_texts"] == 4


def test_positions_count_over_windows(model):
    positions = []
    texts = [LONG if number % 100 == 99 else SHORT for number in range(700)]
    assert len(list(model.embed(texts, on_truncated=positions.append))) == 700
    assert positions == [99, 199, 299, 399, 499, 599, 699]
    positions.clear()
    asyncio.run(gathered(model.aembed(texts, on_truncated=positions.append)))
    assert positions == [99, 199, 299, 399, 499, 599, 699]


def test_rerankers_and_sparse_models_count_too(reranker, late, splade):
    positions = []
    reranker.rank("what is red", [SHORT, LONG], on_truncated=positions.append)
    list(late.rerank("what is red", [LONG, SHORT], on_truncated=positions.append))
    list(splade.embed([SHORT, LONG], on_truncated=positions.append))
    assert positions == [1, 0, 1]
    assert [each.info()["truncated_texts"] for each in (reranker, late, splade)] == [1, 1, 1]


@pytest.mark.parametrize("text", ["word " * 100_000, "hello " * 22 + " " * 2_000_000, "x" * 300_000])
def test_huge_texts_are_cut_where_they_have_more_tokens(model, text):
    positions = []
    list(model.embed([text], on_truncated=positions.append))
    (tokens,) = model.token_count([text], truncate=False, each=True)
    assert positions == ([0] if tokens > 24 else [])


def test_token_counts_of_each_text(model, reranker, late, splade):
    whole = len(re.findall(r"\w+|[^\w\s]", LONG)) + 2
    assert model.token_count([SHORT, LONG], each=True) == [4, 24]
    assert model.token_count([SHORT, LONG], truncate=False, each=True) == [4, whole]
    assert model.token_count([SHORT, LONG], truncate=False) == 4 + whole
    assert model.token_count(SHORT) == 4
    assert reranker.token_count([("cat", LONG)], truncate=False, each=True) == [whole + 2]
    assert late.token_count(["", LONG], truncate=False, each=True) == [2, whole]
    assert late.token_count(LONG, include_extension=True, truncate=False) == whole + 1
    assert splade.token_count([LONG], each=True, truncate=False) == [whole]
    assert SparseTextEmbedding("Qdrant/bm25").token_count(["one two", "red"], each=True, truncate=False) == [2, 1]


# -- refused ----------------------------------------------------------------------------------------------------------


def test_error_names_the_text_after_the_results_before_it(model):
    texts = [SHORT] * 300 + [LONG] + [SHORT]
    found = model.embed(texts, overflow="error")
    before = []
    with pytest.raises(TextTooLongError, match=r"documents\[300\] has more than 24 tokens"):
        before.extend(found)
    assert len(before) == 300
    assert model.info()["truncated_texts"] == 0

    async def run():
        async for vector in model.aembed(texts, overflow="error"):
            before.append(vector)  # noqa: PERF401 - what came before the error counts

    before.clear()
    with pytest.raises(ValueError, match=r"documents\[300\] has more than 24 tokens"):
        asyncio.run(run())
    assert len(before) == 300


def test_every_class_refuses(model, reranker, late, splade, folder):
    strict = TextEmbedding("acme/tiny", specific_model_path=folder, max_length=24, overflow="error")
    for call in (
        lambda: list(strict.query_embed(LONG)),
        lambda: list(reranker.rerank("red", [SHORT, LONG], overflow="error")),
        lambda: reranker.rank_batch(["red"], [[SHORT, LONG]], overflow="error"),
        lambda: list(reranker.rerank_pairs([("red", SHORT), ("red", LONG)], overflow="error")),
        lambda: late.rank("red", [LONG], overflow="error"),
        lambda: list(splade.embed(LONG, overflow="error")),
    ):
        with pytest.raises(TextTooLongError, match="has more than 24 tokens"):
            call()
    assert len(list(strict.embed(LONG, overflow="truncate"))) == 1


# -- chunks -----------------------------------------------------------------------------------------------------------


def test_a_chunks_vector_is_that_of_its_part_of_the_text(model):
    short, long = model.embed_chunks([SHORT, LONG])
    assert short.spans == [(0, len(SHORT))]
    assert len(long.spans) == len(long.vectors) > 3
    for text, found in ((SHORT, short), (LONG, long)):
        expected = np.stack(list(model.passage_embed([text[start:stop] for start, stop in found.spans])))
        np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    assert re.sub(r"\s", "", "".join(LONG[start:stop] for start, stop in long.spans)) == re.sub(r"\s", "", LONG)
    counts = model.token_count(
        [f"document: {LONG[start:stop]}" for start, stop in long.spans], truncate=False, each=True
    )
    assert max(counts) <= 24
    (again,) = asyncio.run(gathered(model.aembed_chunks(LONG)))
    assert again.spans == long.spans
    np.testing.assert_allclose(again.vectors, long.vectors, atol=1e-6)
    assert model.info()["truncated_texts"] == 0


def test_overflow_chunk_is_the_mean_of_the_chunks_vectors(model, folder):
    texts = [SHORT, LONG, "", LONG + " cat"]
    chunks = list(model.embed_chunks(texts, chunk_size=9, prompt=""))
    expected = np.stack([unit(each.vectors.mean(axis=0)) for each in chunks])
    found = np.stack(list(model.embed(texts, overflow="chunk", chunk_size=9)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    always = TextEmbedding("acme/tiny", specific_model_path=folder, max_length=24, overflow="chunk", chunk_size=9)
    np.testing.assert_allclose(np.stack(list(always.embed(texts))), expected, atol=1e-6)
    again = asyncio.run(gathered(always.aembed(texts)))
    np.testing.assert_allclose(np.stack(again), expected, atol=1e-6)
    whole = next(model.embed(SHORT))
    np.testing.assert_allclose(next(model.embed(SHORT, overflow="chunk")), whole, atol=1e-6)
    TextEmbedding.add_custom_model("acme/raw", PoolingType.MEAN, False, ModelSource(hf="acme/raw"), DIM)
    raw = TextEmbedding("acme/raw", specific_model_path=folder, max_length=24)
    (parts,) = raw.embed_chunks(LONG)
    np.testing.assert_allclose(next(raw.embed(LONG, overflow="chunk")), parts.vectors.mean(axis=0), atol=1e-6)


def test_chunks_take_the_options_of_vectors(model):
    (whole,) = model.embed_chunks(LONG)
    (packed,) = model.embed_chunks(LONG, truncate_dim=8, output_dtype="ubinary")
    assert packed.spans == whole.spans
    assert np.array_equal(packed.vectors, np.packbits(whole.vectors[:, :8] > 0, axis=1))
    with pytest.raises(ValueError, match="overflow must be 'chunk', not 'error'"):
        model.embed_chunks(LONG, overflow="error")


def test_the_score_of_a_document_is_that_of_its_best_chunk(reranker):
    query, room = "what is red", 24 - 3 - 3
    documents = [SHORT, LONG]
    expected = [next(reranker.rerank(query, [SHORT]))]
    offsets = reranker._model.get().documents.tokenizer.placed(LONG, special=False).offsets
    spans = split(LONG, offsets, room, 0)
    parts = [LONG[start:stop] for start, stop in spans]
    assert len(parts) > 3
    expected.append(max(reranker.rerank(query, parts)))
    assert list(reranker.rerank(query, documents, overflow="chunk")) == pytest.approx(expected, abs=1e-6)
    assert asyncio.run(gathered(reranker.arerank(query, documents, overflow="chunk"))) == pytest.approx(
        expected, abs=1e-6
    )
    ranked = reranker.rank(query, documents, overflow="chunk")
    assert sorted(each.score for each in ranked) == pytest.approx(sorted(expected), abs=1e-6)
    assert asyncio.run(reranker.arank(query, documents, overflow="chunk")) == ranked
    (batch,) = reranker.rank_batch([query], [documents], overflow="chunk")
    assert batch == ranked
    assert expected[1] != next(reranker.rerank(query, [LONG]))
    assert len(list(reranker.rerank("cat " * 20, [LONG], overflow="chunk"))) == 1  # there is room for one token
    with pytest.raises(TextTooLongError, match=r"documents\[0\].* leaves no room"):
        list(reranker.rerank("cat " * 21, [LONG], overflow="chunk"))


def test_late_interaction_reads_all_chunks(late):
    (parts,) = late.embed_chunks(LONG)
    for (start, stop), vectors in zip(parts.spans, parts.vectors, strict=True):
        np.testing.assert_allclose(vectors, next(late.embed(LONG[start:stop])), atol=1e-6)
    np.testing.assert_allclose(next(late.embed(LONG, overflow="chunk")), np.concatenate(parts.vectors), atol=1e-6)
    query = next(late.query_embed("what is red"))
    expected = float(maxsim(query, parts.vectors).max())
    assert next(late.rerank("what is red", [LONG], overflow="chunk")) == pytest.approx(expected, abs=1e-5)
    found = asyncio.run(gathered(late.arerank("what is red", [LONG], overflow="chunk")))
    assert found == pytest.approx([expected], abs=1e-5)


def test_a_term_has_the_greatest_weight_of_a_text_chunks(splade):
    offsets = splade._model.get().documents.tokenizer.placed(LONG, special=False).offsets
    parts = [LONG[start:stop] for start, stop in split(LONG, offsets, 22, 0)]
    weights: dict[int, float] = {}
    for vector in splade.embed(parts):
        for term, weight in vector.as_dict().items():
            weights[term] = max(weight, weights.get(term, 0.0))
    assert next(splade.embed(LONG, overflow="chunk")).as_dict() == pytest.approx(weights, abs=1e-6)


def test_who_runs_pipelines_himself_gets_the_instances_way(folder, model):
    whole = TextEmbedding("acme/tiny", specific_model_path=folder, max_length=24, overflow="chunk", chunk_size=9)
    found = list(whole.load().documents.run(iter([SHORT, LONG]), 256, None))
    np.testing.assert_allclose(np.stack(found), np.stack(list(whole.embed([SHORT, LONG]))), atol=1e-6)
    strict = TextEmbedding("acme/tiny", specific_model_path=folder, max_length=24, overflow="error")
    with pytest.raises(TextTooLongError):
        list(strict.load().passages.run(iter([LONG]), 256, None))
    assert model.load() is model.load()


# -- where chunks end -------------------------------------------------------------------------------------------------


def spans(text, size, overlap=0):
    """With a token a word or mark."""
    offsets = np.array([match.span() for match in re.finditer(r"\w+|[^\w\s]", text)], np.int64).reshape(-1, 2)
    return [text[start:stop] for start, stop in split(text, offsets, size, overlap)]


def test_chunks_end_at_paragraphs_sentences_or_words():
    assert spans("a b c.\n\nd e f.\n\ng h i.", 7) == ["a b c.", "d e f.", "g h i."]
    assert spans("a b c. d e f. g h i.", 7) == ["a b c.", "d e f.", "g h i."]
    assert spans("Is it? Yes! He said “no.” Well then", 7) == ["Is it? Yes!", "He said “no.”", "Well then"]
    assert spans("a b c d e f g", 3) == ["a b c", "d e f", "g"]
    assert spans("one.\ntwo three four five six", 4) == ["one.\ntwo three", "four five six"]  # a border too early
    assert spans("fits whole. ", 9) == ["fits whole. "]
    assert spans("", 4) == [""]


def test_chunks_overlap_from_a_sentence_or_word_on():
    text = "a b c d. e f. g h i j. k l m n."
    assert spans(text, 8, 3) == ["a b c d. e f.", "e f. g h i j.", "i j. k l m n."]
    assert spans("a b c d e f g h", 4, 2) == ["a b c d", "c d e f", "e f g h"]
    assert spans("a b c d e", 2, 1) == ["a b", "b c", "c d", "d e"]


def test_letters_without_spaces_are_cut_between_letters():
    text = "今日は天気がいい。明日は雨が降る。"
    offsets = np.array([(n, n + 1) for n in range(len(text))], np.int64)
    assert [text[a:b] for a, b in split(text, offsets, 12, 0)] == ["今日は天気がいい。", "明日は雨が降る。"]
    assert "".join(text[a:b] for a, b in split(text, offsets, 4, 0)) == text


def test_words_and_characters_of_several_tokens_stay_whole():
    pieces = [(0, 4), (4, 8), (9, 12), (12, 14), (14, 18)]
    text = "abcdefgh ijklmnopq"
    assert [text[a:b] for a, b in split(text, np.array(pieces, np.int64), 3, 0)] == ["abcdefgh", "ijklmnopq"]
    emoji = np.array([(0, 1), (0, 1), (0, 1), (1, 2), (1, 2), (1, 2)], np.int64)
    assert split("🦊🦉", emoji, 4, 0) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_every_token_is_in_a_chunk_of_at_most_size(size):
    draw = np.random.default_rng(size)
    for _ in range(30):
        words = draw.choice(["a", "bc", "d.", "e!\n", "f\n\n", "g"], size=60)
        text = " ".join(words)
        offsets = np.array([match.span() for match in re.finditer(r"\w+|[^\w\s]", text)], np.int64)
        overlap = int(draw.integers(0, size))
        found = split(text, offsets, size, overlap)
        covered = [{n for n, (a, b) in enumerate(offsets) if start <= a and b <= stop} for start, stop in found]
        assert set().union(*covered) == set(range(len(offsets)))
        assert max(map(len, covered)) <= size
        assert all(len(left & right) <= overlap for left, right in pairwise(covered))
        assert [start for start, _ in found] == sorted({start for start, _ in found})


# -- late chunking ----------------------------------------------------------------------------------------------------


def test_late_chunking_equals_the_authors_pooling(monkeypatch):
    """Token states of one run by sentence-transformers, averaged by part (tests/fixtures/make/vector_options.py)."""
    model = TextEmbedding("acme/saved", specific_model_path=SAVED)
    parts = [tuple(part) for part in ANSWERS["parts"]]
    monkeypatch.setattr(
        "fastrank.engine.chunking.split",
        lambda text, _offsets, size, _overlap: parts if size == 9 else [(0, len(text))],
    )
    (found,) = model.embed_chunks(ANSWERS["long"], late_chunking=True, chunk_size=9, prompt="")
    assert found.spans == parts
    np.testing.assert_allclose(found.vectors, ANSWERS["late_chunks"], atol=1e-5)


def test_late_chunks_know_what_stands_around_them(model, folder):
    wide = TextEmbedding("acme/tiny", specific_model_path=folder, max_length=200)
    (late,) = wide.embed_chunks(LONG, late_chunking=True, chunk_size=12)
    (plain,) = wide.embed_chunks(LONG, chunk_size=12)
    assert late.spans == plain.spans
    assert np.abs(late.vectors - plain.vectors).max() > 0.01
    (whole,) = wide.embed_chunks(LONG, late_chunking=True, chunk_size=180)
    np.testing.assert_allclose(whole.vectors[0], next(wide.passage_embed(LONG)), atol=1e-6)
    (again,) = asyncio.run(gathered(wide.aembed_chunks(LONG, late_chunking=True, chunk_size=12)))
    np.testing.assert_allclose(again.vectors, late.vectors, atol=1e-6)
    several = list(wide.embed_chunks([SHORT, LONG, "", LONG], late_chunking=True, chunk_size=12))
    np.testing.assert_allclose(several[1].vectors, late.vectors, atol=1e-5)
    assert several[2].spans == [(0, 0)]


def test_a_text_longer_than_the_model_takes_several_runs(model):
    (found,) = model.embed_chunks(LONG, late_chunking=True, chunk_size=8)
    joined = "".join(LONG[start:stop] for start, stop in found.spans)
    assert re.sub(r"\s", "", joined) == re.sub(r"\s", "", LONG)
    assert len(found.vectors) == len(found.spans)


def test_models_without_a_mean_have_no_late_chunks(folder, tmp_path):
    for number, (pooling, graph) in enumerate([(PoolingType.CLS, None), (PoolingType.DISABLED, tiny_pooled())]):
        name = f"acme/none{number}"
        TextEmbedding.add_custom_model(name, pooling, True, ModelSource(hf=name), DIM)
        model = TextEmbedding(name, specific_model_path=write_model(tmp_path / str(number), graph) if graph else folder)
        with pytest.raises(ValueError, match="has another pooling than the mean"):
            model.embed_chunks(LONG, late_chunking=True)
