"""The folders of the cache. A model folder in it is complete and verified, or it is absent.

    <cache>/models/<organisation>--<model>/<variant>-<digest>/    complete; real files, no links
    <cache>/staging/...                                           downloads in progress; resumed by the next run
    <cache>/locks/...                                             one file per model folder
    <cache>/verified/...                                          one file per folder whose hashes were checked
    <cache>/derived/...                                           int8 weights of models that lie elsewhere

The digest is over the files' names and hashes: a new pin is a new folder; two sources of the same files share one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, NamedTuple

from fastrank.models.packages import MANIFEST, read_manifest
from fastrank.models.spec import PATH, SHA256, FileSpec, ModelSpec, Variant

MODELS: Final = "models"
STAGING: Final = "staging"
LOCKS: Final = "locks"
VERIFIED: Final = "verified"
DERIVED: Final = "derived"

FOLDER_MODE: Final = 0o755  # whatever the umask allows: only the owner may write
FILE_MODE: Final = 0o644


class CacheEntry(NamedTuple):
    """Where one variant of one model belongs in a cache."""

    root: Path
    model: str
    key: str

    @property
    def folder(self) -> Path:
        """The folder of the complete model."""
        return self.root / MODELS / self.model / self.key

    @property
    def lock(self) -> Path:
        """The lock that guards a download."""
        return self.root / LOCKS / f"{self.model}--{self.key}.lock"

    @property
    def staging(self) -> Path:
        """Where a download under the lock works; the next run resumes what an interrupted one left."""
        return self.root / STAGING / f"{self.model}--{self.key}"

    def twins(self) -> Iterator[Path]:
        """Folders of other models with the same files."""
        yield from (each for each in sorted((self.root / MODELS).glob(f"*/{self.key}")) if each != self.folder)


def cache_entry(root: Path, spec: ModelSpec, variant: Variant) -> CacheEntry:
    """The place of a variant in the cache at `root`."""
    content = [[file.path, file.sha256] for file in variant.files]
    if not variant.pinned:  # then the source says which files these are
        content += [[str(source)] for source in variant.sources]
    if variant.open:
        content += [["open", variant.model]]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    return CacheEntry(root, spec.name.replace("/", "--"), f"{variant.name}-{digest}")


class FileRecord(NamedTuple):
    """What a manifest states of a file. `stated_by`: who stated the hash when it was fetched; empty: nobody did."""

    size: int | None = None
    sha256: str | None = None
    stated_by: str = ""


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder; empty if there is none, or none that can be read."""
    try:
        return read_manifest(folder)
    except RecursionError:
        return {}


def records(folder: Path) -> dict[str, FileRecord]:
    """The files that a folder's manifest states, by path. Rows that are no such statement are left out."""
    stated = manifest(folder).get("files")
    if not isinstance(stated, dict):
        return {}
    return {path: _record(row) for path, row in stated.items() if re.fullmatch(PATH, path)}


def _record(row: Any) -> FileRecord:
    if not isinstance(row, dict):
        return FileRecord()
    size, digest, stated_by = row.get("size"), row.get("sha256"), row.get("stated_by")
    return FileRecord(
        size if type(size) is int and size >= 0 else None,
        digest if isinstance(digest, str) and re.fullmatch(SHA256, digest) else None,
        stated_by if isinstance(stated_by, str) else "",
    )


def resolved(folder: Path, variant: Variant) -> Variant:
    """An open variant with the files that were fetched for it; any other as it is."""
    if not variant.open:
        return variant
    files = tuple(FileSpec(path, None, None) for path in records(folder))
    model = manifest(folder).get("model_file")
    if not (isinstance(model, str) and re.fullmatch(PATH, model)):
        model = variant.model
    return variant._replace(model=model, files=files or variant.files, open=False)


def complete(folder: Path, variant: Variant, *, needs_manifest: bool = True) -> bool:
    """Whether every file is there with its size: some `stat` calls, on the path of every load.

    `needs_manifest`: a file whose size neither the registry nor the folder's manifest states does not count.
    """
    stated: dict[str, FileRecord] | None = None
    for file in resolved(folder, variant).files:
        try:
            status = (folder / file.path).stat()
        except (FileNotFoundError, NotADirectoryError):
            if file.optional:
                continue
            return False
        size = file.size
        if size is None:
            stated = records(folder) if stated is None else stated
            size = stated.get(file.path, FileRecord()).size
        known = size is not None or needs_manifest
        if not S_ISREG(status.st_mode) or (known and status.st_size != size):
            return False
    return True


def published(root: Path) -> Iterator[Path]:
    """Every folder of the cache that was published."""
    yield from sorted(path.parent for path in (root / MODELS).glob(f"*/*/{MANIFEST}"))


def size_on_disk(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def make_folders(path: Path) -> None:
    """Make a folder and its parents, for the owner alone to write into whatever the umask is."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(FOLDER_MODE, exist_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a small file that only the owner may change, whatever the umask is."""
    path.touch(FILE_MODE)
    path.write_bytes(content)
