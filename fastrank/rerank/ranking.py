"""Documents in the order of their scores, as the classes that rerank return them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastrank import inputs

Document: TypeAlias = "str | Mapping[str, Any]"


@dataclass(frozen=True)
class RankedDocument:
    """A document in its place in a ranking.

    Attributes:
        index: its place among the documents given.
        score: as `rerank` gives it; higher is better.
        text: the document as it was given: a string, or a mapping.
    """

    index: int
    score: float
    text: Any


def best(scores: Sequence[float], documents: Sequence[Document], most: int | None) -> list[RankedDocument]:
    """The documents, highest score first, `most` at most (None: all); equal scores in the order given."""
    ranked = [
        RankedDocument(index, score, document)
        for index, (score, document) in enumerate(zip(scores, documents, strict=True))
    ]
    return sorted(ranked, key=lambda each: -each.score)[:most]


def listed(documents: Iterable[Document], name: str = "documents") -> list[Document]:
    """The documents as a list. `name` is what errors call them.

    Raises:
        TypeError: they are one text, one mapping or no iterable.
    """
    inputs.refuse_table(documents, name)
    if isinstance(documents, (str, bytes, Mapping)) or not isinstance(documents, Iterable):
        raise TypeError(f"{name} must be an iterable of strings or mappings, not {type(documents).__name__}")
    return list(documents)


def text_of(document: Document, field: str, name: str) -> str:
    """The text of a document: itself, or what a mapping has under `field`. `name` is what errors call it.

    Raises:
        TypeError: there is no text.
    """
    if isinstance(document, Mapping):
        if field not in document:
            raise TypeError(f"{name} has no field {field!r}; it has {', '.join(map(str, document))}")
        return inputs.text(document[field], f"{name}[{field!r}]")
    return inputs.text(document, name)
