"""Ray with two workers, Spark local and Daft native, where they are installed: an embedder and a plan on each."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL
from support.waiting import patience, wait_until

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from fastrank import SparseTextEmbedding, TextEmbedding  # noqa: E402

HERE = Path(__file__).parent
BM25 = "Qdrant/bm25"
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in Linux's /proc")


def needs(engine):
    module = {"ray": "ray", "spark": "pyspark", "daft": "daft"}[engine]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("there is no Java, which Spark needs")


@pytest.fixture
def started(tmp_path):
    """Start programs of this folder; what is left of them is ended with the test."""
    mark = f"BULK_TEST_MARK={uuid.uuid4().hex}"
    log = tmp_path / "log"
    log.write_text("")

    def start(program, *arguments, pause=0.0):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
            "BULK_TEST_LOG": str(log),
            "BULK_TEST_PAUSE": str(pause),
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "DO_NOT_TRACK": "1",
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
            mark.partition("=")[0]: mark.partition("=")[2],
        }
        environment.pop("OMP_NUM_THREADS", None)
        with (tmp_path / "stderr").open("a") as stderr:
            return subprocess.Popen(
                [sys.executable, str(HERE / program), *map(str, arguments)],
                env=environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    start.log = log
    start.all = lambda: list(_with(mark))
    yield start
    for process in _with(mark):
        _kill(process)


def _with(mark):
    """Processes with this in their environment: those that a program started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue


def _kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def workers(log):
    """Rows by process, of what the log has."""
    found = Counter()
    for line in log.read_text().splitlines():
        process, rows = line.split()
        found[int(process)] += int(rows)
    return found


def finish(process, tmp_path):
    out, _ = process.communicate(timeout=patience(180))
    assert process.returncode == 0, (tmp_path / "stderr").read_text()[-4000:]
    return out


def data(tmp_path, rows):
    table = pa.table({"id": range(rows), "text": [f"film number {n} " * (1 + n % 3) for n in range(rows)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=50)
    return table.column("text").to_pylist()


def check(folder, texts, model):
    """Each row once, with what `embed` gives."""
    files = [path for path in sorted(Path(folder).rglob("*.parquet")) if not path.name.startswith((".", "_"))]
    table = pa.concat_tables([pq.read_table(path) for path in files]).sort_by("id")
    assert table.column("id").to_pylist() == list(range(len(texts)))
    found = table.column(1).to_pylist()
    if model == BM25:
        expected = list(SparseTextEmbedding(BM25).embed(texts))
        assert [row["indices"] for row in found] == [vector.indices.tolist() for vector in expected]
    else:
        vectors = np.stack(list(TextEmbedding(REAL).embed(texts)))
        np.testing.assert_allclose(np.array(found, np.float32), vectors, atol=2e-6)


@pytest.mark.real_model
@pytest.mark.parametrize("engine", ["ray", "spark", "daft"])
def test_an_engine_gives_what_embed_gives(engine, tmp_path, started, real_model_folder):
    needs(engine)
    assert finish(started("accept.py", engine, tmp_path), tmp_path).strip().endswith("accepted")


@pytest.mark.real_model
@pytest.mark.parametrize("model", [BM25, REAL], ids=["bm25", "minilm"])
@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_a_worker_is_killed_and_then_everything_and_a_second_run_does_the_rest(
    engine, model, tmp_path, started, real_model_folder
):
    needs(engine)
    texts, out = data(tmp_path, 500), tmp_path / "out"
    arguments = ("jobs.py", engine, "plan", tmp_path / "in.parquet", out, model)
    job = started(*arguments, pause=0.3)
    wait_until(lambda: len(list(out.glob("part-*.parquet"))) >= 3, 180)
    _kill(next(reversed(workers(started.log))))  # in the middle of a unit, most likely
    count = len(list(out.glob("part-*.parquet")))
    wait_until(lambda: len(list(out.glob("part-*.parquet"))) >= count + 3, 180)
    assert job.poll() is None
    for process in started.all():
        _kill(process)
    job.communicate(timeout=patience(60))
    time.sleep(0.5)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("part-*.parquet")}
    assert 6 <= len(before) < 20, "all was done before everything was killed"
    started.log.write_text("")
    finish(started(*arguments), tmp_path)
    after = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("part-*.parquet")}
    assert {path: after[path] for path in before} == before
    assert sum(workers(started.log).values()) == 500 - 25 * len(before)  # what was done is not done again
    assert [path.name for path in out.iterdir() if path.name.endswith(".part")] == []
    check(out, texts, model)


@pytest.mark.real_model
@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_a_worker_is_killed_in_the_middle_of_a_dataset(engine, tmp_path, started, real_model_folder):
    needs(engine)
    texts, out = data(tmp_path, 400), tmp_path / "out"
    job = started("jobs.py", engine, "embed", tmp_path / "in.parquet", out, REAL, pause=0.2)
    wait_until(lambda: sum(workers(started.log).values()) >= 75, 180)
    killed = next(reversed(workers(started.log)))
    _kill(killed)
    finish(job, tmp_path)
    assert set(workers(started.log)) - {killed}, "another worker went on"
    check(out, texts, REAL)
