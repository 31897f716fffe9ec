"""The async methods of the public classes: results of the others, by the same workers, and work that can be stopped."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from support.processes import run_python

import fastrank
from fastrank.engine.scheduler import Scheduler

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXTS = [f"{word} {'the cat is red ' * (n % 5)}" for n in range(70) for word in ("berlin", "what")]
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def dense():
    with fastrank.TextEmbedding("any/dense", specific_model_path=FIXTURES / "sentence_encoder") as model:
        yield model


@pytest.fixture(scope="module")
def pairs():
    with fastrank.TextCrossEncoder("any/rerank", specific_model_path=FIXTURES / "pair_classifier") as model:
        yield model


@pytest.fixture(scope="module")
def late():
    folder = FIXTURES / "late_interaction" / "pylate_bert"
    with fastrank.LateInteractionTextEmbedding("any/late", specific_model_path=folder) as model:
        yield model


async def listed(iterator):
    return [each async for each in iterator]


def test_vectors_are_those_of_embed(dense):
    names = ("embed", "query_embed", "passage_embed")
    for ours, theirs in ((getattr(dense, f"a{name}"), getattr(dense, name)) for name in names):
        found = asyncio.run(listed(ours(TEXTS)))
        assert np.abs(np.stack(found) - np.stack(list(theirs(TEXTS)))).max() < 1e-6
    assert len(asyncio.run(listed(dense.aembed("one text")))) == 1
    assert asyncio.run(listed(dense.aembed([]))) == []


def test_sparse_vectors_are_those_of_embed():
    models = {
        "any/sparse": {"specific_model_path": FIXTURES / "sparse_encoder"},
        "Qdrant/bm25": {},
    }
    for name, options in models.items():
        with fastrank.SparseTextEmbedding(name, **options) as model:
            for ours, theirs in ((model.aembed, model.embed), (model.aquery_embed, model.query_embed)):
                found = asyncio.run(listed(ours(TEXTS)))
                for one, other in zip(found, theirs(TEXTS), strict=True):
                    assert one.as_dict() == pytest.approx(other.as_dict(), abs=1e-5)


def test_scores_and_rankings_are_those_of_rerank(pairs, late):
    for model in (pairs, late):
        expected = list(model.rerank("what is it", TEXTS))
        assert asyncio.run(listed(model.arerank("what is it", TEXTS))) == pytest.approx(expected, abs=1e-5)
        ranked = asyncio.run(model.arank("what is it", [{"body": text} for text in TEXTS], 5, field="body"))
        assert [each.score for each in ranked] == pytest.approx(sorted(expected, reverse=True)[:5], abs=1e-5)
        assert all(TEXTS[each.index] == each.text["body"] for each in ranked)


def test_token_vectors_are_those_of_embed(late):
    for ours, theirs in ((late.aembed, late.embed), (late.aquery_embed, late.query_embed)):
        for one, other in zip(asyncio.run(listed(ours(TEXTS))), theirs(TEXTS), strict=True):
            assert np.abs(one - other).max() < 1e-6


def test_arguments_are_checked_at_the_call(dense, pairs, late):
    for call in (lambda: dense.aembed(None), lambda: pairs.arerank("q", "text"), lambda: late.arerank(3, ["a"])):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError, match="batch_size"):
        dense.aquery_embed("x", batch_size=0)


@pytest.mark.parametrize("name", ["dense", "bm25"])
def test_a_bad_item_is_an_error_after_what_was_before_it(name, dense):
    model = dense if name == "dense" else fastrank.SparseTextEmbedding("Qdrant/bm25")

    async def collect():
        vectors = model.aembed(["a", "b", 3])
        found = [await anext(vectors), await anext(vectors)]
        with pytest.raises(TypeError, match=r"documents\[2\] must be a string"):
            await anext(vectors)
        return found

    assert len(asyncio.run(collect())) == 2


def test_tasks_share_batches(dense, monkeypatch):
    runs = []
    run = type(dense.load().documents).run_unit
    monkeypatch.setattr(
        "fastrank.engine.pipeline.Pipeline.run_unit",
        lambda self, tokens, positions, **options: (
            runs.append(len(positions)),
            time.sleep(0.01),
            run(self, tokens, positions, **options),
        )[-1],
    )

    async def ask():
        return await asyncio.gather(*(listed(dense.aembed("the cat is red")) for _ in range(40)))

    found = asyncio.run(ask())
    assert sum(runs) == 40
    assert len(runs) < 40
    assert all(np.abs(vector - found[0][0]).max() < 1e-6 for (vector,) in found)


def test_the_loop_goes_on_while_texts_run(dense):
    async def both():
        task = asyncio.create_task(listed(dense.aembed(TEXTS * 30)))
        longest, last = 0.0, time.perf_counter()
        while not task.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        return longest, len(await task)

    longest, count = asyncio.run(both())
    assert count == len(TEXTS) * 30
    assert longest < 1


def test_cancelling_stops_what_has_not_begun(dense, monkeypatch):
    scheduler = dense.load().documents.session.scheduler
    runs = []
    run = type(dense.load().documents).run_unit

    def slow(self, tokens, positions, **options):
        runs.append(len(positions))
        time.sleep(0.05)
        return run(self, tokens, positions, **options)

    monkeypatch.setattr("fastrank.engine.pipeline.Pipeline.run_unit", slow)

    async def stop():
        task = asyncio.create_task(listed(dense.aembed(["the cat is red"] * 250, batch_size=1)))
        while not runs:  # noqa: ASYNC110 - which another thread fills
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stop())
    scheduler.wait(10)
    assert sum(runs) < 50
    assert isinstance(scheduler, Scheduler)
    assert scheduler._running == 0


def test_a_loop_that_is_closed_while_a_text_runs_leaves_the_workers_alone(dense, monkeypatch):
    scheduler = dense.load().documents.session.scheduler
    began = []
    run = type(dense.load().documents).run_unit

    def slow(self, tokens, positions, **options):
        began.append(1)
        time.sleep(0.3)
        return run(self, tokens, positions, **options)

    async def stop():
        task = asyncio.create_task(listed(dense.aembed("the cat is red")))
        while not began:  # noqa: ASYNC110 - which another thread fills
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with monkeypatch.context() as patched:
        patched.setattr("fastrank.engine.pipeline.Pipeline.run_unit", slow)
        asyncio.run(stop())
        scheduler.wait(10)
    assert scheduler._running == 0
    assert len(asyncio.run(listed(dense.aembed(TEXTS)))) == len(TEXTS)


def test_asyncio_is_not_loaded_until_it_is_used():
    folder = FIXTURES / "sentence_encoder"
    code = (
        "import sys, fastrank; "
        f"model = fastrank.TextEmbedding('any/dense', specific_model_path={str(folder)!r}); "
        "next(model.embed('x')); print('asyncio' in sys.modules)"
    )
    assert run_python("-c", code, check=True).stdout.strip() == "False"
