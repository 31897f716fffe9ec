"""How well a model finds documents and judges similarity, on collections that everyone uses.

    python benchmarks/quality.py path/to/scifact path/to/nfcorpus --max-length 256 --json result.json
    python benchmarks/quality.py --sts stsbenchmark.tsv.gz

Retrieval: every folder in BEIR's layout (see beir.py) gives nDCG@10, MRR@10 and Recall@100, means over the queries
of qrels/test.tsv. The search is exact. A document's text is its title, a space and its text; a document that has the
query's own id is no result; equal scores are ordered by descending id. So figures equal BEIR's (pytrec_eval's).

Similarity: Spearman's correlation of cosine and gold score over the rows of split "test".

Another method is another function in METHODS.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from common import beir, machine, metrics
from common.search import Best

from fastrank.engine.options import PRECISIONS
from fastrank.errors import FastrankError
from fastrank.fusion import reciprocal_rank_fusion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastrank import TextEmbedding

DEPTH = 100  # documents ranked for each query: what Recall@100 needs
BLOCK = 4096  # document vectors in memory at once


@dataclass(frozen=True)
class Options:
    """What all methods are told."""

    model: str
    max_length: int | None
    threads: int | None
    similarity: str  # cosine or dot
    language: str = "english"  # of BM25's stemmer and stop words
    no_stemmer: bool = False  # and no stop words
    precision: str = "auto"  # of the dense model


@dataclass(frozen=True)
class Outcome:
    """What a method did on one dataset."""

    rankings: dict[str, list[str]]  # query id -> document ids, best first
    documents: int
    encoding: float  # seconds spent on making the documents' vectors


Method: TypeAlias = Callable[[Options, beir.Dataset], Outcome]


def dense(options: Options, dataset: beir.Dataset) -> Outcome:
    """One vector a text, compared by cosine or dot product with all documents."""
    model = text_embedding(options)
    queries = _matrix(model.query_embed(list(dataset.queries.values())), options.similarity)
    best = Best(list(dataset.queries), DEPTH)
    for_ids, for_texts = tee(dataset.documents())
    ids = (document.id for document in for_ids)
    vectors = iter(model.passage_embed(document.text for document in for_texts))
    documents, encoding = 0, 0.0
    while True:
        start = time.perf_counter()
        block = list(islice(vectors, BLOCK))
        encoding += time.perf_counter() - start
        if not block:
            return Outcome(best.rankings(), documents, encoding)
        documents += len(block)
        best.add_vectors(queries, list(islice(ids, len(block))), _matrix(block, options.similarity))


def bm25(options: Options, dataset: beir.Dataset) -> Outcome:
    """Words, by Lucene's formula (`fastrank.bm25.BM25Index`)."""
    from fastrank.bm25 import BM25, BM25Index

    start = time.perf_counter()
    for_ids, for_texts = tee(dataset.documents())
    index = BM25Index(BM25(options.language, disable_stemmer=options.no_stemmer))
    index.add(document.text for document in for_texts)
    ids = [document.id for document in for_ids]
    encoding = time.perf_counter() - start
    best = Best(list(dataset.queries), DEPTH)
    for number, query in enumerate(dataset.queries.values()):
        positions, scores = index.search(query, DEPTH + 1)
        if len(positions):
            best.add([ids[at] for at in positions.tolist()], scores[None], number)
    return Outcome(best.rankings(), len(ids), encoding)


def hybrid(options: Options, dataset: beir.Dataset) -> Outcome:
    """Both, by reciprocal rank fusion of the best hundred of each."""
    words, meaning = bm25(options, dataset), dense(options, dataset)
    rankings = {}
    for query in dataset.queries:
        lists = [outcome.rankings.get(query, []) for outcome in (words, meaning)]
        ids = list(dict.fromkeys(chain.from_iterable(lists)))
        numbers = {document: number for number, document in enumerate(ids)}
        fused = reciprocal_rank_fusion([[numbers[document] for document in ranking] for ranking in lists])
        rankings[query] = [ids[number] for number, _ in fused[:DEPTH]]
    return Outcome(rankings, meaning.documents, words.encoding + meaning.encoding)


def colbert(options: Options, dataset: beir.Dataset) -> Outcome:
    """The hundred best by BM25, ranked anew by MaxSim of token vectors; each is embedded once, and kept in float16."""
    from fastrank import LateInteractionTextEmbedding
    from fastrank.maxsim import maxsim

    words = bm25(options, dataset)
    model = LateInteractionTextEmbedding(options.model, max_length=options.max_length, threads=options.threads)
    list(model.embed("warm up"))
    start = time.perf_counter()
    wanted = set(chain.from_iterable(words.rankings.values()))
    found = [document for document in dataset.documents() if document.id in wanted]
    vectors = {
        document.id: tokens.astype(np.float16)
        for document, tokens in zip(found, model.embed(each.text for each in found), strict=True)
    }
    encoding = time.perf_counter() - start
    rankings = {}
    for query, tokens in zip(dataset.queries, model.query_embed(dataset.queries.values()), strict=True):
        candidates = words.rankings[query]
        scores = maxsim(tokens, [vectors[document] for document in candidates])
        rankings[query] = [
            each for _, each in metrics.ranked(list(zip(scores.tolist(), candidates, strict=True)), DEPTH)
        ]
    return Outcome(rankings, len(found), encoding)


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
    vectors = _matrix(model.embed(pairs.first + pairs.second), "cosine").astype(np.float64)
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
    except (beir.DataError, FastrankError) as error:
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


def _matrix(vectors: Iterable[NDArray[np.float32]], similarity: str) -> NDArray[np.float32]:
    """Vectors as rows, for cosine of length 1."""
    rows: NDArray[np.float32] = np.stack(list(vectors)).astype(np.float32, copy=False)
    if similarity == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows


def _cell(name: str, value: float | str) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if name in ("seconds", "documents/s", "sentences/s") else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
