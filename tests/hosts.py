"""The libraries that `fastrank.integrations` plugs into, as tests ask for them."""

import importlib
import os

import pytest

REQUIRED = os.environ.get("FASTRANK_TEST_HOSTS") == "required"  # in CI none may be missing


def host(name):
    """An installed host library. Where it is missing, the test module is skipped; in CI it fails."""
    return importlib.import_module(name) if REQUIRED else pytest.importorskip(name, reason=f"{name} is not installed")
