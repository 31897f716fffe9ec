"""The gate for what callers give, without a model; with one in tests/faults."""

import numpy as np
import pytest

from fastrank import inputs


@pytest.mark.parametrize("documents", [None, b"bytes", bytearray(b"x"), memoryview(b"x"), {"a": 1}, 7, 1.5, object()])
def test_what_is_no_text_is_refused_at_the_call(documents):
    with pytest.raises(TypeError, match="documents must be a string or an iterable of strings, not "):
        inputs.texts(documents)


def test_a_string_is_one_document_and_not_its_letters():
    assert list(inputs.texts("paris")) == ["paris"]


@pytest.mark.parametrize("bad", [None, b"x", 3, ["x"], float("nan")])
def test_a_bad_item_is_named_when_it_is_reached(bad):
    texts = inputs.texts(["a", "b", bad, "c"])
    assert [next(texts), next(texts)] == ["a", "b"]
    with pytest.raises(TypeError, match=rf"documents\[2\] must be a string, not {type(bad).__name__}"):
        next(texts)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("lone \ud800 high", "lone \ufffd high"),
        ("lone \udfff low", "lone \ufffd low"),
        ("split \ud83d\ude00 pair", "split 😀 pair"),
        ("\ud800\ud800", "\ufffd\ufffd"),
        ("whole 😀 e\u0301 \u0000 \U0010ffff", "whole 😀 e\u0301 \u0000 \U0010ffff"),
    ],
)
def test_surrogates_are_joined_or_replaced(given, taken):
    assert list(inputs.texts([given])) == [taken]
    taken.encode()


def test_strings_of_other_libraries_are_strings():
    assert list(inputs.texts(np.array(["a", "bé"]))) == ["a", "bé"]
    assert type(next(inputs.texts(np.array(["a"])))) is str


@pytest.mark.parametrize("number", [0, -1])
def test_sizes_start_at_one(number):
    with pytest.raises(ValueError, match=f"batch_size must be >= 1, got {number}"):
        inputs.positive(number, "batch_size")


@pytest.mark.parametrize("number", [1.0, "3", None, True])
def test_sizes_are_integers(number):
    with pytest.raises(TypeError, match="batch_size must be an integer, not "):
        inputs.positive(number, "batch_size")


def test_sizes_may_be_integers_of_other_libraries():
    assert inputs.positive(np.int64(8), "batch_size") == 8


def test_workers():
    assert [inputs.workers(n) for n in (None, 0, 3)] == [None, 0, 3]
    with pytest.raises(ValueError, match="parallel must be None, 0 "):
        inputs.workers(-1)
