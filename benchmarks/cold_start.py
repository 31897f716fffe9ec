"""From the start of a new process to its first vector: milliseconds, and the memory it then has had at most.

    python benchmarks/cold_start.py                 # about a minute; longer with sentence-transformers
    python benchmarks/cold_start.py --only "fastrank fp32" FastEmbed --rounds 21

Engines as in engines.py, with the weights of all-MiniLM-L6-v2, in turn, medians. Files are in the page cache and
modules are compiled, as each engine has run before anything is timed; fastrank has made its int8 files then, which it
keeps. The interpreter's own start is part of all figures. "import" rows end when the modules are imported; numpy,
onnxruntime and tokenizers are what no engine of this kind can do without.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import engines, folders, interleaved, machine

from fastrank.engine import cpu

MAX_LENGTH = 512


def measure(names: Iterable[str], setup: engines.Setup, rounds: int) -> dict[str, list[engines.Mark]]:
    """The first vectors of each engine that can run here."""
    found: dict[str, list[engines.Mark]] = {}
    for name in names:
        try:
            engines.alone(name, setup)
        except engines.NotHereError as error:
            print(f"not compared: {error}")
        else:
            found[name] = []
    calls = {name: partial(engines.alone, name, setup) for name in found}
    interleaved.seconds(calls, rounds, check=lambda name, marks: found[name].append(marks[0]))
    return found


def median(marks: Sequence[engines.Mark]) -> tuple[float, float]:
    """Seconds and megabytes."""
    return float(np.median([mark.seconds for mark in marks])), float(np.median([mark.peak for mark in marks]))


def table(found: dict[str, list[engines.Mark]]) -> str:
    """One line an engine; ratios are of seconds, to FastEmbed's, or to ours without it."""
    base = engines.BASELINE if engines.BASELINE in found else engines.OURS
    slow, _ = median(found[base])
    lines = [f"{'':40} {'ms':>7} {'MB':>7} {'to ' + base:>14}"]
    for name, marks in found.items():
        seconds, megabytes = median(marks)
        ratio = "" if name in engines.IMPORTS else f"{slow / seconds:13.2f}x"
        lines.append(f"{name:40} {seconds * 1e3:7.0f} {megabytes:7.0f} {ratio}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    known = [*engines.IMPORTS, *(name for name in engines.ON_CPU if not engines.ENGINES[name].tuned)]
    parser = argparse.ArgumentParser(description="Time and memory of a new process's first vector.")
    parser.add_argument("--only", nargs="+", choices=known, metavar="ENGINE", help="these and ours: %(choices)s")
    parser.add_argument("--rounds", type=int, default=11, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=cpu.available(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    given = parser.parse_args(arguments)
    about = {**machine.describe(), **{each: interleaved.version(each) for each in engines.DISTRIBUTIONS}}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    with folders.prepared(parser, given.threads, MAX_LENGTH) as setup:
        names = dict.fromkeys([engines.OURS, *(given.only or known)])
        found = measure(names, setup, given.rounds)
    print(f"\n{table(found)}")
    if given.json:
        report: dict[str, Any] = {"machine": about, "model": engines.MODEL, "threads": given.threads}
        report["marks"] = {name: [mark._asdict() for mark in marks] for name, marks in found.items()}
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
