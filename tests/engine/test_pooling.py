"""Poolings, against sums written out."""

import numpy as np
import pytest

from fastrank.engine import pooling
from fastrank.engine.batching import Batch

STATES = np.array(
    [
        [[1, 2], [3, 4], [100, 100]],
        [[5, 6], [7, 8], [9, 10]],
    ],
    np.float32,
)
MASK = np.array([[1, 1, 0], [1, 1, 1]], np.int64)
BATCH = Batch([0, 1], np.zeros_like(MASK), MASK, np.zeros_like(MASK))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("mean", [[2, 3], [7, 8]]),
        ("cls", [[1, 2], [5, 6]]),
        ("last-token", [[3, 4], [9, 10]]),
        ("max", [[3, 4], [9, 10]]),
        ("mean-sqrt-length", [[4 / 2**0.5, 6 / 2**0.5], [21 / 3**0.5, 24 / 3**0.5]]),
        ("weighted-mean", [[7 / 3, 10 / 3], [46 / 6, 52 / 6]]),
    ],
)
def test_poolings_leave_padding_out(name, rows):
    found = pooling.POOLINGS[name](STATES, BATCH)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rows, rtol=1e-6)


def test_cls_vectors_do_not_keep_the_states_of_all_tokens():
    assert pooling.cls(STATES, BATCH).base is None


def test_the_mean_of_nothing_is_zero():
    empty = Batch([0, 1], np.zeros_like(MASK), np.zeros_like(MASK), np.zeros_like(MASK))
    np.testing.assert_array_equal(pooling.mean(STATES, empty), np.zeros((2, 2)))


def test_unit_rows_and_zero_rows():
    found = pooling.unit(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]])
    assert found.dtype == np.float32
