"""Embedding in bulk: plain `embed`, a plan, Ray, Spark and Daft side by side; a million rows in flat memory; costs.

    python benchmarks/bulk.py                              # all-MiniLM-L6-v2, every engine that is installed
    python benchmarks/bulk.py --model Qdrant/bm25 --rows 100000 --only embed plan
    python benchmarks/bulk.py --million                    # a million short rows through `fastrank embed`, BM25
    python benchmarks/bulk.py --costs                      # the table in docs/bulk.md, from results/embed_uniform.json

Each engine is a process of its own that stays open, with what it starts; they run in turn, every other round
backwards. All read the same Parquet file of texts and write Parquet, but plain `embed`, which has a list of texts and
keeps nothing. All have as many threads as there are cores: in one process, or one in each of as many workers. Rows a
second are counted from the first batch that begins to the end of the job; what comes before (tasks, actors and their
models) is start-up.
CPU seconds and memory (PSS) are those of the process and all that it has started, looked at five times a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import interleaved, machine

from fastrank.engine import cpu

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
RESULTS = Path(__file__).parent / "results"
VCPU_HOUR = 0.02  # US dollars: assumed for spot machines
NET = 0.85  # of the time is work: the rest are starts, restarts and the engine
TOKENS = 100  # of a passage
MARK, LOG = "FASTRANK_BENCHMARK_MARK", "FASTRANK_BENCHMARK_LOG"
ENGINES = {"embed": None, "plan": None, "ray": "ray", "spark": "pyspark", "daft": "daft"}
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
WORDS = (
    *("red", "green", "old", "small", "film", "valley", "machine", "baker", "game"),
    *("winter", "flour", "chess", "return", "body", "story", "river", "night"),
)


class Run(NamedTuple):
    """One job: seconds before its first batch, seconds from there to its end, CPU seconds, megabytes at most."""

    start: float
    work: float
    cpu: float
    peak: float


def text(number: int) -> str:
    """A text of about 33 tokens."""
    return " ".join(WORDS[(number * 7 + place * place) % len(WORDS)] for place in range(31))


# -- an engine's process ----------------------------------------------------------------------------------------------


def embedder(model: str, lists: str = "fixed", threads: int | None = None) -> Any:
    """An embedder that notes when its first batch begins."""
    from fastrank.bulk import Embedder

    class Timed(Embedder):
        def result(self, texts: Any, queries: Any, where: str) -> Any:
            if texts.values:
                _ = self.encoder  # loading the model is start-up
                with Path(os.environ[LOG]).open("a", encoding="ascii") as log:
                    log.write(f"{time.time()}\n")
            return super().result(texts, queries, where)

    return Timed(model, output="embedding", keep=["id"], lists=lists, threads=threads)


def opened(engine: str, source: str, model: str) -> Callable[[str], object]:  # noqa: C901 - one part for each engine
    """A function that does the job into a folder, once what it needs is started."""
    cores = cpu.available()
    if engine == "embed":
        import pyarrow.parquet as pq

        bulk = embedder(model, threads=cores)
        texts = pq.read_table(source).column("text").to_pylist()

        def plain(_output: str) -> None:
            Path(os.environ[LOG]).write_text(f"{time.time()}\n", encoding="ascii")
            for _vector in bulk.model.embed(texts, 1024):
                pass

        bulk.warm()
        return plain
    if engine == "plan":
        from fastrank.bulk import plan

        bulk = embedder(model, threads=cores)

        def units(output: str) -> None:
            made = plan(source, output, bulk, 4096)
            for unit in made.pending():
                made.run(unit)

        return units
    if engine == "ray":
        import ray

        from fastrank.integrations import ray as on_ray

        ray.init(num_cpus=cores + 1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False

        def dataset(output: str) -> None:
            data = ray.data.read_parquet(source, override_num_blocks=4 * cores)
            on_ray.embed(data, embedder(model), workers=cores).write_parquet(output)

        return dataset
    if engine == "spark":
        from pyspark.sql import SparkSession

        from fastrank.integrations import spark as on_spark

        builder = SparkSession.builder.master(f"local[{cores}]").config("spark.ui.enabled", "false")
        spark = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 1024).getOrCreate()

        def frame(output: str) -> None:
            data = spark.read.parquet(source).repartition(4 * cores)
            on_spark.embed(data, embedder(model, "variable")).write.parquet(output)

        return frame
    import daft

    from fastrank.integrations import daft as on_daft

    bulk = embedder(model, threads=cores)

    def expression(output: str) -> None:
        data = daft.read_parquet(source)
        data.select(data["id"], on_daft.expression(bulk, data["text"]).alias("embedding")).write_parquet(output)

    return expression


def serve(engine: str, source: str, model: str) -> None:
    """Do a job for each line of standard input, a folder, and answer when it is done."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print is no answer
    job = opened(engine, source, model)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        job(line.strip())
        answers.write("done\n")
        answers.flush()


# -- around it --------------------------------------------------------------------------------------------------------


class Watched:
    """An engine's process and all that it has started, by a mark in their environment."""

    def __init__(self, engine: str, source: str, model: str, folder: Path) -> None:
        self._mark, self._folder, self._engine = uuid.uuid4().hex, folder, engine
        self._log = folder / f"{engine}.log"
        environment = {**os.environ, MARK: self._mark, LOG: str(self._log), "RAY_worker_niceness": "0"}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1", "SPARK_LOCAL_IP": "127.0.0.1"}
        environment |= {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._log.write_text("")
        began = time.perf_counter()
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, __file__, "--serve", engine, source, model],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / f"{engine}.err").open("w"),
            text=True,
        )
        self._answer()
        self.opened = time.perf_counter() - began

    def run(self) -> Run:
        """One job."""
        self._log.write_text("")
        output = self._folder / f"{self._engine}-{uuid.uuid4().hex}"
        with self._sampled() as (times, peaks):
            began = time.time()
            print(output, file=self._process.stdin, flush=True)
            self._answer()
            ended = time.time()
        first = min(float(line) for line in self._log.read_text().split())
        used = sum(last - before for before, last in times.values())
        return Run(first - began, ended - first, used, max(peaks, default=0.0))

    def close(self) -> None:
        """End it, and what is left of what it has started."""
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=30)
        for process in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, 15)

    def _answer(self) -> None:
        if self._process.stdout is None or not self._process.stdout.readline():
            raise RuntimeError((self._folder / f"{self._engine}.err").read_text()[-2000:])

    def _processes(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if self._mark.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    @contextlib.contextmanager
    def _sampled(self) -> Iterator[tuple[dict[int, tuple[float, float]], list[float]]]:
        times: dict[int, tuple[float, float]] = {}
        peaks: list[float] = []
        there = set(self._processes())
        ending = threading.Event()

        def look() -> None:
            memory = 0.0
            for process in self._processes():
                with contextlib.suppress(OSError, ValueError, StopIteration):
                    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                    used = (int(fields[11]) + int(fields[12])) / TICK
                    times[process] = (times.get(process, (used if process in there else 0.0, 0))[0], used)
                    rollup = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
                    memory += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024
            peaks.append(memory)

        def watch() -> None:
            while not ending.wait(0.2):
                look()

        look()
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield times, peaks
            look()
        finally:
            ending.set()
            thread.join()


def compare(engines: Sequence[str], rows: int, rounds: int, model: str) -> dict[str, Any]:
    """Every engine's runs, in turn."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = str(folder / "texts.parquet")
        pq.write_table(
            pa.table({"id": range(rows), "text": [text(n) for n in range(rows)]}), source, row_group_size=4096
        )
        watched: dict[str, Watched] = {}
        runs: dict[str, list[Run]] = {}
        try:
            for engine in engines:
                watched[engine] = Watched(engine, source, model, folder)
                watched[engine].run()  # what is loaded once is loaded
                runs[engine] = []
            for number in range(rounds):
                for engine in list(engines) if number % 2 else list(engines)[::-1]:
                    runs[engine].append(watched[engine].run())
        finally:
            for each in watched.values():
                each.close()
        return {
            engine: {"opened": watched[engine].opened, "runs": [run._asdict() for run in found]}
            for engine, found in runs.items()
        }


def table(found: dict[str, Any], rows: int) -> str:
    """The medians."""
    lines = [
        "| | rows/s | to embed | CPU s | peak MB | start-up of the job, s | of the engine, s |",
        "|---|" + "---:|" * 6,
    ]
    plain = None
    for engine, each in found.items():
        middle = {key: statistics.median(run[key] for run in each["runs"]) for key in Run._fields}
        speed = rows / middle["work"]
        plain = plain or speed
        lines.append(
            f"| {engine} | {speed:,.0f} | {speed / plain:.0%} | {middle['cpu']:.1f} | {middle['peak']:.0f} | "
            f"{middle['start']:.1f} | {each['opened']:.1f} |"
        )
    return "\n".join(lines)


def million(rows: int) -> dict[str, Any]:
    """`fastrank embed` on short rows with BM25, and its resident memory while it runs."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name, "rows.jsonl")
        with source.open("w", encoding="utf-8") as file:
            for number in range(rows):
                file.write(json.dumps({"id": number, "text": " ".join(text(number).split()[:8])}) + "\n")
        began = time.perf_counter()
        command = [sys.executable, "-m", "fastrank", "embed", str(source), "-o", f"{name}/out/", "--kind", "bm25"]
        process = subprocess.Popen([*command, "--keep", "id"])  # noqa: S603 - ourselves
        memory: list[tuple[float, float, int]] = []
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):
                status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024
                memory.append((time.perf_counter() - began, resident, len(list(Path(name).glob("out/*.parquet")))))
            time.sleep(0.5)
        if process.returncode:
            raise RuntimeError(f"fastrank embed ended with {process.returncode}")
        seconds = time.perf_counter() - began
        return {"rows": rows, "seconds": seconds, "memory": memory[:: max(1, len(memory) // 200)]}


def growth(found: dict[str, Any]) -> str:
    """The memory once each number of files was there."""
    lines = [
        f"{found['rows']:,} rows in {found['seconds']:.0f} s",
        "| files of 50,000 rows | MB, largest while there were so many |",
    ]
    lines.append("|---:|---:|")
    largest: dict[int, float] = {}
    for _seconds, resident, files in found["memory"]:
        largest[files] = max(resident, largest.get(files, 0.0))
    lines += [f"| {files} | {most:.0f} |" for files, most in sorted(largest.items())]
    return "\n".join(lines)


def costs(results: Path = RESULTS) -> str:
    """What passages of 100 tokens cost on spot machines, computed from the measured rates."""
    measured = json.loads((results / "embed_uniform.json").read_text(encoding="utf-8"))
    tokens = measured["tokens"]["sum"] / measured["documents"]
    lines = [
        "| | core-hours | US$ | on 256 cores | on 1,000 cores | vectors of float32, float16, int8 |",
        "|---|" + "---:|" * 5,
    ]
    for rows, name in ((10**8, "100M"), (10**9, "1B")):
        for precision in ("fp32", "int8"):
            speed, cores = _speed(measured, f"fastrank {precision}")
            hours = rows * TOKENS / (speed / cores * tokens * NET) / 3600
            size = " / ".join(_bytes(rows * 384 * width) for width in (4, 2, 1))
            lines.append(
                f"| {name} {precision} | {_round(hours):,} | {_round(hours * VCPU_HOUR):,} | {hours / 256:.1f} h | "
                f"{hours / 1000:.1f} h | {size} |"
            )
    return "\n".join(lines)


def _speed(measured: dict[str, Any], engine: str) -> tuple[float, int]:
    """Texts a second of an engine, and on how many cores."""
    (run,) = measured["runs"]
    seconds = statistics.median(run["seconds"][engine])
    return measured["documents"] / seconds, run["threads"]


def _round(number: float) -> int:
    digits = 10 ** max(0, len(str(int(number))) - 3)
    return int(round(number / digits) * digits)


def _bytes(size: float) -> str:
    return f"{size / 1e12:.2f} TB" if size >= 1e12 else f"{size / 1e9:.0f} GB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Embedding in bulk.")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--model", default=MODEL, help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=tuple(ENGINES), help="default: those that are installed")
    parser.add_argument("--million", nargs="?", type=int, const=1_000_000, metavar="ROWS", help="the run of many rows")
    parser.add_argument("--costs", action="store_true", help="only print the table of costs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    given = parser.parse_args(arguments)
    if given.serve:
        serve(*given.serve)
        return 0
    if given.costs:
        print(costs())
        return 0
    about = {
        **machine.describe(),
        **{each: interleaved.version(each) for each in ("pyarrow", "ray", "pyspark", "daft")},
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    report: dict[str, Any] = {"machine": about, "load": os.getloadavg()}
    if given.million:
        report["million"] = million(given.million)
        print(growth(report["million"]))
    else:
        here = [
            name for name, module in ENGINES.items() if module is None or interleaved.version(module) != "not installed"
        ]
        report |= {"model": given.model, "rows": given.rows, "rounds": given.rounds}
        report["engines"] = compare(given.only or here, given.rows, given.rounds, given.model)
        print(table(report["engines"], given.rows))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
