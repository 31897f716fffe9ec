"""Reciprocal rank fusion."""

import pytest

from fastrank.fusion import explain_fusion, reciprocal_rank_fusion


def test_sums_of_reciprocal_ranks():
    fused = reciprocal_rank_fusion([[3, 1, 2], [1, 4]], k=60)
    assert [document for document, _ in fused] == [1, 3, 4, 2]
    assert dict(fused) == pytest.approx({1: 1 / 62 + 1 / 61, 3: 1 / 61, 4: 1 / 62, 2: 1 / 63})


def test_ties_are_in_the_order_of_documents():
    assert [document for document, _ in reciprocal_rank_fusion([[5, 9], [9, 5]])] == [5, 9]
    assert reciprocal_rank_fusion([[], []]) == []


def test_the_ranks_that_were_fused():
    rankings = [[3, 1, 2], [1, 4], []]
    found = explain_fusion(iter(rankings), k=10)
    assert [(each.document, each.score) for each in found] == reciprocal_rank_fusion(rankings, k=10)
    assert {each.document: each.ranks for each in found} == {
        1: (2, 1, None),
        2: (3, None, None),
        3: (1, None, None),
        4: (None, 2, None),
    }
    for each in found:
        assert sum(each.parts) == pytest.approx(each.score)
        assert [part > 0 for part in each.parts] == [rank is not None for rank in each.ranks]
