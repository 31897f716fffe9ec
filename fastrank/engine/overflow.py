"""What is done with texts that have more tokens than the model takes: cut, refused, or read in chunks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from fastrank import log
from fastrank.errors import TextTooLongError

if TYPE_CHECKING:
    from fastrank.engine.batching import Tokens

MODES = ("truncate", "error", "chunk")

Span: TypeAlias = tuple[int, int]  # of a text, in characters: from and to
Join: TypeAlias = Callable[[Sequence[Any], Sequence[Span]], Any]  # results of runs, and the chunks -> one result


class Chunking(NamedTuple):
    """How long texts are cut into chunks.

    Attributes:
        size: the most tokens of a chunk, special ones and prefixes not counted; None: as many as the model takes.
        overlap: the most tokens that a chunk shares with the one before.
        late: the model reads the whole text, and its token states are pooled chunk by chunk. Günther et al. 2024, Late
            Chunking (arXiv:2409.04701).
        most: chunks of a text that are read, at most; None: all.
    """

    size: int | None = None
    overlap: int = 0
    late: bool = False
    most: int | None = None


class ChunkVectors(NamedTuple):
    """The vectors of a text's chunks.

    Attributes:
        vectors: (chunks, dim); of late interaction a list of arrays (tokens, dim).
        spans: where each chunk stands in the text, in characters: `text[start:stop]`.
    """

    vectors: Any
    spans: list[Span]


class Overflow(NamedTuple):
    """What is done with long texts.

    Attributes:
        mode: one of `MODES`.
        chunking: how chunks are made; None: they are not.
        join: makes one result of those of a text's chunks.
        on_truncated: is called with the position of each text that is cut.
    """

    mode: str = "truncate"
    chunking: Chunking | None = None
    join: Join | None = None
    on_truncated: Callable[[int], object] | None = None


DEFAULT = Overflow()


class Group(NamedTuple):
    """A text that is read in chunks: how many runs it takes, where chunks stand in it, whether any is left out."""

    runs: int
    spans: list[Span]
    cut: bool = False


class Prepared(NamedTuple):
    """Texts as they are run.

    Attributes:
        tokens: of the texts, or of their chunks.
        cut: positions of the texts that were cut.
        groups: which runs belong to which text; None: each text is one.
        error: of the text behind these, which is too long.
    """

    tokens: list[Tokens]
    cut: list[int]
    groups: list[Group] | None = None
    error: TextTooLongError | None = None


_lock = threading.Lock()  # of all counts, which are short


class Cuts:
    """Counts a model's texts that were cut, and says so once. Threads may share it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.texts = 0

    def note(self, texts: int, limit: int) -> None:
        """Count these texts, which have more tokens than `limit`."""
        with _lock:
            first = self.texts == 0
            self.texts += texts
        if first:
            log.warning(
                "%s: a text has more than %d tokens, and only the first %d of them are read. This is said once; "
                'info()["truncated_texts"] counts them, overflow="chunk" reads all, overflow="error" refuses.',
                self.name,
                limit,
                limit,
            )


def too_long(name: str, limit: int) -> TextTooLongError:
    """The error of a text that may not be cut."""
    return TextTooLongError(
        f'{name} has more than {limit} tokens, which is as many as are read, and overflow="error" is set. '
        'overflow="chunk" reads long texts in chunks, overflow="truncate" cuts them'
    )


def _forked() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock  # noqa: PLW0603 - there is one
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
