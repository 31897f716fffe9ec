"""Folders of the cache appear whole or not at all, and go whole; only what fastrank has marked as its own goes."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final, NamedTuple

from fastrank.models.packages import MANIFEST
from fastrank.models.spec import Variant
from fastrank.store import derived, integrity, layout
from fastrank.store.layout import CacheEntry, FileRecord
from fastrank.store.lock import exclusive

_PATIENCE = 2.0 if os.name == "nt" else 0.0  # seconds; there, a virus scanner may hold a new file
_KEY: Final = r"[^/]+-[0-9a-f]{12}"
_STAGED: Final = rf"([^/]+--{_KEY})(\.[a-z0-9_]{{8}})?"  # the latter: of processes without locks, and of pip


class Cleared(NamedTuple):
    """Something that was removed from a cache; or left there, if `left` says why. `size` is in bytes."""

    what: str
    path: Path
    size: int = 0
    left: str = ""


def scratch(entry: CacheEntry) -> Path:
    """A new folder beside the staging folder of an entry, for this process alone."""
    parent = entry.staging.parent
    layout.make_folders(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{entry.staging.name}.", dir=parent))
    folder.chmod(layout.FOLDER_MODE)
    (folder / MANIFEST).touch(layout.FILE_MODE)
    return folder


def claim(staging: Path) -> None:
    """Make a staging folder, unless an earlier run left one, and mark it as fastrank's."""
    layout.make_folders(staging)
    (staging / MANIFEST).touch(layout.FILE_MODE)


def begin(staging: Path, commit: str | None) -> None:
    """Keep what an earlier run left only if it is of the same commit: files of two would not fit together."""
    if commit is None or layout.manifest(staging).get("commit") != commit:
        _empty(staging)
        layout.write(staging / MANIFEST, json.dumps({"commit": commit}).encode())


def tidy(entry: CacheEntry) -> None:
    """Delete what processes that were killed left of this variant. To be called under its lock."""
    for path in entry.staging.parent.glob(f"{entry.staging.name}.*"):
        if re.fullmatch(_STAGED, path.name) and _is_ours(path):
            discard(path)


def discard(folder: Path) -> None:
    """Delete a folder. Its mark goes last, so that what a killed process leaves of it is known as fastrank's."""
    with suppress(OSError):
        _empty(folder)
        (folder / MANIFEST).unlink(missing_ok=True)
        folder.rmdir()


def _empty(folder: Path) -> None:
    """Delete all in a folder but its mark."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MANIFEST:
            path.unlink()


def publish(
    staging: Path, entry: CacheEntry, variant: Variant, facts: dict[str, str], files: Mapping[str, FileRecord]
) -> None:
    """Give the files in `staging` their final name in one step. They are verified before; nothing else moves along.

    Everything is on the disk before the rename and the rename after it, so that no crash leaves a folder in between.
    """
    manifest = {
        **layout.manifest(staging),
        **facts,
        "variant": variant.name,
        "files": {path: files[path]._asdict() for path in sorted(files)},
    }
    draft = staging / f"{MANIFEST}.part"
    layout.write(draft, json.dumps(manifest, indent=1).encode())
    move(draft, staging / MANIFEST)
    for path in [*files, MANIFEST]:
        _sync(staging / path)
    final = entry.folder
    layout.make_folders(final.parent)
    if final.exists():  # damaged, or another process without locks was faster
        if integrity.intact(final, variant, entry.root, trust_stamps=False):
            discard(staging)
            return
        broken = scratch(entry)
        move(final, broken / "folder")
        discard(broken)
    try:
        move(staging, final)
    except OSError:
        if not layout.complete(final, variant):
            raise
        discard(staging)
    _sync(final.parent)
    integrity.remember(final, variant, entry.root)


def move(source: Path, target: Path) -> None:
    """Rename. On Windows, with patience: what is new there is soon opened by a virus scanner, and then stays put."""
    deadline = monotonic() + _PATIENCE
    while True:
        try:
            source.replace(target)
        except PermissionError:
            if monotonic() > deadline:
                raise
            sleep(0.05)
        else:
            return


def remove(root: Path, folder: Path) -> str:
    """Delete a published folder of the cache at `root`; why it was left, or nothing."""
    if link := _link(root, folder):
        return f"{link} is a link"
    if not _is_published(folder):
        return "it has no manifest of fastrank's"
    discard(folder)
    if folder.exists():
        return "not all of it could be deleted"
    with suppress(OSError):  # not empty
        folder.parent.rmdir()
    return ""


def clear(root: Path) -> Iterator[Cleared]:
    """Delete what fastrank keeps in the cache at `root`: what carries its mark, and nothing through a link."""
    for folder in layout.published(root):
        facts, size = layout.manifest(folder), layout.size_on_disk(folder)
        what = f"{facts.get('model', folder.parent.name)} {facts.get('variant', '?')}"
        yield Cleared(what, folder, size, remove(root, folder))
    yield from _clear_staging(root)
    yield from (Cleared(*each) for each in derived.clear(root))
    _clear_stamps(root)
    for name in (layout.MODELS, layout.STAGING, layout.VERIFIED, layout.DERIVED):
        with suppress(OSError):  # not empty, or not there
            (root / name).rmdir()


def _clear_staging(root: Path) -> Iterator[Cleared]:
    for path in sorted((root / layout.STAGING).glob("*--*")):
        if not (match := re.fullmatch(_STAGED, path.name)) or not _is_ours(path):
            continue
        what, size = f"a broken download, {match[1].rpartition('-')[0]}", layout.size_on_disk(path)
        if link := _link(root, path):
            yield Cleared(what, path, size, f"{link} is a link")
            continue
        try:
            with exclusive(root / layout.LOCKS / f"{match[1]}.lock", 0):
                discard(path)
        except TimeoutError:
            yield Cleared(what, path, size, "another process is downloading it")
        else:
            yield Cleared(what, path, size)


def _clear_stamps(root: Path) -> None:
    for stamp in (root / layout.VERIFIED).glob("[0-9a-f]" * 32):
        with suppress(OSError):
            if not _link(root, stamp) and stamp.is_file() and stamp.read_bytes() == integrity.STAMP:
                stamp.unlink()


def _is_ours(folder: Path) -> bool:
    """Whether a staging folder has fastrank's mark, or nothing at all in it."""
    return folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))


def _is_published(folder: Path) -> bool:
    """Whether a folder's manifest is one of fastrank's cache: it says which files of which model these are."""
    facts = layout.manifest(folder)
    named = facts.get("model")
    return (
        re.fullmatch(_KEY, folder.name) is not None
        and isinstance(named, str)
        and named.replace("/", "--") == folder.parent.name
        and isinstance(facts.get("files"), dict)
    )


def _link(root: Path, path: Path) -> Path | None:
    """The first link on the way from the cache's root down to a path, itself included; None: there is none."""
    for each in [*reversed([parent for parent in path.parents if root in parent.parents]), path]:
        if each.is_symlink():
            return each
    return None


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle on a folder to be synced
    # Windows flushes only what was opened for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
