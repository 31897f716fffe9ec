"""MaxSim of one query and many documents, beside the lower bound: the bare product of the same arrays.

    python benchmarks/maxsim.py
    python benchmarks/maxsim.py --documents 10000 --json result.json

All arms run in turn in this process on the same random vectors of length 1. "product" is one matrix product of the
query and all tokens, which no method can do without, and nothing else. Every score is compared with the plain loop's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from common import interleaved, machine
from numpy.typing import NDArray

from fastrank.maxsim import maxsim

Floats: TypeAlias = NDArray[np.float32]

PRODUCT, LOOP = "product", "numpy loop"
LOW, HIGH = 120, 241  # tokens a document: 180 on average
TOLERANCE = 1e-3  # float16 rounds vectors to 11 bits


def arms(documents: int, tokens: int, dim: int) -> interleaved.Arms:
    """The ways to come to the scores, and the product."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(LOW, HIGH, documents)
    store = _unit(generator.normal(size=(int(lengths.sum()), dim)))
    query = _unit(generator.normal(size=(tokens, dim)))
    ragged = np.split(store, np.cumsum(lengths)[:-1])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros((documents, lengths.max(), dim), np.float32)
    padded[mask] = store
    half = store.astype(np.float16)

    def einsum() -> Floats:
        products = np.einsum("qd,ntd->nqt", query, padded)
        found: Floats = np.where(mask[:, None], products, -np.inf).max(axis=2).sum(axis=1)
        return found

    return {
        PRODUCT: lambda: query @ store.T,
        "maxsim": lambda: maxsim(query, store, lengths),
        "maxsim, list": lambda: maxsim(query, ragged),
        "maxsim, padded": lambda: maxsim(query, padded, mask=mask),
        "maxsim, float16": lambda: maxsim(query, half, lengths),
        LOOP: lambda: np.array([(query @ document.T).max(axis=1).sum() for document in ragged]),
        "padded einsum": einsum,
    }


def table(seconds: dict[str, list[float]]) -> str:
    """One line an arm; ratios are of medians, to the product's."""
    bound = float(np.median(seconds[PRODUCT]))
    lines = [f"{'':16} {'p50 ms':>8} {'min ms':>8} {'ratio':>7}"]
    lines += [
        f"{name:16} {np.median(values) * 1e3:8.2f} {min(values) * 1e3:8.2f} {np.median(values) / bound:6.2f}x"
        for name, values in seconds.items()
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The speed of MaxSim beside its lower bound.")
    parser.add_argument("--documents", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=32, help="of the query (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    given = parser.parse_args(arguments)
    calls = arms(given.documents, given.tokens, given.dim)
    expected = calls[LOOP]()

    def check(name: str, scores: Floats) -> None:
        if name != PRODUCT and not np.abs(scores - expected).max() <= TOLERANCE * given.tokens:
            parser.exit(1, f"{name} differs from the loop: no figures\n")

    seconds = interleaved.seconds(calls, given.rounds, check=check)
    about = machine.describe()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{given.documents} documents of {LOW} to {HIGH - 1} tokens, {given.dim} numbers a token, ", end="")
    print(f"a query of {given.tokens} tokens, {given.rounds} rounds\n")
    print(table(seconds))
    if given.json:
        report = {"machine": about, **{key: value for key, value in vars(given).items() if key != "json"}}
        given.json.write_text(json.dumps({**report, "seconds": seconds}, indent=1) + "\n", encoding="utf-8")
    return 0


def _unit(rows: NDArray[np.float64]) -> Floats:
    units: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return units


if __name__ == "__main__":
    sys.exit(main())
