"""`fastrank embed` and `rerank`: small vectors, chunks, prompts; the same as the library's."""

import json
from pathlib import Path

import numpy as np
import pytest

from fastrank import TextEmbedding
from fastrank.cli import main

FOLDER = Path(__file__).parents[1] / "fixtures" / "folders" / "dense"
LONG = "rank the documents for a query. " * 12
TEXTS = ["hello world", "the cat is red", LONG.strip()]


@pytest.fixture
def documents(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return file


def embed(documents, output, *options):
    return main(["embed", str(documents), "--path", str(FOLDER), "-o", str(output), *options])


def test_small_vectors(documents, tmp_path):
    with TextEmbedding("any/name", specific_model_path=FOLDER) as model:
        assert embed(documents, tmp_path / "ranges.npy", "--calibrate", "--truncate-dim", "8") == 0
        ranges = np.load(tmp_path / "ranges.npy")
        assert np.array_equal(ranges, model.calibrate(TEXTS, truncate_dim=8))
        for dtype in ("float32", "float16", "int8", "uint8", "binary", "ubinary"):
            needed = {"ranges": ranges} if dtype in ("int8", "uint8") else {}
            options = ["--ranges", str(tmp_path / "ranges.npy")] if needed else []
            assert embed(documents, tmp_path / "v.npy", "--truncate-dim", "8", "--output-dtype", dtype, *options) == 0
            expected = np.stack(list(model.embed(TEXTS, truncate_dim=8, output_dtype=dtype, **needed)))
            found = np.load(tmp_path / "v.npy")
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)
        assert embed(documents, tmp_path / "v.jsonl", "--output-dtype", "int8", "--ranges", "unit") == 0
        rows = [json.loads(line)["vector"] for line in (tmp_path / "v.jsonl").read_text().splitlines()]
        assert rows == [row.tolist() for row in model.embed(TEXTS, output_dtype="int8", ranges="unit")]


def test_chunks_and_prompts(documents, tmp_path):
    with TextEmbedding("any/name", specific_model_path=FOLDER) as model:
        out = tmp_path / "chunks.jsonl"
        for options, given in (
            (["--chunks"], {}),
            (["--late-chunking"], {"late_chunking": True}),
            (["--chunks", "--prompt", "dog "], {"prompt": "dog "}),
        ):
            assert embed(documents, out, "--as", "passage", "--chunk-size", "9", *options) == 0
            rows = [json.loads(line) for line in out.read_text().splitlines()]
            expected = list(model.embed_chunks(TEXTS, chunk_size=9, **given))
            assert [(row["start"], row["stop"]) for row in rows] == [span for each in expected for span in each.spans]
            assert [row["index"] for row in rows] == [n for n, each in enumerate(expected) for _ in each.spans]
            vectors = np.concatenate([each.vectors for each in expected])
            np.testing.assert_allclose([row["vector"] for row in rows], vectors, atol=1e-6)
        assert embed(documents, tmp_path / "v.npy", "--overflow", "chunk", "--prompt", "dog ") == 0
        expected = np.stack(list(model.embed(TEXTS, overflow="chunk", prompt="dog ")))
        assert np.array_equal(np.load(tmp_path / "v.npy"), expected)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--overflow", "error"], "has more than"),
        (["--output-dtype", "int8"], "needs ranges"),
        (["--truncate-dim", "99"], "more than the 12 dimensions"),
        (["--chunks"], "name a .jsonl file"),
        (["--chunk-size", "9"], 'are for overflow="chunk"'),
    ],
)
def test_what_cannot_be_done(documents, tmp_path, capsys, options, text):
    assert embed(documents, tmp_path / "v.npy", *options) == 1
    assert text in capsys.readouterr().err.replace("--overflow chunk", 'overflow="chunk"')
    assert not (tmp_path / "v.npy").exists()


def test_parquet_has_none_of_it(documents, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    assert embed(documents, f"{tmp_path}/folder/", "--truncate-dim", "8") == 1
    assert "--truncate-dim is for .npy and .jsonl files" in capsys.readouterr().err


def test_rerank_takes_the_best_chunk(documents, capsys):
    with TextEmbedding("any/name", specific_model_path=FOLDER, normalize=True) as model:
        query = next(model.query_embed("a query"))
        expected = [float((each.vectors @ query).max()) for each in model.embed_chunks(TEXTS, chunk_size=9)]
    options = ["--method", "dense", "--path", str(FOLDER), "--overflow", "chunk", "--chunk-size", "9", "--json"]
    assert main(["rerank", "a query", str(documents), *options]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["index"]: row["score"] for row in rows} == pytest.approx(dict(enumerate(expected)), abs=1e-5)
