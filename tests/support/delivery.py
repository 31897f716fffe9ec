"""What tests of model delivery share: a small model, the entry that pins it, processes of its own, and what is left.

The fixtures that go with it (`hub`, `spec`, `cache`, `quick`) are in conftest.py.
"""

import hashlib
import subprocess
import sys
import time

from fastrank.models.spec import FileSpec, HubSource, ModelSpec, Variant
from support import tiny_models

FILES = tiny_models.model_files()
REPO = "acme/tiny"


def pinned(files):
    return tuple(FileSpec(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items())


def entry(revision, *, files=FILES, sources=None, name=REPO, tasks=None):
    """The registry entry of a model with these files at this commit of the hub."""
    sources = sources or (HubSource(REPO, revision),)
    variant = Variant("onnx", "fp32", tiny_models.MODEL_PATH, pinned(files), sources)
    return ModelSpec(name, "a tiny model", "mit", ("en",), tasks or {}, (variant,), max_length=64)


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


def noted(hub, path, least):
    """How many requests the stand-in saw; it notes them when they end, so give it a moment to see the last ones."""
    for _ in range(100):
        found = [request for request in hub.requests if path in request.path]
        if len(found) >= least:
            break
        time.sleep(0.02)
    return len(found)


def python(code, spec=None, **options):
    """A process of its own that runs `code`; `sys`, `store` and `spec` are there."""
    program = f"import sys\nfrom fastrank import store\nfrom fastrank.models.spec import *\n{spec=}\n{code}"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", program], text=True, **pipes, **options)


def ends_well(process, given=None):
    """What a process printed, once it ended without an error; `given` is its standard input."""
    out, err = process.communicate(given, timeout=100)
    assert process.returncode == 0, err
    return out.strip()
