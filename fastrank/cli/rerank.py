"""`fastrank rerank`: the documents that answer a query best, first."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastrank.cli.options import add_model_options, add_text_options, model_arguments, read_texts

SAMPLE = Path(__file__).parent.parent / "samples" / "films.txt"


class _Hit(NamedTuple):
    score: float
    position: int
    text: str


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "rerank",
        help="rank documents by a query",
        description="Rank documents by how well they fit a query: cosine similarity of dense vectors. A table on a "
        "terminal, JSON lines otherwise.",
    )
    parser.add_argument("query", help="what is looked for")
    add_text_options(parser)
    parser.add_argument("--sample", action="store_true", help="rank the 20 film ideas that come with fastrank")
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
    hits = _ranked(options, documents)[: options.top_k]
    if options.json or not sys.stdout.isatty():
        for rank, hit in enumerate(hits, 1):
            print(
                json.dumps(
                    {"rank": rank, "score": hit.score, "index": hit.position, "text": hit.text}, ensure_ascii=False
                )
            )
    else:
        _table(hits)
    return 0


def _ranked(options: argparse.Namespace, documents: Sequence[str]) -> list[_Hit]:
    """Best first; equal scores in the order of the documents."""
    if not documents:
        return []
    from fastrank import TextEmbedding

    with TextEmbedding(**model_arguments(options), normalize=True) as model:
        print(f"fastrank: no reranker yet: scores are cosines of {model.model_name}", file=sys.stderr)
        query = next(model.query_embed(options.query))
        hits = [
            _Hit(round(float(query @ vector), 6), position, documents[position])
            for position, vector in enumerate(model.passage_embed(documents))
        ]
    return sorted(hits, key=lambda hit: -hit.score)


def _table(hits: Sequence[_Hit]) -> None:
    width = max(20, shutil.get_terminal_size().columns - 15)
    for rank, hit in enumerate(hits, 1):
        text = " ".join(hit.text.split())
        print(f"{rank:>4}  {hit.score:>7.4f}  {text if len(text) <= width else text[: width - 1] + '…'}")
