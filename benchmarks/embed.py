"""Dense vectors of texts of mixed length, and of single queries, side by side with FastEmbed and sentence-transformers.

    python benchmarks/embed.py                                       # 512 generated texts: about 5 minutes
    python benchmarks/embed.py --uniform                             # all of 90 to 110 tokens: padding plays no part
    python benchmarks/embed.py path/to/scifact --documents 2000 --rounds 1
    python benchmarks/embed.py --documents 0                         # queries only: half a minute
    python benchmarks/embed.py --threads 1 2 4 --only "fastrank fp32" FastEmbed        # how it grows with threads

Generated texts have a log-normal number of tokens, median 80 and 512 at most; all engines cut at 256, the model's limit
(--max-length). engines.py says what the engines are and how peers are installed. All have the weights of
all-MiniLM-L6-v2, the same texts, limit of tokens and threads, and run in turn in this process; the figures are medians.
All vectors, timed ones included, are compared with fastrank's in fp32: a difference of more than 1e-4 in fp32 ends the
run without figures, for other precisions the cosine is a column.
Queries have 10 tokens and are embedded one by one, in 10 turns of 50 an engine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from common import beir, engines, folders, interleaved, machine, texts
from numpy.typing import NDArray

from fastrank.engine import cpu
from fastrank.errors import FastrankError

Floats: TypeAlias = NDArray[np.float32]

TOLERANCE = 1e-4
LOWEST_COSINE = 0.95  # of another precision's vector: less is another model
QUERY_WORDS = 8  # and two special tokens
FIRST = 64  # texts, before all
TURNS = 10  # of queries
PAUSE = 0.2  # seconds; threads of the arm before have stopped spinning by then


class DifferenceError(Exception):
    """Two engines do not give the same vectors."""


def matrix(embed: engines.Embed, documents: Sequence[str]) -> Floats:
    """The vectors as rows."""
    return np.stack([np.asarray(vector, np.float32) for vector in embed(documents)])


def compare(name: str, ours: Floats, theirs: Floats) -> dict[str, float]:
    """The largest difference of a number, and the cosines of vectors.

    Raises:
        DifferenceError: too far away.
    """
    difference = float(np.abs(ours - theirs).max())
    cosines = (ours * theirs).sum(axis=1)
    exact = engines.ENGINES[name].precision == "fp32"
    if not (difference <= TOLERANCE if exact else cosines.min() >= LOWEST_COSINE):  # NaN is not
        raise DifferenceError(f"{name} differs from fastrank in fp32 by {difference:.2g}, cosine {cosines.min():.4f}")
    return {"difference": difference, "cosine mean": float(cosines.mean()), "cosine min": float(cosines.min())}


def one_by_one(embed: engines.Embed, queries: Sequence[str]) -> list[float]:
    """The seconds of each query."""
    seconds = []
    for query in queries:
        start = time.perf_counter()
        list(embed([query]))
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(
    opened: dict[str, engines.Embed], documents: Sequence[str], queries: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Seconds of all documents, seconds of single queries, and how near the vectors are, by engine.

    Raises:
        DifferenceError: vectors differ.
    """
    compared = documents or queries
    expected = matrix(opened[engines.OURS], compared)
    # Who differs is found before hours have passed; and warms up.
    first = {name: matrix(embed, compared[:FIRST]) for name, embed in opened.items()}
    differences = {name: compare(name, expected[:FIRST], vectors) for name, vectors in first.items()}

    def check(name: str, vectors: list[Any]) -> None:
        differences[name] = compare(name, expected, np.stack(vectors).astype(np.float32))

    calls = {name: partial(lambda embed: list(embed(documents)), embed) for name, embed in opened.items()}
    seconds = interleaved.seconds(calls, rounds, pause=PAUSE, check=check) if documents else {}
    latencies: dict[str, list[float]] = {name: [] for name in opened if not engines.ENGINES[name].tuned}
    asking: dict[str, Callable[[], list[float]]] = {
        name: partial(one_by_one, opened[name], queries) for name in latencies
    }
    # Short turns: a few seconds of other work on the machine must not hit one engine alone.
    turns = TURNS if queries else 0
    interleaved.seconds(asking, turns, pause=PAUSE, check=lambda name, values: latencies[name].extend(values))
    percentiles = {
        name: dict(zip(("p50", "p95"), np.percentile(values, [50, 95]).tolist(), strict=True))
        for name, values in latencies.items()
        if values
    }
    return {"seconds": seconds, "latency": percentiles, "differences": differences}


def table(run: dict[str, Any], documents: int) -> str:
    """One line an engine; ratios are of speeds, to FastEmbed as it comes, or to ours without it."""
    base = engines.BASELINE if engines.BASELINE in run["differences"] else engines.OURS
    slow = float(np.median(run["seconds"].get(base, [0])))
    lines = [f"{'':36} {'texts/s':>8} {'to ' + base:>14} {'cosine':>8} {'least':>8} {'p50 ms':>8} {'p95 ms':>8}"]
    for name, near in run["differences"].items():
        median = float(np.median(run["seconds"].get(name, [np.inf])))
        asked = [f"{value * 1e3:8.2f}" for value in run["latency"].get(name, {}).values()]
        speed = f"{documents / median:8.1f} {slow / median:13.2f}x" if run["seconds"] else " " * 23
        lines.append(" ".join([f"{name:36}", speed, f"{near['cosine mean']:8.5f} {near['cosine min']:8.5f}", *asked]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    command = parser("Speed of dense vectors side by side with peers.", engines.ON_CPU)
    return run(command, command.parse_args(arguments))


def run(command: argparse.ArgumentParser, given: argparse.Namespace, device: str = "cpu", **about: str) -> int:
    """Compare the engines as `parser` was told; `about` adds to what is said of the machine."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")  # before peers are imported
    names = list(dict.fromkeys([engines.OURS, *given.only]))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            folders.prepare(folder, engines.MODEL, given.max_length)
            tokenizer = folder / "tokenizer.json"
            length = texts.even if given.uniform else texts.mixed
            documents = (
                texts.collected(given.folder, given.documents)
                if given.folder
                else list(islice(texts.generated(tokenizer, length), given.documents))
            )
            if not documents and not given.queries:
                command.error("there is nothing to embed: --documents 0 --queries 0")
            queries = list(islice(texts.generated(tokenizer, lambda _dice: QUERY_WORDS, seed=1), given.queries))
            report: dict[str, Any] = {
                "machine": {
                    **machine.describe(),
                    **about,
                    **{each: interleaved.version(each) for each in engines.DISTRIBUTIONS},
                },
                "model": engines.MODEL,
                "texts": given.folder.resolve().name if given.folder else "uniform" if given.uniform else "mixed",
                "documents": len(documents),
                "queries": len(queries),
                "tokens": texts.lengths(tokenizer, documents or queries, given.max_length),
                "rounds": given.rounds,
                "runs": [],
            }
            print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
            print(f"{len(documents)} texts ({report['texts']}), tokens: {report['tokens']}, {given.rounds} rounds")
            for threads in given.threads:
                opened = engines.opened(names, engines.Setup(folder, threads, given.max_length, device))
                found = measure(opened, documents, queries, given.rounds)
                report["runs"].append({"threads": threads, **found})
                print(f"\n{threads} threads\n{table(found, len(documents))}")
        except (beir.DataError, FastrankError) as error:
            command.exit(2, f"{command.prog}: error: {error}\n")
        except DifferenceError as error:
            command.exit(1, f"{error}: no figures\n")
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def parser(description: str, names: Sequence[str], documents: int = 512) -> argparse.ArgumentParser:
    """What can be told: to compare these engines, and so many documents, unless it is told otherwise."""
    command = argparse.ArgumentParser(description=description)
    command.add_argument(
        "folder", nargs="?", type=Path, help="a collection in BEIR's layout (default: generated texts)"
    )
    command.add_argument("--documents", type=_count, default=documents, help="0: queries only (default: %(default)s)")
    command.add_argument("--queries", type=_count, default=50, help="a turn; 0: none (default: %(default)s)")
    command.add_argument("--uniform", action="store_true", help="generated texts of 90 to 110 tokens")
    command.add_argument(
        "--max-length", type=_positive, default=256, help="tokens a text may have (default: %(default)s)"
    )
    command.add_argument("--rounds", type=_positive, default=3, help="default: %(default)s")
    command.add_argument("--threads", type=_positive, nargs="+", default=[cpu.available()], help="default: %(default)s")
    command.add_argument("--only", nargs="+", choices=names, default=names, metavar="ENGINE", help="these: %(choices)s")
    command.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    return command


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
