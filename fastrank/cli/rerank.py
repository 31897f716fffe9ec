"""`fastrank rerank`: the documents that answer a query best, first."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastrank.bm25 import LANGUAGES
from fastrank.cli.options import add_model_options, add_text_options, model_arguments, read_texts
from fastrank.errors import DownloadError, ModelNotCachedError

SAMPLE = Path(__file__).with_name("films.txt")


class _Hit(NamedTuple):
    position: int
    score: float


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "rerank",
        help="rank documents by a query",
        description="Rank documents by how well they fit a query. A table on a terminal, JSON lines otherwise.",
    )
    parser.add_argument("query", help="what is looked for")
    add_text_options(parser)
    parser.add_argument("--sample", action="store_true", help="rank the 20 film ideas that come with fastrank")
    parser.add_argument(
        "--method",
        choices=tuple(_METHODS),
        default="hybrid",
        help="bm25: words, no model; dense: cosine of vectors; hybrid: both, fused by rank; colbert: a vector a "
        "token, compared by MaxSim; cross-encoder: a model that reads query and document together, named by --model "
        "(%(default)s)",
    )
    parser.add_argument("--language", choices=LANGUAGES, default="english", help="of the words, for bm25 (%(default)s)")
    parser.add_argument("--top-k", type=int, metavar="N", help="show only the best N")
    parser.add_argument("--json", action="store_true", help="JSON lines, on a terminal too")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rank and print."""
    if options.top_k is not None and options.top_k < 1:
        raise ValueError(f"--top-k must be >= 1, got {options.top_k}")
    if options.sample:
        options.file, options.field = str(SAMPLE), None
    documents = list(read_texts(options))
    hits = _METHODS[options.method](options, documents)[: options.top_k] if documents else []
    if options.json or not sys.stdout.isatty():
        for rank, hit in enumerate(hits, 1):
            row = {"rank": rank, "score": round(hit.score, 6), "index": hit.position, "text": documents[hit.position]}
            print(json.dumps(row, ensure_ascii=False))
    else:
        _table(hits, documents)
    return 0


def _bm25(options: argparse.Namespace, documents: Sequence[str]) -> list[_Hit]:
    """By BM25, with the documents' own statistics; those without a word of the query last."""
    from fastrank.bm25 import BM25, BM25Index

    return _sorted(BM25Index(BM25(options.language)).scores(options.query, documents).tolist())


def _dense(options: argparse.Namespace, documents: Sequence[str]) -> list[_Hit]:
    """By cosine."""
    from fastrank import TextEmbedding

    try:
        with TextEmbedding(**model_arguments(options), normalize=True) as model:
            query = next(model.query_embed(options.query))
            return _sorted([float(query @ vector) for vector in model.passage_embed(documents)])
    except (DownloadError, ModelNotCachedError) as error:
        raise type(error)(f"{error}\n`fastrank rerank --method bm25` needs no model.") from error


def _hybrid(options: argparse.Namespace, documents: Sequence[str]) -> list[_Hit]:
    """By reciprocal rank fusion of both."""
    from fastrank.fusion import reciprocal_rank_fusion

    words = [hit.position for hit in _bm25(options, documents) if hit.score > 0]
    meaning = [hit.position for hit in _dense(options, documents)]
    return [_Hit(position, score) for position, score in reciprocal_rank_fusion([words, meaning])]


def _colbert(options: argparse.Namespace, documents: Sequence[str]) -> list[_Hit]:
    """By MaxSim of token vectors."""
    from fastrank import LateInteractionTextEmbedding

    with LateInteractionTextEmbedding(**model_arguments(options)) as model:
        return _sorted(list(model.rerank(options.query, documents)))


def _cross_encoder(options: argparse.Namespace, documents: Sequence[str]) -> list[_Hit]:
    """By a model that reads both."""
    from fastrank import TextCrossEncoder

    if options.model is None and options.path is None:
        raise ValueError("--method cross-encoder needs --model, such as Xenova/ms-marco-MiniLM-L-6-v2")
    with TextCrossEncoder(**model_arguments(options)) as model:
        return _sorted(list(model.rerank(options.query, documents)))


_METHODS: dict[str, Callable[[argparse.Namespace, Sequence[str]], list[_Hit]]] = {
    "bm25": _bm25,
    "dense": _dense,
    "hybrid": _hybrid,
    "colbert": _colbert,
    "cross-encoder": _cross_encoder,
}


def _sorted(scores: Sequence[float]) -> list[_Hit]:
    """Best first; equal scores in the order of the documents."""
    return sorted((_Hit(position, score) for position, score in enumerate(scores)), key=lambda hit: -hit.score)


def _table(hits: Sequence[_Hit], documents: Sequence[str]) -> None:
    width = max(20, shutil.get_terminal_size().columns - 15)
    for rank, hit in enumerate(hits, 1):
        text = " ".join(documents[hit.position].split())
        print(f"{rank:>4}  {hit.score:>7.4f}  {text if len(text) <= width else text[: width - 1] + '…'}")
