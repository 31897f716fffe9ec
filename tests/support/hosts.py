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
