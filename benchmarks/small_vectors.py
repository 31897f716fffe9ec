"""What small vectors cost in search: nDCG@10 of each type of numbers, searched as they are and rescored.

    python benchmarks/small_vectors.py path/to/scifact path/to/cranfield --json benchmarks/results/small_vectors.json

Vectors are made once, in float32; the other types are made of them. The ranges of int8 and uint8 come from the vectors
of the first 1,000 documents. "signs" compares by Hamming distance, "rescored" takes the best 40 of it for 10 results
and orders them by the dot product of the float32 query with the type in the column.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import machine
from numpy.typing import NDArray

from fastrank.evaluation import beir, metrics
from fastrank.evaluation.search import Best
from fastrank.postprocess import quantization

DEPTH = 100
OVERSAMPLE = 4
CALIBRATION = 1000  # documents


def encoded(folder: Path, options: argparse.Namespace) -> tuple[beir.Dataset, list[str], Any, Any]:
    """A collection with the vectors of its documents and queries, L2-normalized."""
    from fastrank import TextEmbedding

    dataset = beir.load(folder, options.limit)
    with TextEmbedding(options.model, max_length=options.max_length, threads=options.threads) as model:
        documents = list(dataset.documents())
        rows = np.stack(list(model.passage_embed((each.text for each in documents), show_progress=True)))
        queries = np.stack(list(model.query_embed(dataset.queries.values())))
    return dataset, [each.id for each in documents], unit(rows), unit(queries)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    units: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return units


def by_product(dataset: beir.Dataset, ids: Sequence[str], queries: Any, rows: Any) -> float:
    """nDCG@10 of the dot products of all documents."""
    best = Best(list(dataset.queries), DEPTH)
    best.add_vectors(queries.astype(np.float32), ids, rows.astype(np.float32))
    return metrics.evaluate(best.rankings(), dataset.qrels)["ndcg@10"]


def by_signs(dataset: beir.Dataset, ids: Sequence[str], queries: Any, rows: Any, better: Any, ranges: Any) -> float:
    """nDCG@10 of signs: as they are, or their best ordered by better vectors of the same documents."""
    rankings = {}
    for query, vector in zip(dataset.queries, queries, strict=True):
        if better is None:
            asked = quantization.quantize(vector, "ubinary")
            apart = np.unpackbits(rows ^ asked, axis=1).sum(axis=1)
            found: Iterable[int] = np.argsort(apart, kind="stable")[: DEPTH + 1]
        else:
            found, _ = quantization.search(vector, rows, 11, ranges=ranges, oversample=OVERSAMPLE, rescore_with=better)
        rankings[query] = [ids[position] for position in found if ids[position] != query]
    return metrics.evaluate(rankings, dataset.qrels)["ndcg@10"]


def figures(dataset: beir.Dataset, ids: Sequence[str], rows: Any, queries: Any) -> dict[str, float]:
    """nDCG@10 by form of the vectors."""
    ranges = quantization.calibrate(rows[:CALIBRATION])
    size = rows.shape[1]
    signs = quantization.quantize(rows, "ubinary")

    def restored(dtype: str, used: Any) -> Any:
        return quantization.dequantize(quantization.quantize(rows, dtype, used), size, used)

    small = quantization.quantize(rows, "int8", ranges)
    found = {
        "float32": by_product(dataset, ids, queries, rows),
        "float16": by_product(dataset, ids, queries, quantization.quantize(rows, "float16")),
        "int8": by_product(dataset, ids, queries, restored("int8", ranges)),
        "uint8": by_product(dataset, ids, queries, restored("uint8", ranges)),
        'int8, ranges="unit"': by_product(dataset, ids, queries, restored("int8", "unit")),
        "int8, both sides, as integers": by_product(
            dataset, ids, quantization.quantize(queries, "int8", ranges), small
        ),
        "signs (binary, ubinary)": by_signs(dataset, ids, queries, signs, None, None),
        "signs, rescored with signs": by_signs(dataset, ids, queries, signs, signs, None),
        "signs, rescored with int8": by_signs(dataset, ids, queries, signs, small, ranges),
        "signs, rescored with float32": by_signs(dataset, ids, queries, signs, rows, None),
    }
    for dim in (size // 2, size // 4):
        short = [quantization.truncate(each, dim, normalize=True) for each in (queries, rows)]
        found[f"float32, first {dim} numbers"] = by_product(dataset, ids, *short)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="What small vectors cost in search.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a collection in BEIR's layout")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="default: %(default)s")
    parser.add_argument("--max-length", type=int, help="tokens a text may have (default: the model's own limit)")
    parser.add_argument("--threads", type=int, help="default: fastrank's choice")
    parser.add_argument("--limit", type=int, help="only so many documents: to try the command")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "model": options.model,
        "limit": options.limit,
        "ndcg@10": {},
    }
    for folder in options.folders:
        report["ndcg@10"][folder.resolve().name] = figures(*encoded(folder, options))
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    names = list(report["ndcg@10"])
    print("\n| vectors | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
    for form in report["ndcg@10"][names[0]]:
        print(f"| {form} | " + " | ".join(f"{report['ndcg@10'][name][form]:.4f}" for name in names) + " |")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
