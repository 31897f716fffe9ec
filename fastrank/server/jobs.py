"""Texts through a model's pipeline for many requests at once: admitted by tokens, run fairly, merged, cancelled.

The way of a text is the library's own (`Pipeline.tokenize`, `units`, `run_unit`), so its result is the library's too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fastrank.engine import asynchronous, cpu
from fastrank.engine.batching import Tokens
from fastrank.engine.overflow import DEFAULT, Overflow, Prepared
from fastrank.engine.pipeline import Pipeline
from fastrank.engine.scheduler import Group, Part
from fastrank.server import cutting
from fastrank.server.metrics import Metrics
from fastrank.server.timing import Timing
from fastrank.server.wire.calls import Side
from fastrank.server.wire.errors import ApiError, Kind

_SLICE = 64  # texts that are tokenized without looking whether the request is still wanted
_INLINE = 2_000  # characters: less is tokenized at once, as a thread would cost more
_CHARACTERS_PER_TOKEN = 4
_SPECIAL = 2  # tokens around a text
_ANY_NUMBER = 1 << 30  # of texts in a batch: the budget of tokens decides
_RATE = 4_000.0  # tokens a second, until something was measured
_SMOOTH = 0.1  # weight of a new measurement
_MOST_RETRY = 30  # seconds
_STUCK = 60.0  # seconds that a unit may take before the server calls itself ill

Text = str | tuple[str, str]
Prepare = Callable[[Sequence[Text]], Prepared]


class Lane:
    """A pipeline of a served model, and what runs together on it."""

    def __init__(self, model: str, pipeline: Pipeline[Any]) -> None:
        self.model = model
        self.pipeline = pipeline
        self.group: Group[Any] | None = None  # made by `Jobs`


class Run(NamedTuple):
    """What a pipeline made of texts.

    Attributes:
        results: in order.
        lengths: tokens of each text, negative where it was cut.
    """

    results: list[Any]
    lengths: list[int]


class Jobs:
    """All that waits and runs in a server, over all its models.

    Args:
        most_waiting: tokens that may wait; a request into an empty queue is always taken.
        metrics: count what ran.
        truncate: whether texts that are too long are cut where a call does not say.
        characters: of a text that are looked at; what has more counts as too long.
    """

    def __init__(
        self, most_waiting: int, metrics: Metrics, *, truncate: bool = True, characters: int = 1_000_000
    ) -> None:
        self.waiting_tokens = 0
        self.waiting_requests = 0
        self._most = most_waiting
        self._truncate = truncate
        self._characters = characters
        self._metrics = metrics
        self.lock = threading.Lock()
        self._tokenizing = asyncio.Semaphore(2 * cpu.available())
        self._rate = _RATE
        self._runs = itertools.count()
        self._running: dict[int, float] = {}  # when each run began

    async def run(
        self,
        lane: Lane,
        texts: Sequence[Text],
        timing: Timing,
        *,
        truncate: bool | None = None,
        side: Side = "right",
        field: str = "documents",
        prompt: str | None = None,
        overflow: Overflow = DEFAULT,
        prepare: Prepare | None = None,
    ) -> Run:
        """The results of texts.

        Args:
            lane: what runs them.
            texts: texts or pairs.
            timing: is filled in.
            truncate: whether texts that are too long are cut; None: as the server does.
            side: where.
            field: what errors call the texts.
            prompt: put before each text, in place of the pipeline's own.
            overflow: with chunks, long texts are read in chunks.
            prepare: makes tokens of the texts, in place of the pipeline.

        Raises:
            ApiError: too much waits already, a text is too long and must not be cut, or the model failed.
        """
        pipeline = lane.pipeline
        huge = {position for position, text in enumerate(texts) if _length(text) > self._characters}
        if huge:
            texts = [cutting.shortened(text, self._characters, side) for text in texts]
        with self.admitted(_estimate(texts, pipeline.tokenizer.max_length)) as reservation:
            begun = time.perf_counter()
            asked = pipeline.asked(prompt, overflow)
            prepared = await self._prepared(asked, texts, side, prepare)
            timing.tokenization += time.perf_counter() - begun
            cut = huge.union(prepared.cut)
            if prepared.error is not None:
                raise ApiError(Kind.TOO_LONG, str(prepared.error).replace("documents[", f"{field}["), field)
            if cut and not (self._truncate if truncate is None else truncate):
                raise _too_long(field, min(cut), pipeline.tokenizer.max_length)
            if cut:
                pipeline.cuts.note(len(cut), pipeline.tokenizer.max_length)
            lengths = [len(each.ids) for each in prepared.tokens]
            timing.tokens += sum(lengths)
            timing.truncated += len(cut)
            reservation.change(sum(lengths))
            results = await self._submitted(lane, prepared.tokens, lengths, timing, reservation)
            if prepared.groups is not None and overflow.join is not None:
                parts, of_chunks = iter(results), iter(lengths)
                taken = [group.runs for group in prepared.groups]
                results = [
                    overflow.join([next(parts) for _ in range(group.runs)], group.spans) for group in prepared.groups
                ]
                lengths = [sum(next(of_chunks) for _ in range(runs)) for runs in taken]
            return Run(results, [-length if n in cut else length for n, length in enumerate(lengths)])

    @contextlib.contextmanager
    def admitted(self, tokens: int) -> Iterator[_Reservation]:
        """Room for a number of tokens among those that wait.

        Raises:
            ApiError: there is none.
        """
        with self.lock:
            waiting = self.waiting_tokens
            refused = waiting > 0 and waiting + tokens > self._most
        if refused:
            seconds = min(_MOST_RETRY, max(1, math.ceil(waiting / self._rate)))
            message = f"The server is busy: {waiting} tokens wait already. Try again in {seconds} s"
            raise ApiError(Kind.OVERLOADED, message, code="overloaded", headers={"Retry-After": str(seconds)})
        reservation = _Reservation(self)
        reservation.change(tokens)
        self.waiting_requests += 1
        try:
            yield reservation
        finally:
            self.waiting_requests -= 1
            reservation.change(0)

    def healthy(self) -> bool:
        """Whether no run takes suspiciously long."""
        return all(time.monotonic() - begun < _STUCK for begun in list(self._running.values()))

    async def _prepared(
        self, pipeline: Pipeline[Any], texts: Sequence[Text], side: Side, prepare: Prepare | None
    ) -> Prepared:
        """The tokens of texts or of their chunks, and the positions of texts that were cut."""

        def of_part(start: int, part: Sequence[Text]) -> Prepared:
            if side == "right" or pipeline.overflow.chunking is not None:
                return pipeline.prepare(part, first=start)
            tokens = pipeline.tokenize([cutting.ending(pipeline, text) for text in part])
            limit = pipeline.tokenizer.max_length
            long = [n for n, each in enumerate(tokens) if len(each.ids) >= limit and cutting.is_long(pipeline, part[n])]
            return Prepared(tokens, long)

        if prepare is not None:
            return await asyncio.to_thread(prepare, texts)
        if sum(map(_length, texts)) <= _INLINE:
            return of_part(0, texts)
        whole = Prepared([], [], None if pipeline.overflow.chunking is None else [])
        async with self._tokenizing:
            for start in range(0, len(texts), _SLICE):
                found = await asyncio.to_thread(of_part, start, texts[start : start + _SLICE])
                whole.tokens.extend(found.tokens)
                whole.cut.extend(start + position for position in found.cut)
                if whole.groups is not None:
                    whole.groups.extend(found.groups or [])
                if found.error is not None:
                    return whole._replace(error=found.error)
        return whole

    async def _submitted(
        self, lane: Lane, tokens: list[Tokens], lengths: list[int], timing: Timing, reservation: _Reservation
    ) -> list[Any]:
        units = lane.pipeline.units(tokens, _ANY_NUMBER)
        shapes = [asynchronous.shape_of(tokens, unit) for unit in units]
        submitted = begun = time.perf_counter()

        def began() -> None:
            nonlocal begun
            begun = time.perf_counter()
            timing.started = True

        def ran(index: int) -> None:
            reservation.reduce(sum(lengths[position] for position in units[index]))

        if lane.group is None:
            lane.group = asynchronous.group_of(lane.pipeline, self._measured)
        scheduler = lane.pipeline.session.scheduler
        of_units = await asynchronous.gather(scheduler, lane.group, (lane, tokens), units, shapes, began, ran)
        timing.queue += begun - submitted
        timing.inference += time.perf_counter() - begun
        results: list[Any] = [None] * len(tokens)
        for unit, of_unit in zip(units, of_units, strict=True):
            for position, result in zip(unit, of_unit, strict=True):
                results[position] = result
        return results

    def _measured(self, parts: Sequence[Part], alone: bool) -> list[Sequence[Any]]:
        """Run units of one lane, and note how that went."""
        (lane, _), _ = parts[0]
        number, begun = next(self._runs), time.monotonic()
        self._running[number] = begun
        try:
            of_lane = [(tokens, unit) for (_, tokens), unit in parts]
            results = asynchronous.run_parts(lane.pipeline, of_lane, alone)
        finally:
            del self._running[number]
        lengths = [len(tokens[position].ids) for tokens, unit in of_lane for position in unit]
        seconds = max(time.monotonic() - begun, 1e-6)
        threads = 1 if alone else lane.pipeline.session.workers
        self._rate += _SMOOTH * (threads * sum(lengths) / seconds - self._rate)
        self._metrics.ran(lane.model, len(lengths), sum(lengths), len(lengths) * max(lengths))
        return results


class _Reservation:
    """Tokens of one request among those that wait. Worker threads reduce them as they run."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._tokens = 0

    def change(self, tokens: int) -> None:
        """Set the number of tokens."""
        with self._jobs.lock:
            self._jobs.waiting_tokens += tokens - self._tokens
            self._tokens = tokens

    def reduce(self, tokens: int) -> None:
        """Lower the number of tokens, unless the request is gone."""
        with self._jobs.lock:
            fewer = min(tokens, self._tokens)
            self._jobs.waiting_tokens -= fewer
            self._tokens -= fewer


def _estimate(texts: Sequence[Text], most: int) -> int:
    """Tokens of texts before they are tokenized."""
    return sum(min(most, _length(text) // _CHARACTERS_PER_TOKEN + _SPECIAL) for text in texts)


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def _too_long(field: str, position: int, limit: int) -> ApiError:
    message = f"{field}[{position}] has more than {limit} tokens, the limit of this model, and truncation is off"
    return ApiError(Kind.TOO_LONG, message, field)
