"""A model folder in the cache is complete and verified, or it is absent. Here they are found and checked.

    <cache>/models/<organisation>--<model>/<variant>-<digest>/    complete; real files, no links
    <cache>/staging/...                                           what is being fetched; resumed by the next run
    <cache>/locks/...                                             one file a folder
    <cache>/verified/...                                          stamps of installed wheels whose hashes were checked

The digest is over the files' names and hashes: a new pin is a new folder; two sources of the same files share one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from fastrank.errors import IntegrityError
from fastrank.models.packages import MANIFEST, read_manifest
from fastrank.models.spec import FileSpec, ModelSpec, Variant

_CHUNK = 1 << 20


class Place(NamedTuple):
    """Where one variant of one model belongs in a cache."""

    root: Path
    model: str
    key: str

    @property
    def final(self) -> Path:
        """The folder of the complete model."""
        return self.root / "models" / self.model / self.key

    def twins(self) -> Iterator[Path]:
        """Folders of other models with the same files."""
        yield from (folder for folder in sorted((self.root / "models").glob(f"*/{self.key}")) if folder != self.final)

    @property
    def lock(self) -> Path:
        """The lock that guards fetching it."""
        return self.root / "locks" / f"{self.model}--{self.key}.lock"

    @property
    def staging(self) -> Path:
        """Where a fetch under the lock works; what a broken one left is resumed."""
        return self.root / "staging" / f"{self.model}--{self.key}"


def place(root: Path, spec: ModelSpec, variant: Variant) -> Place:
    """The place of a variant in the cache at `root`."""
    content = [[file.path, file.sha256] for file in variant.files]
    if not variant.pinned:  # then the source says which files these are
        content += [[str(source)] for source in variant.sources]
    if variant.open:
        content += [["open", variant.model]]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    return Place(root, spec.name.replace("/", "--"), f"{variant.name}-{digest}")


def complete(folder: Path, variant: Variant) -> bool:
    """Whether every file is there with its size: some `stat` calls, on the path of every load."""
    manifest: dict[str, Any] | None = None
    variant = written_down(folder, variant)
    for file in variant.files:
        try:
            size = (folder / file.path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            if file.optional:
                continue
            return False
        wanted = file.size
        if wanted is None:
            manifest = read_manifest(folder) if manifest is None else manifest
            wanted = manifest.get("files", {}).get(file.path, {}).get("size")
        if size != wanted:
            return False
    return True


def written_down(folder: Path, variant: Variant) -> Variant:
    """An open variant with the files that were fetched for it; any other as it is."""
    if not variant.open:
        return variant
    manifest = read_manifest(folder)
    files = tuple(FileSpec(path, None, None) for path in manifest.get("files", {}))
    return variant._replace(model=manifest.get("model_file", variant.model), files=files or variant.files, open=False)


def mismatch(folder: Path, variant: Variant) -> str | None:
    """Why a packed folder is not this variant, by its manifest and the sizes alone; None: it is.

    Its files were hashed when it was packed, so the manifest has the hashes; `faults` reads the files again.
    """
    stated = read_manifest(folder).get("files", {})
    for file in variant.files:
        noted = stated.get(file.path)
        if noted is None:
            if not file.optional:
                return f"{file.path} is missing"
            continue
        if file.sha256 not in (None, noted["sha256"]):
            return f"{file.path} has SHA-256 {noted['sha256']}, the registry states {file.sha256}"
        path = folder / file.path
        size = path.stat().st_size if path.is_file() else "no"
        if size != noted["size"]:
            return f"{file.path} has {size} bytes, {noted['size']} were packed"
    return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check(path: Path, file: FileSpec) -> str:
    """The SHA-256 of a file that is what the registry states.

    Raises:
        IntegrityError: it is not.
    """
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise IntegrityError(f"{file.path} has {size} bytes, the registry states {file.size}")
    found = sha256(path)
    if file.sha256 is not None and found != file.sha256:
        raise IntegrityError(f"{file.path} has SHA-256 {found}, the registry states {file.sha256}")
    return found


def faults(folder: Path, variant: Variant) -> list[str]:
    """What is wrong with a folder: one line a file, read and hashed in full. Empty: nothing."""
    variant = written_down(folder, variant)
    stated = read_manifest(folder).get("files", {})
    found = []
    for file in variant.files:
        noted = stated.get(file.path, {})
        if not (folder / file.path).is_file():
            if not file.optional:
                found.append(f"{file.path} is missing")
            continue
        try:
            check(
                folder / file.path,
                FileSpec(file.path, file.size or noted.get("size"), file.sha256 or noted.get("sha256")),
            )
        except IntegrityError as error:
            found.append(str(error))
    return found


def verified(folder: Path, variant: Variant, root: Path) -> bool:
    """Whether files that others installed are the registry's; hashed once, then recognised by a stamp in the cache."""
    return damage(folder, variant, root) is None


def damage(folder: Path, variant: Variant, root: Path | None) -> str | None:
    """How an installed folder's files differ from the SHA-256 that registry or manifest state; None: not at all.

    A folder that was found unchanged leaves a stamp in the cache at `root`, over size, modification time and inode of
    each file, and is hashed again only when one of these changes. Without a `root` it is hashed each time.
    """
    stated = read_manifest(folder).get("files", {})
    identity: list[tuple[object, ...]] = []
    for file in variant.files:
        try:
            status = (folder / file.path).stat()
        except OSError:
            if file.optional:
                continue
            return f"{file.path} is missing"
        expected = file.sha256 or stated.get(file.path, {}).get("sha256")
        identity.append((file.path, expected, status.st_size, status.st_mtime_ns, status.st_ino))
    digest = hashlib.sha256(json.dumps([str(folder.resolve()), identity]).encode()).hexdigest()
    stamp = None if root is None else root / "verified" / digest[:32]
    if stamp and stamp.exists():
        return None
    if wrong := faults(folder, variant):
        return "; ".join(wrong)
    if stamp:
        with suppress(OSError):  # a read-only cache costs a hash at every start, no more
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.touch()
    return None


def published(root: Path) -> Iterator[Path]:
    """Every folder of the cache that was published."""
    yield from sorted(path.parent for path in (root / "models").glob(f"*/*/{MANIFEST}"))


def size_on_disk(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
