"""Files that are made from a model on this machine and kept, so that they are made once.

They lie beside a model that lies in the cache; for models elsewhere (a folder of the caller's, an installed wheel),
which are not ours to write into, in the cache; and if that cannot be written, in a folder that goes with the process.
Each has a record beside it, `<name>.json`, with its size and SHA-256.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastrank import log
from fastrank.store import layout
from fastrank.store.integrity import sha256
from fastrank.store.lock import exclusive

_ABANDONED = 3600.0  # seconds without a change
_PATIENCE = 600.0  # seconds to wait for another process that makes the same file
_MARK = "Made by fastrank from the file `source`; made again when it is removed or damaged."
_MOST_BYTES = 10_000  # of a record


def derive(
    folder: Path,
    source: str,
    name: str,
    write: Callable[[Path], None],
    is_whole: Callable[[Path], bool],
    root: Path | None,
) -> Path:
    """The file `name`, made from the file `source` in the model folder `folder` unless it is there and undamaged.

    It appears at once and whole, whoever else makes it at the same time.

    Args:
        folder: the model's.
        source: a file in it; if another one takes its place, `name` is made again.
        name: says by what it was made, and its version.
        write: makes the file at the path it is given.
        is_whole: whether one that is there can be used; else it is made again.
        root: the cache; None: there is none, because no home folder is known.

    Raises:
        OSError: there is no room for it, neither in the cache nor in the temporary folder.
    """
    place = None if root is None else _place(folder, folder / source, root)
    try:
        if place is not None and root is not None:
            return _kept(place / name, folder / source, write, is_whole, root)
    except OSError as error:
        return _made_for_now(name, folder / source, write, f"{error.strerror or error}", str(place))
    return _made_for_now(name, folder / source, write, "There is no home folder here", str(folder))


def problems(folder: Path, source: str, root: Path | None) -> Iterator[tuple[Path, str]]:
    """Kept files of a model that are not what they were when they were made: path and what is wrong."""
    if root is None or not (folder / source).exists():
        return
    for record in sorted(_place(folder, folder / source, root).glob("*.json")):
        made = record.with_suffix("")
        if _record(made) and made.is_file() and not _is_undamaged(made):
            yield made, f"{made} is damaged: its SHA-256 is another than when it was made"


def discard(made: Path) -> None:
    """Remove a kept file; it is made again when it is needed."""
    _record_path(made).unlink(missing_ok=True)
    made.unlink(missing_ok=True)


def clear(root: Path) -> Iterator[tuple[str, Path, int]]:
    """Delete what is kept in the cache of models that lie elsewhere: what was made, its path, its bytes."""
    if (root / layout.DERIVED).is_symlink():
        return
    for record in sorted((root / layout.DERIVED).glob("*/*.json")):
        made, folder = record.with_suffix(""), record.parent
        facts = _record(made)
        if not facts or not re.fullmatch("[0-9a-f]{32}", folder.name) or folder.is_symlink() or made.is_symlink():
            continue
        size = made.stat().st_size if made.is_file() else 0
        discard(made)
        for draft in folder.glob("making-*"):
            draft.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            folder.rmdir()
        yield f"{made.name} of {facts['source']}", made, size


def _kept(
    made: Path, source: Path, write: Callable[[Path], None], is_whole: Callable[[Path], bool], root: Path
) -> Path:
    if _is_usable(made, is_whole):
        return made
    with exclusive(root / layout.LOCKS / f"{_identity(source)}--{made.name}.lock", _PATIENCE):
        if not _is_usable(made, is_whole):  # else another process was faster
            _make(made, source, write)
    return made


def _made_for_now(name: str, source: Path, write: Callable[[Path], None], why: str, place: str) -> Path:
    """In the temporary folder, where nothing else can be written."""
    try:
        made = _temporary() / f"{_identity(source)}-{name}"
        if not made.is_file():
            _make(made, source, write)
    except OSError as error:
        raise OSError(
            error.errno, f"{why}: {name} could not be kept. Set FASTRANK_CACHE to a folder with room", place
        ) from error
    return made


def _make(target: Path, source: Path, write: Callable[[Path], None]) -> None:
    """Write a file and its record. Whatever happens between, a file without a record is made again."""
    layout.make_folders(target.parent)
    for left in target.parent.glob("making-*"):  # by a process that was killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()
    draft = target.with_name(f"making-{os.getpid()}-{os.urandom(4).hex()}")  # not mkstemp: others may read it, too
    try:
        draft.touch(layout.FILE_MODE)
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        digest = sha256(draft)
        _record_path(target).unlink(missing_ok=True)
        draft.replace(target)
        _write_record(target, str(source), digest)
    except OSError:
        if not os.access(target, os.R_OK):  # Windows: another process has made it and has it open
            raise
    finally:
        draft.unlink(missing_ok=True)


def _is_usable(made: Path, is_whole: Callable[[Path], bool]) -> bool:
    if not os.access(made, os.R_OK) or not _record(made):
        return False
    if not _is_unchanged(made):
        if not _is_undamaged(made):
            log.warning("%s is damaged and is made again", made)
            return False
        with suppress(OSError):  # a cache that cannot be written costs a hash at every start, no more
            _write_record(made, str(_record(made)["source"]), _record(made)["sha256"])
    return is_whole(made)


def _is_unchanged(made: Path) -> bool:
    """Whether a file is, by size, time of change and inode, the one whose hash is known."""
    status, record = made.stat(), _record(made)
    return [status.st_size, status.st_mtime_ns, status.st_ino] == record.get("identity")


def _is_undamaged(made: Path) -> bool:
    return sha256(made) == _record(made).get("sha256")


def _record_path(made: Path) -> Path:
    return made.with_name(f"{made.name}.json")


def _record(made: Path) -> dict[str, Any]:
    """What was written beside a file that was made here; empty if nothing was."""
    path = _record_path(made)
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return {}
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    ours = isinstance(facts, dict) and facts.get("fastrank") == _MARK and {"source", "sha256"} <= facts.keys()
    return facts if ours else {}


def _write_record(made: Path, source: str, digest: str) -> None:
    status = made.stat()
    identity = [status.st_size, status.st_mtime_ns, status.st_ino]
    facts = {"fastrank": _MARK, "source": source, "sha256": digest, "identity": identity}
    draft = made.with_name(f"making-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        layout.write(draft, json.dumps(facts).encode())
        draft.replace(_record_path(made))
    finally:
        draft.unlink(missing_ok=True)


def _place(folder: Path, source: Path, root: Path) -> Path:
    if root / layout.MODELS in folder.parents:
        return folder / "derived"
    return root / layout.DERIVED / _identity(source)


def _identity(source: Path) -> str:
    """Of a file that may be replaced by another at any time, with its shards or data and its configuration."""
    files = {source, *source.parent.glob("*.safetensors"), *source.parent.glob("config.json")}
    if source.suffix == ".onnx":  # and its external data
        files |= {path for path in source.parent.iterdir() if path.name.startswith(source.name) and path.is_file()}
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
