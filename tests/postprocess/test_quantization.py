"""Small vectors equal sentence-transformers' (tests/fixtures/make/vector_options.py), and can be searched."""

import json
from pathlib import Path

import numpy as np
import pytest

from fastrank.postprocess import calibrate, dequantize, quantize, rescore, search, truncate

ANSWERS = json.loads((Path(__file__).parents[1] / "fixtures" / "small_vectors.json").read_text(encoding="utf-8"))
CASES = ANSWERS["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["dtype"])
def test_values_are_those_of_sentence_transformers(case):
    vectors, ranges = np.array(case["vectors"], np.float32), np.array(case["ranges"], np.float32)
    found = quantize(vectors, case["dtype"], ranges)
    kind = {"binary": np.int8, "ubinary": np.uint8}.get(case["dtype"], case["dtype"])
    assert found.dtype == np.dtype(kind)
    assert np.array_equal(found, np.array(case["expected"], kind))
    assert np.array_equal(quantize(vectors, case["dtype"]), np.array(case["of_itself"], kind))
    of_sample = quantize(vectors, case["dtype"], calibrate(np.array(case["sample"], np.float32)))
    assert np.array_equal(of_sample, np.array(case["of_sample"], kind))
    for part, expected in zip((vectors[:4], vectors[4:]), case["tokens"], strict=True):
        assert np.array_equal(quantize(part, case["dtype"], ranges), np.array(expected, kind))
    for row, expected in zip(vectors, case["expected"], strict=True):
        assert np.array_equal(quantize(row, case["dtype"], ranges), np.array(expected, kind))
    if "restored" in case:
        np.testing.assert_allclose(dequantize(found, 13, ranges), case["restored"], atol=1e-6)


def test_ranges_of_vectors_and_of_token_vectors():
    rows = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    ranges = calibrate(rows)
    assert ranges.dtype == np.float32
    assert np.array_equal(ranges, [rows.min(axis=0), rows.max(axis=0)])
    assert np.array_equal(calibrate(iter([rows[:7], rows[7:]])), ranges)
    assert np.array_equal(calibrate(iter(rows)), ranges)
    for few in ([], [rows[0]]):
        with pytest.raises(ValueError, match="sample of at least two vectors"):
            calibrate(few)


def test_unit_ranges_keep_cosines_and_need_no_sample():
    rows = truncate(np.random.default_rng(2).normal(size=(20, 64)), 64, normalize=True)
    assert np.array_equal(quantize(rows, "int8", "unit"), np.rint(rows * 127))
    assert np.array_equal(quantize(rows, "uint8", "unit"), np.rint(rows * 127) + 128)
    assert quantize(np.float32([1, -1, 2]), "int8", "unit").tolist() == [127, -127, 127]
    np.testing.assert_allclose(dequantize(quantize(rows, "uint8", "unit"), 64, "unit"), rows, atol=0.5 / 127 + 1e-6)


def test_float16_and_signs_come_back():
    rows = np.random.default_rng(3).normal(size=(5, 13)).astype(np.float32)
    half = quantize(rows, "float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(dequantize(half, 13), rows, rtol=1e-3)
    for dtype in ("binary", "ubinary"):
        assert np.array_equal(dequantize(quantize(rows, dtype), 13), np.where(rows > 0, 1, -1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.zeros((2, 4), np.int8), "int8"), "must be floats, not int8"),
        ((np.zeros((2, 4)), "int4"), "output_dtype must be one of 'float32', 'float16'"),
        ((np.zeros((2, 4)), "int8", np.zeros((2, 3))), r"ranges must have the shape \(2, 4\), not \(2, 3\)"),
        ((np.zeros((2, 4)), "int8", np.zeros((3, 4))), "ranges must have the shape"),
        ((np.zeros((2, 4)), "int8", [[1] * 4, [0] * 4]), "the least value of each dimension, then the greatest"),
        ((np.zeros((2, 4)), "int8", [[np.nan] * 4, [0] * 4]), "ranges must be finite"),
        ((np.zeros((2, 4)), "int8", "sample"), "or 'unit', not 'sample'"),
    ],
)
def test_what_cannot_be_quantized(arguments, text):
    with pytest.raises(ValueError, match=text):
        quantize(*arguments)


def test_truncated_vectors_are_normalized_where_the_whole_ones_are():
    rows = np.random.default_rng(4).normal(size=(6, 10)).astype(np.float32)
    assert np.array_equal(truncate(rows, 4), rows[:, :4])
    units = truncate(rows, 10, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(truncate(units, 4), axis=1), 1, rtol=1e-6)
    assert np.linalg.norm(truncate(units, 4, normalize=False), axis=1).max() < 1
    assert truncate(units[0], 3).shape == (3,)
    with pytest.raises(ValueError, match="truncate_dim=11 is more than the 10 dimensions"):
        truncate(rows, 11)
    normed = truncate(rows, 4, normalize=True, layer_norm=True)  # as the card of nomic-embed-text-v1.5 says
    centred = (rows - rows.mean(axis=1, keepdims=True)) / np.sqrt(rows.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(normed, centred[:, :4] / np.linalg.norm(centred[:, :4], axis=1)[:, None], atol=1e-6)


def test_rescoring_equals_dot_products_with_what_is_left():
    draw = np.random.default_rng(5)
    rows, query = draw.normal(size=(50, 24)).astype(np.float32), draw.normal(size=24).astype(np.float32)
    ranges = calibrate(rows)
    for dtype in ("float32", "float16", "int8", "uint8", "binary", "ubinary"):
        values, used = quantize(rows, dtype, ranges), ranges if dtype.endswith("int8") else None
        expected = dequantize(values, 24, used) @ query
        positions, scores = rescore(query, values, [7, 3, 40, 9], 3, ranges=used)
        order = sorted([7, 3, 40, 9], key=lambda position: -expected[position])[:3]
        assert positions.tolist() == order
        np.testing.assert_allclose(scores, expected[order], rtol=1e-5)
    with pytest.raises(ValueError, match="need the ranges that they were made with"):
        rescore(query, quantize(rows, "int8", ranges))
    with pytest.raises(ValueError, match="do not come from vectors of 23"):
        rescore(query[:23], quantize(rows, "int8", ranges), ranges=ranges[:, :23])
    with pytest.raises(ValueError, match=r"query must have the shape \(dim,\)"):
        rescore(rows, rows)


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_signs_find_candidates_and_better_vectors_order_them(dtype):
    draw = np.random.default_rng(6)
    rows = truncate(draw.normal(size=(2000, 64)), 64, normalize=True)
    query = rows[17] + 0.05 * draw.normal(size=64).astype(np.float32)
    signs, ranges = quantize(rows, dtype), calibrate(rows)
    apart = (np.unpackbits(signs.view(np.uint8) ^ (0x80 if dtype == "binary" else 0), axis=1) != (query > 0)).sum(
        axis=1
    )
    nearest = np.argsort(apart, kind="stable")[:40]
    positions, scores = search(query, signs, 10, oversample=4)
    assert positions[0] == 17
    assert set(positions.tolist()) <= set(nearest.tolist())
    assert np.array_equal(scores, np.sort(scores)[::-1])
    exact = nearest[np.argsort(-(rows[nearest] @ query), kind="stable")][:10]
    assert np.array_equal(search(query, signs, 10, oversample=4, rescore_with=rows)[0], exact)
    by_int8 = search(query, signs, 10, oversample=4, ranges=ranges, rescore_with=quantize(rows, "int8", ranges))[0]
    assert len(set(by_int8.tolist()) & set(exact.tolist())) >= 9
    assert np.array_equal(search(query, rows, 5)[0], np.argsort(-(rows @ query), kind="stable")[:5])
    with pytest.raises(ValueError, match="oversample must be >= 1"):
        search(query, signs, oversample=0)
