"""`fastrank rerank`: the documents that answer a query best, first."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastrank.bulk.reading import Documents, Row, missing
from fastrank.cli import terminal
from fastrank.cli.options import (
    add_long_text_options,
    add_model_options,
    add_text_options,
    add_word_options,
    documents,
    long_text_arguments,
    model_arguments,
    positive,
    refuse_forgotten_query,
)
from fastrank.errors import DownloadError, ModelNotCachedError

SAMPLE = Path(__file__).with_name("films.txt")
_NO_WORDS = "no document has any of these words"


class _Hit(NamedTuple):
    position: int  # among the texts
    score: float


class _Method(NamedTuple):
    rank: Callable[[argparse.Namespace, Sequence[str]], list[_Hit]]
    score: str  # what its scores are


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "rerank",
        help="rank documents by a query",
        description="Rank documents by how well they fit a query. A table on a terminal, JSON lines otherwise: rank, "
        "score, index (of the row in the file, counted from 0) and text. Blank lines are counted, but not ranked.",
        epilog='Example: fastrank rerank "how do I reset my password" faq.csv --field question --keep id --json',
    )
    parser.add_argument("query", metavar="QUERY", help="the text to search for, in quotes if it has several words")
    add_text_options(parser)
    parser.add_argument("--sample", action="store_true", help="rank the 20 film ideas that come with fastrank")
    parser.add_argument(
        "--method",
        choices=tuple(_METHODS),
        default="hybrid",
        help="bm25: words, no model; dense: cosine of vectors; hybrid: both, fused by rank; colbert: one vector per "
        "token, compared by MaxSim; cross-encoder: a model that reads query and document together, named by --model "
        "(%(default)s)",
    )
    add_word_options(parser)
    parser.add_argument("--top-k", type=positive, metavar="N", help="show only the best N")
    parser.add_argument("--json", action="store_true", help="JSON lines, on a terminal too")
    parser.add_argument(
        "--keep",
        metavar="NAMES",
        help="give these other fields of each row back, as `fields` of the JSON lines: names with commas, or all",
    )
    add_long_text_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rank and print."""
    if options.sample:
        options.file, options.format, options.field, options.encoding = str(SAMPLE), "text", None, None
    refuse_forgotten_query(options, "rerank")
    source = documents(options)
    rows = list(source.rows())
    kept = _kept_fields(options, source, rows)
    filled = [position for position, row in enumerate(rows) if row.text.strip()]
    if not filled:
        terminal.note(f"{source.name} has no documents")
        return 0
    method = _METHODS[options.method]
    hits = method.rank(options, [rows[position].text for position in filled])[: options.top_k]
    hits = [_Hit(filled[hit.position], hit.score) for hit in hits]
    if options.json or not terminal.is_shown():
        _print_json(hits, rows, kept)
    else:
        _print_table(hits, rows, method.score)
    return 0


def _kept_fields(
    options: argparse.Namespace, source: Documents, rows: Iterable[Row]
) -> Callable[[Row], dict[str, Any]]:
    """What --keep takes from a row."""
    if options.keep is None:
        return lambda _: {}
    if source.kind == "text":
        raise ValueError(f"--keep {options.keep}: a text file has no fields")
    if options.keep == "all":
        return lambda row: dict(row.fields)
    names = [name.strip() for name in options.keep.split(",")]
    if absent := missing(names, rows):
        raise ValueError(f"--keep {options.keep}: no row of {source.name} has the field {absent[0]!r}")
    return lambda row: {name: row.fields[name] for name in names if name in row.fields}


# -- methods ----------------------------------------------------------------------------------------------------------


def _bm25(options: argparse.Namespace, texts: Sequence[str]) -> list[_Hit]:
    """By BM25; says so if no document has a word of the query."""
    hits = _words(options, texts)
    if not hits[0].score:
        terminal.note(_NO_WORDS)
    return hits


def _words(options: argparse.Namespace, texts: Sequence[str]) -> list[_Hit]:
    """By BM25, with the documents' own statistics; those without a word of the query last."""
    from fastrank.bm25 import BM25, BM25Index

    index = BM25Index(BM25(options.language, analyzer=options.analyzer))
    return _sorted(index.scores(options.query, terminal.progress(texts, "bm25", len(texts))).tolist())


def _dense(options: argparse.Namespace, texts: Sequence[str]) -> list[_Hit]:
    """By cosine."""
    from fastrank import TextEmbedding

    try:
        with TextEmbedding(**model_arguments(options), normalize=True) as model:
            of_texts = long_text_arguments(options)
            query = next(model.query_embed(options.query, prompt=of_texts.pop("prompt", None)))
            if of_texts.get("overflow") == "chunk":  # the best chunk counts
                chunks = terminal.progress(model.embed_chunks(texts, **of_texts), "embed", len(texts))
                return _sorted([float((found.vectors @ query).max()) for found in chunks])
            vectors = terminal.progress(model.passage_embed(texts, **of_texts), "embed", len(texts))
            return _sorted([float(query @ vector) for vector in vectors])
    except (DownloadError, ModelNotCachedError) as error:
        raise type(error)(f"{error}\n`fastrank rerank --method bm25` needs no model.") from error


def _hybrid(options: argparse.Namespace, texts: Sequence[str]) -> list[_Hit]:
    """By reciprocal rank fusion of both."""
    from fastrank.fusion import reciprocal_rank_fusion

    words = [hit.position for hit in _words(options, texts) if hit.score > 0]
    meaning = [hit.position for hit in _dense(options, texts)]
    if not words:
        terminal.note(f"{_NO_WORDS}: ranked by meaning alone")
    return [_Hit(position, score) for position, score in reciprocal_rank_fusion([words, meaning])]


def _colbert(options: argparse.Namespace, texts: Sequence[str]) -> list[_Hit]:
    """By MaxSim of token vectors."""
    from fastrank import LateInteractionTextEmbedding

    with LateInteractionTextEmbedding(**model_arguments(options)) as model:
        scores = model.rerank(options.query, texts, **long_text_arguments(options))
        return _sorted(list(terminal.progress(scores, "colbert", len(texts))))


def _cross_encoder(options: argparse.Namespace, texts: Sequence[str]) -> list[_Hit]:
    """By a model that reads both."""
    from fastrank import TextCrossEncoder

    if options.model is None and options.path is None:
        raise ValueError("--method cross-encoder needs --model, such as Xenova/ms-marco-MiniLM-L-6-v2")
    with TextCrossEncoder(**model_arguments(options)) as model:
        scores = model.rerank(options.query, texts, **long_text_arguments(options))
        return _sorted(list(terminal.progress(scores, "cross-encoder", len(texts))))


_METHODS = {
    "bm25": _Method(_bm25, "BM25: comparable within this list only"),
    "dense": _Method(_dense, "cosine of the vectors, 1 at most"),
    "hybrid": _Method(_hybrid, "RRF: only the order counts"),
    "colbert": _Method(_colbert, "MaxSim: a sum over the query's tokens"),
    "cross-encoder": _Method(_cross_encoder, "relevance as the model states it"),
}


def _sorted(scores: Sequence[float]) -> list[_Hit]:
    """Best first; equal scores in the order of the documents."""
    return sorted((_Hit(position, score) for position, score in enumerate(scores)), key=lambda hit: -hit.score)


# -- output -----------------------------------------------------------------------------------------------------------


def _print_json(hits: Sequence[_Hit], rows: Sequence[Row], kept: Callable[[Row], dict[str, Any]]) -> None:
    for rank, hit in enumerate(hits, 1):
        row = {"rank": rank, "score": round(hit.score, 6), "index": hit.position, "text": rows[hit.position].text}
        if fields := kept(rows[hit.position]):
            row["fields"] = fields
        print(terminal.json_line(row))


def _print_table(hits: Sequence[_Hit], rows: Sequence[Row], score: str) -> None:
    width = max(20, shutil.get_terminal_size().columns - 15)
    print(terminal.bold(f"rank    score  document   ({score})"))
    for rank, hit in enumerate(hits, 1):
        print(f"{rank:>4}  {terminal.bold(f'{hit.score:>7.4f}')}  {terminal.fit(rows[hit.position].text, width)}")
