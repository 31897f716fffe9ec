"""Token pooling and MUVERA, against what PyLate and FastEmbed compute."""

import json

import numpy as np
import pytest
import support

from fastrank.postprocess import Muvera, pool_tokens

FIXTURES = sorted((support.FIXTURES / "late_interaction").iterdir())


def unit_vectors(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("folder", [pytest.param(folder, id=folder.name) for folder in FIXTURES])
def test_pooling_is_pylates(folder):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    for (text, vectors), (_, pooled) in zip(expected["documents"], expected["pooled"], strict=True):
        found = pool_tokens(np.array(vectors), 3)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[0], vectors[0], atol=1e-6)
        rows = np.array(pooled)  # PyLate's order is that of its tree
        places = np.abs(found[:, None] - rows[None]).max(axis=2).argmin(axis=1)
        assert sorted(places) == list(range(len(rows))), text
        np.testing.assert_allclose(found, rows[places], atol=1e-5, err_msg=text)


@pytest.mark.parametrize(("tokens", "factor", "protected", "left"), [
    (181, 2, 1, 91), (181, 3, 1, 61), (10, 3, 0, 3), (3, 9, 1, 2), (1, 4, 1, 1), (0, 4, 1, 0), (7, 1, 1, 7),
])  # fmt: skip
def test_pooling_leaves_one_in_so_many(tokens, factor, protected, left):
    vectors = unit_vectors(tokens, 16)
    pooled = pool_tokens(vectors, factor, protected)
    assert pooled.shape == (left, 16)
    np.testing.assert_array_equal(pooled[:protected], vectors[:protected])


def test_pooling_joins_what_is_alike():
    one, two = unit_vectors(2, 16)
    np.testing.assert_allclose(pool_tokens(np.stack([one, two] * 3), 3, 0), [one, two], atol=1e-6)
    assert len(pool_tokens(np.stack([one] * 9), 2, 0)) == 1  # all the same are one, however many are wanted


@pytest.mark.parametrize(("options", "message"), [
    ({"vectors": np.zeros(3)}, "shape"), ({"pool_factor": 0}, "pool_factor must be >= 1"),
    ({"protected_tokens": -1}, "protected_tokens must be >= 0"),
])  # fmt: skip
def test_pooling_checks(options, message):
    with pytest.raises(ValueError, match=message):
        pool_tokens(**{"vectors": unit_vectors(4, 8), "pool_factor": 2, **options})


# -- MUVERA -----------------------------------------------------------------------------------------------------------


def test_muvera_by_hand():
    """Every cluster of a one-plane encoding that is not projected."""
    muvera = Muvera(2, k_sim=1, dim_proj=2, r_reps=1, random_seed=0)
    plane = np.random.default_rng(0).normal(size=(2, 1))[:, 0]
    tokens = np.array([plane, 3 * plane, 2 * plane])
    np.testing.assert_allclose(muvera.process_query(tokens), [0, 0, *(6 * plane)], rtol=1e-6)
    np.testing.assert_allclose(muvera.process_document(tokens), [*plane, *(2 * plane)], rtol=1e-6)
    np.testing.assert_allclose(muvera.process_document(-tokens), [*(-2 * plane), *-plane], rtol=1e-6)


def test_muvera_comes_near_to_maxsim():
    from fastrank.maxsim import maxsim

    documents = unit_vectors(40, 30, 32)
    query = documents[17][:12] + 0.05 * unit_vectors(12, 32, seed=1)
    muvera = Muvera(32, k_sim=5, dim_proj=8, r_reps=40)
    encoded = np.stack([muvera.process_document(document) for document in documents])
    assert encoded.shape == (40, muvera.embedding_size)
    assert encoded.dtype == np.float32
    assert np.argmax(encoded @ muvera.process_query(query)) == 17 == np.argmax(maxsim(query, documents))


@pytest.mark.parametrize(("options", "message"), [
    ({"dim_proj": 33}, r"Cannot project to a higher dimensionality \(dim_proj=33 > dim=32\)"),
    ({"k_sim": 0}, "k_sim must be >= 1"), ({"k_sim": 21}, "k_sim must be <= 20"), ({"r_reps": 0}, "r_reps must be"),
])  # fmt: skip
def test_muvera_checks_its_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        Muvera(32, **options)


def test_muvera_checks_vectors():
    with pytest.raises(ValueError, match="Cannot encode an empty multivector"):
        Muvera(32).process_document(np.zeros((0, 32)))
    with pytest.raises(ValueError, match=r"shape \(tokens, 32\), not \(3, 31\)"):
        Muvera(32).process_query(np.zeros((3, 31)))


@pytest.mark.parametrize("options", [{}, {"k_sim": 3, "dim_proj": 32, "r_reps": 2}, {"k_sim": 7, "random_seed": 7}])
def test_encodings_equal_an_installed_fastembed(options):
    fastembed = pytest.importorskip("fastembed.postprocess", reason="fastembed is not installed")
    theirs, ours = fastembed.Muvera(32, **options), Muvera(32, **options)
    assert ours.embedding_size == theirs.embedding_size
    for tokens in (1, 5, 200):
        vectors = unit_vectors(tokens, 32, seed=tokens)
        for method in ("process_document", "process_query", "process"):
            found, expected = getattr(ours, method)(vectors), getattr(theirs, method)(vectors)
            np.testing.assert_allclose(found, expected, atol=1e-6)
