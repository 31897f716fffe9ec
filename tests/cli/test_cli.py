"""The `fastrank` command, over tiny models."""

import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import support
from support import tiny_models
from support.waiting import patience, wait_until

from fastrank import (
    LateInteractionTextEmbedding,
    ModelSource,
    PoolingType,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
    __version__,
    cli,
    store,
)
from fastrank.bm25 import analysis, segmenters
from fastrank.cli import options, verify
from fastrank.models import registry
from fastrank.models.spec import Answer

NAME = "acme/tiny"
LINES = ["the cat is red", "", "paris is the capital of france", "fast dog"]


@pytest.fixture(autouse=True)
def _known():
    TextEmbedding.add_custom_model(NAME, PoolingType.MEAN, True, ModelSource(hf=NAME), 16, max_length=64)


@pytest.fixture
def fastrank(capsys, tiny, monkeypatch):
    """Run a command line; returns (status, standard output, standard error)."""

    def run(*arguments, model=True, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        extra = ["--model", NAME, "--path", str(tiny)] if model else []
        status = cli.main([*arguments, *extra])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.txt"
    path.write_text("\n".join([*LINES, ""]), encoding="utf-8")
    return path


# -- rerank -----------------------------------------------------------------------------------------------------------


def test_rerank_ranks_by_cosine(fastrank, documents, tiny):
    status, out, err = fastrank("rerank", "the cat", str(documents), "--method", "dense")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert sorted(row["index"] for row in rows) == [0, 2, 3]  # the blank line is counted
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    model = TextEmbedding(NAME, specific_model_path=tiny)
    texts = ["the cat is red", "", "paris is the capital of france", "fast dog"]
    query, *vectors = model.embed(["the cat", *texts])
    for row in rows:
        assert row["text"] == texts[row["index"]]
        assert row["score"] == pytest.approx(float(query @ vectors[row["index"]]), abs=1e-6)
    assert err == ""


def test_rerank_by_words_needs_no_model(fastrank, documents, monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    status, out, _ = fastrank("rerank", "dogs and cats", str(documents), "--method", "bm25", model=False)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [row["text"] for row in rows] == ["the cat is red", "fast dog", "paris is the capital of france"]
    assert rows[0]["score"] == rows[1]["score"] > rows[2]["score"] == 0  # two words each, without the stop words
    german = fastrank("rerank", "Häuser", "--method", "bm25", "--language", "german", model=False, stdin="Haus\nMaus\n")
    assert json.loads(german[1].splitlines()[0])["score"] > 0


def test_rerank_by_both_is_the_default(fastrank, documents):
    def order(method):
        out = fastrank("rerank", "france cat", str(documents), "--method", method)[1]
        return [json.loads(line) for line in out.splitlines()]

    words = [row["index"] for row in order("bm25") if row["score"] > 0]
    meaning = [row["index"] for row in order("dense")]
    scores = {n: sum(1 / (61 + ranking.index(n)) for ranking in (words, meaning) if n in ranking) for n in meaning}
    hybrid = order("hybrid")
    assert [row["index"] for row in hybrid] == sorted(meaning, key=lambda n: (-scores[n], n))
    assert [row["score"] for row in hybrid] == pytest.approx([scores[row["index"]] for row in hybrid], abs=1e-6)
    assert hybrid == [json.loads(line) for line in fastrank("rerank", "france cat", str(documents))[1].splitlines()]


def test_rerank_by_a_cross_encoder(fastrank, documents, tmp_path):
    folder = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
    TextCrossEncoder.add_custom_model("acme/cross", ModelSource(hf="acme/cross"), max_length=64)
    more = ("--method", "cross-encoder", "--model", "acme/cross", "--path", str(folder))
    status, out, _ = fastrank("rerank", "the cat", str(documents), *more, model=False)
    rows = [json.loads(line) for line in out.splitlines()]
    model = TextCrossEncoder("acme/cross", specific_model_path=folder)
    ranked = model.rank("the cat", ["the cat is red", "paris is the capital of france", "fast dog"])
    assert status == 0
    assert [row["index"] for row in rows] == [(0, 2, 3)[each.index] for each in ranked]
    assert [row["score"] for row in rows] == pytest.approx([each.score for each in ranked], abs=1e-6)
    status, _, err = fastrank("rerank", "x", str(documents), "--method", "cross-encoder", model=False)
    assert status == 1
    assert "needs --model, such as Xenova/ms-marco-MiniLM-L-6-v2" in err


def test_rerank_by_token_vectors(fastrank, documents, tiny):
    LateInteractionTextEmbedding.add_custom_model("acme/late", ModelSource(hf="acme/late"), 16, projection=False)
    more = ("--method", "colbert", "--model", "acme/late", "--path", str(tiny))
    status, out, _ = fastrank("rerank", "the red cat", str(documents), *more, model=False)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    model = LateInteractionTextEmbedding("acme/late", specific_model_path=tiny)
    scores = list(model.rerank("the red cat", ["the cat is red", "paris is the capital of france", "fast dog"]))
    assert [row["score"] for row in rows] == [pytest.approx(score, abs=1e-6) for score in sorted(scores, reverse=True)]
    assert rows[0]["index"] == scores.index(max(scores))


def test_rerank_without_the_model_says_what_needs_none(fastrank, documents):
    status, _, err = fastrank("rerank", "x", str(documents), "--model", NAME, "--offline", model=False)
    assert status == 1
    assert "`fastrank rerank --method bm25` needs no model" in err


def test_rerank_top_k(fastrank, documents):
    assert len(fastrank("rerank", "cat", str(documents), "--top-k", "2")[1].splitlines()) == 2


@pytest.mark.parametrize("option", ["--top-k", "--threads", "--max-length"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_numbers_below_one_are_wrong_usage(fastrank, documents, capsys, option, value):
    with pytest.raises(SystemExit) as error:
        fastrank("rerank", "cat", str(documents), option, value)
    assert error.value.code == 2
    assert f"argument {option}: must be a whole number >= 1, got {value}" in capsys.readouterr().err


def test_rerank_a_table_on_a_terminal(fastrank, documents, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    header, *lines = fastrank("rerank", "the cat", str(documents))[1].splitlines()
    assert header == "rank    score  document   (RRF: only the order counts)"
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert any(line.endswith("  fast dog") for line in lines)
    assert fastrank("rerank", "the cat", str(documents), "--json")[1].startswith('{"rank": 1')


def test_rerank_reads_standard_input_and_jsonl(fastrank, tmp_path):
    rows = [{"id": 7, "body": "the cat\n"}, {"id": 8, "body": "é 中 😀"}]
    lines = "".join(json.dumps(row) + "\r\n" for row in rows)
    status, out, _ = fastrank("rerank", "cat", "--field", "body", stdin=lines)
    assert status == 0
    assert {json.loads(line)["text"] for line in out.splitlines()} == {"the cat\n", "é 中 😀"}
    assert "é 中 😀" in out  # readable
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + lines, encoding="utf-8")
    assert fastrank("rerank", "cat", str(path), "--field", "body")[1] == out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON"),
        ("[1]", ":2: no string field 'body'"),
        ('{"text": "x", "n": 1}', ":2: no string field 'body'; it has text, n"),
        ('{"body": null}', ":2: no string field 'body'"),
        ('{"a":' * 200_000, ":2: not JSON"),
    ],
)
def test_rerank_says_which_line_is_wrong(fastrank, tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"body": "fine"}\n' + line + "\n", encoding="utf-8")
    status, out, err = fastrank("rerank", "cat", str(path), "--field", "body")
    assert (status, out) == (1, "")
    assert err.startswith("fastrank: ")
    assert str(path) + message in err


def test_rerank_gives_other_fields_back(fastrank, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"id": 7, "title": "A", "body": "a cat", "score": 1}, {"id": 8, "body": "dogs", "more": {"x": [1]}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = ("rerank", "cat", str(path), "--field", "body", "--method", "bm25")

    def fields(*options):
        return [json.loads(line).get("fields") for line in fastrank(*common, *options, model=False)[1].splitlines()]

    assert fields("--keep", "id,title") == [{"id": 7, "title": "A"}, {"id": 8}]
    assert fields("--keep", "all") == rows
    assert fields() == [None, None]
    status, out, err = fastrank(*common, "--keep", "id,name", model=False)
    assert (status, out) == (1, "")
    assert f"--keep id,name: no row of {path} has the field 'name'" in err
    assert fastrank("rerank", "cat", "--keep", "id", "--method", "bm25", model=False, stdin="x\n")[0] == 1


def test_rerank_words_of_languages_without_spaces(fastrank):
    texts = "東京都は日本の首都です\n猫が好きです\n"
    command = ("rerank", "首都", "--method", "bm25")
    plain = fastrank(*command, model=False, stdin=texts)
    assert json.loads(plain[1].splitlines()[0])["score"] == 0
    assert plain[2] == "fastrank: no document has any of these words\n"
    _, out, err = fastrank(*command, "--analyzer", "bigram", model=False, stdin=texts)
    best, other = map(json.loads, out.splitlines())
    assert (best["index"], other["score"], err) == (0, 0, "")
    assert best["score"] > 0


def test_analyzers_are_those_of_bm25():
    assert (*analysis.ANALYZERS, *segmenters.SEGMENTERS) == options.ANALYZERS


def test_rerank_by_meaning_where_no_word_is_found(fastrank, documents):
    status, out, err = fastrank("rerank", "zebra", str(documents))
    assert (status, len(out.splitlines())) == (0, 3)
    assert err == "fastrank: no document has any of these words: ranked by meaning alone\n"


@pytest.mark.parametrize("text", ["", "\n\n", " \n"])
def test_rerank_nothing(fastrank, text):
    status, out, err = fastrank("rerank", "cat", stdin=text)
    assert (status, out, err) == (0, "", "fastrank: standard input has no documents\n")


def test_embed_nothing(fastrank, tmp_path):
    path = tmp_path / "nothing.txt"
    path.write_bytes(b"")
    assert fastrank("embed", str(path)) == (0, "", f"fastrank: {path} has no documents\n")


def test_rerank_the_sample(fastrank):
    status, out, _ = fastrank("rerank", "a robot", "--sample")
    assert status == 0
    assert len({json.loads(line)["text"] for line in out.splitlines()}) == 20


def test_a_file_that_is_not_there(fastrank):
    status, out, err = fastrank("rerank", "cat", "no/such/file.txt")
    assert (status, out) == (1, "")
    assert "no/such/file.txt" in err
    assert "Traceback" not in err


# -- embed ------------------------------------------------------------------------------------------------------------


def vectors_of(tiny, texts):
    return np.stack(list(TextEmbedding(NAME, specific_model_path=tiny).embed(texts)))


def test_embed_to_npy(fastrank, documents, tiny, tmp_path):
    target = tmp_path / "vectors.npy"
    assert fastrank("embed", str(documents), "-o", str(target))[:2] == (0, "")
    found = np.load(target)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors_of(tiny, LINES))
    assert sorted(path.name for path in tmp_path.glob("vectors*")) == ["vectors.npy"]


def test_a_path_alone_is_a_model(fastrank, documents):
    """With its own settings, not those of the model that is used where none is named."""
    folder = support.FIXTURES / "sentence_encoder"
    status, out, _ = fastrank("embed", str(documents), "--path", str(folder), "--as", "query", model=False)
    assert status == 0
    expected = list(TextEmbedding("any/name", specific_model_path=folder).query_embed("the cat is red"))
    np.testing.assert_allclose(json.loads(out.splitlines()[0])["vector"], expected[0], atol=1e-6)


def test_embed_many_to_npy(fastrank, tiny, tmp_path):
    """The header is written again at the end, when the number of rows is known."""
    target = tmp_path / "vectors.npy"
    fastrank("embed", "-o", str(target), stdin="cat\n" * 1234)
    found = np.load(target, mmap_mode="r")
    assert found.shape == (1234, 16)
    np.testing.assert_array_equal(found[-1], vectors_of(tiny, ["cat"])[0])
    fastrank("embed", "-o", str(target), stdin="")
    assert np.load(target).shape == (0, 16)


@pytest.mark.parametrize("to_file", [True, False])
def test_embed_to_jsonl_keeps_every_bit(fastrank, documents, tiny, tmp_path, to_file):
    target = tmp_path / "vectors.jsonl"
    _, out, _ = fastrank("embed", str(documents), *(["-o", str(target)] if to_file else []))
    rows = [json.loads(line) for line in (target.read_text() if to_file else out).splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    expected = vectors_of(tiny, LINES)
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), expected)


def test_embed_to_an_unknown_format(fastrank, documents, tmp_path):
    status, _, err = fastrank("embed", str(documents), "-o", str(tmp_path / "x.csv"))
    assert status == 1
    assert "must end in .npy, .jsonl or .parquet, or in / for a folder of Parquet" in err
    (tmp_path / "folder.npy").mkdir()
    status, _, err = fastrank("embed", str(documents), "-o", str(tmp_path / "folder.npy"))
    assert status == 1
    assert "is a folder" in err


def test_embed_leaves_nothing_half(fastrank, tmp_path):
    target = tmp_path / "vectors.npy"
    assert fastrank("embed", "--field", "body", "-o", str(target), stdin='{"body": "x"}\n{\n')[0] == 1
    assert list(tmp_path.glob("vectors*")) == []


def test_embed_with_prefixes(fastrank, tiny, monkeypatch):
    registry._custom.clear()
    TextEmbedding.add_custom_model(NAME, PoolingType.MEAN, True, ModelSource(hf=NAME), 16, query_prefix="search ")
    _, out, _ = fastrank("embed", "--as", "query", stdin="cat\n")
    expected = vectors_of(tiny, ["search cat"])[0]
    np.testing.assert_array_equal(np.array(json.loads(out)["vector"], np.float32), expected)


# -- models, download, verify, cache ----------------------------------------------------------------------------------


def test_models(fastrank, monkeypatch):
    rows = [json.loads(line) for line in fastrank("models", model=False)[1].splitlines()]
    assert [row["model"] for row in rows] == [spec.name for spec in registry.entries()]
    known = {row["model"]: row for row in rows}
    assert known["BAAI/bge-small-en-v1.5"]["dim"] == 384
    assert known["BAAI/bge-small-en-v1.5"]["unpinned"] == []
    assert known["BAAI/bge-large-en-v1.5"]["unpinned"] == ["onnx"]
    assert known["Qdrant/bm25"]["variants"] == []
    dense = [json.loads(line) for line in fastrank("models", "--task", "text-embedding", model=False)[1].splitlines()]
    assert dense == [row for row in rows if "text-embedding" in row["tasks"]]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    _, *lines, last = fastrank("models", model=False)[1].splitlines()
    default = next(line for line in lines if line.startswith("BAAI/bge-small-en-v1.5"))
    assert " ".join(default.split()) == "BAAI/bge-small-en-v1.5 dense 384 en 134 MB mit"
    assert last.startswith(f"{len(rows)} models.")
    assert fastrank("models", "--json", model=False)[1].startswith("{")


def listed(fastrank, *options):
    """Model -> row of `fastrank models` with these options."""
    status, out, _ = fastrank("models", *options, model=False)
    assert status == 0
    return {row["model"]: row for row in map(json.loads, out.splitlines())}


@pytest.mark.parametrize(
    ("short", "task"),
    [
        ("dense", "text-embedding"),
        ("sparse", "sparse-embedding"),
        ("late", "late-interaction"),
        ("cross-encoder", "cross-encoder"),
    ],
)
def test_models_for_a_task(fastrank, short, task):
    everything = listed(fastrank)
    found = listed(fastrank, "--task", short)
    assert found == {name: row for name, row in everything.items() if task in row["tasks"]}
    assert found == listed(fastrank, "--task", task)
    assert 0 < len(found) < len(everything)


def test_models_for_a_language_a_licence_and_a_size(fastrank):
    german = listed(fastrank, "--language", "DE")
    assert {"jinaai/jina-embeddings-v2-base-de", "BAAI/bge-m3", "Qdrant/bm25"} <= set(german)
    assert "BAAI/bge-small-en-v1.5" not in german
    permissive = listed(fastrank, "--license", "permissive")
    assert {row["license"] for row in permissive.values()} == {"mit", "apache-2.0"}
    assert {row["license"] for row in listed(fastrank, "--license", "Gemma").values()} == {"gemma"}
    small = listed(fastrank, "--max-size", "0.2 GB")
    assert "BAAI/bge-small-en" in small  # about 130 MB
    assert "Qdrant/bm25" in small  # no files
    assert "acme/tiny" not in small  # of unknown size
    assert max(row["size_in_GB"] for row in small.values()) <= 0.2
    together = ("--task", "dense", "--language", "de", "--license", "permissive", "--max-size", "500MB")
    assert set(listed(fastrank, *together)) == {
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        "intfloat/multilingual-e5-small",
    }


@pytest.mark.parametrize(
    ("size", "expected"), [("1000", 1000), ("1.5GB", 1_500_000_000), ("2 kib", 2048), ("1mb", 10**6)]
)
def test_sizes_are_read_with_units(size, expected):
    from fastrank.cli.models import _bytes

    assert _bytes(size) == expected


@pytest.mark.parametrize("options", [("--max-size", "small"), ("--max-size", "-1MB"), ("--task", "images")])
def test_a_filter_that_means_nothing_is_refused(fastrank, options, capsys):
    with pytest.raises(SystemExit) as error:
        fastrank("models", *options, model=False)
    assert error.value.code == 2


def test_the_list_fits_a_terminal_of_80_columns(fastrank, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = fastrank("models", model=False)[1].splitlines()
    assert lines[0].split() == ["model", "task", "lang", "size", "licence"]
    assert max(map(len, lines)) <= 80
    at = lines.index("sentence-transformers/all-MiniLM-L12-v2")  # longer than its column
    assert lines[at + 1].split() == ["dense", "384", "en", "~133", "MB", "apache-2.0"]
    assert fastrank("models", "--license", "none-such", model=False)[1].startswith("0 models.")


def test_download_verify_cache_remove(fastrank, hub):
    hub.add_repo(NAME, tiny_models.model_files())
    status, out, _ = fastrank("download", NAME, model=False)
    assert status == 0
    assert out.startswith("acme/tiny  own  ")
    folder = out.split()[-1]
    status, out, _ = fastrank("verify", NAME, model=False)
    assert status == 0
    assert out.splitlines() == [
        f"acme/tiny  own  {folder}: ok",
        "  files that are not pinned are compared with what the hub stated when they were fetched",
        "  no known answers for text-embedding",
        "1 ok (1 by the files only, without known answers), 0 wrong, 0 unchecked",
    ]
    out = fastrank("cache", model=False)[1]
    assert out.splitlines()[0] == str(store.root())
    assert "acme/tiny  own" in out
    assert "in 1 models" in out
    (store.contents()[0].folder / "config.json").write_bytes(b"{")
    status, out, _ = fastrank("verify", model=False)
    assert status == 1
    assert "config.json has 1 bytes" in out
    assert "fastrank cache --remove acme/tiny" in out
    assert fastrank("cache", "--remove", "ACME/tiny", model=False)[:1] == (0,)
    assert store.contents() == []
    assert fastrank("cache", "--remove", NAME, model=False)[0] == 1
    assert fastrank("cache", "--clear", model=False)[0] == 0


@pytest.fixture
def knows(monkeypatch):
    """Give a custom model known answers."""

    def give(name, task, *answers):
        spec = registry._custom[name, task]
        settings = spec.tasks[task]._replace(answers=answers)
        monkeypatch.setitem(registry._custom, (name, task), spec._replace(tasks={task: settings}))

    return give


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_verify_replays_vectors(fastrank, hub, knows, shift):
    hub.add_repo(NAME, tiny_models.model_files())
    values = tuple(float(x) for x in next(TextEmbedding(NAME).embed("hello"))[:4])
    knows(NAME, "text-embedding", Answer("embed", "hello", (values[0] + shift, *values[1:]), 1e-4))
    status, out, _ = fastrank("verify", NAME, model=False)
    assert status == bool(shift)
    assert f"  text-embedding embed('hello'): largest difference {shift:.1e}, allowed 1.0e-04" in out
    assert ("text-embedding embed('hello') differs by 0.5" in out) == bool(shift)
    (row,) = (json.loads(line) for line in fastrank("verify", "--json", model=False)[1].splitlines() if "acme" in line)
    assert (row["model"], row["variant"], row["outcome"]) == (NAME, "own", "wrong" if shift else "ok")
    assert row["answers"][0]["largest_difference"] == pytest.approx(shift, abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_verify_replays_scores(fastrank, hub, knows, shift):
    hub.add_repo("acme/cross", tiny_models.model_files(tiny_models.tiny_cross_encoder()))
    TextCrossEncoder.add_custom_model("acme/cross", ModelSource(hf="acme/cross"), max_length=64)
    score = next(TextCrossEncoder("acme/cross").rerank("cat", ["dog"]))
    knows("acme/cross", "cross-encoder", Answer("rerank", ("cat", "dog"), (score + shift,), 1e-4))
    assert fastrank("verify", "acme/cross", model=False)[0] == bool(shift)


def test_verify_says_which_task_an_answer_is_of(fastrank, hub, knows):
    """A model for two tasks has two answers to the same input."""
    hub.add_repo("acme/both", tiny_models.model_files())
    TextEmbedding.add_custom_model("acme/both", PoolingType.MEAN, True, ModelSource(hf="acme/both"), 16, max_length=64)
    source = ModelSource(hf="acme/both")
    LateInteractionTextEmbedding.add_custom_model("acme/both", source, 16, projection=False, max_length=64)
    values = tuple(float(x) for x in next(TextEmbedding("acme/both").embed("hello"))[:4])
    dense, late = (registry.find("acme/both", task) for task in ("text-embedding", "late-interaction"))
    tokens = next(LateInteractionTextEmbedding("acme/both").embed("hello"))
    knows("acme/both", "text-embedding", Answer("embed", "hello", values, 1e-4))
    rows = tuple(tokens[:, :2].ravel().tolist())
    knows("acme/both", "late-interaction", Answer("embed", "hello", rows, 1e-4, rows=len(tokens)))
    out = fastrank("verify", "acme/both", model=False)[1]
    assert dense.tasks.keys() | late.tasks.keys() == {"text-embedding", "late-interaction"}
    assert "  text-embedding embed('hello'): largest difference" in out
    assert out.endswith("\n1 ok, 0 wrong, 0 unchecked\n")


def test_info_of_a_folder(fastrank):
    folder = support.FIXTURES / "sentence_encoder"
    status, out, err = fastrank("info", "--path", str(folder), "--json", model=False)
    facts = json.loads(out)
    assert (status, err, facts["task"]) == (0, "", "dense")
    expected = TextEmbedding(str(folder), specific_model_path=folder).info()
    assert facts["file"] == str(expected["file"])
    status, _, err = fastrank("info", "--path", str(folder), "--task", "cross-encoder", model=False)
    assert status == 1
    assert "dense embeddings" in err
    assert fastrank("info", "--path", "", model=False)[0] == 1


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        ("pair_classifier", "cross-encoder"),
        ("sparse_encoder", "sparse"),
        ("late_interaction/pylate_bert", "late"),
        ("late_interaction/colbert", "late"),
    ],
)
def test_info_knows_what_a_folder_is_for(fastrank, folder, task):
    out = fastrank("info", "--path", str(support.FIXTURES / folder), "--json", model=False)[1]
    assert json.loads(out)["task"] == task


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-length", "1"), "--max-length 1 leaves no room"),
        (("--path", "no/where"), "--path no/where does not exist"),
        (("--path", ""), "--path is empty. Name a folder, or leave the option out"),
        (("--cache-dir", "~nouser/x"), "--cache-dir ~nouser/x names a home folder that does not exist"),
        (
            ("--model", "jinaai/jina-colbert-v2"),
            "is not known for dense embeddings. It is a model for late interaction.",
        ),
        (("--model", "no/model"), "A model in a folder is used with --path FOLDER."),
    ],
)
def test_messages_name_options(fastrank, documents, arguments, message):
    folder = (
        []
        if {"--path", "--model", "--cache-dir"} & set(arguments)
        else ["--path", str(support.FIXTURES / "sentence_encoder")]
    )
    status, out, err = fastrank("embed", str(documents), *folder, *arguments, model=False)
    assert (status, out) == (1, "")
    assert message in err.replace(os.sep, "/")
    for name in ("specific_model_path", "max_length", "add_custom_model", "list_supported_models", "TextEmbedding"):
        assert name not in err


def test_a_missing_file_is_said_before_a_model_is_fetched(fastrank, tmp_path):
    for path, problem in ((tmp_path / "none.txt", "No such file"), (tmp_path, "Is a directory")):
        status, _, err = fastrank("embed", str(path), "--model", "BAAI/bge-small-en-v1.5", model=False)
        assert status == 1
        assert problem in err


def test_verify_replays_sparse_vectors(fastrank, hub, knows):
    size = len(tiny_models.vocabulary())
    hub.add_repo("acme/splade", tiny_models.model_files(tiny_models.tiny_encoder(size)))
    SparseTextEmbedding.add_custom_model("acme/splade", ModelSource(hf="acme/splade"), max_length=64)
    vector = next(SparseTextEmbedding("acme/splade").embed("cat"))
    first = Answer("embed", "cat", tuple(vector.values[:3]), 1e-4, indices=tuple(vector.indices[:3].tolist()))
    for answer, status in [
        (first, 0),
        (first._replace(values=(*first.values[:2], first.values[2] + 1)), 1),
        (first._replace(indices=(*first.indices[:2], first.indices[2] + 1)), 1),
        (first._replace(input="dog"), 1),
    ]:
        knows("acme/splade", "sparse-embedding", answer)
        assert fastrank("verify", "acme/splade", model=False)[0] == status, answer


def test_known_answers_of_many_rows():
    found = np.arange(12.0).reshape(3, 4)
    answer = Answer("embed", "x", (0, 1, 4, 5, 8, 9.5), 1e-4, rows=3)
    assert verify._largest_difference(found, answer) == 0.5
    assert verify._largest_difference(found, answer._replace(rows=2)) == np.inf
    assert verify._largest_difference(found[:, :1], answer) == np.inf
    assert np.isnan(verify._largest_difference(found * np.nan, answer))


def test_verify_what_is_here(fastrank):
    status, out, _ = fastrank("verify", model=False)
    assert status == 0
    assert out.startswith("Qdrant/bm25: ok\n")
    assert out.endswith("\n1 ok, 0 wrong, 0 unchecked\n")


def test_verify_fetches_what_is_named_and_can_remove_it(fastrank, hub):
    hub.add_repo(NAME, tiny_models.model_files())
    assert fastrank("verify", NAME, "--offline", model=False)[0] == 1
    assert fastrank("verify", NAME, "--remove", model=False)[0] == 0
    assert store.contents() == []
    assert fastrank("verify", NAME, model=False)[0] == 0
    assert fastrank("verify", NAME, "--remove", model=False)[0] == 0
    assert len(store.contents()) == 1, "it was here before"


def test_verify_goes_on_after_a_model_that_cannot_be_run(fastrank, hub, knows):
    hub.add_repo(NAME, tiny_models.model_files(b"no graph"))
    knows(NAME, "text-embedding", Answer("embed", "hello", (1.0,), 1e-4))
    status, out, _ = fastrank("verify", NAME, "Qdrant/bm25", model=False)
    assert status == 1
    assert "  text-embedding: onnxruntime " in out
    assert out.endswith("1 ok, 1 wrong, 0 unchecked\n")


def test_verify_all_without_a_hub_says_what_was_not_checked(fastrank, monkeypatch):
    from huggingface_hub import constants

    rows = [row for row in registry._shipped()._rows if row["name"].startswith(("Qdrant/bm25", "BAAI/bge-small-en"))]
    monkeypatch.setattr(registry, "_shipped", lambda: registry._Lazy(rows))
    monkeypatch.setattr(registry, "_custom", {})
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    status, out, _ = fastrank("verify", "--all", model=False)
    assert status == 1
    assert "BAAI/bge-small-en-v1.5: unchecked\n  BAAI/bge-small-en-v1.5 could not be fetched" in out
    assert "BAAI/bge-small-en: unchecked\n  not on this machine, and the hub cannot be reached\n" in out
    assert out.endswith("1 ok, 0 wrong, 2 unchecked\n")
    assert fastrank("verify", "--all", NAME, model=False)[0] == 1


def test_a_licence_that_forbids_commercial_use_is_said_once(hub, caplog):
    hub.add_repo("acme/nc", tiny_models.model_files())
    where = ("acme/nc", PoolingType.MEAN, True, ModelSource(hf="acme/nc"), 16)
    TextEmbedding.add_custom_model(*where, license="CC-BY-NC-4.0", max_length=64)
    for _ in range(2):
        TextEmbedding("acme/nc")
    assert [record.message for record in caplog.records if "acme/nc" in record.message] == [
        "acme/nc: its licence, CC-BY-NC-4.0, does not allow commercial use"
    ]


def test_offline(fastrank, documents):
    status, _, err = fastrank("rerank", "x", str(documents), "--model", NAME, "--offline", model=False)
    assert status == 1
    assert err.startswith("fastrank: acme/tiny is not in ")
    assert "Traceback" not in err


def test_unknown_model(fastrank):
    for command in (["rerank", "x", "--sample", "--model"], ["download"], ["verify"]):
        status, _, err = fastrank(*command, "bge-small", model=False)
        assert status == 1
        assert "Did you mean" in err


# -- as a program -----------------------------------------------------------------------------------------------------


def program(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "fastrank", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=options.pop("stdin", subprocess.DEVNULL),
        env={**os.environ, "PYTHONUTF8": "0"},
        # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
        preexec_fn=None if sys.platform == "win32" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        **options,
    )


def test_version_and_help():
    assert program("--version").communicate()[0].decode().strip() == f"fastrank {__version__}"
    helped = program("--help").communicate()[0].decode()
    for command in ("rerank", "embed", "models", "download", "verify", "cache"):
        assert command in helped


def test_no_command_is_wrong_usage():
    child = program()
    assert b"usage: fastrank" in child.communicate()[1]
    assert child.returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one child")
def test_ctrl_c_ends_quietly():
    import fcntl
    import termios

    reader, writer = os.pipe()
    child = program("rerank", "x", stdin=reader)
    os.write(writer, b"a document\n")
    wait_until(lambda: fcntl.ioctl(reader, termios.FIONREAD, bytes(4)) == bytes(4))  # until it has been read
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=patience(20))
    os.close(writer)
    os.close(reader)
    assert child.returncode == 130
    assert out == b""
    assert b"Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_stops_reading_is_no_error():
    child = program("models")
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == b""
    assert child.wait(timeout=patience(30)) == 0
