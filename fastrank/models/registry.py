"""Finds models by name: the built-in ones (`model_registry.json`), custom ones, and those in installed packages."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastrank import environment, log
from fastrank.errors import ModelNotFoundError
from fastrank.models import packages
from fastrank.models.reading import model_spec
from fastrank.models.spec import (
    CLASSES,
    LATE_INTERACTION,
    DenseTask,
    HubSource,
    LateInteractionTask,
    ModelSpec,
    SparseTask,
    Task,
    Variant,
)

_warned: set[str] = set()  # models whose licence was warned of
_custom: dict[tuple[str, str], ModelSpec] = {}
_custom_lock = threading.Lock()
_reserved: ContextVar[Collection[str] | None] = ContextVar("reserved", default=None)  # None: all names


def find(name: str, task: str | None = None) -> ModelSpec:
    """The entry with this name, alias or unique last part of a name ("all-MiniLM-L6-v2"), ignoring case.

    Args:
        name: the name.
        task: the task it must serve; None: any.

    Raises:
        TypeError: `name` is not a string.
        ModelNotFoundError: there is no such entry, or several; the message lists the nearest names.
    """
    spec = _by_name(name, task)
    if spec is None and "/" not in name:
        spec = _by_last_part(name, task)
    if spec and (task is None or task in spec.tasks):
        return spec
    raise ModelNotFoundError(_not_found(name, task, spec))


def find_or_own(name: str, task: str, settings: Task) -> ModelSpec:
    """The entry with exactly this name or alias; for an unknown name, an entry with these settings and no files.

    It serves constructors with `specific_model_path`. A last part of a name does not count here: people call their own
    folders so.

    Raises:
        TypeError: `name` is not a string.
        ModelNotFoundError: it is a built-in model for another task.
    """
    spec = _by_name(name, task)
    if spec and task in spec.tasks:
        return spec
    if spec and is_builtin(name):
        raise ModelNotFoundError(_not_found(name, task, spec))
    return ModelSpec(name, "", "", (), MappingProxyType({task: settings}), ())


def is_builtin(name: str) -> bool:
    """Whether model_registry.json has this name or alias."""
    return _shipped().get(name.casefold()) is not None


def note_license(spec: ModelSpec) -> None:
    """Log, once per process and model, that the licence forbids commercial use.

    A log line, not a Python warning: where warnings are errors, a licence must not stop a program that may use it.
    """
    if spec.noncommercial and spec.name not in _warned:
        _warned.add(spec.name)
        log.warning("%s: its licence, %s, does not allow commercial use", spec.name, spec.license)


def entries(task: str | None = None) -> list[ModelSpec]:
    """All entries, or those for one task: the registry's in its order, then custom and packaged ones."""
    installed = list(packages.packages())
    shipped = [spec for spec in builtin() if (spec.name.casefold(), task) not in _custom]
    specs = [*(_with_quantized(spec, installed) for spec in shipped), *_custom.values(), *_packaged(installed)]
    return [spec for spec in specs if task is None or task in spec.tasks]


def builtin() -> tuple[ModelSpec, ...]:
    """The entries of model_registry.json, in its order."""
    return _shipped().all()


@contextmanager
def replacing_shipped(reserved: Collection[str]) -> Iterator[None]:
    """Within this context, custom models may have any name of the registry but these, in lower case."""
    token = _reserved.set(reserved)
    try:
        yield
    finally:
        _reserved.reset(token)


def add(spec: ModelSpec, task: str) -> None:
    """Register a custom model for this process.

    Raises:
        ValueError: the name is taken.
    """
    key = spec.name.casefold()
    with _custom_lock:
        reserved, existing = _reserved.get(), _shipped().get(key)
        taken = bool(existing and task in existing.tasks) if reserved is None else key in reserved
        if (key, task) in _custom or taken:
            raise ValueError(
                f"Model {spec.name} is already registered in {CLASSES[task]}, if you still want to add this model, "
                "please use another model name"
            )
        _custom[key, task] = spec


def custom(name: str) -> list[tuple[str, ModelSpec]]:
    """(task, entry) of the custom models with this name, in a form that can be pickled."""
    key = name.casefold()
    return [
        (task, spec._replace(tasks=dict(spec.tasks))) for (other, task), spec in tuple(_custom.items()) if other == key
    ]


def add_if_missing(entries: Iterable[tuple[str, ModelSpec]]) -> None:
    """Make custom models of another process known to this one."""
    with _custom_lock:
        for task, spec in entries:
            _custom.setdefault((spec.name.casefold(), task), spec._replace(tasks=MappingProxyType(spec.tasks)))


def describe(spec: ModelSpec, task: str, variant: str | None = None) -> dict[str, Any]:
    """An entry as a row of FastEmbed's `list_supported_models`: a new dict, its keys in FastEmbed's order.

    Args:
        spec: the entry.
        task: one of its tasks.
        variant: the variant whose source, files and size are stated; None: the first.
    """
    settings = spec.tasks[task]
    files = next(iter(spec.variant(variant)), None)
    row: dict[str, Any] = {
        "model": spec.name,
        "sources": {"hf": _repository(spec, files), "url": None, "_deprecated_tar_struct": False},
        "model_file": (files.model or None) if files else None,
        "description": spec.description,
        "license": spec.license,
        "size_in_GB": round(((files.size or files.size_approx or 0) if files else 0) / 1e9, 3),
        "additional_files": [file.path for file in files.files if file.path != files.model] if files else [],
    }
    if isinstance(settings, (DenseTask, LateInteractionTask)):
        task_input = getattr(settings, "task_input", None)
        row |= {"dim": settings.dim, "tasks": dict(task_input.tasks) if task_input else {}}
    if isinstance(settings, SparseTask):
        row |= {"requires_idf": settings.requires_idf or None, "vocab_size": settings.vocab_size}
    return row


def _repository(spec: ModelSpec, variant: Variant | None) -> str | None:
    """The hub repository of a variant. BM25 needs no files; it is named after the repository that FastEmbed uses."""
    if variant is None:
        return spec.name
    return next((source.hub for source in variant.sources if isinstance(source, HubSource)), None)


# -- by name ----------------------------------------------------------------------------------------------------------


def _by_name(name: str, task: str | None) -> ModelSpec | None:
    if not isinstance(name, str):
        raise TypeError(f"model_name must be a string, not {type(name).__name__}")
    key = name.casefold()
    for (custom_name, custom_task), spec in tuple(_custom.items()):
        if custom_name == key and task in (None, custom_task):
            return spec
    if shipped := _shipped().get(key):
        return _with_quantized(shipped, packages.packages(shipped.name))
    return next(_packaged(packages.packages(name)), None)


def _by_last_part(name: str, task: str | None) -> ModelSpec | None:
    """The entry with this last part of a name: of those for the task, if there are any.

    Raises:
        ModelNotFoundError: there are several.
    """
    key = name.casefold()
    matching = {
        spec.name: spec
        for spec in entries()
        for full in (spec.name, *spec.aliases)
        if full.casefold().rpartition("/")[2] == key
    }
    found = [spec for spec in matching.values() if task in spec.tasks] or [*matching.values()]
    if len(found) > 1:
        raise ModelNotFoundError(f"{name} is ambiguous: it may be {' or '.join(spec.name for spec in found)}.")
    return found[0] if found else None


def _not_found(name: str, task: str | None, other: ModelSpec | None) -> str:
    """The error message for a name that is unknown, or (`other`) is a model for other tasks."""
    where = CLASSES[task] if task else "fastrank"
    message = f"Model {name} is not supported in {where}."
    if other:
        message += f" It is a model for {' and '.join(CLASSES[t] for t in other.tasks)}."
    elif near := _nearest(name.casefold(), task):
        message += f" Did you mean {', '.join(near)}?"
    if task:
        message += f" Please check the supported models using `{where}.list_supported_models()`;"
        message += f" `{where}.add_custom_model` adds your own"
        message += "." if task == LATE_INTERACTION else "; with specific_model_path any other name will do."
    return f"{message} The command `fastrank models` lists all."


def _nearest(key: str, task: str | None) -> list[str]:
    """Up to three similar names, compared in full and without the organisation."""
    import difflib

    names = {name.casefold(): spec.name for spec in entries(task) for name in (spec.name, *spec.aliases)}
    short = {name.rpartition("/")[2]: full for name, full in names.items()}
    if exact := short.get(key.rpartition("/")[2]):
        return [exact]
    near = [names[match] for match in difflib.get_close_matches(key, names)]
    near += [short[match] for match in difflib.get_close_matches(key.rpartition("/")[2], short)]
    return list(dict.fromkeys(near))[:3]


# -- model_registry.json ----------------------------------------------------------------------------------------------


class _Lazy:
    """The rows of the registry file, each turned into a spec when first asked for: all take 2 ms, one takes 0.1 ms."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows
        self._positions = {
            name.casefold(): position
            for position, row in enumerate(rows)
            for name in (row["name"], *row.get("aliases", ()))
        }
        self._spec = functools.cache(lambda position: model_spec(rows[position]))

    def get(self, key: str) -> ModelSpec | None:
        position = self._positions.get(key)
        return None if position is None else self._spec(position)

    def all(self) -> tuple[ModelSpec, ...]:
        return tuple(map(self._spec, range(len(self._rows))))


@functools.cache
def _shipped() -> _Lazy:
    top = Path(__file__).parents[2] / "model_registry.json"  # where an editable install has it
    if top.is_file() and not top.with_name("fastrank").joinpath("models", top.name).is_file():
        text = top.read_text(encoding="utf-8")
    else:
        text = environment.packaged_text("fastrank.models", top.name)
    return _Lazy(json.loads(text)["models"])


# -- installed packages -----------------------------------------------------------------------------------------------


def _packaged(installed: Iterable[packages.Package]) -> Iterator[ModelSpec]:
    """Users' own models, in packages that name a built-in model with the same configuration."""
    for package in installed:
        manifest = package.manifest
        if manifest is None or manifest.like is None or is_builtin(package.model):
            continue
        base = _shipped().get(manifest.like.casefold())
        if base is None:
            packages.leave_out(package.folder.name, f"{packages.MANIFEST}: like is {manifest.like}, an unknown model")
            continue
        yield base._replace(
            name=package.model,
            description=f"A model like {base.name}",
            license=manifest.license,
            # The known answers belong to the built-in model's weights.
            tasks=MappingProxyType({task: settings._replace(answers=()) for task, settings in base.tasks.items()}),
            variants=(_variant(manifest),),
            aliases=(),
        )


def _with_quantized(spec: ModelSpec, installed: Iterable[packages.Package]) -> ModelSpec:
    """The entry with the variants in installed packages that were quantized from its checkpoint."""
    added = tuple(
        _variant(package.manifest)
        for package in installed
        if package.manifest and package.model.casefold() == spec.name.casefold() and _is_quantized(spec, package)
    )
    return spec._replace(variants=spec.variants + added) if added else spec


def _is_quantized(spec: ModelSpec, package: packages.Package) -> bool:
    """Whether a package has int8 weights made of the registry's checkpoint, and the registry's files beside them."""
    manifest = package.manifest
    if manifest is None or manifest.made_of is None:
        return False
    for origin in spec.variants:
        if any(file.sha256 == manifest.made_of for file in origin.files):
            reason = _differs(spec, origin, manifest)
            if reason:
                packages.leave_out(package.folder.name, f"{packages.MANIFEST}: {reason}")
            return reason is None
    return False


def _differs(spec: ModelSpec, origin: Variant, manifest: packages.Manifest) -> str | None:
    """Why a package cannot be `origin` with int8 weights; None: it can."""
    if manifest.precision != "int8-weights" or manifest.variant in [variant.name for variant in spec.variants]:
        return f"variant {manifest.variant} of precision {manifest.precision} is not the registry's"
    pinned = {file.path: file.sha256 for file in origin.files if file.sha256}
    other = [file.path for file in manifest.files if file.sha256 != pinned.get(file.path, file.sha256)]
    return f"files.{other[0]}.sha256 is not the registry's" if other else None


def _variant(manifest: packages.Manifest) -> Variant:
    return Variant(manifest.variant, manifest.precision, manifest.model_file, manifest.files, ())
