"""Read test collections for retrieval in BEIR's layout.

A BEIR folder holds

    corpus.jsonl      {"_id": ..., "title": ..., "text": ...}, one document a line
    queries.jsonl     {"_id": ..., "text": ...}
    qrels/test.tsv    a header "query-id corpus-id score", then one judgement a line; other splits have other names

each of them also as .gz. The corpus is streamed, so its size is no matter of memory.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from fastrank.errors import FastrankError

QRELS_HEADER = ["query-id", "corpus-id", "score"]


class DataError(FastrankError):
    """A folder or file is not what its layout says. The message names the file, and the line where there is one."""


class Document(NamedTuple):
    """One document, its title in front of its text, as BEIR embeds it."""

    id: str
    text: str


@dataclass(frozen=True)
class Dataset:
    """A retrieval collection: the judged queries in memory, the documents on disk."""

    name: str
    queries: dict[str, str]  # id -> text; only queries that the qrels judge
    qrels: dict[str, dict[str, int]]  # query id -> document id -> relevance
    corpus: Path
    limit: int | None = None  # read only so many documents

    def documents(self) -> Iterator[Document]:
        """The documents one by one, in the order of the file.

        Raises:
            DataError: at the line that is damaged or repeats an id.
        """
        seen = set()
        for place, row in islice(_rows(self.corpus), self.limit):
            document = _string(row, "_id", place)
            if document in seen:
                raise DataError(f"{place}: the id {document!r} occurs twice")
            seen.add(document)
            title = _string(row, "title", place, default="")
            yield Document(document, f"{title} {_string(row, 'text', place)}".strip())


def load(folder: str | Path, limit: int | None = None, split: str = "test") -> Dataset:
    """A BEIR folder, its queries and judgements read.

    Args:
        folder: holds the files.
        limit: read only so many documents.
        split: the judgements are in qrels/{split}.tsv.

    Raises:
        DataError: the folder is no BEIR folder, or a file in it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    corpus, queries, judgements = (
        _find(folder, name) for name in ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv")
    )
    qrels = _qrels(judgements)
    texts = {_string(row, "_id", place): _string(row, "text", place) for place, row in _rows(queries)}
    if unknown := [query for query in qrels if query not in texts]:
        raise DataError(f"{judgements} judges the query {unknown[0]!r}, which {queries} does not have")
    return Dataset(folder.resolve().name, {query: texts[query] for query in qrels}, qrels, corpus, limit)


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    with opened(path) as lines:
        if next(lines, "").rstrip("\r\n").split("\t") != QRELS_HEADER:
            raise DataError(f"{path}:1: the header must be {' '.join(QRELS_HEADER)}, separated by tabs")
        for at, line in enumerate(lines, 2):
            row = line.rstrip("\r\n").split("\t")
            if len(row) != len(QRELS_HEADER):
                raise DataError(f"{path}:{at}: {len(row)} columns where the header has {len(QRELS_HEADER)}")
            query, document, score = row
            relevance = number(score, f"{path}:{at}")
            if not relevance.is_integer():
                raise DataError(f"{path}:{at}: the score must be a whole number, not {score!r}")
            qrels.setdefault(query, {})[document] = int(relevance)
    if not qrels:
        raise DataError(f"{path} judges nothing")
    return qrels


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder} is no BEIR folder: {name} (or {name}.gz) is missing. "
        "It must hold corpus.jsonl, queries.jsonl and qrels/test.tsv (or the file of another split)."
    )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a JSON Lines file, and where it stands."""
    with opened(path) as lines:
        for at, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{path}:{at}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{place}: no JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{place}: not a JSON object")
            yield place, row


def _string(row: dict[str, Any], name: str, place: str, default: str | None = None) -> str:
    value = row.get(name, default)
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{place}: {name!r} must be a string")
    return value


def number(text: str, place: str) -> float:
    """A score in a file.

    Raises:
        DataError: it is no number.
    """
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{place}: the score must be a number, not {text!r}") from None


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A text file, perhaps compressed. What is wrong with it becomes a `DataError`."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
