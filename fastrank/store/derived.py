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
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_ABANDONED = 3600.0  # seconds without a change


def derive(
    folder: Path,
    source: str,
    name: str,
    write: Callable[[Path], None],
    is_whole: Callable[[Path], bool],
    root: Path,
) -> Path:
    """The file `name`, made from the file `source` in the model folder `folder` unless it is there.

    It appears at once and whole, whoever else makes it at the same time.

    Args:
        folder: the model's.
        source: a file in it; if another one takes its place, `name` is made anew.
        name: says by what it was made, and its version.
        write: makes the file at the path it is given.
        is_whole: whether one that is there can be used; else it is made anew.
        root: the cache.
    """
    place = _place(folder, folder / source, root)
    if os.access(place / name, os.R_OK) and is_whole(place / name):
        return place / name
    try:
        return _made(place / name, write)
    except OSError as error:
        kept = _temporary() / f"{_identity(folder / source)}-{name}"
        try:
            return kept if kept.is_file() else _made(kept, write)
        except OSError:
            raise OSError(
                error.errno,
                f"{error.strerror}: {name} could not be kept. Set FASTRANK_CACHE to a folder with room",
                str(place),
            ) from error


def _made(target: Path, write: Callable[[Path], None]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob("making-*"):  # by a process that was killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()
    draft = target.with_name(f"making-{os.getpid()}-{os.urandom(4).hex()}")  # not mkstemp: others may read it, too
    try:
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError:
        if not os.access(target, os.R_OK):  # Windows: another process has made it and has it open
            raise
    finally:
        draft.unlink(missing_ok=True)
    return target


def _place(folder: Path, source: Path, root: Path) -> Path:
    if root / "models" in folder.parents:
        return folder / "derived"
    return root / "derived" / _identity(source)


def _identity(source: Path) -> str:
    """Of a file that may be replaced by another at any time, with its shards and its configuration."""
    files = {source, *source.parent.glob("*.safetensors"), *source.parent.glob("config.json")}
    facts = [(path.name, (s := path.stat()).st_size, s.st_mtime_ns) for path in sorted(files)]
    return hashlib.sha256(json.dumps([str(source.resolve()), facts]).encode()).hexdigest()[:32]


@functools.cache
def _temporary() -> Path:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="fastrank-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child leaves what its parent made
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path) -> None:
    """Delete what is kept in the cache of models that lie elsewhere."""
    import shutil

    with suppress(OSError):
        shutil.rmtree(root / "derived")
