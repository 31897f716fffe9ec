"""Why BM25 gives a document its score: the weight of each term of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class TermScore(NamedTuple):
    """What one term of a query adds to the score of a document.

    Attributes:
        words: those of query and document that are this term, lower-cased, in the order in which they come: "running",
            "runs" have one stem.
        query_count: how often it is in the query.
        document_count: how often it is in the document.
        document_frequency: how many documents of the index have it.
        idf: ln(1 + (N - n + 0.5) / (n + 0.5)).
        weight: f / (f + k * (1 - b + b * length / avg_len)), from 0 to 1.
        score: query_count * idf * weight.
    """

    words: tuple[str, ...]
    query_count: int
    document_count: int
    document_frequency: int
    idf: float
    weight: float
    score: float


@dataclass(frozen=True)
class BM25Explanation:
    """What the terms of a query add to the score of a document.

    Attributes:
        terms: of the query, the largest part of the score first; those that the document does not have last.
        score: their sum, float32 as `BM25Index.scores` has it.
        length: words of the document, stop words not counted.
        avg_len: words of an average document.
        documents: of the index.
    """

    terms: Sequence[TermScore]
    score: float
    length: int
    avg_len: float
    documents: int

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "score": self.score,
            "terms": [{**term._asdict(), "words": list(term.words)} for term in self.terms],
            "length": self.length,
            "avg_len": self.avg_len,
            "documents": self.documents,
        }

    def text(self) -> str:
        """A table for a terminal: each term, how often it is in the document and in how many, and its part."""
        rows = [("term", "in document", "documents", "idf", "weight", "score")]
        rows += [
            (
                ", ".join(term.words),
                str(term.document_count),
                f"{term.document_frequency} of {self.documents}",
                f"{term.idf:.4f}",
                f"{term.weight:.4f}",
                f"{term.score:.4f}",
            )
            for term in self.terms
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join(
            [
                *lines,
                f"BM25 {self.score:.4f}: the sum; the document has {self.length} words, {self.avg_len:.1f} on average",
            ]
        )
