"""MaxSim by its definition, in every form in which documents may be given."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrank import maxsim as module
from fastrank.maxsim import maxsim


def vectors(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_definition(query, documents):
    return np.array([sum(max((q @ d for d in document), default=0) for q in query) for document in documents])


def padded(documents, fill=99.0):
    longest = max(map(len, documents), default=0)
    array = np.full((len(documents), longest, documents[0].shape[1]), fill, np.float32)
    for row, document in zip(array, documents, strict=True):
        row[: len(document)] = document
    return array


LENGTHS = [3, 0, 7, 1, 0, 12, 2]
DOCUMENTS = [vectors(length, 8, seed=length) for length in LENGTHS]
QUERY = vectors(5, 8, seed=99)


@pytest.fixture(params=[4, 10, 32_768])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize(("documents", "options"), [
    (DOCUMENTS, {}),
    (tuple(document.tolist() for document in DOCUMENTS if len(document)), {}),
    (np.concatenate(DOCUMENTS), {"lengths": LENGTHS}),
    (padded(DOCUMENTS), {"lengths": LENGTHS}),
    (padded(DOCUMENTS), {"mask": np.arange(12) < np.array(LENGTHS)[:, None]}),
    (padded(DOCUMENTS)[:, ::-1], {"mask": (np.arange(12) < np.array(LENGTHS)[:, None])[:, ::-1]}),
], ids=["ragged", "lists", "in a row", "padded", "mask", "mask on the left"])  # fmt: skip
def test_forms(documents, options):
    scores = maxsim(QUERY, documents, **options)
    assert scores.dtype == np.float32
    own = [document for document in DOCUMENTS if len(document) or not isinstance(documents, tuple)]
    np.testing.assert_allclose(scores, by_definition(QUERY, own), atol=1e-5)


def test_padded_without_lengths_is_all_tokens():
    documents = vectors(6, 4, 8)
    np.testing.assert_allclose(maxsim(QUERY, documents), by_definition(QUERY, documents), atol=1e-5)


@given(
    lengths=st.lists(st.integers(0, 9), max_size=12),
    tokens=st.integers(0, 6),
    block=st.integers(1, 20),
    dtype=st.sampled_from(["float32", "float16"]),
)
@settings(max_examples=60, deadline=None)
def test_any_lengths(lengths, tokens, block, dtype):
    documents = [vectors(length, 4, seed=n).astype(dtype) for n, length in enumerate(lengths)]
    query = vectors(tokens, 4, seed=77)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        expected = by_definition(query, [document.astype(np.float32) for document in documents])
        np.testing.assert_allclose(maxsim(query, documents), expected, atol=1e-4)
        if documents:
            store = np.concatenate(documents)
            np.testing.assert_allclose(maxsim(query, store, lengths), expected, atol=1e-4)


def test_float16_is_summed_in_float32():
    """In float16, 2048 + 1 is 2048."""
    query = np.full((4, 1), 1, np.float32)
    document = np.full((1, 1), 2049, np.float32)
    assert maxsim(query.astype(np.float16), [document])[0] == 4 * 2049
    many = np.full((1, 4096), 1, np.float16)
    assert maxsim(many, [many])[0] == 4096


def test_nothing():
    assert maxsim(QUERY, []).shape == (0,)
    assert maxsim(QUERY, np.zeros((0, 3, 8))).shape == (0,)
    assert maxsim(QUERY, np.zeros((0, 8), np.float32), []).shape == (0,)
    np.testing.assert_array_equal(maxsim(np.zeros((0, 8)), DOCUMENTS), np.zeros(len(DOCUMENTS)))
    np.testing.assert_array_equal(maxsim(QUERY, [np.zeros((0, 8))] * 3), np.zeros(3))


@pytest.mark.parametrize(("arguments", "options", "message"), [
    ((QUERY[0], DOCUMENTS), {}, r"query must have the shape \(tokens, dim\), not \(8,\)"),
    ((QUERY, [DOCUMENTS[0], DOCUMENTS[2][0]]), {}, r"documents\[1\] must have the shape"),
    ((QUERY, [vectors(3, 7)]), {}, "query embeddings have 8 dimensions, document embeddings 7"),
    ((QUERY, DOCUMENTS[2]), {}, r"for one document: \[document\]"),
    ((QUERY, DOCUMENTS[2]), {"lengths": [3, 3]}, "sum to the number of tokens, 7"),
    ((QUERY, DOCUMENTS[2]), {"lengths": [8, -1]}, "sum to the number of tokens, 7"),
    ((QUERY, padded(DOCUMENTS)), {"lengths": [1]}, "7 integers from 0 to 12"),
    ((QUERY, padded(DOCUMENTS)), {"lengths": [13] * 7}, "7 integers from 0 to 12"),
    ((QUERY, padded(DOCUMENTS)), {"mask": np.ones((7, 11))}, r"mask has the shape \(7, 11\)"),
    ((QUERY, padded(DOCUMENTS)), {"lengths": LENGTHS, "mask": np.ones((7, 12))}, "not both"),
    ((QUERY, DOCUMENTS), {"lengths": LENGTHS}, "are for one array"),
])  # fmt: skip
def test_shapes_are_checked(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        maxsim(*arguments, **options)


def test_memory_is_the_scores_and_one_block():
    import tracemalloc

    store = vectors(256_000, 32).astype(np.float16)
    lengths = np.full(1600, 160)
    query = vectors(32, 32)
    maxsim(query, store[:160], [160])
    tracemalloc.start()
    maxsim(query, store, lengths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    block = module._BLOCK * (32 + 32) * 4  # its vectors in float32, and its products
    assert peak < 1.2 * block < 32 * len(store) * 4
