"""Why MaxSim gives a document its score: which token of it each token of the query meets best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import numpy as np

from fastrank.engine.pipeline import Pipeline
from fastrank.engine.pooling import Floats
from fastrank.engine.tokenizer import Span
from fastrank.late_interaction.loading import skipped_ids
from fastrank.late_interaction.settings import LateInteractionSettings

_CELL, _ROW, _HEAD, _SIDE = 34, 20, 90, 110  # pixels of the heat map: a column, a row, the head, the first column
_BAR = 20  # characters of the bar in the terminal
_STYLE = """
:root { color-scheme: light dark; --heat: 47 91 215; --text: #1b1f27; --back: #fff; --faint: #68707d }
@media (prefers-color-scheme: dark) {
  :root { --heat: 134 168 255; --text: #e6e9ef; --back: #14171c; --faint: #9aa3b2 }
}
body { margin: 1.5rem; font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back) }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .8rem }
th { font-weight: 400; white-space: nowrap; text-align: left; padding: .15rem .4rem }
thead th { writing-mode: vertical-rl; transform: rotate(180deg) } td { padding: .15rem .35rem; text-align: right }
td.best { outline: 2px solid rgb(var(--heat)); outline-offset: -2px; font-weight: 600 }
mark { color: inherit; border-radius: .2em } .faint { color: var(--faint) }
"""


class Token(NamedTuple):
    """A token that has an embedding.

    Attributes:
        text: of the query or document, as it stands there; as the vocabulary has it for what stands nowhere: special
            tokens, prefix and expansion tokens, prompts.
        start: where it begins, in characters; None: nowhere.
        stop: where it ends; None: nowhere.
    """

    text: str
    start: int | None
    stop: int | None


class Match(NamedTuple):
    """The best a token of the query finds.

    Attributes:
        query: position among the query's tokens.
        document: position among the document's tokens, the first of equals; None: the document has none.
        similarity: their dot product, with normalized embeddings the cosine; 0.0 if the document has no token.
    """

    query: int
    document: int | None
    similarity: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """How each token of a query meets each token of a document.

    Attributes:
        query: the query.
        document: the document.
        query_tokens: its tokens that have an embedding, expansion tokens included.
        document_tokens: its tokens that have an embedding.
        similarities: float32 (query tokens, document tokens): dot products.
    """

    query: str
    document: str
    query_tokens: Sequence[Token]
    document_tokens: Sequence[Token]
    similarities: Floats

    @property
    def matches(self) -> list[Match]:
        """For each token of the query the best of the document, in the order of the query."""
        if not self.document_tokens:
            return [Match(row, None, 0.0) for row in range(len(self.query_tokens))]
        best = self.similarities.argmax(axis=1)
        return [Match(row, int(at), float(self.similarities[row, at])) for row, at in enumerate(best)]

    @property
    def score(self) -> float:
        """MaxSim: the sum of the matches' similarities."""
        return float(np.sum([match.similarity for match in self.matches], dtype=np.float32))

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it: score, query, document, tokens with spans, matches, similarities."""
        return {
            "score": self.score,
            "query": self.query,
            "document": self.document,
            "query_tokens": [token._asdict() for token in self.query_tokens],
            "document_tokens": [token._asdict() for token in self.document_tokens],
            "matches": [match._asdict() for match in self.matches],
            "similarities": self.similarities.tolist(),
        }

    def text(self) -> str:
        """A table for a terminal: each token of the query, its best match, where that stands, and the similarity."""
        rows = [("query token", "best document token", "characters", "similarity")]
        bars = [""]
        for match in self.matches:
            found = None if match.document is None else self.document_tokens[match.document]
            where = "" if found is None or found.start is None else f"{found.start}-{found.stop}"
            name = "" if found is None else shown(found.text)
            rows.append((shown(self.query_tokens[match.query].text), name, where, f"{match.similarity:.4f}"))
            bars.append("#" * round(_BAR * min(max(match.similarity, 0.0), 1.0)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d:>{widths[3]}}  {bar}".rstrip()
            for (a, b, c, d), bar in zip(rows, bars, strict=True)
        ]
        return "\n".join([*lines, f"MaxSim {self.score:.4f}: the sum of these similarities"])

    def svg(self) -> str:
        """A heat map as one SVG image: a row for each token of the query, its best match framed."""
        columns, rows = len(self.document_tokens), len(self.query_tokens)
        width, height = _SIDE + _CELL * columns + 10, _HEAD + _ROW * rows + 30
        best = {(match.query, match.document) for match in self.matches}
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
            "<style>text { font: 11px system-ui, sans-serif }</style>",
            f"<title>{_xml(f'MaxSim {self.score:.4f}: {self.query}')}</title>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
        ]
        for column, token in enumerate(self.document_tokens):
            x, y = _SIDE + _CELL * column + _CELL / 2 + 4, _HEAD - 6
            parts.append(f'<text transform="translate({x} {y}) rotate(-60)">{_xml(_short(token.text, 14))}</text>')
        for row, token in enumerate(self.query_tokens):
            y = _HEAD + _ROW * row
            name = _xml(_short(token.text, 16))
            parts.append(f'<text x="{_SIDE - 6}" y="{y + 14}" text-anchor="end">{name}</text>')
            for column, similarity in enumerate(self.similarities[row].tolist()):
                x = _SIDE + _CELL * column
                frame = ' stroke="#1b1f27" stroke-width="2"' if (row, column) in best else ""
                parts.append(
                    f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_ROW - 2}" fill="#2f5bd7" '
                    f'fill-opacity="{heat(similarity):.3f}"{frame}/>'
                    f'<text x="{x + _CELL / 2}" y="{y + 14}" text-anchor="middle">{_number(similarity)}</text>'
                )
        parts.append(f'<text x="10" y="{height - 10}">MaxSim {self.score:.4f}</text></svg>')
        return "\n".join(parts)

    def html(self) -> str:
        """A page of its own: the document with its best tokens marked, and the heat map as a table."""
        best = {(match.query, match.document) for match in self.matches}
        head = "".join(f'<th scope="col">{_html(token.text)}</th>' for token in self.document_tokens)
        rows = "".join(
            f'<tr><th scope="row">{_html(token.text)}</th>'
            + "".join(
                f"<td{' class=best' if (row, column) in best else ''} "
                f'style="background:rgb(var(--heat)/{heat(similarity):.3f})">{_number(similarity)}</td>'
                for column, similarity in enumerate(self.similarities[row].tolist())
            )
            + "</tr>"
            for row, token in enumerate(self.query_tokens)
        )
        return (
            '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>MaxSim {self.score:.4f}</title><style>{_STYLE}</style>\n"
            f"<p><b>{_html(self.query)}</b> <span class=faint>MaxSim {self.score:.4f}</span></p>\n"
            f"<p>{''.join(self._marked())}</p>\n"
            f"<div class=scroll><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>\n"
            "</html>\n"
        )

    def _marked(self) -> Iterator[str]:
        """The document, its tokens marked by the similarities for which they are the best."""
        gains: dict[int, list[Match]] = {}
        for match in self.matches:
            if match.document is not None:
                gains.setdefault(match.document, []).append(match)
        at = 0
        for position, token in enumerate(self.document_tokens):
            if token.start is None or token.stop is None or token.start < at or position not in gains:
                continue
            found = gains[position]
            names = ", ".join(f"{self.query_tokens[match.query].text} {_number(match.similarity)}" for match in found)
            strongest = max(heat(match.similarity) for match in found)
            yield _html(self.document[at : token.start])
            yield (
                f'<mark title="{_html(names)}" style="background:rgb(var(--heat)/{strongest:.3f})">'
                f"{_html(self.document[token.start : token.stop])}</mark>"
            )
            at = token.stop
        yield _html(self.document[at:])


def tokens(
    pipeline: Pipeline[Floats], of_model: LateInteractionSettings, text: str, *, query: bool, count: int
) -> list[Token]:
    """The tokens of a text that have an embedding.

    Args:
        pipeline: of queries, or of documents.
        of_model: the model's settings.
        text: the query or document.
        query: whether it is a query.
        count: how many embeddings it has.

    Raises:
        ValueError: the model pools embeddings, so that none is of one token.
    """
    prefix = len(pipeline.prefix)
    spans = pipeline.tokenizer.located(pipeline.prefix + text)
    chain, task = of_model.modules, "query" if query else "document"
    skips = not query if chain is None else task in chain.skiplist.tasks
    skipped = set(skipped_ids(pipeline.tokenizer, of_model)) if skips else set()
    attended = pipeline.tokenize([text])[0].attended
    if attended is None or chain is None or chain.counted:  # else tokens that nothing attends to have no embedding
        attended = len(spans)
    found = [_token(text, span, prefix) for span in spans[:attended] if span.id not in skipped]
    if len(found) != count:
        raise ValueError(
            f"This model makes {count} embeddings of the {len(found)} tokens of a {task}: they are pooled, and none is "
            "of one token. Rank without an explanation"
        )
    return found


def _token(text: str, span: Span, prefix: int) -> Token:
    start, stop = max(span.start - prefix, 0), span.stop - prefix
    if span.special or stop <= start:
        return Token(span.token, None, None)
    while start < stop - 1 and text[start].isspace():  # which SentencePiece counts as part of a word
        start += 1
    return Token(text[start:stop], start, stop)


def heat(similarity: float) -> float:
    """How strongly a similarity is coloured, from 0 to 0.75: high ones stand out."""
    return min(0.75, max(0.0, similarity) ** 2 * 0.75)


def shown(text: str) -> str:
    """A token in one line without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _number(similarity: float) -> str:
    return f"{similarity:.2f}".replace("-0.00", "0.00")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _xml(text: str) -> str:
    """Escaped, without the control characters that XML forbids."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def _html(text: str) -> str:
    return escape(text)
