"""Windows, batches and padding."""

import itertools
import random

import numpy as np
import pytest

from fastrank.engine.batching import Tokens, collate, plan, spans, windows


def test_windows_cut_the_iterator_and_read_no_further():
    source = iter(range(10))
    found = windows(source, 4)
    assert next(found).items == [0, 1, 2, 3]
    assert next(source) == 4  # nothing was read ahead
    assert [w.items for w in found] == [[5, 6, 7, 8], [9]]


@pytest.mark.parametrize("count", [0, 3, 4, 8])
def test_windows_lose_nothing(count):
    assert list(itertools.chain.from_iterable(w.items for w in windows(iter(range(count)), 4))) == list(range(count))


def test_what_came_before_an_error_comes_before_it():
    def broken():
        yield from range(6)
        raise LookupError("midway")

    first, second = windows(broken(), 4)
    assert (first.items, first.error) == ([0, 1, 2, 3], None)
    assert second.items == [4, 5]
    assert isinstance(second.error, LookupError)


def test_an_interrupt_is_not_held_back():
    def broken():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(windows(broken(), 4))


@pytest.mark.parametrize("seed", range(20))
def test_plan_keeps_every_text_once_within_budget(seed):
    dice = random.Random(seed)
    lengths = [dice.choice([1, 5, 30, 200, 700]) for _ in range(dice.randrange(1, 80))]
    batches = plan(lengths, budget=512, most=16)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= 16
        assert len(batch) == 1 or len(batch) * max(lengths[p] for p in batch) <= 512


def test_plan_puts_like_to_like():
    assert plan([3, 100, 3, 100], budget=200, most=8) == [[1, 3], [0, 2]]
    assert plan([], budget=200, most=8) == []


def test_plan_keeps_the_square_of_long_texts_small():
    lengths = [100, 90, 50, 50, 50, 50, 50, 10, 10, 10]
    assert plan(lengths, budget=200, most=8, square=10_000) == [[0], [1], [2, 3, 4, 5], [6, 7, 8, 9]]
    assert plan(lengths, budget=200, most=8) == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]


def test_plan_is_the_same_every_time_for_equal_lengths():
    assert plan([7] * 6, budget=14, most=8) == [[0, 1], [2, 3], [4, 5]]


def test_collate_pads_on_the_right():
    tokens = [Tokens(np.array([5, 6, 7], np.int32)), Tokens(np.array([8], np.int32), np.array([1], np.int32))]
    batch = collate(tokens, [1, 0], pad_id=9)
    assert batch.ids.tolist() == [[8, 9, 9], [5, 6, 7]]
    assert batch.mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.types.tolist() == [[1, 0, 0], [0, 0, 0]]
    assert batch.ids.dtype == batch.mask.dtype == batch.types.dtype == np.int64


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([], []), ([5], [[5]]), ([50], [[50]]), ([4, 4, 4], [[4, 4], [4]]), ([50, 1, 9, 1], [[50], [1, 9], [1]])],
)
def test_spans_are_consecutive_and_bounded(lengths, expected):
    assert [lengths[part] for part in spans(lengths, 10)] == expected
