"""Long texts, cut where a client wants it: elsewhere than at the model's limit, or at the beginning."""

from __future__ import annotations

from typing import Any

from fastrank.engine.pipeline import Pipeline
from fastrank.engine.tokenizer import Tokenizer
from fastrank.server.wire.calls import Side

_SPECIAL_OF_PAIR = 4  # tokens around and between two texts, at most

Text = str | tuple[str, str]


def is_long(pipeline: Pipeline[Any], text: Text) -> bool:
    """Whether the pipeline cuts a text at the model's limit."""
    return pipeline.tokenizer.is_truncated(pipeline.prefix + text if isinstance(text, str) else text)


def shortened(text: Text, most: int, side: Side) -> Text:
    """A text's first `most` characters, or its last where models truncate on the left; of a pair, both texts'."""
    if isinstance(text, tuple):
        query, document = text
        return query[:most], document[-most:] if side == "left" else document[:most]
    return text[-most:] if side == "left" else text[:most]


def beginning(tokenizer: Tokenizer, text: str, most: int) -> str:
    """The beginning of a text, up to a number of tokens; special ones are not counted."""
    spans = tokenizer.spans(text, special=False)
    return text if len(spans) <= most else text[: spans[most - 1].stop]


def ending(pipeline: Pipeline[Any], text: Text) -> Text:
    """The end of a text that is too long, as much as the model takes; of a pair the end of the second."""
    tokenizer = pipeline.tokenizer
    if isinstance(text, tuple):
        query, document = text
        used = len(tokenizer.spans(query, special=False)) + _SPECIAL_OF_PAIR
        return query, _last(tokenizer, document, tokenizer.max_length - used)
    return _last(tokenizer, text, tokenizer.max_length - len(tokenizer.spans(pipeline.prefix, special=True)))


def _last(tokenizer: Tokenizer, text: str, most: int) -> str:
    spans = tokenizer.spans(text, special=False)
    return text if len(spans) <= most or most < 1 else text[spans[-most].start :]
