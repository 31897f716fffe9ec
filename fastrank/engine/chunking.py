"""Long texts as chunks of tokens, cut at borders of paragraphs, sentences or words where they fit."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastrank.engine.batching import Tokens
from fastrank.engine.overflow import Chunking, Group, Span
from fastrank.engine.tokenizer import Text, Tokenizer
from fastrank.errors import TextTooLongError

LATE_CHUNK = 256  # tokens of a chunk in late chunking, unless said otherwise

# How good it is to begin a chunk at a token.
_INSIDE_CHARACTER, _INSIDE_WORD, _WORD, _SENTENCE, _PARAGRAPH = range(-1, 4)
_PARAGRAPHS = re.compile(r"\n[^\S\n]*\n\s*")
# With closing quotes and brackets, in Latin and in East Asian punctuation.
_SENTENCES = re.compile(
    r"[.!?\u2026]+[\"'\u201d\u2019\u00bb)\]]*\s+|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d\u2019\uff09]*\s*|\n\s*"
)
# Scripts without spaces: a word may begin at any letter.
_NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def split(text: str, offsets: NDArray[np.int64], size: int, overlap: int) -> list[Span]:
    """The chunks of a text, in order; one if it fits. Together they have all of its tokens.

    A chunk ends at the last border of a paragraph in its second half, else of a sentence, else of a word; else it has
    `size` tokens. The next begins where it ends, or at the first border of a sentence or word within the overlap.

    Args:
        text: the text.
        offsets: (tokens, 2): where its tokens stand, without special ones.
        size: the most tokens of a chunk, >= 1.
        overlap: the most tokens that a chunk shares with the one before, < `size`.
    """
    tokens = len(offsets)
    if tokens <= size:
        return [(0, len(text))]
    borders = _borders(text, offsets)
    spans: list[Span] = []
    begin = 0
    while begin + size < tokens:
        end = _end(borders, begin + max(size // 2, overlap) + 1, begin + size)
        spans.append(_span(text, offsets, begin, end))
        begin = _begin(borders, end - overlap, end)
    spans.append(_span(text, offsets, begin, tokens))
    return spans


def chunked(tokenizer: Tokenizer, prefix: str, text: Text, chunking: Chunking, name: str) -> tuple[list[Tokens], Group]:
    """The tokens of a text's chunks, and where they stand in it; of a pair, the second text is cut.

    Args:
        tokenizer: with the model's limit.
        prefix: put before each chunk, or before the first text of a pair.
        text: the text, or pair.
        chunking: how.
        name: what errors call the text.

    Raises:
        TextTooLongError: the first text of a pair leaves no room for the second.
    """
    if chunking.late and isinstance(text, str):
        return _late(tokenizer, prefix, text, chunking)
    body = text if isinstance(text, str) else text[1]

    def whole(span: Span) -> Text:
        part = body[span[0] : span[1]]
        return prefix + part if isinstance(text, str) else (prefix + text[0], part)

    first = tokenizer.encode([whole((0, len(body)))])
    fits = not first[0].cut
    if fits and chunking.size is None:
        return first, Group(1, [(0, len(body))])
    room = tokenizer.room(prefix if isinstance(text, str) else (prefix + text[0], ""))
    if room < 1:
        raise TextTooLongError(
            f"{name}: the query or prompt before it has as many tokens as the model takes ({tokenizer.max_length}) "
            "and leaves no room for the text"
        )
    offsets = tokenizer.placed(body, special=False).offsets
    size = min(chunking.size or room, room)
    while True:
        everything = split(body, offsets, size, min(chunking.overlap, size - 1))
        spans = everything[: chunking.most]
        tokens = tokenizer.encode([whole(span) for span in spans])
        if size == 1 or not any(each.cut for each in tokens):
            return tokens, Group(len(spans), spans, cut=len(spans) < len(everything))
        size = max(1, size - max(1, size // 16))  # tokens of a chunk may be others than in the whole text


def _late(tokenizer: Tokenizer, prefix: str, text: str, chunking: Chunking) -> tuple[list[Tokens], Group]:
    """Runs that are as long as the model takes, with the tokens of the chunks in each as pieces."""
    room = max(1, tokenizer.room(prefix))
    size = min(chunking.size or LATE_CHUNK, room)
    offsets = tokenizer.placed(text, special=False).offsets
    runs: list[Tokens] = []
    spans: list[Span] = []
    waiting = split(text, offsets, room, 0)[::-1]
    while waiting:
        start, stop = waiting.pop()
        tokens, parts = _one_run(tokenizer, prefix, text[start:stop], size, chunking.overlap)
        if len(tokens.ids) > tokenizer.max_length and stop - start > 1:  # tokens are others than in the whole text
            half = (start + stop) // 2
            waiting += [(half, stop), (start, half)]
            continue
        runs.append(tokens)
        spans += [(start + first, start + last) for first, last in parts]
    return runs, Group(len(runs), spans)


def _one_run(tokenizer: Tokenizer, prefix: str, text: str, size: int, overlap: int) -> tuple[Tokens, list[Span]]:
    placed = tokenizer.placed(prefix + text, special=True)
    inside = ~placed.special & (placed.offsets[:, 1] > len(prefix))
    offsets = np.maximum(placed.offsets[inside] - len(prefix), 0)
    spans = split(text, offsets, size, min(overlap, size - 1))
    return pooled_by(placed.ids, placed.offsets - len(prefix), inside, spans, tokenizer.pad_id), spans


def parts_of_one(
    tokenizer: Tokenizer, prefix: str, parts: Sequence[str], name: str = "texts"
) -> tuple[list[Tokens], Group]:
    """The tokens of one text that is made of these parts, whose states are pooled part by part.

    Raises:
        TextTooLongError: together they have more tokens than the model takes.
    """
    spans: list[Span] = []
    for part in parts:
        start = spans[-1][1] + 1 if spans else 0
        spans.append((start, start + len(part)))
    placed = tokenizer.placed(prefix + " ".join(parts), special=True)
    if len(placed.ids) > tokenizer.max_length:
        raise TextTooLongError(
            f"{name} are read as one text, and together have {len(placed.ids)} tokens; the model takes "
            f"{tokenizer.max_length}"
        )
    inside = ~placed.special & (placed.offsets[:, 1] > len(prefix))
    tokens = pooled_by(placed.ids, placed.offsets - len(prefix), inside, spans, tokenizer.pad_id)
    return [tokens], Group(1, spans)


def pooled_by(
    ids: NDArray[np.int32], offsets: NDArray[np.int64], inside: NDArray[np.bool_], spans: Sequence[Span], pad_id: int
) -> Tokens:
    """Tokens whose states are pooled span by span.

    Special tokens and those of a prefix count for the first span or the last, so that one span of the whole text gives
    the vector that the text has without chunks.

    Args:
        ids: int32 (tokens,).
        offsets: (tokens, 2): where they stand in the text.
        inside: bool (tokens,): which are the text's own.
        spans: of the text, in order.
        pad_id: stands for a text without tokens.
    """
    if not len(ids):
        return Tokens(np.array([pad_id], np.int32), pieces=np.array([[0, 1]]))
    own = np.flatnonzero(inside)
    if not len(own):
        return Tokens(ids, pieces=np.array([[0, len(ids)]] * len(spans)))
    stops = np.maximum.accumulate(offsets[own, 1])
    starts = offsets[own, 0]
    pieces = np.empty((len(spans), 2), np.int64)
    for number, (start, stop) in enumerate(spans):
        first = min(int(np.searchsorted(stops, start, side="right")), len(own) - 1)
        last = max(int(np.searchsorted(starts, stop, side="left")), first + 1)
        pieces[number] = own[first], own[last - 1] + 1
    pieces[0, 0], pieces[-1, 1] = 0, len(ids)
    return Tokens(ids, pieces=pieces)


def _end(borders: NDArray[np.int8], first: int, last: int) -> int:
    """The last of the best borders, from `first` to `last`; `last` if there is none."""
    ranks = borders[first : last + 1]
    best = ranks.max()
    if best > _INSIDE_WORD:
        return first + int(np.flatnonzero(ranks == best)[-1])
    possible = np.flatnonzero(ranks > _INSIDE_CHARACTER)
    return first + int(possible[-1]) if len(possible) else last


def _begin(borders: NDArray[np.int8], first: int, end: int) -> int:
    """Where the next chunk begins: within the overlap, at a sentence or else at a word."""
    ranks = borders[first:end]
    for least in (_SENTENCE, _WORD):
        found = np.flatnonzero(ranks >= least)
        if len(found):
            return first + int(found[0])
    return first


def _borders(text: str, offsets: NDArray[np.int64]) -> NDArray[np.int8]:
    """How good it is to begin a chunk at each token: (tokens,)."""
    starts, stops = offsets[:, 0], np.maximum.accumulate(offsets[:, 1])
    borders = np.full(len(offsets), _INSIDE_WORD, np.int8)
    borders[1:][starts[1:] < stops[:-1]] = _INSIDE_CHARACTER
    borders[1:][starts[1:] > stops[:-1]] = _WORD
    adjacent = np.flatnonzero(borders == _INSIDE_WORD)
    borders[adjacent] = [_WORD if _begins_word(text, int(at)) else _INSIDE_WORD for at in starts[adjacent]]
    for rank, pattern in ((_SENTENCE, _SENTENCES), (_PARAGRAPH, _PARAGRAPHS)):
        ends = np.array([match.end() for match in pattern.finditer(text)], np.int64)
        tokens = np.searchsorted(stops, ends, side="right")  # the first token that ends behind the border
        borders[tokens[tokens < len(borders)]] = rank
    return borders


def _begins_word(text: str, at: int) -> bool:
    """Whether a word may begin at a character whose token follows another without a gap."""
    if at == 0 or at >= len(text):
        return True
    return text[at].isspace() or text[at - 1].isspace() or _NO_SPACES.match(text[at]) is not None


def _span(text: str, offsets: NDArray[np.int64], begin: int, end: int) -> Span:
    """From the first to the last of these tokens, without white space around them."""
    start, stop = int(offsets[begin, 0]), int(offsets[begin:end, 1].max())
    while start < stop and text[start].isspace():
        start += 1
    while start < stop and text[stop - 1].isspace():
        stop -= 1
    return start, stop
