"""Rankings in files, as trec_eval reads them: query Q0 document rank score name, separated by spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fastrank.evaluation.beir import DataError, opened


def write_run(path: str | Path, rankings: Mapping[str, Sequence[str]], name: str = "fastrank") -> None:
    """Write rankings. The score of a line is 1 / rank: rankings keep the order alone.

    Args:
        path: of the file, which is replaced.
        rankings: query id -> document ids, best first.
        name: of the run, the last column.

    Raises:
        ValueError: an id or the name has white space, which separates the columns.
    """
    for text in (name, *rankings, *(document for ranking in rankings.values() for document in ranking)):
        if not text or text.split() != [text]:
            raise ValueError(f"An id in a run file cannot be empty or have white space: {text!r}")
    lines = (
        f"{query} Q0 {document} {rank} {1 / rank:.9g} {name}\n"
        for query, ranking in rankings.items()
        for rank, document in enumerate(ranking, 1)
    )
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)


def read_run(path: str | Path) -> dict[str, list[str]]:
    """Rankings of a file: query id -> document ids, by descending score, as trec_eval orders them.

    Raises:
        DataError: the file is missing or has another layout; the message names the line.
    """
    path = Path(path)
    scores: dict[str, dict[str, float]] = {}
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            columns = line.split()
            if len(columns) != 6:
                raise DataError(
                    f"{path}:{number}: {len(columns)} columns where a run has 6: query Q0 id rank score name"
                )
            query, _, document, _, score, _ = columns
            try:
                value = float(score)
            except ValueError:
                raise DataError(f"{path}:{number}: the score must be a number, not {score!r}") from None
            if document in scores.setdefault(query, {}):
                raise DataError(f"{path}:{number}: {document!r} is ranked twice for query {query!r}")
            scores[query][document] = value
    if not scores:
        raise DataError(f"{path} ranks nothing")
    return {
        query: [document for _, document in sorted(((score, each) for each, score in of.items()), reverse=True)]
        for query, of in scores.items()
    }
