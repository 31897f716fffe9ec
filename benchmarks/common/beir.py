"""Read test collections: retrieval by `fastrank.evaluation.beir`, sentence similarity in the STS benchmark's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastrank.evaluation.beir import DataError, Dataset, Document, load, number, opened

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DataError", "Dataset", "Document", "Pairs", "load", "sts"]

STS_COLUMNS = ("split", "score", "sentence1", "sentence2")


class Pairs(NamedTuple):
    """Sentence pairs and how similar people found them."""

    first: list[str]
    second: list[str]
    gold: list[float]


def sts(path: Path, split: str = "test", limit: int | None = None) -> Pairs:
    """The pairs of one split of a table in the layout of the STS benchmark: tabs, a header, no quoting.

    Raises:
        DataError: the file is missing or has another layout, or has no pair of this split.
    """
    pairs = Pairs([], [], [])
    with opened(path) as lines:
        header = next(lines, "").rstrip("\r\n").split("\t")
        if missing := [name for name in STS_COLUMNS if name not in header]:
            raise DataError(f"{path}: no column {missing[0]!r} in the header; needed are {', '.join(STS_COLUMNS)}")
        for at, line in enumerate(lines, 2):
            row = dict(zip(header, line.rstrip("\r\n").split("\t"), strict=False))
            if len(row) != len(header):
                raise DataError(f"{path}:{at}: {len(row)} columns where the header has {len(header)}")
            if row["split"] != split:
                continue
            pairs.first.append(row["sentence1"])
            pairs.second.append(row["sentence2"])
            pairs.gold.append(number(row["score"], f"{path}:{at}"))
            if len(pairs.gold) == limit:
                break
    if not pairs.gold:
        raise DataError(f"{path} has no pair whose split is {split!r}")
    return pairs
