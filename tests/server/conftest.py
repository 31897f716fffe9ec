"""Tests of the server are left out where its extra is not installed."""

from importlib.util import find_spec

import pytest

installed = all(map(find_spec, ("orjson", "prometheus_client", "starlette", "uvicorn")))
collect_ignore_glob = [] if installed else ["*"]


@pytest.fixture(scope="module")
def live():
    from server.live import running

    with running() as found:
        yield found
