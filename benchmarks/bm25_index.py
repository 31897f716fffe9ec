"""BM25Index side by side with tantivy, bm25s and SQLite FTS5, where they are installed.

    pip install bm25s PyStemmer numba tantivy
    python benchmarks/bm25_index.py --passages 100000 1000000 --json result.json
    python benchmarks/bm25_index.py --before path/to/an/older/checkout --engines fastrank before

Passages and queries are generated: 57 words on average, of a vocabulary as large and as uneven as that of a large
collection, four in ten of them stop words (one list for all engines); a query is two to seven words of one passage.
Each engine has a process of its own, so that peak memory is its own, builds its index alone, and then answers the
queries in turns with the others.
"before" is fastrank of another checkout: its ids and scores must equal those of this one to the last bit, else there
are no figures. How many of our ten best the peers find too is printed: they stem and count lengths a bit differently.

The time of a query is that from its text to the ids and scores of the ten best, in CPU time, because every engine
answers on one thread and other programs on the machine then count less; each query runs several times, and the
percentiles are over queries of their least. FTS5, which knows no stop words, is asked without them. "build" is time on
the clock, "CPU" that of all threads; "peak" is the process's peak memory while it builds, less what it had after its
imports. "add" is one more passage, and one query that sees it. "first" is a new process: loading the saved index and
its first query, without imports.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

HITS = 10
TURN = 50  # queries of one engine before the next has its turn
FORMS = 300_000  # of words
ENDINGS = ("", "s", "ed", "ing", "er", "ation")

Hits: TypeAlias = "tuple[list[int], list[float]]"  # ids, scores


# -- texts ----------------------------------------------------------------------------------------------------------


def write_passages(path: Path, count: int) -> None:
    """One passage a line."""
    stop = _stopwords()
    words = np.array([*stop, *_words()], object)
    weights = 1 / (np.arange(FORMS) + 30.0) ** 1.05
    chances = np.cumsum(np.concatenate([np.full(len(stop), 0.4 / len(stop)), 0.6 * weights / weights.sum()]))
    dice = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, 10_000):
            lengths = np.clip(dice.lognormal(3.9, 0.5, min(10_000, count - start)), 5, 400).astype(int)
            drawn = words[np.minimum(np.searchsorted(chances, dice.random(lengths.sum())), len(words) - 1)]
            end = 0
            for length in lengths.tolist():
                file.write(" ".join(drawn[end : end + length]) + ".\n")
                end += length


def write_queries(path: Path, passages: Path, count: int, queries: int) -> None:
    """One query a line: some words of one passage, not all of them stop words."""
    stop = frozenset(_stopwords())
    dice = random.Random(0)  # noqa: S311 - dice that make texts, no secrets
    wanted = set(dice.sample(range(count), min(count, queries)))
    with passages.open(encoding="utf-8") as lines, path.open("w", encoding="utf-8") as file:
        for number, line in enumerate(lines):
            if number in wanted:
                words = line.rstrip(".\n").split()
                first = dice.choice([word for word in words if word not in stop] or words)
                others = dice.sample(words, min(len(words), dice.randint(1, 6)))
                file.write(" ".join([first, *others]) + "\n")


def _words() -> Iterator[str]:
    syllables = [first + last for first in "bcdfghjklmnprstvwz" for last in ("a", "e", "i", "o", "u", "an")]
    dice = random.Random(1)  # noqa: S311 - the same
    for number in dice.sample(range(FORMS), FORMS):
        stem, ending = divmod(number, len(ENDINGS))
        word = ""
        while stem or len(word) < 4:
            stem, syllable = divmod(stem, len(syllables))
            word += syllables[syllable]
        yield word + ENDINGS[ending]


def _stopwords() -> list[str]:
    from fastrank.bm25.languages import stopwords

    return sorted(word for word in stopwords("english") if len(word) > 1)


def _without_stopwords(query: str, stop: frozenset[str]) -> list[str]:
    words = query.lower().split()
    return [word for word in words if word not in stop] or words


# -- engines --------------------------------------------------------------------------------------------------------


class Fastrank:
    """BM25Index of whichever checkout is imported."""

    name = "index"

    def __init__(self) -> None:
        self.index_class: Any = importlib.import_module("fastrank.bm25.index").BM25Index
        self.query_options: dict[str, Any] = {}

    def build(self, passages: Iterable[str], folder: Path) -> None:
        """Index and save them."""
        del folder
        self.index = self.index_class.build(passages)

    def save(self, folder: Path) -> None:
        """Write the index."""
        self.index.save(folder / self.name)

    def open(self, folder: Path) -> None:
        """Map the index, or read it in versions that cannot."""
        try:
            self.index = self.index_class.load(folder / self.name, mmap=True)
        except TypeError:
            self.index = self.index_class.load(folder / self.name)

    def search(self, query: str) -> Any:
        """The best passages."""
        return self.index.search(query, HITS)

    def hits(self, found: Any) -> Hits:
        """Ids and scores of what `search` gave."""
        return found[0].tolist(), found[1].tolist()

    def add(self, passage: str) -> None:
        """One more passage."""
        self.index.add([passage])


class Tantivy:
    """Tantivy, with all cores while it indexes."""

    def __init__(self) -> None:
        self.peer: Any = importlib.import_module("tantivy")
        builder = self.peer.SchemaBuilder()
        builder.add_unsigned_field("number", stored=True, fast=True)
        builder.add_text_field("text", tokenizer_name="english", index_option="freq")
        self.schema = builder.build()
        parts = self.peer.Filter
        self.analyzer = (
            self.peer.TextAnalyzerBuilder(self.peer.Tokenizer.simple())
            .filter(parts.lowercase())
            .filter(parts.custom_stopword(_stopwords()))
            .filter(parts.stemmer("english"))
            .build()
        )
        self.count = 0

    def build(self, passages: Iterable[str], folder: Path) -> None:
        """Index them on disk."""
        self.index = self.peer.Index(self.schema, path=str(folder))
        self.index.register_tokenizer("english", self.analyzer)
        writer = self.index.writer(256_000_000)
        for passage in passages:
            self._put(writer, passage)
        writer.commit()
        writer.wait_merging_threads()
        self._refresh()

    def save(self, folder: Path) -> None:
        """It is on disk."""

    def open(self, folder: Path) -> None:
        """Open the folder."""
        self.index = self.peer.Index.open(str(folder))
        self.index.register_tokenizer("english", self.analyzer)
        self._refresh()

    def search(self, query: str) -> Any:
        """Scores and addresses of the best passages."""
        return self.searcher.search(self.index.parse_query(query, ["text"]), HITS).hits

    def hits(self, found: Any) -> Hits:
        """Ids and scores of what `search` gave."""
        ids = [self.searcher.doc(address).to_dict()["number"][0] for _, address in found]
        return ids, [score for score, _ in found]

    def add(self, passage: str) -> None:
        """One more passage, committed."""
        writer = self.index.writer(15_000_000, 1)
        self._put(writer, passage)
        writer.commit()
        writer.wait_merging_threads()
        self._refresh()

    def _put(self, writer: Any, passage: str) -> None:
        document = self.peer.Document()
        document.add_unsigned("number", self.count)
        document.add_text("text", passage)
        writer.add_document(document)
        self.count += 1

    def _refresh(self) -> None:
        self.index.reload()
        self.searcher = self.index.searcher()


class BM25S:
    """bm25s with PyStemmer; Lucene's formula and our k."""

    def __init__(self, backend: str = "numpy") -> None:
        self.peer: Any = importlib.import_module("bm25s")
        if backend == "numba":
            importlib.import_module("numba")
        self.backend = backend
        self.stop = _stopwords()
        self.stemmer = importlib.import_module("Stemmer").Stemmer("english")

    def build(self, passages: Iterable[str], folder: Path) -> None:
        """Index them."""
        del folder
        self.index = self.peer.BM25(k1=1.2, backend=self.backend)
        self.index.index(self._tokens(list(passages)), show_progress=False)

    def save(self, folder: Path) -> None:
        """Write the index."""
        self.index.save(str(folder), show_progress=False)

    def open(self, folder: Path) -> None:
        """Map the index."""
        self.index = self.peer.BM25.load(str(folder), mmap=True, show_progress=False)

    def search(self, query: str) -> Any:
        """The best passages."""
        return self.index.retrieve(self._tokens([query]), k=HITS, show_progress=False)

    def hits(self, found: Any) -> Hits:
        """Ids and scores of what `search` gave."""
        return found[0][0].tolist(), found[1][0].tolist()

    def add(self, passage: str) -> None:
        """It cannot."""
        raise NotImplementedError

    def _tokens(self, texts: list[str]) -> Any:
        return self.peer.tokenize(texts, stopwords=self.stop, stemmer=self.stemmer, show_progress=False)


class FTS5:
    """SQLite's full-text index, without the texts."""

    def __init__(self) -> None:
        self.peer: Any = importlib.import_module("sqlite3")
        self.stop = frozenset(_stopwords())

    def build(self, passages: Iterable[str], folder: Path) -> None:
        """Index them on disk."""
        self.open(folder)
        self.table.execute("CREATE VIRTUAL TABLE passages USING fts5(text, content='', tokenize='porter unicode61')")
        rows = enumerate(passages)
        self.table.executemany("INSERT INTO passages(rowid, text) VALUES (?, ?)", rows)
        self.table.execute("INSERT INTO passages(passages) VALUES ('optimize')")
        self.table.commit()

    def save(self, folder: Path) -> None:
        """It is on disk."""

    def open(self, folder: Path) -> None:
        """Open the file."""
        self.table = self.peer.connect(folder / "passages.db")

    def search(self, query: str) -> Any:
        """The best passages."""
        words = " OR ".join(f'"{word}"' for word in _without_stopwords(query, self.stop))
        select = "SELECT rowid, -rank FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?"
        return self.table.execute(select, (words, HITS)).fetchall()

    def hits(self, found: Any) -> Hits:
        """Ids and scores of what `search` gave."""
        return [number for number, _ in found], [score for _, score in found]

    def add(self, passage: str) -> None:
        """One more passage."""
        self.table.execute("INSERT INTO passages(rowid, text) VALUES (1000000000, ?)", (passage,))
        self.table.commit()


ENGINES: dict[str, Callable[[], Any]] = {
    "fastrank": Fastrank,
    "before": Fastrank,
    "tantivy": Tantivy,
    "bm25s": BM25S,
    "bm25s numba": partial(BM25S, "numba"),
    "FTS5": FTS5,
}
DISTRIBUTIONS = ("tantivy", "bm25s", "PyStemmer", "numba")


# -- the process of an engine ---------------------------------------------------------------------------------------


def work(name: str, folder: Path, passages: Path | None) -> None:
    """Build or open an index, then answer lines of JSON from standard input with one each."""
    engine = ENGINES[name]()
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    if passages is None:
        engine.open(folder)
        engine.search(sys.stdin.readline().strip())
        _say(seconds=time.perf_counter() - start)
        return
    with passages.open(encoding="utf-8") as lines:
        engine.build(map(str.strip, lines), folder)
    _say(seconds=time.perf_counter() - start, cpu=time.process_time() - cpu, peak=_peak() - before)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "search":
            found = [_timed(partial(engine.search, query), time.process_time) for query in command["queries"]]
            _say(seconds=[seconds for seconds, _ in found], hits=[engine.hits(each) for _, each in found])
        elif command["do"] == "save":
            engine.save(folder)
            _say(bytes=sum(file.stat().st_size for file in folder.iterdir()))
        else:
            _say(seconds=_added(engine, command["passage"], command["query"]))


def _added(engine: Any, passage: str, query: str) -> float | None:
    try:
        return min(_timed(lambda: (engine.add(passage), engine.search(query)))[0] for _ in range(3))
    except NotImplementedError:
        return None


def _timed(function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    start = clock()
    found = function()
    return clock() - start, found


def _peak() -> float:
    """Megabytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss starts with the parent's
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


# -- the comparison -------------------------------------------------------------------------------------------------


class Worker:
    """A process with one engine."""

    def __init__(self, name: str, checkout: Path | None, folder: Path, passages: Path | None) -> None:
        self.name = name
        self.folder = folder
        self.checkout = checkout
        folder.mkdir(exist_ok=True)
        command = [sys.executable, __file__, "--work", name, str(folder), *([str(passages)] if passages else [])]
        paths = [str(checkout)] if name == "before" else [str(Path(__file__).parents[1])]
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(Path(__file__).parent)])}
        self.process = subprocess.Popen(  # noqa: S603 - this file
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings
        )
        self.commands: IO[str] = self.process.stdin  # type: ignore[assignment]  # both are pipes
        self.answers: IO[str] = self.process.stdout  # type: ignore[assignment]

    def ask(self, **command: Any) -> Any:
        """The answer to one command."""
        return self.tell(json.dumps(command))

    def tell(self, line: str) -> Any:
        """The answer to one line."""
        self.commands.write(line + "\n")
        self.commands.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next answer.

        Raises:
            SystemExit: the process has ended.
        """
        line = self.answers.readline()
        if not line:
            raise SystemExit(f"{self.name} has failed")
        return json.loads(line)

    def first(self, query: str) -> float:
        """Seconds that a new process needs to load the saved index and to answer."""
        other = Worker(self.name, self.checkout, self.folder, None)
        seconds: float = other.tell(query)["seconds"]
        other.close()
        return seconds

    def close(self) -> None:
        """End the process."""
        self.commands.close()
        self.process.wait()


def compare(
    count: int, names: Sequence[str], given: argparse.Namespace, folder: Path
) -> dict[str, dict[str, float | None]]:
    """Figures by engine."""
    passages, asked = folder / "passages", folder / "queries"
    write_passages(passages, count)
    write_queries(asked, passages, count, given.queries)
    queries = asked.read_text(encoding="utf-8").splitlines()
    workers, results = [], {}
    for name in names:
        worker = Worker(name, given.before, folder / name.replace(" ", "-"), passages)
        built = worker.answer()
        results[name] = {"build s": built["seconds"], "CPU s": built["cpu"], "peak MB": built["peak"]}
        print(f"  {name}: built in {built['seconds']:.1f} s, {built['peak']:.0f} MB", flush=True)
        workers.append(worker)
    _check(workers, queries)
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(given.rounds):
        for name, values in _round(workers if number % 2 else workers[::-1], queries).items():
            seconds[name].append(values)
    for worker in workers:
        least = [min(values) * 1000 for values in zip(*seconds[worker.name], strict=True)]
        own = results[worker.name]
        own["p50 ms"], own["p99 ms"] = np.percentile(least, (50, 99)).tolist()
        own["file MB"] = worker.ask(do="save")["bytes"] / (1 << 20)
        own["first s"] = statistics.median(worker.first(query) for query in queries[:3])
        own["add s"] = worker.ask(do="add", passage="one more passage of rarewords", query="rarewords")["seconds"]
        worker.close()
    return results


def _check(workers: Sequence[Worker], queries: Sequence[str]) -> None:
    """Compare what the engines find; a first search of all queries for each of them."""
    hits = {worker.name: worker.ask(do="search", queries=queries)["hits"] for worker in workers}
    if "before" in hits and "fastrank" in hits:
        if hits["before"] != hits["fastrank"]:
            raise SystemExit("before finds other passages or scores: no figures")
        print(f"  before: ids and scores of {len(queries)} queries are equal to the last bit")
    for name, found in hits.items():
        shared = [
            len({*ids} & {*ours}) / max(1, len(ours))
            for (ids, _), (ours, _) in zip(found, hits.get("fastrank", found), strict=True)
        ]
        print(f"  {name}: {statistics.mean(shared):.0%} of fastrank's {HITS} best", flush=True)


def _round(workers: Sequence[Worker], queries: Sequence[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {worker.name: [] for worker in workers}
    remaining = iter(queries)
    while turn := list(islice(remaining, TURN)):
        for worker in workers:
            found[worker.name] += worker.ask(do="search", queries=turn)["seconds"]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="BM25Index side by side with its peers.")
    parser.add_argument("--passages", type=int, nargs="+", default=[100_000], help="default: %(default)s")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="default: all that are installed")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout of fastrank to compare with")
    parser.add_argument("--queries", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    given = parser.parse_args(arguments)
    names = given.engines or [name for name in ENGINES if _installed(name) and (name != "before" or given.before)]
    from common import interleaved, machine

    about = {**machine.describe(), **{name: interleaved.version(name) for name in DISTRIBUTIONS}}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    report: dict[str, Any] = {"machine": about, "results": {}}
    for count in given.passages:
        print(f"\n{count:,} passages")
        with tempfile.TemporaryDirectory() as folder:
            results = compare(count, names, given, Path(folder))
        columns = list(next(iter(results.values())))
        print(f"  {'':12}" + "".join(f"{column:>10}" for column in columns))
        for name, row in results.items():
            cells = ["-" if (value := row[column]) is None else f"{value:.3g}" for column in columns]
            print(f"  {name:12}" + "".join(f"{cell:>10}" for cell in cells), flush=True)
        report["results"][count] = results
        if given.json:
            given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _installed(name: str) -> bool:
    try:
        ENGINES[name]()
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]) if sys.argv[4:] else None)
        sys.exit(0)
    sys.exit(main())
