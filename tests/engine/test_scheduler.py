"""Workers of a session: how many run at a time, who goes next, what happens to a caller that leaves."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from support.waiting import wait_until

from fastrank import PoolingType, TextEmbedding
from fastrank.engine.scheduler import Scheduler


class Work:
    """Units that note their order, and how many run at a time."""

    def __init__(self, seconds=0.002):
        self.order, self.most, self.seconds = [], 0, seconds
        self._running, self._lock = 0, threading.Lock()

    def __call__(self, unit, alone):
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
            self.order.append(unit[0])
        time.sleep(self.seconds)
        with self._lock:
            self._running -= 1
        return unit[0], alone


def units(name, count):
    return [[f"{name}{n}"] for n in range(count)]


def run(scheduler, work, name, count, limit=None):
    with scheduler.flow(limit) as flow:
        return [result for result, _ in flow.map(work, units(name, count), [100] * count)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_and_no_more_than_the_workers_run(workers):
    scheduler, work = Scheduler(workers), Work()
    assert run(scheduler, work, "a", 30) == [f"a{n}" for n in range(30)]
    assert work.most <= workers


def test_six_callers_share_two_workers():
    scheduler, work, results = Scheduler(2), Work(), {}
    callers = [
        threading.Thread(target=lambda n=n: results.update({n: run(scheduler, work, f"{n}-", 20)})) for n in range(6)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert work.most == 2
    assert results == {n: [f"{n}-{i}" for i in range(20)] for n in range(6)}


def test_a_caller_may_ask_for_less():
    work = Work()
    run(Scheduler(4), work, "a", 20, limit=2)
    assert work.most == 2


def test_a_query_does_not_wait_for_a_large_job():
    scheduler, work = Scheduler(2), Work(0.005)
    large = threading.Thread(target=run, args=(scheduler, work, "large", 200))
    large.start()
    wait_until(lambda: len(work.order) > 20)
    before = len(work.order)
    assert run(scheduler, work, "query", 1) == ["query0"]
    assert work.order.index("query0") - before <= 4
    large.join()


def test_a_large_job_is_not_starved_by_new_queries():
    scheduler, work = Scheduler(1), Work(0.001)
    stop = threading.Event()

    def queries(name):
        while not stop.is_set():
            run(scheduler, work, name, 1)

    callers = [threading.Thread(target=queries, args=(f"q{n}-",)) for n in range(4)]
    for caller in callers:
        caller.start()
    assert len(run(scheduler, work, "large", 40)) == 40
    stop.set()
    for caller in callers:
        caller.join()


def test_one_unit_alone_has_all_threads_and_runs_where_it_was_asked_for():
    scheduler, threads = Scheduler(4), []
    with scheduler.flow() as flow:
        (alone,) = flow.map(lambda _unit, alone: threads.append(threading.current_thread()) or alone, [[0]], [10])
    assert alone
    assert threads == [threading.current_thread()]


def test_an_error_arrives_in_its_place_and_ends_the_job():
    scheduler = Scheduler(2)

    def fail(unit, _alone):
        if unit[0] == 3:
            raise LookupError("three")
        return unit[0]

    with scheduler.flow() as flow:
        results = flow.map(fail, [[n] for n in range(50)], [1] * 50)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(LookupError, match="three"):
            next(results)
    assert run(scheduler, Work(), "a", 5) == [f"a{n}" for n in range(5)]


def test_who_leaves_early_gives_the_place_back():
    scheduler, work, before = Scheduler(2), Work(0.01), threading.active_count()
    with scheduler.flow() as flow:
        results = flow.map(work, units("a", 500), [100] * 500)
        next(results)
        results.close()
    assert wait_until(lambda: threading.active_count() == before)
    assert len(work.order) < 20
    assert run(scheduler, work, "b", 3) == ["b0", "b1", "b2"]


def test_where_no_thread_can_be_started_the_caller_does_the_work(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    work = Work(0)
    assert run(Scheduler(3), work, "a", 9) == [f"a{n}" for n in range(9)]
    assert work.most == 1


def test_a_job_of_the_parent_goes_on_in_a_forked_child():
    scheduler, work = Scheduler(2), Work(0)
    with scheduler.flow() as flow:
        results = flow.map(work, units("a", 40), [100] * 40)
        found = [next(results)[0] for _ in range(3)]
        wait_until(lambda: len(work.order) == 40)  # all have run, but in the parent's threads
        scheduler.forked()
        found += [result for result, _ in results]
    assert found == [f"a{n}" for n in range(40)]


def test_threads_bound_a_model_however_many_callers_it_has(tiny, monkeypatch):
    model = TextEmbedding("any/tiny", specific_model_path=tiny, pooling=PoolingType.MEAN, threads=2)
    session, guard, running, most = model._model.get().documents.session, threading.Lock(), [0], [0]
    real = type(session).run

    def watched(self, *args, **kwargs):
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002)
        try:
            return real(self, *args, **kwargs)
        finally:
            with guard:
                running[0] -= 1

    monkeypatch.setattr(type(session), "run", watched)
    texts = [f"cat {'the ' * (n % 50)}" for n in range(300)]
    expected = np.stack(list(model.embed(texts)))
    callers = [threading.Thread(target=lambda: list(model.embed(texts, parallel=4))) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert most[0] == 2
    np.testing.assert_allclose(np.stack(list(model.embed(texts))), expected, atol=1e-6)


def test_a_model_that_is_dropped_is_freed_at_once(tiny):
    gc.collect()
    gc.disable()
    try:
        model = TextEmbedding("any/tiny", specific_model_path=tiny, pooling=PoolingType.MEAN)
        list(model.embed([f"cat {n}" for n in range(300)]))
        next(model.query_embed("cat"))
        session = weakref.ref(model._model.get().documents.session)
        del model
        assert wait_until(lambda: session() is None)
    finally:
        gc.enable()
