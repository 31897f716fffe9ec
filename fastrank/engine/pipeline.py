"""The path of a text: gate, tokens, schedule, session, head, order. One loaded model is shared by all threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np

from fastrank import store
from fastrank.engine import cpu
from fastrank.engine.batching import Batch, Tokens, Window, collate, plan, spans, step, windows
from fastrank.engine.pooling import Floats
from fastrank.engine.precision import Arithmetic
from fastrank.engine.session import Session
from fastrank.engine.tokenizer import Text, Tokenizer
from fastrank.errors import OutputError

if TYPE_CHECKING:
    pass
from fastrank.engine.concurrency import SideBySide, ahead, one_by_one

T = TypeVar("T")
Head: TypeAlias = "Callable[[Floats, Batch], Sequence[T]]"


@dataclass(frozen=True)
class Pipeline(Generic[T]):
    """A loaded model, whose head makes a T of each text or pair of texts."""

    files: store.ModelFiles
    how: Arithmetic
    tokenizer: Tokenizer
    session: Session
    head: Head[T]
    output: str | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)  # scalar inputs that differ from the session's

    def run(
        self,
        texts: Iterator[Text],
        batch_size: int,
        workers: int | None,
        named: Callable[[int], str] = "documents[{}]".format,
    ) -> Iterator[T]:
        """One result for each text, in order. `named` says how errors call the n-th.

        Texts are read ahead by a window, never more, so memory stays flat over endless iterators; for a GPU by two, as
        the second is tokenized while the first runs. What comes before an error in the iterator is delivered before the
        error is raised.

        Raises:
            OutputError: the model returned NaN or infinity for a text.
        """
        read = windows(texts, max(self.session.window, batch_size))
        with SideBySide(self._workers(workers)) as side_by_side, closing(self._tokenized(read)) as tokenized:
            start = 0
            for window, tokens in tokenized:
                yield from self._window(tokens, partial(_offset, named, start), batch_size, side_by_side)
                if window.error:
                    raise window.error
                start += len(window.items)

    def token_count(self, texts: Iterator[Text], batch_size: int) -> int:
        """Tokens of all texts after truncation, special ones included."""
        total = 0
        for window in windows(texts, batch_size):
            if window.error:
                raise window.error
            total += sum(len(tokens.ids) for tokens in self.tokenizer.encode(window.items))
        return total

    def info(self) -> dict[str, Any]:
        """How the model runs; see `Closeable.info`."""
        session, how = self.session, self.how
        together = "texts of equal length only" if how.equal else f"texts of similar length, {session.budget} tokens"
        return {
            "file": str(how.path),
            "from": self.files.origin,
            "precision": how.name,
            "because": how.reason,
            "provider": session.provider,
            **({} if session.on_cpu else {"devices": session.devices}),
            "threads": session.threads,
            "runs together": "one text alone" if how.alone else together,
            "max_length": self.tokenizer.max_length,
        }

    def _workers(self, asked: int | None) -> int:
        """`parallel` of the public methods: None is what measured best, 0 one a processor."""
        return self.session.workers if asked is None else asked or cpu.available()

    def _tokenized(self, read: Iterator[Window[Text]]) -> Generator[tuple[Window[Text], list[Tokens]], None, None]:
        def tokens(window: Window[Text]) -> list[Tokens]:
            return self.tokenizer.encode(window.items)

        return one_by_one(tokens, read) if self.session.on_cpu else ahead(tokens, read)

    def _window(
        self, tokens: Sequence[Tokens], named: Callable[[int], str], batch_size: int, side_by_side: SideBySide
    ) -> Iterator[T]:
        if len(tokens) == 1:  # a query, most likely: there is nothing to plan
            yield from self._run(collate(tokens, [0], self.tokenizer.pad_id, self._padded(len(tokens[0].ids))), named)
            return
        for part in spans([len(each.ids) for each in tokens]):
            yield from self._sorted(tokens[part], partial(_offset, named, part.start), batch_size, side_by_side)

    def _sorted(
        self, tokens: Sequence[Tokens], named: Callable[[int], str], batch_size: int, side_by_side: SideBySide
    ) -> Iterator[T]:
        most = 1 if self.how.alone else batch_size
        lengths = [self._padded(len(each.ids)) for each in tokens]
        batches = plan(lengths, self.session.budget, most, square=self.session.square, equal=self.how.equal)
        wide = len(batches) == 1
        results: dict[int, T] = {}

        def run(positions: list[int]) -> Sequence[T]:
            batch = collate(tokens, positions, self.tokenizer.pad_id, lengths[positions[0]])
            return self._run(batch, named, wide=wide)

        for positions, found in zip(batches, side_by_side.map(run, batches), strict=True):
            results.update(zip(positions, found, strict=True))
        for position in range(len(tokens)):
            yield results.pop(position)

    def _run(self, batch: Batch, named: Callable[[int], str], *, wide: bool = True) -> Sequence[T]:
        found = self.head(self.session.run(batch, self.output, wide=wide, numbers=self.numbers), batch)
        _check_finite(found, batch, named)
        return found

    def _padded(self, length: int) -> int:
        """What a text of this length is padded to at least: on a GPU a length that others have too."""
        if self.session.on_cpu:
            return length
        return max(length, min(step(length), self.tokenizer.max_length))


def _offset(named: Callable[[int], str], start: int, position: int) -> str:
    return named(start + position)


def _check_finite(results: Sequence[T], batch: Batch, named: Callable[[int], str]) -> None:
    for position, result in zip(batch.positions, results, strict=True):
        values: Any = getattr(result, "values", result)  # a vector, or something that has values
        if not np.isfinite(values).all():
            raise OutputError(f"The model returned NaN or infinity for {named(position)}. Its weights may be damaged.")
