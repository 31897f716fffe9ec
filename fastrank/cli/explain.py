"""`fastrank explain`: why a document is ranked where it is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastrank.bulk.reading import Row
from fastrank.cli import terminal, writing
from fastrank.cli.options import (
    add_model_options,
    add_text_options,
    add_word_options,
    documents,
    model_arguments,
    positive,
    refuse_forgotten_query,
)

_METHODS = ("colbert", "bm25", "hybrid")


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "explain",
        help="show why a document fits a query",
        description="Show what makes up the score of the best document, or of others. colbert: for each token of the "
        "query the token of the document that it meets best; bm25: the terms and their weights; hybrid: the ranks that "
        "were fused. Text, or JSON lines with --json; --svg and --html write a heat map of tokens, for colbert.",
        epilog='Example: fastrank explain "capital of France" --text "Paris is its capital." --svg heat.svg',
    )
    parser.add_argument("query", metavar="QUERY", help="the text to search for, in quotes if it has several words")
    add_text_options(parser)
    parser.add_argument("--text", metavar="TEXT", help="the one document, instead of FILE")
    parser.add_argument(
        "--method", choices=_METHODS, default="colbert", help="how the documents are ranked (%(default)s)"
    )
    parser.add_argument("--index", type=_row, metavar="N", help="explain the document in row N of FILE, from 0")
    parser.add_argument(
        "--top-k", type=positive, default=1, metavar="N", help="explain the best N documents (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--svg", metavar="FILE", help="write a heat map of the best document's tokens as an image")
    parser.add_argument("--html", metavar="FILE", help="write it as a page")
    add_word_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rank, explain and print."""
    for name in ("svg", "html"):
        if (path := getattr(options, name)) is not None:
            if options.method != "colbert":
                raise ValueError(f"--{name} draws tokens: it needs --method colbert")
            writing.check(Path(path), None)
    rows, name = _rows(options)
    filled = [position for position, row in enumerate(rows) if row.text.strip()]
    if not filled:
        terminal.note(f"{name} has no documents")
        return 0
    if options.index is not None and options.index not in filled:
        there = f"{name} has rows 0 to {len(rows) - 1}" if options.index >= len(rows) else "that row is blank"
        raise ValueError(f"--index {options.index}: {there}")
    explain = {"colbert": _colbert, "bm25": _bm25, "hybrid": _hybrid}[options.method]
    explain(options, [rows[position].text for position in filled], filled)
    return 0


def _rows(options: argparse.Namespace) -> tuple[Sequence[Row], str]:
    if options.text is not None:
        if options.file != "-":
            raise ValueError(f"--text and {options.file}: name one of them")
        return [Row(options.text, {})], "--text"
    refuse_forgotten_query(options, "explain")
    source = documents(options)
    return list(source.rows()), source.name


def _row(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {value}")
    return int(value)


def _chosen(options: argparse.Namespace, order: Sequence[int], filled: Sequence[int]) -> list[tuple[int, int]]:
    """(rank, position among the texts) of the documents to explain."""
    ranked = list(enumerate(order, 1))
    if options.index is not None:
        return [(rank, position) for rank, position in ranked if filled[position] == options.index]
    return ranked[: options.top_k]


def _order(scores: Sequence[float]) -> list[int]:
    """Positions, best first; equal scores in the order of the documents."""
    return sorted(range(len(scores)), key=lambda position: -scores[position])


def _show(
    options: argparse.Namespace, head: dict[str, Any], text: str, explanation: dict[str, Any], shown: str
) -> None:
    if options.json:
        print(terminal.json_line({**head, **explanation, "text": text}))
        return
    place = ", ".join(f"{name} {value}" for name, value in head.items())
    print(terminal.bold(f"{place}: {terminal.fit(text, 100)}"))
    print("\n".join(map(terminal.printable, shown.split("\n"))))


def _colbert(options: argparse.Namespace, texts: Sequence[str], filled: Sequence[int]) -> None:
    """Tokens, by MaxSim."""
    from fastrank import LateInteractionTextEmbedding

    with LateInteractionTextEmbedding(**model_arguments(options)) as model:
        scores = (
            [0.0]
            if len(texts) == 1
            else list(terminal.progress(model.rerank(options.query, texts), "colbert", len(texts)))
        )
        for number, (rank, position) in enumerate(_chosen(options, _order(scores), filled)):
            explanation = model.explain(options.query, texts[position])
            if not number:
                _write(options.svg, explanation.svg)
                _write(options.html, explanation.html)
            head = {"rank": rank, "index": filled[position]}
            _show(options, head, texts[position], explanation.as_dict(), explanation.text())


def _write(path: str | None, made: Any) -> None:
    if path is not None:
        with writing.output(Path(path), seek=False) as file:
            file.write(made().encode("utf-8", "replace"))


def _bm25(options: argparse.Namespace, texts: Sequence[str], filled: Sequence[int]) -> None:
    """Terms and weights, with the documents' own statistics."""
    index = _index(options, texts)
    order = _order(index.scores(options.query, texts).tolist())
    for rank, position in _chosen(options, order, filled):
        explanation = index.explain(options.query, texts[position])
        head = {"rank": rank, "index": filled[position]}
        _show(options, head, texts[position], explanation.as_dict(), explanation.text())


def _index(options: argparse.Namespace, texts: Sequence[str]) -> Any:
    from fastrank.bm25 import BM25, BM25Index

    return BM25Index(BM25(options.language, analyzer=options.analyzer)).add(texts)


def _hybrid(options: argparse.Namespace, texts: Sequence[str], filled: Sequence[int]) -> None:
    """The ranks by words and by meaning, and what each adds."""
    from fastrank import TextEmbedding
    from fastrank.fusion import explain_fusion

    by_words = _index(options, texts).scores(options.query, texts).tolist()
    with TextEmbedding(**model_arguments(options), normalize=True) as model:
        query = next(model.query_embed(options.query))
        vectors = terminal.progress(model.passage_embed(texts), "embed", len(texts))
        by_meaning = [float(query @ vector) for vector in vectors]
    words = [position for position in _order(by_words) if by_words[position] > 0]
    fused = explain_fusion([words, _order(by_meaning)])
    found = {each.document: each for each in fused}
    for rank, position in _chosen(options, [each.document for each in fused], filled):
        each = found[position]
        lists = {
            name: {"rank": own, "score": scores[position], "part": part}
            for name, own, part, scores in zip(
                ("bm25", "dense"), each.ranks, each.parts, (by_words, by_meaning), strict=True
            )
        }
        lines = [
            f"{name:5}  rank {'-' if of['rank'] is None else of['rank']:>4}  score {of['score']:8.4f}  "
            f"1 / (60 + rank) = {of['part']:.6f}"
            for name, of in lists.items()
        ]
        lines.append(f"RRF {each.score:.6f}: the sum; only the order counts")
        head = {"rank": rank, "index": filled[position]}
        _show(options, head, texts[position], {"score": each.score, "rankings": lists}, "\n".join(lines))
