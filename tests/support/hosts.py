"""The libraries that `fastrank.integrations` plugs into, as tests ask for them."""

import importlib
import os
import warnings

import pytest

REQUIRED = os.environ.get("FASTRANK_TEST_HOSTS") == "required"  # in CI none may be missing


def host(name):
    """An installed host library. Where it is missing, the test module is skipped; in CI it fails.

    What it warns of when it is imported is between it and what it imports.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if REQUIRED:
            return importlib.import_module(name)
        return pytest.importorskip(name, reason=f"{name} is not installed")
