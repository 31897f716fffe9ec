"""A BM25 index as a file: the arrays of its parts, weights included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrank.bm25 import array_file, document_ids, parts, segment
from fastrank.bm25.document_ids import DocumentIds, Strings
from fastrank.bm25.parts import Part, Snapshot
from fastrank.bm25.segment import Segment, Weights
from fastrank.bm25.weights import BM25, Analyzer, Stemmer

FORMAT = "fastrank BM25 index"
VERSION = 2

_MAX_NUMBER = 1 << 62  # documents that an index may ever have had
_UNSIGNED = ("|u1", "<u2", "<u4")

Arrays = dict[str, NDArray[Any]]


def save(path: Path, bm25: BM25, state: Snapshot, next_number: int) -> None:
    """Write an index; see `BM25Index.save`."""
    header = {
        "settings": bm25.plain_settings(),
        "next_number": next_number,
        "avg_len": state.avg_len,
        "parts": len(state.parts),
    }
    arrays: Arrays = {}
    for number, (part, weights) in enumerate(zip(state.parts, state.weights, strict=True)):
        arrays |= {f"{number}.{name}": array for name, array in _arrays(part, weights).items()}
    array_file.write(path, FORMAT, VERSION, header, arrays)


def load(
    path: Path, *, mmap: bool, verify: bool, stemmer: Stemmer | None, analyzer: Analyzer
) -> tuple[BM25, Snapshot, int]:
    """Settings, state and the number of the next document; see `BM25Index.load`."""
    header, arrays = array_file.read(path, FORMAT, VERSION, mmap=mmap, verify=verify)
    bm25 = BM25.from_plain_settings(header.get("settings"), path, stemmer, analyzer)
    with array_file.damage(path, FORMAT):
        avg_len = float(header["avg_len"])
        found = [_read(arrays, number, verify=verify) for number in range(header["parts"])]
        if arrays:
            raise ValueError(f"it has further arrays: {', '.join(arrays)}")
        stored = [Weights(part.segment, bm25.k, bm25.b, avg_len, weights) for part, weights in found]
        state = parts.snapshot([part for part, _ in found], bm25.k, bm25.b, stored)
        _check_numbers(state.parts, header["next_number"])
        return bm25, state, header["next_number"]


def _arrays(part: Part, weights: Weights) -> Arrays:
    alive = np.ones(len(part.numbers), np.bool_) if part.alive is None else part.alive
    arrays: Arrays = {
        **part.segment._asdict(),
        "weights": weights.all(),
        "numbers": part.numbers,
        "deleted": np.flatnonzero(~alive).astype(np.uint32),
    }
    if isinstance(part.ids, Strings):
        return {**arrays, "ids.text": part.ids.text, "ids.ends": part.ids.ends}
    return arrays if part.ids is None else {**arrays, "ids": part.ids}


def _read(arrays: Arrays, number: int, *, verify: bool) -> tuple[Part, NDArray[np.float32]]:
    """One part and its weights; its arrays are taken out of `arrays`."""

    def take(name: str, *dtypes: str) -> NDArray[Any]:
        array = array_file.checked(arrays, f"{number}.{name}", *dtypes)
        del arrays[f"{number}.{name}"]
        return array

    postings = Segment(
        terms=take("terms", "<u4"),
        starts=take("starts", "<i8"),
        documents=take("documents", *_UNSIGNED),
        counts=take("counts", *_UNSIGNED),
        lengths=take("lengths", "<u4"),
    )
    weights, numbers, deleted = take("weights", "<f4"), take("numbers", "<i8"), take("deleted", "<u4")
    ids: DocumentIds | None = None
    if f"{number}.ids" in arrays:
        ids = take("ids", "<i8")
    elif f"{number}.ids.text" in arrays:
        ids = Strings(take("ids.text", "|u1"), take("ids.ends", "<i8"))
    documents = len(postings.lengths)
    if not (
        len(deleted) < documents
        and len(numbers) == documents
        and (ids is None or len(ids) == documents)
        and len(weights) == postings.postings
    ):
        raise ValueError("its arrays do not fit together")
    if verify:
        segment.check(postings)
        _check(weights, numbers, deleted)
        if ids is not None:
            document_ids.check(ids)
    part = parts.part(postings, numbers, ids)
    if len(deleted):
        alive = np.ones(documents, np.bool_)
        alive[deleted] = False
        part = part._replace(
            alive=alive, documents=int(alive.sum()), words=int(postings.lengths[alive].sum(dtype=np.int64))
        )
    return part, weights


def _check(weights: NDArray[np.float32], numbers: NDArray[np.int64], deleted: NDArray[np.uint32]) -> None:
    if not (
        (not len(weights) or 0 <= weights.min() <= weights.max() <= 1)
        and (numbers[1:] > numbers[:-1]).all()
        and (deleted[1:] > deleted[:-1]).all()
        and (not len(deleted) or deleted[-1] < len(numbers))
    ):
        raise ValueError("its arrays do not fit together")


def _check_numbers(stored: Sequence[Part], next_number: Any) -> None:
    """Documents are numbered in order, and their ids are of one kind."""
    last = -1
    for part in stored:
        if part.numbers[0] <= last:
            raise ValueError("its documents are not in order")
        last = int(part.numbers[-1])
    if type(next_number) is not int or not last < next_number < _MAX_NUMBER:
        raise ValueError("the number of its next document is taken")
    if len({type(part.ids) for part in stored}) > 1:
        raise ValueError("its document ids are of different kinds")
