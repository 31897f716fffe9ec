"""What a precision costs and what it brings, in one table: all-MiniLM-L6-v2 in fp32, int8 and int8-fast.

    python benchmarks/precision.py path/to/scifact path/to/cranfield --sts stsbenchmark.tsv.gz --json result.json

Folders are in BEIR's layout. Of the first one's first 1,000 documents: the cosine of each vector to that in fp32 (mean
and least), the overlap of each text's ten nearest neighbours, and documents a second, all precisions in turn, medians.
nDCG@10 of each folder and Spearman's correlation are those of quality.py. First vector and memory: a new process each
(see engines.py), medians; the memory is the most it had after the same 1,000 documents.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import cold_start
import numpy as np
import quality
from common import beir, engines, interleaved, machine, texts
from numpy.typing import NDArray

from fastrank.engine import cpu
from fastrank.errors import FastrankError

Floats: TypeAlias = NDArray[np.float32]

PRECISIONS = ("fp32", "int8", "int8-fast")
NEIGHBOURS = 10


def neighbours(vectors: Floats) -> NDArray[np.int64]:
    """The nearest texts of each text, without itself."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest: NDArray[np.int64] = np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return nearest


def overlap(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """The share of neighbours that are in both."""
    return float(np.mean([len(np.intersect1d(one, two)) / NEIGHBOURS for one, two in zip(first, second, strict=True)]))


def vectors_and_speed(setup: engines.Setup, documents: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Nearness to fp32 and documents a second."""
    embeds = {name: engines.fastrank(setup, name) for name in PRECISIONS}
    made = {name: np.stack(list(embed(documents))) for name, embed in embeds.items()}  # and warms up
    calls = {name: partial(lambda embed: list(embed(documents)), embed) for name, embed in embeds.items()}
    seconds = interleaved.seconds(calls, rounds)
    rows = {}
    for name, vectors in made.items():
        cosines = (made["fp32"] * vectors).sum(axis=1)
        rows[name] = {
            "cosine": float(cosines.mean()),
            "least": float(cosines.min()),
            "top-10": overlap(neighbours(made["fp32"]), neighbours(vectors)),
            "texts/s": len(documents) / float(np.median(seconds[name])),
        }
        rows[name]["ratio"] = rows[name]["texts/s"] / rows["fp32"]["texts/s"]
    return rows


def footprint(setup: engines.Setup, documents: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds to a new process's first vector, and megabytes: then, and after the documents."""
    found = cold_start.measure([f"fastrank {name}" for name in PRECISIONS], setup, rounds)
    file = setup.folder / "texts.txt"
    texts.write(documents, file)
    rows = {}
    for name in PRECISIONS:
        seconds, megabytes = cold_start.median(found[f"fastrank {name}"])
        *_, last = engines.alone(f"fastrank {name}", setup, file, [len(documents)])
        rows[name] = {"start ms": seconds * 1e3, "start MB": megabytes, "peak MB": last.peak}
    return rows


def qualities(
    name: str, setup: engines.Setup, datasets: Sequence[beir.Dataset], pairs: beir.Pairs | None
) -> dict[str, float]:
    """nDCG@10 of each collection and the correlation."""
    options = quality.Options(engines.MODEL, setup.max_length, setup.threads, "cosine", precision=name)
    row = {each.name: float(quality.retrieval("dense", options, each)["ndcg@10"]) for each in datasets}
    return row if pairs is None else {**row, "STS-B": float(quality.similarity(options, "STS-B", pairs)["spearman"])}


def table(rows: dict[str, dict[str, float]]) -> str:
    """One line a precision."""
    columns = list(rows["fp32"])
    lines = ["".join([f"{'':10}", *(f"{column:>12}" for column in columns)])]
    for name, row in rows.items():
        cells = [f"{row[each]:12.0f}" if each.endswith((" ms", " MB")) else f"{row[each]:12.4f}" for each in columns]
        lines.append("".join([f"{name:10}", *cells]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Quality, speed and footprint of each precision.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a collection in BEIR's layout")
    parser.add_argument("--sts", type=Path, metavar="FILE", help="an STS table (.tsv[.gz])")
    parser.add_argument("--documents", type=int, default=1000, help="for cosines and speed (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="only so many documents or pairs: to try the command")
    parser.add_argument("--max-length", type=int, default=256, help="tokens a text may have (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=cpu.available(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    given = parser.parse_args(arguments)
    if given.documents <= NEIGHBOURS:
        parser.error(f"--documents must be more than {NEIGHBOURS}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        setup = engines.Setup(Path(folder), given.threads, given.max_length)
        try:
            datasets = [beir.load(each, given.limit) for each in given.folders]
            pairs = beir.sts(given.sts, limit=given.limit) if given.sts else None
            documents = texts.collected(given.folders[0], given.documents)
            about = machine.describe()
            print(", ".join(f"{key} {value}" for key, value in about.items()))
            print(f"{engines.MODEL}, {given.threads} threads, {given.max_length} tokens, {len(documents)} texts")
            if given.limit:
                print(f"LIMITED to {given.limit} documents or pairs: figures compare with nothing")
            rows = vectors_and_speed(setup, documents, given.rounds)
            for name, figures in footprint(setup, documents, 2 * given.rounds + 1).items():
                rows[name] |= qualities(name, setup, datasets, pairs) | figures
        except (beir.DataError, FastrankError) as error:
            parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(f"\n{table(rows)}")
    if given.json:
        report: dict[str, Any] = {"machine": about, "model": engines.MODEL, "texts": len(documents), "rows": rows}
        report |= {key: getattr(given, key) for key in ("max_length", "threads", "rounds", "limit")}
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
