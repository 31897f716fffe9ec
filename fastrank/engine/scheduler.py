"""One pool of worker threads per session, shared fairly by its callers.

A caller hands over units of work (batches of texts). However many callers there are, at most `workers` units run at a
time. Whose unit runs next is decided by start-time fair queueing (Goyal et al., 1997): each caller has a virtual time
that grows with the tokens it had run, and the least goes first. So a query beside a large job waits for the units that
run already, not for the job. There are no timers: a free worker takes what is waiting.

A server does not wait in a thread per request: it submits jobs of a `Group`, whose units may run together. So small
requests that come while all workers are busy become one batch.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

from fastrank.engine.ending import native_calls

R = TypeVar("R")
Unit: TypeAlias = Sequence[int]
Function: TypeAlias = "Callable[[Unit, bool], R]"  # a unit, and whether nothing else runs in the session
Part: TypeAlias = tuple[Any, Unit]  # what a job is about (the tokens of its texts, say), and one of its units

_LEAST_COST = 32  # tokens: a run has a fixed cost
_CREDIT = 512  # tokens: a job of no more goes before large ones that are up to this much ahead of it
_LOOK_AHEAD = 64  # waiting jobs that are searched for units to add to a run

_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


class Shape(NamedTuple):
    """The size of a unit: how many texts, and the tokens of the shortest and of the longest."""

    texts: int
    shortest: int
    longest: int


class Group(Generic[R]):
    """Jobs whose units may run together, such as those of one pipeline.

    Args:
        run: runs units of one or several jobs; its last argument says whether nothing else runs. One result each.
        budget: tokens of a run, padding included, beyond which nothing is added; 0: units run alone.
        uniform_length: only texts of equal length run together.
    """

    def __init__(
        self, run: Callable[[Sequence[Part], bool], Sequence[R]], budget: int, *, uniform_length: bool
    ) -> None:
        self.run = run
        self._budget = budget
        self._uniform_length = uniform_length

    def joined(self, shape: Shape, other: Shape) -> Shape | None:
        """The shape of two units together; None: they are too different, or too much."""
        texts = shape.texts + other.texts
        shortest, longest = min(shape.shortest, other.shortest), max(shape.longest, other.longest)
        slack = 0 if self._uniform_length else longest // 4 + 8  # more padding costs more than a run of its own
        if texts * longest > self._budget or longest - shortest > slack:
            return None
        return Shape(texts, shortest, longest)


class Scheduler:
    """Runs units of work on at most `workers` threads. Threads may share it; a forked child starts anew."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.generation = 0  # of forks
        self._reset()
        _schedulers.add(self)

    def flow(self, limit: int | None = None) -> Flow:
        """A caller's share of this scheduler, with at most `limit` of its units running at a time."""
        return Flow(self, min(limit or self.workers, self.workers))

    def submit(
        self,
        group: Group[R],
        about: Any,
        units: Sequence[Unit],
        shapes: Sequence[Shape],
        began: Callable[[], None],
        finished: Callable[[int, R | BaseException], None],
        limit: int | None = None,
    ) -> Submitted:
        """Hand over units without waiting for them.

        Args:
            group: runs them, together with others'.
            about: what `group.run` needs beside a unit.
            units: at least one.
            shapes: of the units.
            began: called by a worker thread before the first unit runs.
            finished: called by worker threads with the number of a unit and its result, or the error that it raised,
                after which no further units run. Neither function may raise.
            limit: units that run at a time, at most; None: as many as there are workers.

        Raises:
            RuntimeError: Python is ending.
        """
        native_calls.refuse()
        job = _SubmittedJob(self, group, about, units, shapes, began, finished)
        job.limit = min(limit or self.workers, self.workers)
        with self.lock:
            self.push(job)
        return Submitted(self, job)

    def forked(self) -> None:
        """In a forked child: locks may be held and units be run by threads that only the parent has."""
        self.generation += 1
        self._reset()

    def wait(self, seconds: float) -> None:
        """Wait until nothing runs, but no longer than this."""
        with self.lock:
            self._finished.wait_for(lambda: not self._running, seconds)

    def _reset(self) -> None:
        self.lock = threading.RLock()  # an abandoned iterator may be collected, and so closed, while it is held
        self._work, self._finished = threading.Condition(self.lock), threading.Condition(self.lock)
        self._waiting: list[tuple[float, int, _Job[Any]]] = []  # a heap
        self._numbers = itertools.count()
        self._running = 0
        self._threads = self._idle = 0
        self._flows = 0
        self._virtual_time = 0.0

    def opened(self) -> None:
        """A caller has come."""
        with self.lock:
            self._flows += 1

    def closed(self, job: _Job[Any] | None) -> None:
        """A caller goes. Its units that do not run yet never will; without callers threads end."""
        with self.lock:
            if job is not None:
                job.pending.clear()
            self._flows -= 1
            self._work.notify_all()

    # -- called with the lock held ----------------------------------------------------------------------------------

    def claim(self) -> bool:
        """Take all workers' places, if nothing runs and nothing waits."""
        if self._running or self._waiting:
            return False
        self._running = self.workers
        return True

    def release(self) -> None:
        """Give all workers' places back."""
        self._running -= self.workers
        self._notify()

    def push(self, job: _Job[Any]) -> None:
        """Queue a job that has units to run, and see that there are threads to run them."""
        if not job.running:
            job.start = max(job.start, self._virtual_time - job.credit)
        heapq.heappush(self._waiting, (job.start, next(self._numbers), job))
        job.queued = True
        self._work.notify()
        wanted = min(len(job.pending), job.limit - job.running) - self._idle
        for _ in range(min(wanted, self.workers - self._threads)):
            try:
                threading.Thread(target=_work, args=(weakref.ref(self),), name="fastrank", daemon=True).start()
            except RuntimeError:  # no more threads, or Python is ending: who waits for the result runs it
                return
            self._threads += 1

    def pop(self) -> _Taken | None:
        """The next unit to run, those that join it, and a place to run them; None: there is no unit, or no place."""
        while self._waiting and self._running < self.workers:
            start, _, job = heapq.heappop(self._waiting)
            if job.pending and job.start > start:  # units of it have joined others'
                heapq.heappush(self._waiting, (job.start, next(self._numbers), job))
                continue
            job.queued = False
            if not job.pending:  # cancelled meanwhile
                continue
            alone = job.may_claim and not self._running and not self._waiting
            places = self.workers if alone else 1
            # The last term lets a large job go on although new ones keep arriving.
            cost = max(job.costs[job.pending[0]], _LEAST_COST)
            self._virtual_time = max(self._virtual_time, job.start) + cost / (len(self._waiting) + 1)
            parts: list[tuple[_Job[Any], int]] = [(job, job.take())]
            if isinstance(job, _SubmittedJob):
                parts += self._joining(job, parts[0][1])
            self._running += places
            if job.runnable():
                self.push(job)
            return _Taken(parts, places)
        return None

    def _joining(self, job: _SubmittedJob[Any], index: int) -> list[tuple[_Job[Any], int]]:
        """Units of other jobs that run together with one of this."""
        shape = job.shapes[index]
        joining: list[tuple[_Job[Any], int]] = []
        for _, _, other in heapq.nsmallest(_LOOK_AHEAD, self._waiting):
            if not isinstance(other, _SubmittedJob) or other.group is not job.group:
                continue
            while other.pending and (more := job.group.joined(shape, other.shapes[other.pending[0]])):
                shape = more
                joining.append((other, other.take()))
        return joining

    def done(self, taken: _Taken) -> None:
        """Units have run."""
        self._running -= taken.places
        for job, _ in taken.parts:
            job.running -= 1
            if job.runnable():
                self.push(job)
        self._notify()

    def _notify(self) -> None:
        self._work.notify_all()
        self._finished.notify_all()

    # -- without ------------------------------------------------------------------------------------------------------

    def await_result(self, job: _Job[R], index: int) -> R:
        """The result of a unit, when it is there. Where there are no threads, this one does the work.

        Raises:
            Exception: the one that the unit raised.
        """
        job.delivered = index
        while True:
            with self.lock:
                if job.generation != self.generation:  # a forked child goes on with its parent's iterator
                    job.flow.enter()
                    job.again(self.generation)
                    self.push(job)
                if index in job.errors:
                    raise job.errors[index]
                if index in job.results:
                    return job.results.pop(index)
                taken = None if self._threads else self.pop()
                if taken is None:
                    self._finished.wait()
                    continue
            _run(self, taken)

    def next_unit(self) -> _Taken | None:
        """For a worker thread: the next unit, waited for; None: it should end."""
        with self.lock:
            while (taken := self.pop()) is None:
                if self._flows <= 0:
                    self._threads -= 1
                    return None
                self._idle += 1
                self._work.wait()
                self._idle -= 1
            return taken


class Flow:
    """The units of one caller, one after the other or in parallel."""

    def __init__(self, scheduler: Scheduler, limit: int) -> None:
        self._scheduler, self._limit = scheduler, limit
        self._generation = -1
        self._job: _Job[Any] | None = None
        self._start = 0.0

    def enter(self) -> None:
        """Count as a caller; in a forked child anew."""
        if self._generation != self._scheduler.generation:
            self._generation = self._scheduler.generation
            self._scheduler.opened()

    def map(self, function: Function[R], units: Sequence[Unit], costs: Sequence[int]) -> Iterator[R]:
        """The results of the units, in order. What has not begun when the iterator is closed does not run.

        Args:
            function: runs a unit; its last argument says whether nothing else runs, so that it may use all threads.
            units: texts by position, say.
            costs: tokens of each.
        """
        if len(units) == 1 or self._scheduler.workers == 1:
            for unit, cost in zip(units, costs, strict=True):
                yield self._one(function, unit, cost)
            return
        yield from self._queued(function, units, costs)

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._generation == self._scheduler.generation:
            self._scheduler.closed(self._job)

    def _one(self, function: Function[R], unit: Unit, cost: int) -> R:
        scheduler = self._scheduler
        native_calls.refuse()
        with scheduler.lock:
            alone = scheduler.claim()
        if not alone:
            with closing(self._queued(function, [unit], [cost])) as results:
                return next(results)
        generation = scheduler.generation
        try:
            with native_calls:  # also where a session is opened
                return function(unit, True)
        finally:
            if generation == scheduler.generation:
                with scheduler.lock:
                    scheduler.release()

    def _queued(self, function: Function[R], units: Sequence[Unit], costs: Sequence[int]) -> Generator[R, None, None]:
        native_calls.refuse()
        scheduler = self._scheduler
        self.enter()
        job = self._job = _Job(self, function, units, costs, self._limit, scheduler.generation, self._start)
        with scheduler.lock:
            scheduler.push(job)
        try:
            for index in range(len(units)):
                yield scheduler.await_result(job, index)
        finally:
            with scheduler.lock:
                job.pending.clear()
                self._start = job.start
            self._job = None


class Submitted:
    """Units that were handed over to `Scheduler.submit`."""

    def __init__(self, scheduler: Scheduler, job: _Job[Any]) -> None:
        self._scheduler, self._job = scheduler, job

    def cancel(self) -> None:
        """Run no more of them. What runs already is finished."""
        with self._scheduler.lock:
            self._job.pending.clear()


class _Taken(NamedTuple):
    """Units that run together, and how many workers' places they take."""

    parts: list[tuple[_Job[Any], int]]
    places: int


class _Job(Generic[R]):
    """Units that were handed over together."""

    may_claim = False  # whether it takes all places if nothing else runs or waits

    def __init__(
        self,
        flow: Flow,
        function: Function[R],
        units: Sequence[Unit],
        costs: Sequence[int],
        limit: int,
        generation: int,
        start: float,
    ) -> None:
        self.flow, self.function, self.units, self.costs = flow, function, units, costs
        self.limit, self.generation, self.start = limit, generation, start
        self.credit = _CREDIT if sum(costs) <= _CREDIT else 0
        self.pending = deque(range(len(units)))
        self.running = 0
        self.queued = False
        self.results: dict[int, R] = {}
        self.errors: dict[int, BaseException] = {}
        self.delivered = 0

    def runnable(self) -> bool:
        """Whether another unit may be queued."""
        return bool(self.pending) and self.running < self.limit and not self.queued

    def take(self) -> int:
        """The next unit, which runs from now on."""
        index = self.pending.popleft()
        self.start += max(self.costs[index], _LEAST_COST)
        self.running += 1
        return index

    def again(self, generation: int) -> None:
        """In a forked child: what the parent's threads were to run is run here."""
        self.generation, self.running, self.queued, self.start = generation, 0, False, 0.0
        unfinished = range(self.delivered, len(self.units))
        self.pending = deque(i for i in unfinished if i not in self.results and i not in self.errors)


class _SubmittedJob(_Job[R]):
    """Units whose results no thread waits for."""

    def __init__(
        self,
        scheduler: Scheduler,
        group: Group[R],
        about: Any,
        units: Sequence[Unit],
        shapes: Sequence[Shape],
        began: Callable[[], None],
        finished: Callable[[int, R | BaseException], None],
    ) -> None:
        flow = Flow(scheduler, scheduler.workers)
        costs = [shape.texts * shape.longest for shape in shapes]
        super().__init__(flow, self._alone, units, costs, scheduler.workers, scheduler.generation, 0.0)
        self.group, self.about, self.shapes = group, about, shapes
        self.began, self.finished = began, finished
        self.has_begun = False
        self.may_claim = len(units) == 1

    def _alone(self, unit: Unit, alone: bool) -> R:
        return self.group.run([(self.about, unit)], alone)[0]


def _work(reference: weakref.ref[Scheduler]) -> None:
    """What a worker thread does. It keeps nothing alive while it waits but the scheduler."""
    scheduler = reference()
    while scheduler is not None and (taken := scheduler.next_unit()) is not None:
        _run(scheduler, taken)
        del taken


def _run(scheduler: Scheduler, taken: _Taken) -> None:
    generation = scheduler.generation
    job, index = taken.parts[0]
    if isinstance(job, _SubmittedJob):
        _run_together(job.group, taken)
    else:
        try:
            with native_calls:
                job.results[index] = job.function(job.units[index], False)
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            job.errors[index] = error
            job.pending.clear()
    if generation == scheduler.generation:
        with scheduler.lock:
            scheduler.done(taken)


def _run_together(group: Group[Any], taken: _Taken) -> None:
    parts = [(job, index) for job, index in taken.parts if isinstance(job, _SubmittedJob)]
    for job, _ in parts:
        if not job.has_begun:
            job.has_begun = True
            job.began()
    try:
        with native_calls:
            results = group.run([(job.about, job.units[index]) for job, index in parts], taken.places > 1)
    except BaseException as error:  # noqa: BLE001 - each job gets it
        results = [error] * len(parts)
    for (job, index), result in zip(parts, results, strict=True):
        if isinstance(result, BaseException):
            job.pending.clear()
        job.finished(index, result)


def _forked() -> None:
    for scheduler in list(_schedulers):
        scheduler.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
