"""`fastrank.bulk.plan` and `fastrank embed -o FOLDER/`: each row once, whoever is killed and whenever."""

import csv
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL
from support import tiny_models
from support.processes import run_python
from support.waiting import patience, wait_until

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from fastrank import PoolingType, SparseTextEmbedding, TextEmbedding  # noqa: E402
from fastrank.bulk import BulkError, Embedder, plan  # noqa: E402
from fastrank.bulk.files import MANIFEST, done  # noqa: E402
from fastrank.cli import main  # noqa: E402
from fastrank.models import packages  # noqa: E402

BM25 = "Qdrant/bm25"
WORDS = ["cat", "dog", "red", "green", "paris", "berlin", "rank", "vector"]


def text(number):
    return f"the {WORDS[number % 8]} is {WORDS[number // 8 % 8]} {number} " * (1 + number % 5)


def rows(count, first=0):
    return [{"id": n, "title": f"t{n}", "text": None if n % 11 == 5 else text(n)} for n in range(first, first + count)]


def write(path, data):
    path = Path(path)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(data), path, row_group_size=37)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(data), encoding="utf-8")
    elif path.suffix == ".lance":
        lance = pytest.importorskip("lance", reason="pylance is not installed")
        lance.write_dataset(pa.Table.from_pylist(data), str(path))
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(data[0]))
            writer.writeheader()
            writer.writerows(data)
    return path


def complete(folder):
    """All rows of a folder, in the order of the names of its files."""
    files = sorted(Path(folder).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def assert_bm25(table, data):
    assert table.column("id").to_pylist() == [row["id"] for row in data]
    expected = iter(SparseTextEmbedding(BM25).embed([row["text"] for row in data if row["text"] is not None]))
    for found, row in zip(table.column("sparse_embedding").to_pylist(), data, strict=True):
        if row["text"] is None:
            assert found is None
        else:
            vector = next(expected)
            assert found["indices"] == vector.indices.tolist()
            assert found["values"] == vector.values.astype(np.float32).tolist()


def stamps(folder):
    """What changes if a file is written again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path(folder).glob("*.parquet")}


def leftovers(folder):
    return [path.name for path in Path(folder).iterdir() if path.name.endswith(".part")]


# -- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json", "lance"])
def test_every_format_becomes_parquet_in_the_order_of_the_rows(tmp_path, suffix):
    data = rows(100)
    made = plan(write(tmp_path / f"in.{suffix}", data), tmp_path / "out", Embedder(BM25), 30)
    results = [made.run(unit) for unit in made.pending()]
    assert [each.rows for each in results] == [30, 30, 30, 10]
    table = complete(tmp_path / "out")
    assert table.column_names == ["id", "title", "text", "sparse_embedding"]
    assert table.column("text").to_pylist() == [row["text"] for row in data]
    assert_bm25(table, data)
    assert leftovers(tmp_path / "out") == []


def test_csv_has_no_null(tmp_path):
    data = [{"id": str(n), "text": text(n), "note": 'a "b"\nc'} for n in range(50)]
    made = plan(write(tmp_path / "in.csv", data), tmp_path / "out", Embedder(BM25), 20)
    for unit in reversed(made.pending()):
        made.run(unit)
    table = complete(tmp_path / "out")
    assert table.column("note").to_pylist() == ['a "b"\nc'] * 50
    assert_bm25(table, data)


def test_a_text_file_has_a_row_a_line(tmp_path):
    (tmp_path / "in.txt").write_text("cat\n\ndog\n", encoding="utf-8")
    made = plan(tmp_path / "in.txt", tmp_path / "out", Embedder(BM25), 2)
    for unit in made.units:
        made.run(unit)
    table = complete(tmp_path / "out")
    assert table.column("text").to_pylist() == ["cat", "", "dog"]
    assert table.column("sparse_embedding")[1].as_py() == {"indices": [], "values": []}


def test_several_files_and_folders_keep_their_order_and_fit_together(tmp_path):
    write(tmp_path / "b.jsonl", [{"id": 1.5, "text": "x", "tags": ["a", {"b": 1}]}, {"id": None, "text": "y"}])
    write(tmp_path / "a.parquet", rows(10))
    made = plan(tmp_path, tmp_path / "out", Embedder(BM25, keep=["id"]), 100)
    assert [Path(each.path).name for each in made.inputs] == ["a.parquet", "b.jsonl"]
    assert made.schema.field("id").type == pa.float64()
    for unit in made.units:
        made.run(unit)
    assert complete(tmp_path / "out").column("id").to_pylist() == [*map(float, range(10)), 1.5, None]
    other = plan([tmp_path / "b.jsonl"], tmp_path / "json", Embedder(BM25), 100)
    other.run(other.units[0])
    assert complete(tmp_path / "json").column("tags").to_pylist() == ['["a", {"b": 1}]', None]
    patterns = plan(str(tmp_path / "*.jsonl"), tmp_path / "pattern", Embedder(BM25))
    assert len(patterns.inputs) == 1


def test_units_of_a_file_of_lines_may_be_run_in_any_order(tmp_path):
    data = rows(95)
    made = plan(write(tmp_path / "in.jsonl", data), tmp_path / "out", Embedder(BM25), 10)
    for number in [3, 4, 9, 0, 7, 8, 2, 1, 6, 5]:
        made.run(made.units[number])
    assert_bm25(complete(tmp_path / "out"), data)


def test_types_of_json_fields_are_those_of_all_rows(tmp_path):
    values = [{"text": "a", "n": 1, "b": True, "f": 1}, {"text": "b", "n": None, "b": False, "f": 1.5}]
    values += [{"text": "c", "n": 2**70, "b": None, "f": 2, "late": "x"}]
    made = plan(write(tmp_path / "in.jsonl", values), tmp_path / "out", Embedder(BM25), 1)
    for unit in made.units:
        made.run(unit)
    table = complete(tmp_path / "out")
    assert table.column("n").to_pylist() == ["1", None, str(2**70)]
    assert table.column("b").to_pylist() == [True, False, None]
    assert table.column("f").to_pylist() == [1.0, 1.5, 2.0]
    assert table.column("late").to_pylist() == [None, None, "x"]


# -- what is wrong --------------------------------------------------------------------------------------------------


def test_a_poison_row_is_named_with_file_row_and_column_and_its_neighbours_are_there(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 0, "text": "cat"}\n{"id": 1, "text": 7}\n{"id": 2,\n{"id": 3, "text": "dog"}\n')
    made = plan(path, tmp_path / "out", Embedder(BM25), 2)
    with pytest.raises(BulkError) as raised:
        made.run(made.units[0])
    assert str(raised.value) == f"{path}:2, row 1, column 'text': must be a string, not int"
    with pytest.raises(BulkError, match=re.escape(f"{path}:3, row 2, column 'text': not JSON: ")):
        made.run(made.units[1])
    assert raised.value.row == 1
    assert [unit.name for unit in made.pending()] == [unit.name for unit in made.units]
    assert leftovers(tmp_path / "out") == []
    lenient = plan(path, tmp_path / "null", Embedder(BM25, on_error="null", error_column="why"), 2)
    results = [lenient.run(unit) for unit in lenient.units]
    assert [each.failed for each in results] == [1, 1]
    assert results[0].reasons == (str(raised.value),)
    assert done(Path(results[1].path)) == results[1]._replace(now=False)
    table = complete(tmp_path / "null")
    assert [value is None for value in table.column("sparse_embedding").to_pylist()] == [False, True, True, False]
    assert [value is None for value in table.column("why").to_pylist()] == [True, False, False, True]


def test_nan_in_parquet_is_named_by_file_and_row(tmp_path):
    folder = tiny_models.write_model(tmp_path / "nan", tiny_models.tiny_encoder(nan=True))
    path = write(tmp_path / "in.parquet", [{"text": "nan" if n == 77 else "cat"} for n in range(100)])
    embedder = Embedder("x", kind="dense", pooling=PoolingType.MEAN, specific_model_path=folder)
    made = plan(path, tmp_path / "out", embedder, 50)
    made.run(made.units[0])
    with pytest.raises(BulkError, match=re.escape(f"{path}, row 77, column 'text': the model returned NaN")):
        made.run(made.units[1])


def test_wrong_columns_and_files_fail_before_anything_is_written(tmp_path):
    path = write(tmp_path / "in.parquet", [{"id": 1, "text": "a", "raw": b"x"}])
    for embedder, error, message in [
        (Embedder(BM25, "body"), ValueError, "no column 'body'; it has id, text, raw"),
        (Embedder(BM25, "raw"), TypeError, "column 'raw' holds binary, not text"),
        (Embedder(BM25, "id"), TypeError, "column 'id' holds int64, not text"),
        (Embedder(BM25, keep=["no"]), ValueError, "no column 'no' to keep"),
        (Embedder(BM25, output="id"), ValueError, "have a column 'id' already"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            plan(path, tmp_path / "out", embedder)
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        plan(tmp_path / "none.parquet", tmp_path / "out", Embedder(BM25))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="not Parquet"):
        plan(tmp_path / "bad.parquet", tmp_path / "out", Embedder(BM25))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no file to read"):
        plan(tmp_path / "empty", tmp_path / "out", Embedder(BM25))
    with pytest.raises(ValueError, match="is a file"):
        plan(path, path, Embedder(BM25))
    assert not (tmp_path / "out").exists()


def test_a_file_without_rows_is_no_fault(tmp_path):
    (tmp_path / "in.txt").write_text("")
    made = plan(tmp_path / "in.txt", tmp_path / "out", Embedder(BM25))
    assert made.units == ()
    assert made.pending() == []


# -- going on -------------------------------------------------------------------------------------------------------


def test_another_model_or_input_is_refused_and_the_message_says_what_differs(tmp_path):
    path = write(tmp_path / "in.jsonl", rows(20))
    made = plan(path, tmp_path / "out", Embedder(BM25), 10)
    for unit in made.units:
        made.run(unit)

    def refused(embedder=None, size=10, source=path):
        with pytest.raises(ValueError, match="another setting of") as raised:
            plan(source, tmp_path / "out", embedder or Embedder(BM25), size)
        return str(raised.value)

    assert 'options.language was nothing and is "german"' in refused(Embedder(BM25, language="german"))
    assert "rows_per_file: it was 10 and is 20" in refused(size=20)
    assert "output.title" in refused(Embedder(BM25, keep=["id", "text"]))
    assert 'dtype was "float32" and is "float16"' in refused(Embedder(BM25, dtype="float16"))
    assert "0.path" in refused(source=write(tmp_path / "other.jsonl", rows(20)))
    (tmp_path / "in.jsonl").write_text(path.read_text().replace("cat", "dog"))  # as many rows and bytes
    assert "0.mark" in refused()
    write(path, rows(21))
    assert "0.rows was 20 and is 21" in refused()
    write(path, rows(20))
    assert plan(path, tmp_path / "out", Embedder(BM25, on_error="null", threads=1, batch_size=5), 10).pending() == []


def test_other_weights_under_the_same_name_are_another_model(tmp_path):
    path = write(tmp_path / "in.jsonl", rows(3))
    folder = tiny_models.write_model(tmp_path / "model", tiny_models.tiny_encoder())
    embedder = Embedder("x", kind="dense", pooling=PoolingType.MEAN, specific_model_path=folder)
    plan(path, tmp_path / "out", embedder)
    tiny_models.write_model(folder, tiny_models.tiny_encoder(seed=1))
    other = Embedder("x", kind="dense", pooling=PoolingType.MEAN, specific_model_path=folder, threads=1)
    with pytest.raises(ValueError, match=r"another setting of the model: files\.onnx/model\.onnx was"):
        plan(path, tmp_path / "out", other)


def test_a_folder_of_something_else_and_a_damaged_manifest_are_refused(tmp_path):
    path = write(tmp_path / "in.jsonl", rows(3))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has files of something else, such as x\.parquet"):
        plan(path, tmp_path / "out", Embedder(BM25))
    (tmp_path / "out" / MANIFEST).write_text('{"format"')
    with pytest.raises(ValueError, match="is damaged"):
        plan(path, tmp_path / "out", Embedder(BM25))


def test_a_plan_travels_and_its_shards_are_the_plan(tmp_path):
    data = rows(100)
    made = plan(write(tmp_path / "in.parquet", data), tmp_path / "out", Embedder(BM25), 7)
    parts = [pickle.loads(pickle.dumps(made.shard(i, 4))) for i in range(4)]  # noqa: S301
    assert sorted(unit for part in parts for unit in part.units) == list(made.units)
    assert len(pickle.dumps(made.run)) < 2000
    with pytest.raises(ValueError, match="numbered from 0 to 3"):
        made.shard(4, 4)
    for part in parts[::-1]:
        for unit in part.pending():
            part.run(unit)
    assert made.pending() == []
    assert_bm25(complete(tmp_path / "out"), data)


def test_a_unit_that_is_there_is_not_done_again(tmp_path):
    made = plan(write(tmp_path / "in.parquet", rows(20)), tmp_path / "out", Embedder(BM25), 10)
    first = made.run(made.units[0])
    before = stamps(tmp_path / "out")
    (tmp_path / "out" / f".{made.units[1].name}.elsewhere-1-x.part").write_bytes(b"of a killed process")
    again = made.run(made.units[0])
    assert (first.now, again.now) == (True, False)
    assert again == first._replace(now=False)
    assert stamps(tmp_path / "out") == before
    made.run(made.units[1])
    assert leftovers(tmp_path / "out") == []


def test_what_an_earlier_run_counted_is_not_counted_again(tmp_path, monkeypatch):
    path = write(tmp_path / "in.jsonl", rows(20))
    plan(path, tmp_path / "out", Embedder(BM25), 10)
    from fastrank.bulk import sources

    monkeypatch.setattr(sources, "_counted", lambda *_: pytest.fail("read the file again"))
    made = plan(path, tmp_path / "out", Embedder(BM25), 10)
    assert [made.run(unit).rows for unit in made.units] == [10, 10]


# -- the command line -----------------------------------------------------------------------------------------------


def start(*arguments, **environment):
    command = [sys.executable, "-m", "fastrank", "embed", *map(str, arguments)]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=patience(120))
    return process.returncode, out, err


def test_the_command_line(tmp_path, capsys):
    data = rows(50)
    path = write(tmp_path / "in.parquet", data)
    out = tmp_path / "out"
    arguments = ["embed", str(path), "-o", f"{out}/", "--kind", "bm25", "--keep", "id,title", "--rows-per-file", "20"]
    assert main(arguments) == 0
    assert complete(out).column_names == ["id", "title", "sparse_embedding"]
    assert_bm25(complete(out), data)
    assert capsys.readouterr().err == f"fastrank: {out}: 3 of 3 files, 50 rows\n"
    before = stamps(out)
    assert main(arguments) == 0
    assert stamps(out) == before
    assert main([*arguments, "--language", "german"]) == 1
    assert 'options.language was nothing and is "german"' in capsys.readouterr().err


def test_shards_on_the_command_line(tmp_path, capsys):
    data = rows(50)
    path = write(tmp_path / "in.jsonl", data)
    for shard in ("2/3", "0/3", "1/3"):
        arguments = ["embed", str(path), "-o", f"{tmp_path}/out/", "--kind", "bm25", "--rows-per-file", "9"]
        assert main([*arguments, "--shard", shard]) == 0
        assert "2 of 2 files" in capsys.readouterr().err
    assert_bm25(complete(tmp_path / "out"), data)
    for wrong in ("3/3", "1", "a/b", "-1/3"):
        assert main([*arguments, f"--shard={wrong}"]) == 1
        assert "must be I/N with I from 0 to N - 1" in capsys.readouterr().err


def test_the_exit_status_is_3_if_rows_failed(tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "cat"}\n{"text": 7}\n')
    arguments = ["embed", str(path), "-o", f"{tmp_path}/out/", "--kind", "bm25"]
    assert main(arguments) == 3
    assert capsys.readouterr().err == (
        f"fastrank: {path}:2, row 1, column 'text': must be a string, not int. "
        "With --on-error null such rows get null\n"
    )
    for _ in range(2):  # also when nothing is left to do
        assert main([*arguments, "--on-error", "null"]) == 3
        assert "1 of 1 files, 2 rows, 1 of them failed" in capsys.readouterr().err


def test_options_of_a_dense_model(tmp_path, tiny, capsys):
    path = write(tmp_path / "in.csv", [{"body": text(n)} for n in range(10)])
    TextEmbedding.add_custom_model(
        "acme/tiny", PoolingType.MEAN, True, dim=16, query_prefix="query: ", passage_prefix="text: "
    )
    arguments = ["embed", str(path), "-o", f"{tmp_path}/out/", "--model", "acme/tiny", "--path", str(tiny)]
    arguments += ["--column", "body", "--as", "passage", "--dtype", "float16", "--lists", "variable", "--keep", ""]
    assert main(arguments) == 0, capsys.readouterr().err
    table = complete(tmp_path / "out")
    assert table.schema.field("embedding").type.value_type == pa.float16()
    assert table.column_names == ["embedding"]
    expected = TextEmbedding("acme/tiny", specific_model_path=tiny).passage_embed([text(n) for n in range(10)], 1024)
    assert np.array_equal(np.array(table.column("embedding").to_pylist(), np.float16), np.float16(list(expected)))


def test_one_parquet_file(tmp_path, capsys):
    data = rows(30)
    path = write(tmp_path / "in.jsonl", data)
    assert main(["embed", str(path), "-o", str(tmp_path / "out.parquet"), "--kind", "bm25"]) == 0
    assert_bm25(pq.read_table(tmp_path / "out.parquet"), data)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "out.parquet"]
    other = write(tmp_path / "in.parquet", data)
    assert main(["embed", str(other), "-o", str(other), "--kind", "bm25"]) == 1
    assert "is an input, which would be lost" in capsys.readouterr().err


def test_what_only_parquet_has_is_refused_elsewhere(tmp_path, capsys):
    path = write(tmp_path / "in.jsonl", rows(3))
    assert main(["embed", str(path), "-o", str(tmp_path / "x.npy"), "--shard", "0/2"]) == 1
    assert "--shard is for Parquet: --output FOLDER/" in capsys.readouterr().err
    assert main(["embed", str(path), str(path), "-o", str(tmp_path / "x.npy")]) == 1
    assert "for several name a folder" in capsys.readouterr().err
    assert main(["embed", "-o", f"{tmp_path}/out/"]) == 1
    assert "name the files to embed" in capsys.readouterr().err


def test_progress_has_rows_rate_and_time_left(tmp_path):
    path = write(tmp_path / "in.jsonl", rows(50))
    process = start(path, "-o", f"{tmp_path}/out/", "--kind", "bm25", "--rows-per-file", 20, FASTRANK_PROGRESS="1")
    status, _, err = finish(process)
    assert status == 0
    assert re.findall(
        r"^fastrank: part-\d+-\d+\.parquet: (\d+) of 50 rows, [\d,]+ rows/s, \d+ s left$", err, re.MULTILINE
    ) == [
        "20",
        "40",
        "50",
    ]


def test_time_left_goes_by_bytes_of_text_and_not_by_rows(tmp_path):
    path = write(tmp_path / "in.parquet", [{"text": text(n) * (50 if n >= 37 else 1)} for n in range(74)])
    made = plan(path, tmp_path / "out", Embedder(BM25), 37)
    short, long = map(made.bytes_of, made.units)
    assert long > 5 * short


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can handle")
def test_sigterm_ends_the_run_after_the_file_that_is_being_made(tmp_path):
    data = rows(40_000)
    path = write(tmp_path / "in.jsonl", data)
    arguments = (path, "-o", f"{tmp_path}/out/", "--kind", "bm25", "--rows-per-file", 2000, "--keep", "id")
    process = start(*arguments)
    out = tmp_path / "out"
    wait_until(lambda: list(out.glob("*.parquet")), 60)
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert status == 128 + signal.SIGTERM, err
    assert "ending after this file" in err
    whole = list(out.glob("*.parquet"))
    assert len(whole) < 20
    assert leftovers(out) == []
    assert finish(start(*arguments))[0] == 0
    assert_bm25(complete(out), data)


def killed_and_run_again(tmp_path, data, *arguments):
    """kill -9 in the middle, and a second run: the files that were there stay; returns the table."""
    out = tmp_path / "out"
    process = start(*arguments, "-o", f"{out}/")
    wait_until(lambda: len(list(out.glob("*.parquet"))) >= 2, 120)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    before = stamps(out)
    again = start(*arguments, "-o", f"{out}/")
    status, _, err = finish(again)
    assert status == 0, err
    after = stamps(out)
    assert 2 <= len(before) < len(after)
    assert {path: after[path] for path in before} == before
    assert leftovers(out) == []
    table = complete(out)
    assert table.column("id").to_pylist() == [row["id"] for row in data]
    return table


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_killed_and_run_again_with_bm25(tmp_path):
    data = rows(30_000)
    path = write(tmp_path / "in.parquet", data)
    assert_bm25(killed_and_run_again(tmp_path, data, path, "--kind", "bm25", "--rows-per-file", 1500), data)


@pytest.mark.real_model
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_killed_and_run_again_with_a_real_model(tmp_path, real_model_folder):
    data = [{"id": n, "text": text(n)} for n in range(600)]
    path = write(tmp_path / "in.parquet", data)
    arguments = (path, "--model", REAL, "--path", real_model_folder, "--rows-per-file", 50)
    table = killed_and_run_again(tmp_path, data, *arguments)
    found = np.array(table.column("embedding").to_pylist(), np.float32)
    with TextEmbedding(REAL, specific_model_path=real_model_folder) as model:
        whole = [list(model.embed([row["text"] for row in data[at : at + 50]], 1024)) for at in range(0, 600, 50)]
    assert np.array_equal(found, np.concatenate(whole))  # bit for bit, unit by unit


def test_the_memory_of_a_process_does_not_grow_with_the_file(tmp_path):
    code = """
import resource, sys
from fastrank.cli import main
assert main(["embed", sys.argv[1], "-o", sys.argv[2], "--kind", "bm25", "--keep", "id", "--rows-per-file", "5000"]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    pytest.importorskip("resource")
    peaks = []
    for count in (10_000, 60_000):
        path = write(tmp_path / f"{count}.jsonl", rows(count))
        done_ = run_python("-c", code, path, f"{tmp_path}/{count}/", check=True)
        peaks.append(int(done_.stdout))
    assert peaks[1] < peaks[0] + 40, peaks  # MB; 50,000 more rows are 100 MB as Python objects


# -- the model's files ----------------------------------------------------------------------------------------------

WORKER = """
import pickle, sys
embedder = pickle.load(sys.stdin.buffer)
print(embedder.embed(["the cat is red"])[0].as_py()[:4])
"""


def test_six_workers_on_an_empty_cache_fetch_the_model_once(hub):
    files = tiny_models.model_files()
    hub.add_repo("acme/tiny", files)
    TextEmbedding.add_custom_model("acme/tiny", PoolingType.MEAN, True, dim=16)
    sent = pickle.dumps(Embedder("acme/tiny"))
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(6)
    ]
    for worker in workers:
        worker.stdin.write(sent)
        worker.stdin.close()
        worker.stdin = None
    vectors = {worker.communicate(timeout=patience(120))[0] for worker in workers}
    assert len(vectors) == 1
    assert len(vectors.pop()) > 20
    assert hub.count("GET", "/cdn/") == 1  # the weights
    assert hub.count("GET", r"/resolve/.*tokenizer\.json") == 1


def test_a_node_without_a_network_uses_the_installed_model(tmp_path):
    name, package = "acme/own", "acme_own"
    files = tiny_models.model_files(tiny_models.tiny_encoder(384))
    folder = tmp_path / "site" / package
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "__init__.py").write_text("")
    import hashlib

    manifest = {
        "model": name,
        "variant": "onnx",
        "precision": "unknown",
        "model_file": tiny_models.MODEL_PATH,
        "like": REAL,
        "made_of": None,
        "license": "MIT",
        "source": "a folder",
        "commit": None,
        "files": {
            path: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()
        },
    }
    (folder / packages.MANIFEST).write_text(json.dumps(manifest))
    info = tmp_path / "site" / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fastrank.models]\n{name} = {package}\n")
    data = [{"id": n, "text": text(n)} for n in range(20)]
    path = write(tmp_path / "in.parquet", data)
    search = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    arguments = (path, "-o", f"{tmp_path}/out/", "--model", name, "--rows-per-file", 10)
    status, _, err = finish(start(*arguments, FASTRANK_OFFLINE="1", PYTHONPATH=search))
    assert status == 0, err
    assert complete(tmp_path / "out").num_rows == 20
    assert not (tmp_path / "cache" / "models").exists()
