"""Files that are made from a model on this machine and kept, so that they are made once.

They lie beside a model that lies in the cache; for models elsewhere (a folder of the caller's, an installed wheel),
which are not ours to write into, in the cache; and if that cannot be written, in a folder that goes with the process.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def derive(folder: Path, source: str, name: str, write: Callable[[Path], None], root: Path) -> Path:
    """The file `name`, made from the file `source` in the model folder `folder` unless it is there.

    It appears at once and whole, whoever else makes it at the same time.

    Args:
        folder: the model's.
        source: a file in it; if another one takes its place, `name` is made anew.
        name: says by what it was made, and its version.
        write: makes the file at the path it is given.
        root: the cache.
    """
    place = _place(folder, folder / source, root)
    if (place / name).is_file():
        return place / name
    try:
        return _made(place / name, write)
    except OSError:
        if (kept := _temporary() / f"{_identity(folder / source)}-{name}").is_file():
            return kept
        return _made(kept, write)


def _made(target: Path, write: Callable[[Path], None]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix="making-", dir=target.parent)
    os.close(descriptor)
    draft = Path(name)
    try:
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError:
        if not target.is_file():  # Windows: another process has made it and has it open
            raise
    finally:
        draft.unlink(missing_ok=True)
    return target


def _place(folder: Path, source: Path, root: Path) -> Path:
    if root / "models" in folder.parents:
        return folder / "derived"
    return root / "derived" / _identity(source)


def _identity(source: Path) -> str:
    """Of a file that may be replaced by another at any time."""
    facts = source.stat()
    return hashlib.sha256(json.dumps([str(source.resolve()), facts.st_size, facts.st_mtime_ns]).encode()).hexdigest()[
        :32
    ]


@functools.cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fastrank-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def sweep(root: Path) -> None:
    """Delete what is kept in the cache of models that lie elsewhere."""
    with suppress(OSError):
        shutil.rmtree(root / "derived")
