"""The memory of a process that embeds a corpus, and whether speed and memory stay as they are while the corpus grows.

    python benchmarks/memory.py                                            # about 5 minutes
    python benchmarks/memory.py --only "fastrank fp32" FastEmbed --growth 1000 10000

Each engine (see engines.py) has a process of its own and reads texts from a file, line by line; vectors are dropped.
"Peak" is of 1,000 generated texts of mixed length: a median of 80 tokens, cut at 256. "Growth" is of texts of 22
tokens or fewer: one process an engine goes through the largest corpus, and tells at each size how many texts a second
it did since the size before, and what it holds. It shows our engines, unless --only names others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from common import engines, folders, interleaved, machine, texts

from fastrank.engine import cpu

MAX_LENGTH = 256
SHORT = (8, 20)  # words

Marks = dict[str, list[engines.Mark]]


def measure(
    names: Iterable[str], setup: engines.Setup, length: Callable[[texts.Dice], int], sizes: Sequence[int]
) -> Marks:
    """What each engine that can run here holds at its first vector and after so many texts."""
    file = setup.folder / "texts.txt"
    texts.write(islice(texts.generated(setup.folder / "tokenizer.json", length), max(sizes)), file)
    found = {}
    for name in names:
        try:
            found[name] = engines.alone(name, setup, file, sizes)
        except engines.NotHereError as error:
            print(f"not measured: {error}")
    return found


def peak_table(found: Marks) -> str:
    """One line an engine; the ratio is FastEmbed's memory to this one's, or without it that of ours."""
    most = found[engines.BASELINE if engines.BASELINE in found else engines.OURS][-1].peak
    lines = [f"{'':36} {'first MB':>9} {'peak MB':>9} {'ratio':>8}"]
    for name, (first, *_, last) in found.items():
        lines.append(f"{name:36} {first.peak:9.0f} {last.peak:9.0f} {most / last.peak:7.1f}x")
    return "\n".join(lines)


def growth_table(found: Marks) -> str:
    """One line an engine and size."""
    lines = [f"{'':36} {'texts':>9} {'texts/s':>9} {'MB':>9} {'peak MB':>9}"]
    for name, marks in found.items():
        for before, mark in pairwise(marks):
            speed = (mark.documents - before.documents) / (mark.seconds - before.seconds)
            lines.append(f"{name:36} {mark.documents:9,} {speed:9.0f} {mark.resident:9.0f} {mark.peak:9.0f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    ours = [name for name in engines.ON_CPU if name.startswith("fastrank") and not engines.ENGINES[name].tuned]
    parser = argparse.ArgumentParser(description="Memory of a process that embeds a corpus.")
    parser.add_argument("--only", nargs="+", choices=engines.ON_CPU, metavar="ENGINE", help="these: %(choices)s")
    parser.add_argument("--documents", type=int, default=1000, help="of the peak (default: %(default)s)")
    parser.add_argument(
        "--growth", type=int, nargs="+", default=[1000, 10_000, 100_000], metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=cpu.available(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    given = parser.parse_args(arguments)
    about = {**machine.describe(), **{each: interleaved.version(each) for each in engines.DISTRIBUTIONS}}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    with folders.prepared(parser, given.threads, MAX_LENGTH) as setup:
        names = dict.fromkeys([engines.OURS, *(given.only or engines.ON_CPU)])
        peak = measure(names, setup, texts.mixed, [given.documents])
        print(f"\n{given.documents} texts\n{peak_table(peak)}")
        growth = measure(given.only or ours, setup, lambda dice: dice.randint(*SHORT), sorted(given.growth))
        print(f"\nGrowth\n{growth_table(growth)}")
    if given.json:
        report: dict[str, Any] = {"machine": about, "model": engines.MODEL, "threads": given.threads}
        for key, found in (("peak", peak), ("growth", growth)):
            report[key] = {name: [mark._asdict() for mark in marks] for name, marks in found.items()}
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
