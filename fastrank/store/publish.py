"""Folders of the cache appear whole or not at all, and go whole. What is in them: see `folder`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from fastrank.models.packages import MANIFEST, read_manifest
from fastrank.models.spec import Variant
from fastrank.store.layout import Place, complete

_PATIENCE = 2.0 if os.name == "nt" else 0.0  # seconds; there, a virus scanner may hold a new file


def scratch(place: Place) -> Path:
    """A new folder beside the staging folder of a place that nobody else works in."""
    parent = place.staging.parent
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{place.staging.name}.", dir=parent))


def begin(staging: Path, commit: str | None) -> None:
    """Keep what an earlier run left only if it is of the same commit: files of two would not fit together."""
    if commit is None or read_manifest(staging).get("commit") != commit:
        shutil.rmtree(staging)
        staging.mkdir()
        (staging / MANIFEST).write_text(json.dumps({"commit": commit}), encoding="utf-8")


def tidy(place: Place) -> None:
    """Delete what processes that were killed left of this variant. To be called under its lock."""
    for path in place.staging.parent.glob(f"{place.staging.name}.*"):
        shutil.rmtree(path, ignore_errors=True)


def sweep(root: Path) -> None:
    """Delete what broken downloads left, by names that are ours, and folders of ours that are empty."""
    for path in (root / "staging").glob("*--*"):
        shutil.rmtree(path, ignore_errors=True)
    for stamp in (root / "verified").glob("[0-9a-f]" * 32):
        stamp.unlink(missing_ok=True)
    for name in ("models", "staging", "verified"):
        with suppress(OSError):  # not empty, or not there
            (root / name).rmdir()


def publish(staging: Path, target: Place, variant: Variant, facts: dict[str, str], hashes: dict[str, str]) -> None:
    """Give the files in `staging` their final name in one step. They are verified before; nothing else moves along.

    Everything is on the disk before the rename and the rename after it, so that no crash leaves a folder in between.
    """
    manifest = {
        **read_manifest(staging),
        **facts,
        "variant": variant.name,
        "files": {path: {"size": (staging / path).stat().st_size, "sha256": hashes[path]} for path in sorted(hashes)},
    }
    draft = staging / f"{MANIFEST}.part"
    draft.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    move(draft, staging / MANIFEST)
    for path in [*hashes, MANIFEST]:
        _sync(staging / path)
    final = target.final
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():  # damaged, or another process without locks was faster
        if complete(final, variant):
            shutil.rmtree(staging, ignore_errors=True)
            return
        broken = scratch(target)
        move(final, broken / "folder")
        shutil.rmtree(broken, ignore_errors=True)
    try:
        move(staging, final)
    except OSError:
        if not complete(final, variant):
            raise
        shutil.rmtree(staging, ignore_errors=True)
    _sync(final.parent)


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


def remove(folder: Path) -> None:
    """Delete a published folder; its manifest goes first, so that a half-deleted one does not count as published."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)
    with suppress(OSError):
        folder.parent.rmdir()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle on a folder to be synced
    # Windows flushes only what was opened for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
