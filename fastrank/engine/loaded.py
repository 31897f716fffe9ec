"""A model in memory, and loading it once."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

from fastrank.engine.forking import no_fork
from fastrank.engine.overflow import Overflow

T_co = TypeVar("T_co", covariant=True)

Names: TypeAlias = Callable[[int], str]  # how errors call the n-th text
DOCUMENTS: Names = "documents[{}]".format
NO_PROMPTS = "this model weighs words one by one, so a prompt would be taken for words of the text"


class TextPipeline(Protocol[T_co]):
    """From texts to results, lazily and in order."""

    def run(self, texts: Iterator[Any], batch_size: int, workers: int | None, names: Names = ...) -> Iterator[T_co]:
        """One result per text, in order."""

    def asked(self, prompt: str | None, overflow: Overflow) -> TextPipeline[T_co]:
        """The pipeline with this prompt, and this way with texts that are too long.

        Raises:
            ValueError: it takes no prompts, or no chunks.
        """

    def token_counts(self, texts: Iterator[Any], batch_size: int, *, truncate: bool = ...) -> Iterator[int]:
        """Tokens of each text."""


D = TypeVar("D", bound=TextPipeline[Any])
Q = TypeVar("Q", bound=TextPipeline[Any])
S = TypeVar("S")
M_co = TypeVar("M_co", covariant=True)


@dataclass(frozen=True, eq=False, repr=False)  # a new process need not write methods that nobody calls
class LoadedModel(Generic[D, Q, S]):
    """A model in memory: two pipelines, over one session where it has one.

    Attributes:
        documents: for documents, or (query, document) pairs.
        queries: for queries.
        settings: the task's, complete.
        info: how the model runs; see `PublicModel.info`.
    """

    documents: D
    queries: Q
    settings: S
    info: Mapping[str, Any]

    def asked(self, overflow: Overflow) -> Self:
        """The same, with pipelines that treat long texts so; those that run no model read all of a text."""
        changed = {}
        for name in ("documents", "queries", "passages"):
            pipeline = getattr(self, name, None)
            if pipeline is not None and hasattr(pipeline, "session"):
                changed[name] = pipeline.asked(None, overflow)
        return replace(self, **changed)


class Lazy(Generic[M_co]):
    """A model that is loaded once, under a lock, when it is first needed, and closed when asked to."""

    def __init__(self, load: Callable[[], M_co]) -> None:
        self._load: Callable[[], M_co] = load
        self._lock = threading.Lock()
        self._loaded: M_co | None = None
        self._closed = False
        _lazy.add(self)

    def get(self) -> M_co:
        """The loaded model.

        Raises:
            RuntimeError: it was closed.
        """
        if (loaded := self._loaded) is not None:
            return loaded
        with self._lock:
            if self._closed:
                raise RuntimeError("This model is closed. Make a new one.")
            if self._loaded is None:
                with no_fork:
                    self._loaded = self._load()
            return self._loaded

    @property
    def is_loaded(self) -> bool:
        """Whether `get` returns at once."""
        return self._loaded is not None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Let go of the model's memory. Iterators that are running finish."""
        with self._lock:
            self._closed, self._loaded = True, None

    def forked(self) -> None:
        """In a forked child: another thread of the parent may have held the lock, and that thread is not here."""
        self._lock = threading.Lock()


_lazy: weakref.WeakSet[Lazy[Any]] = weakref.WeakSet()


def _forked() -> None:
    for each in list(_lazy):
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
