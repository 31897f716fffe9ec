"""Texts through a pipeline for users of asyncio: by the same workers, without blocking the loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastrank.engine import cpu, progress
from fastrank.engine.batching import Tokens, spans, windows
from fastrank.engine.loaded import DOCUMENTS, Lazy, Names, TextPipeline
from fastrank.engine.overflow import Prepared
from fastrank.engine.pipeline import Pipeline, check_finite
from fastrank.engine.scheduler import Group, Part, Scheduler, Shape, Unit
from fastrank.engine.tokenizer import Text

T = TypeVar("T")
R = TypeVar("R")

_INLINE = 2_000  # characters: less is tokenized at once, as a thread would cost more
_CHUNK = 64  # texts that a thread runs where no session does


async def run(
    model: Lazy[Any],
    choose: Callable[[Any], TextPipeline[T]],
    texts: Iterator[Any],
    batch_size: int,
    workers: int | None,
    names: Names = DOCUMENTS,
) -> AsyncGenerator[T, None]:
    """One result per text, in order; closing the generator, or cancelling its task, stops what has not begun.

    Args:
        model: loaded in a thread if it is not.
        choose: the pipeline to use.
        texts: as `Pipeline.run`; they are read on the loop.
        batch_size: as there.
        workers: as there.
        names: as there.

    Raises:
        OutputError: the model returned NaN or infinity for a text.
        TextTooLongError: a text is too long, and may not be cut.
    """
    pipeline = choose(model.get() if model.is_loaded else await asyncio.to_thread(model.get))
    async with aclosing(_results(pipeline, texts, batch_size, workers, names)) as results:
        async for result in results:
            yield result


async def mapped(results: AsyncGenerator[T, None], change: Callable[[T], R]) -> AsyncGenerator[R, None]:
    """The results, changed; closing the generator closes theirs."""
    async with aclosing(results) as open_results:
        async for result in open_results:
            yield change(result)


async def shown(results: AsyncGenerator[T, None], name: str, total: int | None) -> AsyncGenerator[T, None]:
    """The results, with a progress bar."""
    with progress.bar(name, total) as drawn:
        async with aclosing(results) as open_results:
            async for result in open_results:
                yield result
                drawn.update()


async def gather(
    scheduler: Scheduler,
    group: Group[R],
    about: Any,
    units: Sequence[Unit],
    shapes: Sequence[Shape],
    began: Callable[[], None] = lambda: None,
    ran: Callable[[int], None] = lambda _index: None,
    limit: int | None = None,
) -> list[R]:
    """The results of units, in order. If the task is cancelled, what has not begun does not run.

    Args:
        scheduler: runs them.
        group: as `Scheduler.submit`.
        about: as there.
        units: as there.
        shapes: as there.
        began: is called by a worker thread before the first runs.
        ran: is called by worker threads with the number of each that has run.
        limit: as `Scheduler.submit`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    results: dict[int, R] = {}

    def finished(index: int, result: R | BaseException) -> None:
        error = result if isinstance(result, BaseException) else None
        if not isinstance(result, BaseException):
            ran(index)
            results[index] = result
        if error is not None or len(results) == len(units):
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_set, future, error)

    handle = scheduler.submit(group, about, units, shapes, began, finished, limit)
    try:
        await future
    finally:
        handle.cancel()
    return [results[index] for index in range(len(units))]


def group_of(pipeline: Pipeline[Any], run: Callable[[Sequence[Part], bool], Sequence[R]]) -> Group[R]:
    """A group of jobs that run on a pipeline."""
    budget = 0 if pipeline.max_batch == 1 else pipeline.session.budget
    return Group(run, budget, uniform_length=pipeline.uniform_length)


def run_parts(pipeline: Pipeline[T], parts: Sequence[tuple[Sequence[Tokens], Unit]], alone: bool) -> list[Sequence[T]]:
    """The results of units of several jobs, run as one.

    Args:
        pipeline: runs them.
        parts: tokens of a job's texts, and one of its units.
        alone: use all threads of the session.
    """
    tokens = [of_job[position] for of_job, unit in parts for position in unit]
    found = pipeline.run_unit(tokens, range(len(tokens)), intra_op=alone)
    ends = list(itertools.accumulate((len(unit) for _, unit in parts), initial=0))
    return [found[start:end] for start, end in itertools.pairwise(ends)]


def shape_of(tokens: Sequence[Tokens], unit: Unit) -> Shape:
    """The size of a unit."""
    lengths = [len(tokens[position].ids) for position in unit]
    return Shape(len(unit), min(lengths), max(lengths))


async def _results(
    pipeline: TextPipeline[T], texts: Iterator[Any], batch_size: int, workers: int | None, names: Names
) -> AsyncGenerator[T, None]:
    first = 0
    if not isinstance(pipeline, Pipeline):
        for chunk in windows(texts, _CHUNK):
            for position, result in enumerate(await asyncio.to_thread(_listed, pipeline, chunk.items, batch_size)):
                check_finite(result, names, first + position)
                yield result
            if chunk.error:
                raise chunk.error
            first += len(chunk.items)
        return
    for window in windows(texts, max(pipeline.session.window, batch_size)):
        prepared = await _prepared(pipeline, window.items, names, first)
        pipeline.note(prepared, first)
        results = _windowed(pipeline, prepared.tokens, batch_size, workers)
        async with aclosing(results), aclosing(_joined(pipeline, prepared, results, names, first)) as joined:
            async for result in joined:
                yield result
        if error := prepared.error or window.error:
            raise error
        first += len(window.items)


async def _windowed(
    pipeline: Pipeline[T], tokens: Sequence[Tokens], batch_size: int, workers: int | None
) -> AsyncGenerator[T, None]:
    for part in spans([len(each.ids) for each in tokens]):
        for result in await _of_part(pipeline, tokens[part], batch_size, workers):
            yield result


async def _joined(
    pipeline: Pipeline[T], prepared: Prepared, results: AsyncGenerator[T, None], names: Names, first: int
) -> AsyncGenerator[T, None]:
    """One result per text, as `Pipeline.joined`."""
    for position in range(len(prepared.tokens) if prepared.groups is None else len(prepared.groups)):
        runs = 1 if prepared.groups is None else prepared.groups[position].runs
        parts = [await anext(results) for _ in range(runs)]
        of_text = prepared._replace(groups=prepared.groups and prepared.groups[position : position + 1])
        for result in pipeline.joined(of_text, iter(parts), names, first + position):
            yield result


async def _prepared(pipeline: Pipeline[Any], texts: Sequence[Text], names: Names, first: int) -> Prepared:
    if sum(len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in texts) <= _INLINE:
        return pipeline.prepare(texts, names, first)
    return await asyncio.to_thread(pipeline.prepare, texts, names, first)


async def _of_part(
    pipeline: Pipeline[T], tokens: Sequence[Tokens], batch_size: int, workers: int | None
) -> Sequence[T]:
    units = pipeline.units(tokens, batch_size)
    shapes = [shape_of(tokens, unit) for unit in units]
    limit = cpu.available() if workers == 0 else workers
    of_units = await gather(
        pipeline.session.scheduler, _group(pipeline), (pipeline, tokens), units, shapes, limit=limit
    )
    results: dict[int, T] = {}
    for unit, of_unit in zip(units, of_units, strict=True):
        results.update(zip(unit, of_unit, strict=True))
    return [results[position] for position in range(len(tokens))]


def _group(pipeline: Pipeline[Any]) -> Group[Any]:
    """The group of all pipelines that do the same with tokens; their prefixes may differ."""
    key = pipeline.head, pipeline.output, tuple(pipeline.extra_inputs.items())
    groups = pipeline.session.groups
    if key not in groups:
        groups[key] = group_of(pipeline, _run)
    return groups[key]


def _run(parts: Sequence[Part], alone: bool) -> list[Sequence[Any]]:
    """What a job is about is its pipeline and tokens: a group that knew its pipeline would keep the session alive."""
    (pipeline, _tokens), _unit = parts[0]
    return run_parts(pipeline, [(tokens, unit) for (_, tokens), unit in parts], alone)


def _listed(pipeline: TextPipeline[T], texts: Sequence[Any], batch_size: int) -> list[T]:
    return list(pipeline.run(iter(texts), batch_size, 1))


def _set(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
