"""Every test starts from a clean environment, an empty cache of its own, and no way out but 127.0.0.1."""

import os
import socket

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import onnxruntime before fastrank does

import pytest
from support import pinned_model, tiny_models
from support.hub import HubStandIn

from fastrank import store
from fastrank.models import registry
from fastrank.models.spec import TEXT_EMBEDDING
from fastrank.store.lookup import Lookup

REAL = "sentence-transformers/all-MiniLM-L6-v2"
USERS_CACHE = store.find_root(None)  # before tests have caches of their own


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("FASTRANK_", "HF_", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FASTRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTRANK_PROGRESS", "0")


@pytest.fixture(autouse=True)
def _no_way_out(monkeypatch):
    """A test that asks for any other host is wrong; say so instead of waiting."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test connects to {address}")
        return connect(self, address)

    def guarded_look_up(host, *args, **options):
        if host not in ("127.0.0.1", "::1", "localhost", None, ""):
            raise AssertionError(f"a test looks up {host}")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


@pytest.fixture(autouse=True)
def _no_custom_models(monkeypatch):
    monkeypatch.setattr(registry, "_custom", {})


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub, which this process's huggingface_hub talks to."""
    from huggingface_hub import constants

    with HubStandIn() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)  # for child processes
        monkeypatch.setattr(constants, "ENDPOINT", standin.url)
        template = standin.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield standin


@pytest.fixture
def spec(hub):
    """A small model that the stand-in has, pinned by commit and hashes."""
    return pinned_model.entry(hub.add_repo(pinned_model.REPO, pinned_model.FILES))


@pytest.fixture
def cache():
    return store.root()


@pytest.fixture
def quick(monkeypatch):
    """Do not really wait between tries: only note how long it would have been."""
    waited = []
    monkeypatch.setattr("fastrank.store.hub.sleep", waited.append)
    return waited


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that has no locks, as some network file systems."""

    def refuse(_descriptor):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fastrank.store.lock._try_lock", refuse)


@pytest.fixture
def tiny(tmp_path):
    """A folder with a tiny encoder: last_hidden_state of 16 numbers a token."""
    return tiny_models.write_model(tmp_path / "tiny")


@pytest.fixture(scope="session")
def real_model_folder():
    """The real all-MiniLM-L6-v2, in the user's own cache; fetched from wherever the registry says it can be had."""
    from fastrank.errors import DownloadError

    spec = registry.find(REAL, TEXT_EMBEDDING)
    try:
        return store.locate(spec, Lookup(variant="safetensors", cache_dir=USERS_CACHE)).folder
    except DownloadError as error:
        pytest.skip(f"the real model cannot be had here: {error}")
