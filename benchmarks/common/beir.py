"""Read test collections: retrieval in BEIR's layout, sentence similarity in the layout of the STS benchmark.

A BEIR folder holds

    corpus.jsonl      {"_id": ..., "title": ..., "text": ...}, one document a line
    queries.jsonl     {"_id": ..., "text": ...}
    qrels/test.tsv    a header "query-id corpus-id score", then one judgement a line

each of them also as .gz. The corpus is streamed, so its size is no matter of memory.
"""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QRELS_HEADER = ["query-id", "corpus-id", "score"]
STS_COLUMNS = ("split", "score", "sentence1", "sentence2")


class DataError(Exception):
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


class Pairs(NamedTuple):
    """Sentence pairs and how similar people found them."""

    first: list[str]
    second: list[str]
    gold: list[float]


def load(folder: Path, limit: int | None = None) -> Dataset:
    """A BEIR folder, its queries and judgements read.

    Raises:
        DataError: the folder is no BEIR folder, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    corpus, queries, judgements = (_find(folder, name) for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"))
    qrels = _qrels(judgements)
    texts = {_string(row, "_id", place): _string(row, "text", place) for place, row in _rows(queries)}
    if unknown := [query for query in qrels if query not in texts]:
        raise DataError(f"{judgements} judges the query {unknown[0]!r}, which {queries} does not have")
    return Dataset(folder.resolve().name, {query: texts[query] for query in qrels}, qrels, corpus, limit)


def sts(path: Path, split: str = "test", limit: int | None = None) -> Pairs:
    """The pairs of one split of a table in the layout of the STS benchmark: tabs, a header, no quoting.

    Raises:
        DataError: the file is missing or has another layout, or has no pair of this split.
    """
    pairs = Pairs([], [], [])
    with _open(path) as lines:
        header = next(lines, "").rstrip("\r\n").split("\t")
        if missing := [name for name in STS_COLUMNS if name not in header]:
            raise DataError(f"{path}: no column {missing[0]!r} in the header; needed are {', '.join(STS_COLUMNS)}")
        for number, line in enumerate(lines, 2):
            row = dict(zip(header, line.rstrip("\r\n").split("\t"), strict=False))
            if len(row) != len(header):
                raise DataError(f"{path}:{number}: {len(row)} columns where the header has {len(header)}")
            if row["split"] != split:
                continue
            pairs.first.append(row["sentence1"])
            pairs.second.append(row["sentence2"])
            pairs.gold.append(_number(row["score"], f"{path}:{number}"))
            if len(pairs.gold) == limit:
                break
    if not pairs.gold:
        raise DataError(f"{path} has no pair whose split is {split!r}")
    return pairs


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    with _open(path) as lines:
        if next(lines, "").rstrip("\r\n").split("\t") != QRELS_HEADER:
            raise DataError(f"{path}:1: the header must be {' '.join(QRELS_HEADER)}, separated by tabs")
        for number, line in enumerate(lines, 2):
            row = line.rstrip("\r\n").split("\t")
            if len(row) != len(QRELS_HEADER):
                raise DataError(f"{path}:{number}: {len(row)} columns where the header has {len(QRELS_HEADER)}")
            query, document, score = row
            relevance = _number(score, f"{path}:{number}")
            if not relevance.is_integer():
                raise DataError(f"{path}:{number}: the score must be a whole number, not {score!r}")
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
        "It must hold corpus.jsonl, queries.jsonl and qrels/test.tsv."
    )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a JSON Lines file, and where it stands."""
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
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


def _number(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{place}: the score must be a number, not {text!r}") from None


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    """A text file, perhaps compressed. What is wrong with it becomes a `DataError`."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
