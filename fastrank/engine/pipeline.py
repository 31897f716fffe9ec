"""The path of a text: tokens, units, session, head, order. One loaded model is shared by all threads.

Whoever has texts and a pool of threads of its own goes the same way in three steps: `tokenize`, `units`, `run_unit`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

from fastrank.engine import cpu
from fastrank.engine.batching import Batch, Tokens, Window, collate, plan, spans, step, windows
from fastrank.engine.chunking import chunked
from fastrank.engine.concurrency import ahead, one_by_one
from fastrank.engine.loaded import DOCUMENTS, Names
from fastrank.engine.overflow import DEFAULT, Cuts, Group, Overflow, Prepared, too_long
from fastrank.engine.pooling import Floats
from fastrank.engine.scheduler import Flow
from fastrank.engine.session import Session
from fastrank.engine.tokenizer import Text, Tokenizer
from fastrank.errors import ModelLoadError, OutputError, TextTooLongError

T = TypeVar("T")
Head: TypeAlias = "Callable[[Floats, Batch], Sequence[T]]"


@dataclass(frozen=True, eq=False, repr=False)  # a new process need not write methods that nobody calls
class Pipeline(Generic[T]):
    """A loaded model whose head turns each text, or pair of texts, into a T.

    Attributes:
        tokenizer: text -> token ids.
        session: token ids -> the model's output.
        head: the output -> one T per text.
        output: the name of the session's output that the head reads; None: the first.
        uniform_length: only texts of equal length may share a batch.
        max_batch: texts per batch at most; None: `batch_size`.
        prefix: put before each text, and before the first of a pair.
        extra_inputs: scalar inputs that differ from the session's.
        head_for: the head for texts with another prefix; None: the same.
        overflow: what is done with texts that have more tokens than the model takes.
        cuts: counts those that were cut, for all pipelines of the model.
    """

    tokenizer: Tokenizer
    session: Session
    head: Head[T]
    output: str | None = None
    uniform_length: bool = False
    max_batch: int | None = None
    prefix: str = ""
    extra_inputs: Mapping[str, int] = field(default_factory=dict)
    head_for: Callable[[str], Head[T]] | None = None
    overflow: Overflow = DEFAULT
    cuts: Cuts = field(default_factory=Cuts)

    def with_prefix(self, prefix: str) -> Pipeline[T]:
        """The same with another prefix."""
        return replace(self, prefix=prefix, head=self.head_for(prefix) if self.head_for else self.head)

    def run(self, texts: Iterator[Text], batch_size: int, workers: int | None, names: Names = DOCUMENTS) -> Iterator[T]:
        """One result per text, in order.

        Texts are read ahead by a window, never more, so memory stays flat over endless iterators; for a GPU by two, as
        the second is tokenized while the first runs. Results that precede an error are delivered before it is raised.

        Args:
            texts: what to run; any error they raise is passed on.
            batch_size: texts per batch at most.
            workers: batches that run at a time: None or more than the session has: as many as it has; 0: one per core.
            names: how errors call the n-th text.

        Raises:
            OutputError: the model returned NaN or infinity for a text.
            TextTooLongError: a text is too long, and may not be cut.
        """
        limit = self.session.workers if workers is None else workers or cpu.available()
        read = windows(texts, max(self.session.window, batch_size))
        first = 0
        with self.session.scheduler.flow(limit) as flow, closing(self._prepared(read, names)) as windows_prepared:
            for window, prepared in windows_prepared:
                self.note(prepared, first)
                yield from self.joined(prepared, self._window(prepared.tokens, batch_size, flow), names, first)
                if error := prepared.error or window.error:
                    raise error
                first += len(window.items)

    def prepare(self, texts: Sequence[Text], names: Names = DOCUMENTS, first: int = 0) -> Prepared:
        """The tokens of texts, or of their chunks. A text that is too long and may not be cut ends them.

        Args:
            texts: as `run`.
            names: as `run`.
            first: the number of the first.
        """
        if self.overflow.chunking is not None:
            return self._chunked(texts, names, first)
        tokens = self.tokenize(texts)
        cut = [position for position, each in enumerate(tokens) if each.cut]
        if not cut or self.overflow.mode != "error":
            return Prepared(tokens, cut)
        return Prepared(tokens[: cut[0]], [], error=too_long(names(first + cut[0]), self.tokenizer.max_length))

    def note(self, prepared: Prepared, first: int) -> None:
        """Count texts that were cut, and tell who wants to know; `first` is the number of the first text."""
        if prepared.cut:
            self.cuts.note(len(prepared.cut), self.tokenizer.max_length)
            if self.overflow.on_truncated is not None:
                for position in prepared.cut:
                    self.overflow.on_truncated(first + position)

    def joined(self, prepared: Prepared, results: Iterator[T], names: Names, first: int) -> Iterator[T]:
        """One result per text, of the results of its chunks.

        Raises:
            OutputError: one is NaN or infinite.
        """
        if prepared.groups is None or self.overflow.join is None:
            for position, result in enumerate(results, first):
                check_finite(result, names, position)
                yield result
            return
        for position, group in enumerate(prepared.groups, first):
            parts = [next(results) for _ in range(group.runs)]
            for part in parts:
                check_finite(part, names, position)
            yield self.overflow.join(parts, group.spans)

    def asked(self, prompt: str | None, overflow: Overflow) -> Pipeline[T]:
        """The pipeline as a call wants it: with this prompt (None: its own prefix), and this way with long texts."""
        if prompt is None and overflow == self.overflow:
            return self
        return replace(self if prompt is None else self.with_prefix(prompt), overflow=overflow)

    def tokenize(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of each text, with the prefix, truncated to the model's limit."""
        if self.prefix:
            texts = [_prefixed(self.prefix, text) for text in texts]
        return self.tokenizer.encode(texts)

    def units(self, tokens: Sequence[Tokens], batch_size: int) -> list[list[int]]:
        """The positions of the texts that run together: of similar length, within the session's token budget."""
        if len(tokens) == 1:  # a query, most likely
            return [[0]]
        lengths = [self._padded(len(each.ids)) for each in tokens]
        most = batch_size if self.max_batch is None else min(self.max_batch, batch_size)
        session = self.session
        return plan(lengths, session.budget, most, square=session.square, equal=self.uniform_length)

    def run_unit(self, tokens: Sequence[Tokens], positions: Sequence[int], *, intra_op: bool) -> Sequence[T]:
        """Results of the texts at these positions.

        Args:
            tokens: of all texts.
            positions: one of `units`.
            intra_op: use all threads of the session in this run; else one, as other units run at the same time.
        """
        longest = max(len(tokens[position].ids) for position in positions)
        batch = collate(tokens, positions, self.tokenizer.pad_id, self._padded(longest))
        output = self.session.run(batch, self.output, intra_op=intra_op, extra_inputs=self.extra_inputs)
        try:
            if output.ndim and len(output) == len(positions):
                return self.head(output, batch)
            reason = "one row per text is expected"
        except (IndexError, ValueError) as error:  # of heads, for outputs that no model of their kind has
            reason = str(error)
        tokens_of_batch = "x".join(map(str, batch.ids.shape))
        raise ModelLoadError(
            f"The model's output has shape {output.shape} for a batch of {tokens_of_batch} tokens: {reason}"
        )

    def token_counts(self, texts: Iterator[Text], batch_size: int, *, truncate: bool = True) -> Iterator[int]:
        """Tokens of each text, special ones and a prefix included."""
        return _token_counts(self.tokenizer, self.prefix, texts, batch_size, truncate=truncate)

    def _chunked(self, texts: Sequence[Text], names: Names, first: int) -> Prepared:
        chunking = self.overflow.chunking
        assert chunking is not None  # noqa: S101 - the caller has looked
        tokens: list[Tokens] = []
        groups: list[Group] = []
        error = None
        for position, text in enumerate(texts, first):
            try:
                of_text, group = chunked(self.tokenizer, self.prefix, text, chunking, names(position))
            except TextTooLongError as raised:
                error = raised
                break
            tokens += of_text
            groups.append(group)
        return Prepared(tokens, [number for number, group in enumerate(groups) if group.cut], groups, error)

    def _prepared(
        self, read: Iterator[Window[Text]], names: Names
    ) -> Generator[tuple[Window[Text], Prepared], None, None]:
        first = 0

        def prepare(window: Window[Text]) -> Prepared:
            nonlocal first
            prepared = self.prepare(window.items, names, first)
            first += len(window.items)
            return prepared

        return one_by_one(prepare, read) if self.session.on_cpu else ahead(prepare, read)

    def _window(self, tokens: Sequence[Tokens], batch_size: int, flow: Flow) -> Iterator[T]:
        for part in spans([len(each.ids) for each in tokens]):
            yield from self._sorted(tokens[part], batch_size, flow)

    def _sorted(self, tokens: Sequence[Tokens], batch_size: int, flow: Flow) -> Iterator[T]:
        """Results in the order of the texts, which run in another."""
        units = self.units(tokens, batch_size)
        costs = [len(unit) * max(len(tokens[position].ids) for position in unit) for unit in units]
        results: dict[int, T] = {}

        def run(unit: Sequence[int], alone: bool) -> Sequence[T]:
            return self.run_unit(tokens, unit, intra_op=alone and len(units) == 1)

        for unit, of_unit in zip(units, flow.map(run, units, costs), strict=True):
            results.update(zip(unit, of_unit, strict=True))
        for position in range(len(tokens)):
            yield results.pop(position)

    def _padded(self, length: int) -> int:
        """What a text of this length is padded to at least: on a GPU a length that others have too."""
        if self.session.on_cpu:
            return length
        return max(length, min(step(length), self.tokenizer.max_length))


class LookupPipeline(NamedTuple, Generic[T]):
    """Texts whose result follows from their tokens, without running the model."""

    tokenizer: Tokenizer
    lookup: Callable[[Tokens], T]
    prefix: str = ""
    overflow: Overflow = DEFAULT
    cuts: Cuts | None = None

    def run(self, texts: Iterator[Text], batch_size: int, workers: int | None, names: Names = DOCUMENTS) -> Iterator[T]:
        """One result per text, in order; arguments and errors as `Pipeline.run` has them."""
        del batch_size, workers
        for position, text in enumerate(texts):
            tokens = self.tokenizer.encode([_prefixed(self.prefix, text) if self.prefix else text])[0]
            if tokens.cut:
                self._note(names, position)
            yield self.lookup(tokens)

    def token_counts(self, texts: Iterator[Text], batch_size: int, *, truncate: bool = True) -> Iterator[int]:
        """Tokens of each text, special ones included."""
        return _token_counts(self.tokenizer, self.prefix, texts, batch_size, truncate=truncate)

    def asked(self, prompt: str | None, overflow: Overflow) -> LookupPipeline[T]:
        """As `Pipeline.asked`.

        Raises:
            ValueError: there are no chunks here.
        """
        if overflow.mode == "chunk":
            raise ValueError('this model looks texts up word by word; overflow="chunk" is for those that it runs on')
        return self._replace(prefix=self.prefix if prompt is None else prompt, overflow=overflow)

    def _note(self, names: Names, position: int) -> None:
        if self.overflow.mode == "error":
            raise too_long(names(position), self.tokenizer.max_length)
        if self.cuts is not None:
            self.cuts.note(1, self.tokenizer.max_length)
        if self.overflow.on_truncated is not None:
            self.overflow.on_truncated(position)


def _prefixed(prefix: str, text: Text) -> Text:
    return prefix + text if isinstance(text, str) else (prefix + text[0], text[1])


def _token_counts(
    tokenizer: Tokenizer, prefix: str, texts: Iterator[Text], batch_size: int, *, truncate: bool
) -> Iterator[int]:
    for window in windows(texts, batch_size):
        items = [_prefixed(prefix, text) for text in window.items] if prefix else window.items
        if truncate:
            yield from (len(tokens.ids) for tokens in tokenizer.encode(items))
        else:
            yield from tokenizer.lengths(items)
        if window.error:
            raise window.error


def check_finite(result: Any, names: Names, position: int) -> None:
    """Refuse NaN and infinity.

    Raises:
        OutputError: naming the text.
    """
    for part in result if isinstance(result, tuple) else (result,):
        values: Any = getattr(part, "values", part)  # a vector, or something that has values
        if values is None or np.isfinite(values).all():
            continue
        raise OutputError(f"The model returned NaN or infinity for {names(position)}. Its weights may be damaged.")
