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
from fastrank.engine.concurrency import ahead, one_by_one
from fastrank.engine.loaded import DOCUMENTS, Names
from fastrank.engine.pooling import Floats
from fastrank.engine.scheduler import Flow
from fastrank.engine.session import Session
from fastrank.engine.tokenizer import Text, Tokenizer
from fastrank.errors import ModelLoadError, OutputError

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
        """
        limit = self.session.workers if workers is None else workers or cpu.available()
        read = windows(texts, max(self.session.window, batch_size))
        position = 0
        with self.session.scheduler.flow(limit) as flow, closing(self._tokenized(read)) as tokenized:
            for window, tokens in tokenized:
                for result in self._window(tokens, batch_size, flow):
                    check_finite(result, names, position)
                    yield result
                    position += 1
                if window.error:
                    raise window.error

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

    def token_count(self, texts: Iterator[Text], batch_size: int) -> int:
        """Tokens of all texts after truncation, special ones included."""
        return _token_count(self.tokenize, texts, batch_size)

    def _tokenized(self, read: Iterator[Window[Text]]) -> Generator[tuple[Window[Text], list[Tokens]], None, None]:
        def tokens(window: Window[Text]) -> list[Tokens]:
            return self.tokenize(window.items)

        return one_by_one(tokens, read) if self.session.on_cpu else ahead(tokens, read)

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

    def run(self, texts: Iterator[Text], batch_size: int, workers: int | None, names: Names = DOCUMENTS) -> Iterator[T]:
        """One result per text, in order; arguments as `Pipeline.run` has them."""
        del batch_size, workers, names
        for text in texts:
            yield self.lookup(self._encode([text])[0])

    def token_count(self, texts: Iterator[Text], batch_size: int) -> int:
        """Tokens of all texts after truncation, special ones included."""
        return _token_count(self._encode, texts, batch_size)

    def _encode(self, texts: Sequence[Text]) -> list[Tokens]:
        return self.tokenizer.encode([_prefixed(self.prefix, text) for text in texts] if self.prefix else texts)


def _prefixed(prefix: str, text: Text) -> Text:
    return prefix + text if isinstance(text, str) else (prefix + text[0], text[1])


def _token_count(tokenize: Callable[[Sequence[Text]], list[Tokens]], texts: Iterator[Text], batch_size: int) -> int:
    total = 0
    for window in windows(texts, batch_size):
        if window.error:
            raise window.error
        total += sum(len(tokens.ids) for tokens in tokenize(window.items))
    return total


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
