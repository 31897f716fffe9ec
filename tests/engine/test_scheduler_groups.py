"""Jobs that are submitted: units of several run together, fairly, and can be cancelled."""

import threading
import time

import pytest
from support.waiting import patience

from fastrank.engine.scheduler import Group, Scheduler, Shape


class Work:
    """Units that are texts by length; runs wait at a gate."""

    def __init__(self, workers=1, budget=512, *, uniform_length=False):
        self.scheduler = Scheduler(workers)
        self.gate = threading.Event()
        self.seconds = 0.002
        self.runs = []  # (texts of each job in a run, alone)
        self.group = Group(self.run, budget, uniform_length=uniform_length)

    def run(self, parts, alone):
        time.sleep(self.seconds)
        self.runs.append(([(name, list(unit)) for name, unit in parts], alone))
        assert self.gate.wait(patience(20))
        return [[f"{name}{position}" for position in unit] for name, unit in parts]

    def submit(self, name, lengths, group=None):
        """One unit for each tuple of lengths."""
        job = Job(len(lengths))
        shapes = [Shape(len(each), min(each), max(each)) for each in lengths]
        units = [[index] for index in range(len(lengths))]
        job.handle = self.scheduler.submit(
            group or self.group, name, units, shapes, lambda: job.began.append(1), job.finished
        )
        return job

    def open(self, *jobs):
        self.gate.set()
        for job in jobs:
            assert job.done.wait(patience(20))

    def occupy(self):
        """A run that keeps the only worker busy."""
        first = self.submit("busy", [(500,), (500,)])
        end = time.monotonic() + patience(20)
        while not self.runs:
            assert time.monotonic() < end
            time.sleep(0.001)
        return first


class Job:
    def __init__(self, units):
        self.left, self.results, self.began = units, {}, []
        self.done = threading.Event()

    def finished(self, index, result):
        self.results[index] = result
        self.left -= 1
        if self.left == 0 or isinstance(result, BaseException):
            self.done.set()


def test_results_come_with_the_number_of_their_unit():
    work = Work(workers=2)
    job = work.submit("a", [(10,), (400,), (10,)])
    work.open(job)
    assert job.results == {0: ["a0"], 1: ["a1"], 2: ["a2"]}
    assert job.began == [1]


def test_what_waits_while_all_are_busy_runs_together():
    work = Work()
    busy = work.occupy()
    queries = [work.submit(f"q{n}-", [(10,)]) for n in range(8)]
    work.open(busy, *queries)
    assert [len(parts) for parts, _alone in work.runs] == [1, 8, 1]
    assert [query.results for query in queries] == [{0: [f"q{n}-0"]} for n in range(8)]


def test_a_run_stays_within_the_budget():
    work = Work(budget=64)
    busy = work.occupy()
    queries = [work.submit(f"q{n}-", [(30, 30)] if n == 3 else [(20,)]) for n in range(6)]
    work.open(busy, *queries)
    merged = [parts for parts, _alone in work.runs if parts[0][0] != "busy"]
    assert sum(len(parts) for parts in merged) == 6
    assert max(len(parts) for parts in merged) == 3


@pytest.mark.parametrize(("uniform_length", "sizes"), [(False, [3, 1]), (True, [2, 1, 1])])
def test_only_similar_lengths_run_together(uniform_length, sizes):
    work = Work(uniform_length=uniform_length)
    busy = work.occupy()
    queries = [work.submit(f"q{length}", [(length,)]) for length in (20, 20, 28, 100)]
    work.open(busy, *queries)
    assert sorted((len(parts) for parts, _ in work.runs if parts[0][0] != "busy"), reverse=True) == sizes


def test_units_without_a_budget_run_alone():
    work = Work(budget=0)
    busy = work.occupy()
    queries = [work.submit(f"q{n}", [(10,)]) for n in range(3)]
    work.open(busy, *queries)
    assert all(len(parts) == 1 for parts, _ in work.runs)


def test_other_groups_do_not_join():
    work = Work()
    other = Group(work.run, 512, uniform_length=False)
    busy = work.occupy()
    jobs = [work.submit("a", [(10,)]), work.submit("b", [(10,)], group=other)]
    work.open(busy, *jobs)
    assert all(len(parts) == 1 for parts, _ in work.runs)


def test_a_query_waits_for_what_runs_not_for_a_large_job():
    work = Work()
    large = work.submit("large", [(500,)] * 200)
    while not work.runs:
        time.sleep(0.001)
    query = work.submit("query", [(10,)])
    work.open(large, query)
    names = [parts[0][0] for parts, _ in work.runs]
    assert names.index("query") <= 2


def test_a_query_waits_for_what_runs_not_for_many_large_jobs():
    work = Work()
    work.gate.set()
    large = [work.submit(f"large{n}", [(500,)] * 60) for n in range(6)]
    waited = []
    for _ in range(40):
        before = len(work.runs)
        query = work.submit("query", [(10,)])
        assert query.done.wait(patience(20))
        waited.append(len(work.runs) - before)
        time.sleep(0.001)
    assert sorted(waited)[len(waited) // 2] <= 2  # what ran, and itself
    for job in large:
        assert job.done.wait(patience(20))


def test_an_endless_stream_of_queries_does_not_starve_a_large_job():
    work = Work()
    work.gate.set()
    large = work.submit("large", [(500,)] * 20)
    asked = 0
    while not large.done.is_set():
        query = work.submit("query", [(10,)])
        assert query.done.wait(patience(20))
        asked += 1
        assert asked < 20_000
    assert len(large.results) == 20


def test_a_single_unit_has_all_workers_when_nothing_else_runs():
    work = Work(workers=2)
    work.open(work.submit("a", [(10,)]))
    work.open(work.submit("b", [(10,), (10,)]))
    assert [alone for parts, alone in work.runs if parts[0][0] == "a"] == [True]
    assert not any(alone for parts, alone in work.runs if parts[0][0] == "b")


def test_what_is_cancelled_does_not_run():
    work = Work()
    busy = work.occupy()
    kept, dropped = work.submit("kept", [(10,)]), work.submit("dropped", [(10,)] * 5)
    dropped.handle.cancel()
    work.open(busy, kept)
    assert not any(name == "dropped" for parts, _ in work.runs for name, _unit in parts)
    assert work.scheduler._waiting == []


def test_an_error_is_told_to_every_job_of_the_run_and_the_thread_lives_on():
    work = Work()

    def fail(parts, alone):
        raise RuntimeError("broken")

    busy = work.occupy()
    broken = Group(fail, 512, uniform_length=False)
    jobs = [work.submit("a", [(10,), (300,)], group=broken), work.submit("b", [(10,)], group=broken)]
    after = work.submit("after", [(10,)])
    work.open(busy, *jobs, after)
    assert all(isinstance(job.results[0], RuntimeError) for job in jobs)
    assert after.results == {0: ["after0"]}


def test_places_are_given_back():
    work = Work(workers=3)
    work.gate.set()
    jobs = [work.submit(f"j{n}", [(n + 1,)] * (n % 4 + 1)) for n in range(60)]
    for job in jobs:
        assert job.done.wait(patience(20))
    work.scheduler.wait(patience(20))
    assert work.scheduler._running == 0
    assert all(len(job.results) == n % 4 + 1 for n, job in enumerate(jobs))
