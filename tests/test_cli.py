"""The `fastrank` command, over tiny models."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from fastrank import (
    LateInteractionTextEmbedding,
    ModelSource,
    PoolingType,
    TextCrossEncoder,
    TextEmbedding,
    __version__,
    cli,
    registry,
    store,
)

NAME = "acme/tiny"


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
    path.write_text("the cat is red\n\nparis is the capital of france\nfast dog\n", encoding="utf-8")
    return path


# -- rerank -----------------------------------------------------------------------------------------------------------


def test_rerank_ranks_by_cosine(fastrank, documents, tiny):
    status, out, err = fastrank("rerank", "the cat", str(documents), "--method", "dense")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert sorted(row["index"] for row in rows) == [0, 1, 2]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    model = TextEmbedding(NAME, specific_model_path=tiny)
    texts = ["the cat is red", "paris is the capital of france", "fast dog"]
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
    assert [row["index"] for row in rows] == [each.index for each in ranked]
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
    status, out, err = fastrank("rerank", "cat", str(documents), "--top-k", "0")
    assert (status, out) == (1, "")
    assert "--top-k must be >= 1, got 0" in err


def test_rerank_a_table_on_a_terminal(fastrank, documents, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = fastrank("rerank", "the cat", str(documents))[1].splitlines()
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


def test_rerank_the_sample(fastrank):
    status, out, _ = fastrank("rerank", "a robot", "--sample")
    assert status == 0
    assert len({json.loads(line)["text"] for line in out.splitlines()}) == 20


def test_rerank_nothing(fastrank):
    assert fastrank("rerank", "cat", stdin="\n\n")[:2] == (0, "")


def test_rerank_bytes_that_are_no_utf8(fastrank, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9\n".encode("latin-1"))
    assert json.loads(fastrank("rerank", "cat", str(path))[1])["text"] == "caf\ufffd"


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
    np.testing.assert_array_equal(
        found, vectors_of(tiny, ["the cat is red", "paris is the capital of france", "fast dog"])
    )
    assert sorted(path.name for path in tmp_path.glob("vectors*")) == ["vectors.npy"]


def test_a_path_alone_is_a_model(fastrank, documents):
    """With its own settings, not those of the model that is used where none is named."""
    folder = Path(__file__).parent / "fixtures" / "sentence_encoder"
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
    assert [row["index"] for row in rows] == [0, 1, 2]
    expected = vectors_of(tiny, ["the cat is red", "paris is the capital of france", "fast dog"])
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), expected)


def test_embed_to_an_unknown_format(fastrank, documents, tmp_path):
    status, _, err = fastrank("embed", str(documents), "-o", str(tmp_path / "x.csv"))
    assert status == 1
    assert "must end in .npy or .jsonl" in err
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
    dense = [json.loads(line) for line in fastrank("models", "--task", "text-embedding", model=False)[1].splitlines()]
    assert dense == [row for row in rows if "text-embedding" in row["tasks"]]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = fastrank("models", model=False)[1].splitlines()
    assert "unpinned" in next(line for line in lines if line.startswith("acme/tiny"))
    assert "unpinned" not in next(line for line in lines if line.startswith("BAAI/bge-small-en-v1.5"))


def test_download_verify_cache_remove(fastrank, hub):
    hub.add_repo(NAME, tiny_models.model_files())
    status, out, _ = fastrank("download", NAME, model=False)
    assert status == 0
    assert out.startswith("acme/tiny  own  ")
    folder = out.split()[-1]
    status, out, _ = fastrank("verify", NAME, model=False)
    assert (status, out) == (0, f"acme/tiny  own  {folder}: ok\n")
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


def test_verify_replays_known_answers(fastrank, hub, monkeypatch):
    hub.add_repo(NAME, tiny_models.model_files())
    fastrank("download", NAME, model=False)
    key = (NAME, "text-embedding")
    values = tuple(float(x) for x in next(TextEmbedding(NAME).embed("hello"))[:4])
    for shift, status, words in [(0.0, 0, "largest difference 0.0e+00"), (0.5, 1, "embed('hello') differs by 0.5")]:
        answer = registry.Answer("embed", "hello", (values[0] + shift, *values[1:]), 1e-4)
        task = registry._custom[key].tasks[key[1]]._replace(answers=(answer,))
        monkeypatch.setitem(registry._custom, key, registry._custom[key]._replace(tasks={key[1]: task}))
        found = fastrank("verify", NAME, model=False)
        assert found[0] == status
        assert words in found[1]


def test_verify_replays_scores(fastrank, hub, monkeypatch):
    hub.add_repo("acme/cross", tiny_models.model_files(tiny_models.tiny_cross_encoder()))
    TextCrossEncoder.add_custom_model("acme/cross", ModelSource(hf="acme/cross"), max_length=64)
    fastrank("download", "acme/cross", model=False)
    key = ("acme/cross", "cross-encoder")
    score = next(TextCrossEncoder("acme/cross").rerank("cat", ["dog"]))
    for shift, status in [(0.0, 0), (0.5, 1)]:
        answer = registry.Answer("rerank", ("cat", "dog"), (score + shift,), 1e-4)
        task = registry._custom[key].tasks[key[1]]._replace(answers=(answer,))
        monkeypatch.setitem(registry._custom, key, registry._custom[key]._replace(tasks={key[1]: task}))
        assert fastrank("verify", "acme/cross", model=False)[0] == status


def test_verify_nothing(fastrank):
    assert fastrank("verify", model=False)[:2] == (0, "no models on this machine; nothing was checked\n")
    status, out, _ = fastrank("verify", NAME, model=False)
    assert status == 1
    assert "not on this machine; fetch it with: fastrank download acme/tiny" in out


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
    deadline = time.monotonic() + 30
    while int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder):  # until it has been read
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
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
    assert child.wait() == 0
