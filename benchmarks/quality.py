"""How well a model finds documents and judges similarity, on collections that everyone uses.

    python benchmarks/quality.py path/to/scifact path/to/nfcorpus --max-length 256 --json result.json
    python benchmarks/quality.py --sts stsbenchmark.tsv.gz

Retrieval: every folder in BEIR's layout (see fastrank/evaluation/beir.py) gives nDCG@10, MRR@10 and Recall@100, means
over the queries of qrels/test.tsv. The search is exact. A document's text is its title, a space and its text; one that
has the query's own id is no result; equal scores are ordered by descending id. So figures equal BEIR's
(pytrec_eval's). `fastrank eval` has the same methods and metrics, and compares two methods.

Similarity: Spearman's correlation of cosine and gold score over the rows of split "test".

Another method is another function in METHODS.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from common import beir, machine

from fastrank.engine.options import PRECISIONS
from fastrank.errors import FastrankError
from fastrank.evaluation import methods, metrics
from fastrank.evaluation.methods import Outcome

if TYPE_CHECKING:
    from fastrank import TextEmbedding


@dataclass(frozen=True)
class Options:
    """What all methods are told."""

    model: str
    max_length: int | None
    threads: int | None
    similarity: methods.Similarity
    language: str = "english"  # of BM25's stemmer and stop words
    no_stemmer: bool = False  # and no stop words
    precision: str = "auto"  # of the dense model


Method: TypeAlias = "Callable[[Options, beir.Dataset], Outcome]"


def dense(options: Options, dataset: beir.Dataset) -> Outcome:
    """One vector a text, compared by cosine or dot product with all documents."""
    return methods.dense(text_embedding(options), dataset, similarity=options.similarity)


def bm25(options: Options, dataset: beir.Dataset) -> Outcome:
    """Words, by Lucene's formula."""
    from fastrank.bm25 import BM25

    return methods.bm25(BM25(options.language, disable_stemmer=options.no_stemmer), dataset)


def hybrid(options: Options, dataset: beir.Dataset) -> Outcome:
    """Both, by reciprocal rank fusion of the best hundred of each."""
    return methods.hybrid([bm25(options, dataset), dense(options, dataset)])


def colbert(options: Options, dataset: beir.Dataset) -> Outcome:
    """The hundred best by BM25, ranked anew by MaxSim of token vectors."""
    from fastrank import LateInteractionTextEmbedding

    words = bm25(options, dataset)
    model = LateInteractionTextEmbedding(options.model, max_length=options.max_length, threads=options.threads)
    list(model.embed("warm up"))
    return methods.reranked(model, words, dataset)


METHODS: dict[str, Method] = {"dense": dense, "bm25": bm25, "hybrid": hybrid, "colbert": colbert}


@lru_cache(maxsize=1)
def text_embedding(options: Options) -> TextEmbedding:
    """The dense model, loaded once and warm."""
    from fastrank import TextEmbedding

    model = TextEmbedding(
        options.model, max_length=options.max_length, threads=options.threads, precision=options.precision
    )
    list(model.embed("warm up"))
    return model


def retrieval(method: str, options: Options, dataset: beir.Dataset) -> dict[str, Any]:
    """One row of the retrieval table."""
    start = time.perf_counter()
    outcome = METHODS[method](options, dataset)
    return {
        "dataset": dataset.name,
        "documents": outcome.documents,
        "queries": len(dataset.queries),
        **metrics.evaluate(outcome.rankings, dataset.qrels),
        "seconds": time.perf_counter() - start,
        "documents/s": outcome.documents / outcome.encoding if outcome.encoding else 0.0,
    }


def similarity(options: Options, name: str, pairs: beir.Pairs) -> dict[str, Any]:
    """One row of the similarity table."""
    model = text_embedding(options)
    start = time.perf_counter()
    vectors = methods.matrix(model.embed(pairs.first + pairs.second), "cosine").astype(np.float64)
    encoding = time.perf_counter() - start
    first, second = np.split(vectors, 2)
    return {
        "dataset": name,
        "pairs": len(pairs.gold),
        "spearman": metrics.spearman((first * second).sum(axis=1), pairs.gold),
        "seconds": encoding,
        "sentences/s": len(vectors) / encoding,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text in columns, as wide as they need."""
    lines = [list(rows[0]), *([_cell(name, value) for name, value in row.items()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if not given.folders and not given.sts:
        parser.error("name at least one BEIR folder, or --sts FILE")
    options = Options(
        given.model,
        given.max_length,
        given.threads,
        given.similarity,
        given.language,
        given.no_stemmer,
        given.precision,
    )
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "method": given.method,
        **asdict(options),
        "limit": given.limit,
        "retrieval": [],
        "sts": [],
    }
    try:
        datasets = [beir.load(folder, given.limit) for folder in given.folders]
        tables = [(file.name, beir.sts(file, limit=given.limit)) for file in given.sts]
        print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
        print(", ".join(f"{key} {report[key]}" for key in ("method", *asdict(options)) if report[key] is not None))
        if given.limit is not None:
            print(f"LIMITED to {given.limit} documents or pairs: figures compare with nothing")
        for dataset in datasets:
            report["retrieval"].append(retrieval(given.method, options, dataset))
        for name, pairs in tables:
            report["sts"].append(similarity(options, name, pairs))
    except FastrankError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    for rows in (report["retrieval"], report["sts"]):
        if rows:
            print(f"\n{table(rows)}")
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Retrieval and similarity figures of a model.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="a collection in BEIR's layout")
    parser.add_argument(
        "--sts", type=Path, action="append", default=[], metavar="FILE", help="an STS table (.tsv[.gz])"
    )
    parser.add_argument("--method", choices=METHODS, default="dense", help="how to search (default: dense)")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="default: %(default)s")
    parser.add_argument("--max-length", type=_positive, help="tokens a text may have (default: the model's own limit)")
    parser.add_argument("--similarity", choices=("cosine", "dot"), default="cosine", help="default: cosine")
    parser.add_argument("--language", default="english", help="of BM25's words (default: %(default)s)")
    parser.add_argument("--no-stemmer", action="store_true", help="BM25 without stemmer and stop words")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the dense model (default: auto)")
    parser.add_argument("--threads", type=_positive, help="threads of the model (default: fastrank's choice)")
    parser.add_argument("--limit", type=_positive, help="only so many documents or pairs: to try the command")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


def _cell(name: str, value: float | str) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if name in ("seconds", "documents/s", "sentences/s") else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
