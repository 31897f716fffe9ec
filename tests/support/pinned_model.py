"""A small model for tests of delivery: its files, registry entries with and without hashes, what a cache has of it.

The fixtures that go with it (`hub`, `spec`, `cache`, `quick`) are in conftest.py.
"""

import hashlib

from fastrank.models.spec import FileSpec, HubSource, ModelSpec, Variant
from support import tiny_models

FILES = tiny_models.model_files()
REPO = "acme/tiny"


def pinned(files):
    """What the registry states of these files: path, size and SHA-256."""
    return tuple(FileSpec(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items())


def entry(revision, *, files=FILES, sources=None, name=REPO, tasks=None):
    """The registry entry of a model with these files at this commit of the hub."""
    sources = sources or (HubSource(REPO, revision),)
    variant = Variant("onnx", "fp32", tiny_models.MODEL_PATH, pinned(files), sources)
    return ModelSpec(name, "a tiny model", "mit", ("en",), tasks or {}, (variant,), max_length=64)


def unpinned_entry(revision=None, *, files=FILES, optional=(), model=tiny_models.MODEL_PATH):
    """The registry entry of a model whose sizes and hashes nobody wrote down."""
    paths = [*((path, False) for path in files), *((path, True) for path in optional)]
    specs = tuple(FileSpec(path, None, None, optional=can_be_missing) for path, can_be_missing in paths)
    variant = Variant("onnx", "unknown", model, specs, (HubSource(REPO, revision),))
    return ModelSpec(REPO, "a tiny model", "mit", ("en",), {}, (variant,), max_length=64)


def content(found, files=FILES):
    """What the files that were delivered hold."""
    return {path: (found.folder / path).read_bytes() for path in files}


def leftovers(cache):
    """Files of downloads that did not end well."""
    while True:
        try:
            return [path for path in (cache / "staging").rglob("*") if path.is_file()]
        except FileNotFoundError:  # a process at work took a folder away meanwhile
            continue
