"""Whether files are what the registry, the hub or a manifest states: hashed once, and again when they have changed."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from fastrank.errors import IntegrityError
from fastrank.models.spec import FileSpec, Variant
from fastrank.store.layout import VERIFIED, FileRecord, complete, make_folders, records, resolved, write

REGISTRY = "registry"
HUB = "hub"

STAMP = b"The files of a model were hashed and are what they should be. Written by fastrank.\n"
_CHUNK = 1 << 20
_seen: set[str] = set()  # digests of what this process has verified, for caches that cannot be written


class Expected(NamedTuple):
    """What a file must be.

    `sha1` is what the hub states of small files: of git's blob; mirrors may state the SHA-1 of the content itself.
    `stated_by`: who states the hash; empty: nobody does, and the file is checked by its form.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    sha1: str | None = None
    stated_by: str = ""

    @property
    def author(self) -> str:
        """Who states the size, for messages."""
        return self.stated_by or HUB


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return _hashes(path, with_sha1=False)[0]


def check(path: Path, expected: Expected) -> str:
    """The SHA-256 of a file that is what it must be.

    Raises:
        IntegrityError: it is not. A file whose hash nobody states is checked by its form.
    """
    author = f"the {expected.author} states"
    size = path.stat().st_size
    if expected.size is not None and size != expected.size:
        raise IntegrityError(f"{expected.path} has {size} bytes, {author} {expected.size}")
    found, *sha1 = _hashes(path, with_sha1=expected.sha1 is not None)
    if expected.sha256 is not None and found != expected.sha256:
        raise IntegrityError(f"{expected.path} has SHA-256 {found}, {author} {expected.sha256}")
    if expected.sha1 is not None and expected.sha1 not in sha1:
        raise IntegrityError(f"{expected.path} has the git blob id {sha1[0]}, {author} {expected.sha1}")
    if expected.sha256 is None and expected.sha1 is None:
        from fastrank.store.forms import check_form

        check_form(path, expected.path)
    return found


def _hashes(path: Path, *, with_sha1: bool) -> list[str]:
    """SHA-256; then, if wanted, the SHA-1 of git's blob and of the content."""
    digests = [hashlib.sha256()]
    if with_sha1:
        blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        digests += [blob, hashlib.sha1(usedforsecurity=False)]
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            for digest in digests:
                digest.update(chunk)
    return [digest.hexdigest() for digest in digests]


def problems(folder: Path, variant: Variant) -> list[str]:
    """What is wrong with a folder: one line per file, read and hashed in full. Empty: nothing."""
    found = []
    stated = records(folder)
    for file in resolved(folder, variant).files:
        path, record = folder / file.path, stated.get(file.path, FileRecord())
        if not path.is_file():
            if not file.optional:
                found.append(f"{file.path} is missing")
            continue
        try:
            check(path, _expected(file, record))
            if file.sha256 is None and not record.stated_by:
                from fastrank.store.forms import check_form

                check_form(path, file.path)
        except IntegrityError as error:
            found.append(str(error))
    return found


def _expected(file: FileSpec, record: FileRecord) -> Expected:
    """By the registry where it states a size or hash, else by the folder's manifest."""
    pinned = file.sha256 is not None or file.size is not None
    size = record.size if file.size is None else file.size
    return Expected(file.path, size, file.sha256 or record.sha256, None, REGISTRY if pinned else "manifest")


def intact(
    folder: Path, variant: Variant, root: Path | None, *, trust_stamps: bool = True, needs_manifest: bool = True
) -> bool:
    """Whether a folder's files are what they should be.

    They are hashed once. The result is kept with each file's size, time of change and inode, in the cache at `root` and
    in this process; a file that was changed or replaced since is hashed again. `needs_manifest`: see `complete`.
    """
    if not complete(folder, variant, needs_manifest=needs_manifest):
        return False
    digest = _identity(folder, variant)
    stamp = None if root is None else root / VERIFIED / digest
    if trust_stamps and (digest in _seen or (stamp is not None and stamp.is_file())):
        return True
    if problems(folder, variant):
        return False
    _keep(digest, stamp)
    return True


def remember(folder: Path, variant: Variant, root: Path) -> None:
    """Note that a folder's files were just verified."""
    digest = _identity(folder, variant)
    _keep(digest, root / VERIFIED / digest)


def _keep(digest: str, stamp: Path | None) -> None:
    _seen.add(digest)
    if stamp is not None:
        with suppress(OSError):  # a cache that cannot be written costs a hash at every start, no more
            make_folders(stamp.parent)
            write(stamp, STAMP)


def _identity(folder: Path, variant: Variant) -> str:
    """A name for these files as they are now: another one once one of them, or what it should be, has changed."""
    stated = {} if variant.pinned else records(folder)
    facts = []
    for file in sorted(resolved(folder, variant).files, key=lambda file: file.path):
        with suppress(OSError):  # an optional file that is not there
            status = (folder / file.path).stat()
            digest = file.sha256 or stated.get(file.path, FileRecord()).sha256
            regular = S_ISREG(status.st_mode)
            facts.append((file.path, regular, status.st_size, status.st_mtime_ns, status.st_ino, digest))
    return hashlib.sha256(json.dumps([str(folder.resolve()), facts]).encode()).hexdigest()[:32]
