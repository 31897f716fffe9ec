"""For tests that are run twice, on FastEmbed and on fastrank in its place. See tests/compat/test_fastembeds_tests.py.

`record(name, value)` notes a result, so that those of both runs can be compared.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

RESULTS = os.environ.get("SUITE_RESULTS")  # unset in any other run of pytest, which reads this file too

_results = {}


def plain(value):
    """As JSON has it: arrays with their type."""
    if hasattr(value, "indices"):
        order = np.argsort(value.indices)  # FastEmbed's queries are in no order
        return {"indices": plain(value.indices[order]), "values": plain(value.values[order])}
    if isinstance(value, (np.ndarray, np.generic)):
        return {"dtype": str(value.dtype), "values": value.tolist()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


@pytest.fixture
def record(request):
    def note(name, value):
        _results[f"{request.node.name}: {name}"] = plain(value)

    return note


def pytest_configure():
    if RESULTS and "fastrank.compat.fastembed" in sys.modules:
        unpin()


def pytest_sessionfinish():
    if RESULTS:
        Path(RESULTS).write_text(json.dumps(_results), encoding="utf-8")


def unpin():
    """Let fastrank take the hub's tiny models for the real ones, whose hashes it knows."""
    from types import SimpleNamespace

    from fastrank.models import registry

    def unpinned(variant):
        files = tuple(file._replace(size=None, sha256=None) for file in variant.files)
        hubs = tuple(source._replace(revision=None) for source in variant.sources if hasattr(source, "revision"))
        return variant._replace(files=files, sources=hubs)

    shipped = registry._shipped()
    specs = [spec._replace(variants=tuple(map(unpinned, spec.variants))) for spec in shipped.all()]
    by_name = {name.casefold(): spec for spec in specs for name in (spec.name, *spec.aliases)}
    registry._shipped = lambda: SimpleNamespace(get=by_name.get, all=lambda: tuple(specs))
