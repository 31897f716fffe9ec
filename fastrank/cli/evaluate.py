"""`fastrank eval`: how well a method finds the documents of a test collection, beside another method."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastrank.cli import terminal
from fastrank.cli.options import DEFAULT_MODEL, add_model_options, add_word_options, model_arguments, positive

if TYPE_CHECKING:
    from fastrank.evaluation import Comparison, Dataset, Outcome

_METRICS = "ndcg@10,mrr@10,recall@100"
_NAMES = {"ndcg": "nDCG", "mrr": "MRR", "recall": "Recall"}
_NEED_A_MODEL = {
    "cross-encoder": "Xenova/ms-marco-MiniLM-L-6-v2",
    "sparse": "prithivida/Splade_PP_en_v1",
}
_ROUNDS, _SEED = 10_000, 0


class _Result(NamedTuple):
    method: str
    values: dict[str, dict[str, float]]  # metric -> query id -> value
    seconds: float | None  # None: read from a file
    rankings: Any


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "eval",
        help="measure a method on a test collection",
        description="Rank the documents of a test collection for each of its queries, and compare with its judgements: "
        "means of nDCG@10, MRR@10 and Recall@100 as trec_eval defines them. FOLDER has BEIR's layout: corpus.jsonl, "
        "queries.jsonl and qrels/test.tsv, each also as .gz. With --against a second method, or rankings in a file, "
        "the difference and p of the paired randomisation test: how often chance alone makes one as large.",
        epilog="Example: fastrank eval scifact --method hybrid --against bm25",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a collection in BEIR's layout")
    parser.add_argument(
        "--method",
        choices=tuple(_METHODS),
        default="dense",
        help="bm25: words, no model; dense: cosine of vectors; sparse: dot product of SPLADE vectors; hybrid: bm25 and "
        "dense, fused by rank; colbert and cross-encoder: the best of bm25, ranked anew by MaxSim of token vectors, or "
        "by a model that reads both; sparse and cross-encoder need --model (%(default)s)",
    )
    parser.add_argument(
        "--against",
        metavar="METHOD|FILE",
        help="a second method, with the same options, or a run that --save-run wrote",
    )
    parser.add_argument("--against-model", metavar="MODEL", help="the model of the second method (--model)")
    parser.add_argument("--metrics", default=_METRICS, metavar="NAMES", help="ndcg@k, mrr@k, recall@k (%(default)s)")
    parser.add_argument("--split", default="test", help="judgements are in qrels/SPLIT.tsv (%(default)s)")
    parser.add_argument(
        "--depth", type=positive, default=100, metavar="N", help="documents ranked for each query (%(default)s)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only so many documents: to try the command")
    parser.add_argument("--save-run", metavar="FILE", help="write the rankings as trec_eval reads them")
    parser.add_argument("--json", action="store_true", help="one JSON object for each collection")
    add_word_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    from fastrank.evaluation import load
    from fastrank.evaluation.metrics import metric

    names = [name.strip().lower() for name in options.metrics.split(",")]
    deepest = max(metric(name)[1] for name in names)
    if deepest > options.depth:
        raise ValueError(f"--metrics {options.metrics} looks at {deepest} documents: give --depth {deepest}")
    if options.save_run and len(options.folders) > 1:
        raise ValueError(f"--save-run {options.save_run}: there are {len(options.folders)} FOLDERs, and one file")
    _check_methods(options)
    for folder in options.folders:
        dataset = load(folder, options.limit, options.split)
        results = [_measured(options, options.method, options.model, dataset, names)]
        if options.save_run:
            _save(options, results[0])
        if options.against:
            second = options.against_model or options.model
            results.append(_measured(options, options.against, second, dataset, names))
        _print(options, dataset, names, results)
    return 0


def _check_methods(options: argparse.Namespace) -> None:
    """Refuse before any work is done."""
    if options.against_model and not options.against:
        raise ValueError("--against-model needs --against METHOD")
    if options.against and options.against not in _METHODS and not Path(options.against).is_file():
        raise ValueError(
            f"--against {options.against}: neither a method ({', '.join(_METHODS)}) nor a file that --save-run wrote"
        )
    models = {options.method: options.model, options.against: options.against_model or options.model}
    for method, such in _NEED_A_MODEL.items():
        if method in models and models[method] is None and options.path is None:
            raise ValueError(f"The method {method} needs --model, such as {such}")


def _measured(
    options: argparse.Namespace, method: str, model: str | None, dataset: Dataset, names: Sequence[str]
) -> _Result:
    from fastrank.evaluation import per_query, read_run

    start = time.perf_counter()
    if method in _METHODS:
        arguments = model_arguments(argparse.Namespace(**{**vars(options), "model": model}))
        rankings = _METHODS[method](options, arguments, dataset).rankings
        name = method if method == "bm25" else f"{method} {model or options.path or DEFAULT_MODEL}"
        if method == "bm25" and options.analyzer:
            name = f"{method} {options.analyzer}"
        return _Result(name, per_query(rankings, dataset.qrels, names), time.perf_counter() - start, rankings)
    rankings = read_run(method)
    return _Result(method, per_query(rankings, dataset.qrels, names), None, rankings)


def _save(options: argparse.Namespace, result: _Result) -> None:
    from fastrank.evaluation import write_run

    write_run(options.save_run, result.rankings, result.method.replace(" ", "_"))


# -- methods ----------------------------------------------------------------------------------------------------------


def _shown(name: str) -> Callable[[Any], Any]:
    return lambda documents: terminal.progress(documents, name, None)


def _bm25(options: argparse.Namespace, _arguments: dict[str, Any], dataset: Dataset) -> Outcome:
    from fastrank.bm25 import BM25
    from fastrank.evaluation import bm25

    return bm25(BM25(options.language, analyzer=options.analyzer), dataset, options.depth, _shown("bm25"))


def _dense(options: argparse.Namespace, arguments: dict[str, Any], dataset: Dataset) -> Outcome:
    from fastrank import TextEmbedding
    from fastrank.evaluation import dense

    with TextEmbedding(**arguments) as model:
        return dense(model, dataset, options.depth, shown=_shown("embed"))


def _sparse(options: argparse.Namespace, arguments: dict[str, Any], dataset: Dataset) -> Outcome:
    from fastrank import SparseTextEmbedding
    from fastrank.evaluation import sparse

    with SparseTextEmbedding(**arguments) as model:
        listed = {row["model"]: row["requires_idf"] for row in model.list_supported_models()}
        if listed.get(model.model_name):
            raise ValueError(f"{model.model_name} leaves the IDF to a vector store. For BM25 there is --method bm25")
        return sparse(model, dataset, options.depth, _shown("sparse"))


def _hybrid(options: argparse.Namespace, arguments: dict[str, Any], dataset: Dataset) -> Outcome:
    from fastrank.evaluation import hybrid

    outcomes = [_bm25(options, arguments, dataset), _dense(options, arguments, dataset)]
    return hybrid(outcomes, options.depth)


def _colbert(options: argparse.Namespace, arguments: dict[str, Any], dataset: Dataset) -> Outcome:
    from fastrank import LateInteractionTextEmbedding
    from fastrank.evaluation import reranked

    with LateInteractionTextEmbedding(**arguments) as model:
        words = _bm25(options, arguments, dataset)
        return reranked(model, words, dataset, options.depth, _shown("colbert"))


def _cross_encoder(options: argparse.Namespace, arguments: dict[str, Any], dataset: Dataset) -> Outcome:
    from fastrank import TextCrossEncoder
    from fastrank.evaluation import reranked

    with TextCrossEncoder(**arguments) as model:
        words = _bm25(options, arguments, dataset)
        return reranked(model, words, dataset, options.depth, lambda documents: documents)


_METHODS: dict[str, Callable[[argparse.Namespace, dict[str, Any], Any], Any]] = {
    "bm25": _bm25,
    "dense": _dense,
    "sparse": _sparse,
    "hybrid": _hybrid,
    "colbert": _colbert,
    "cross-encoder": _cross_encoder,
}


# -- output -----------------------------------------------------------------------------------------------------------


def _print(options: argparse.Namespace, dataset: Dataset, names: Sequence[str], results: Sequence[_Result]) -> None:
    from fastrank.evaluation import compare

    means = [{name: sum(of.values()) / len(of) for name, of in result.values.items()} for result in results]
    compared = {}
    if len(results) == 2:
        compared = {name: compare(results[0].values[name], results[1].values[name], _ROUNDS, _SEED) for name in names}
    if options.json:
        row: dict[str, Any] = {"collection": dataset.name, "split": options.split, "queries": len(dataset.queries)}
        row["methods"] = [
            {"method": result.method, **mean, "seconds": result.seconds}
            for result, mean in zip(results, means, strict=True)
        ]
        if compared:
            row["comparison"] = {name: each._asdict() for name, each in compared.items()}
            row["test"] = {"name": "paired randomisation, two-sided", "rounds": _ROUNDS, "seed": _SEED}
        if options.limit:
            row["limit"] = options.limit
        print(terminal.json_line(row))
        return
    print(terminal.bold(f"{dataset.name}, {options.split}: {len(dataset.queries)} queries"))
    if options.limit:
        print(f"LIMITED to {options.limit} documents: these figures compare with nothing")
    rows = [["", *map(_title, names), "seconds"]]
    for result, mean in zip(results, means, strict=True):
        seconds = "" if result.seconds is None else f"{result.seconds:.1f}"
        rows.append([result.method, *(f"{mean[name]:.4f}" for name in names), seconds])
    if compared:
        rows.append(["difference", *(f"{compared[name].difference:+.4f}" for name in names), ""])
        rows.append(["p", *(f"{compared[name].p:.4f}" for name in names), ""])
        rows.append(["queries better/worse", *(_sides(compared[name]) for name in names), ""])
    for line in _columns(rows):
        print(line)
    if compared:
        print(f"p: paired randomisation test, two-sided, {_ROUNDS:,} rounds, seed {_SEED}; below 0.05 is rarely chance")


def _title(name: str) -> str:
    kind, _, k = name.partition("@")
    return f"{_NAMES[kind]}@{k}"


def _sides(comparison: Comparison) -> str:
    return f"{comparison.better}/{comparison.worse}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
