"""Ranked documents, as the reranking classes return them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastrank import inputs

Document: TypeAlias = "str | Mapping[str, Any]"


@dataclass(frozen=True)
class RankedDocument:
    """A document with its score.

    Attributes:
        index: its position in the list that was passed in.
        score: as returned by `rerank`; higher is better.
        text: the document as it was passed in: a string, or a mapping.
    """

    index: int
    score: float
    text: Any


def best(scores: Sequence[float], documents: Sequence[Document], most: int | None) -> list[RankedDocument]:
    """The documents by descending score, at most `most` (None: all); ties keep the order of the documents."""
    ranked = [
        RankedDocument(index, score, document)
        for index, (score, document) in enumerate(zip(scores, documents, strict=True))
    ]
    return sorted(ranked, key=lambda each: -each.score)[:most]


def listed(documents: Iterable[Document], name: str = "documents") -> list[Document]:
    """The documents as a list. `name` is what errors call them.

    Raises:
        TypeError: they are one text, one mapping, or not iterable.
    """
    inputs.refuse_table(documents, name)
    if isinstance(documents, (str, bytes, Mapping)) or not isinstance(documents, Iterable):
        raise TypeError(f"{name} must be an iterable of strings or mappings, not {type(documents).__name__}")
    return list(documents)


def checked_top_k(top_k: int | None) -> int | None:
    """How many results are wanted at most; None: all.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below 1.
    """
    return None if top_k is None else inputs.positive(top_k, "top_k")


def texts_of(documents: Sequence[Document], field: str, name: str = "documents") -> list[str]:
    """The text of each document. `name` is what errors call the documents.

    Raises:
        TypeError: one has no text.
    """
    return [text_of(document, field, f"{name}[{position}]") for position, document in enumerate(documents)]


def text_of(document: Document, field: str, name: str) -> str:
    """The text of a document: the document itself, or a mapping's value for `field`. `name` is what errors call it.

    Raises:
        TypeError: there is no text.
    """
    if isinstance(document, Mapping):
        if field not in document:
            raise TypeError(f"{name} has no field {field!r}; it has {', '.join(map(str, document))}")
        return inputs.text(document[field], f"{name}[{field!r}]")
    return inputs.text(document, name)
