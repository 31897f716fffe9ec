"""The libraries that `fastrank.integrations` plugs into, as tests ask for them."""

import importlib
import os
import warnings

import pytest

REQUIRED = os.environ.get("FASTRANK_TEST_HOSTS")  # in CI none may be missing: "required", or "torch" for those of torch


def host(name, *, torch=False):
    """An installed host library. Where it is missing, the test module is skipped; in CI it fails.

    What it warns of when it is imported is between it and what it imports. Those that need torch have an environment of
    their own in CI.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if ("torch" if torch else "required") == REQUIRED:
            return importlib.import_module(name)
        return pytest.importorskip(name, reason=f"{name} is not installed")


def check_fused_by_rank(store, query):
    """A hybrid search of an integration that searches itself: both rankings, by reciprocal rank fusion."""
    words, dense = ([hit.id for hit in store.search(query, 100, method)] for method in ("words", "dense"))
    scores = {
        each: sum(1 / (61 + ranking.index(each)) for ranking in (words, dense) if each in ranking) for each in dense
    }
    found = store.search(query, 5)
    assert [hit.id for hit in found] == sorted(scores, key=lambda each: (-scores[each], each))
    assert [hit.score for hit in found] == [pytest.approx(scores[hit.id]) for hit in found]
    return found
