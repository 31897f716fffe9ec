"""Finds models by name: `model_registry.json`, custom models, and models in installed packages."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastrank import log
from fastrank.errors import ModelNotFoundError
from fastrank.models import packages
from fastrank.models.reading import _model, _rows
from fastrank.models.spec import (
    CLASSES,
    LATE_INTERACTION,
    DenseTask,
    FileSpec,
    HubSource,
    LateInteractionTask,
    ModelSpec,
    SparseTask,
    Task,
    Variant,
)

_noted: set[str] = set()  # models whose licence was warned of
_custom: dict[tuple[str, str], ModelSpec] = {}
_custom_lock = threading.Lock()


def find(name: str, task: str | None = None) -> ModelSpec:
    """The entry with this name or alias, without regard to case; for this task, or for any.

    Raises:
        TypeError: `name` is no string.
        ModelNotFoundError: there is none; the message says the nearest names.
    """
    if not isinstance(name, str):
        raise TypeError(f"model_name must be a string, not {type(name).__name__}")
    wanted = name.casefold()
    for (key, own_task), spec in _custom.items():
        if key == wanted and task in (None, own_task):
            return spec
    shipped = _shipped().get(wanted)
    known = _completed(shipped, packages.packages(shipped.name)) if shipped else next(_packed(name), None)
    if known and (task is None or task in known.tasks):
        return known
    here = CLASSES[task] if task else "fastrank"
    message = f"Model {name} is not supported in {here}."
    if known:
        message += f" It is a model for {' and '.join(CLASSES[t] for t in known.tasks)}."
    elif near := _nearest(wanted, task):
        message += f" Did you mean {', '.join(near)}?"
    if task:
        message += f" Please check the supported models using `{here}.list_supported_models()`;"
        message += f" `{here}.add_custom_model` adds your own"
        message += "." if task == LATE_INTERACTION else "; with specific_model_path any other name will do."
    raise ModelNotFoundError(f"{message} The command `fastrank models` lists all.")


def find_or_own(name: str, task: str, settings: Task) -> ModelSpec:
    """The entry with this name; for a name that is nowhere, one for a folder of the caller's own, with these settings.

    Raises:
        TypeError: `name` is no string.
        ModelNotFoundError: it is the name of a model for another task.
    """
    try:
        return find(name, task)
    except ModelNotFoundError:
        if _shipped().get(name.casefold()):
            raise
    return ModelSpec(name, "", "", (), MappingProxyType({task: settings}), ())


def note_license(spec: ModelSpec) -> None:
    """Log, once a process and model, that a model is not for commercial use.

    A log line and no Python warning: where warnings are errors, a licence must not stop a program that may use it.
    """
    if spec.noncommercial and spec.name not in _noted:
        _noted.add(spec.name)
        log.warning("%s: its licence, %s, does not allow commercial use", spec.name, spec.license)


def _nearest(wanted: str, task: str | None) -> list[str]:
    """Up to three names much like this one, as a whole or without the organisation, which people leave out."""
    import difflib

    names = {name.casefold(): spec.name for spec in entries(task) for name in (spec.name, *spec.aliases)}
    short = {key.rpartition("/")[2]: name for key, name in names.items()}
    if exact := short.get(wanted.rpartition("/")[2]):
        return [exact]
    near = [names[key] for key in difflib.get_close_matches(wanted, names)]
    near += [short[key] for key in difflib.get_close_matches(wanted.rpartition("/")[2], short)]
    return list(dict.fromkeys(near))[:3]


def entries(task: str | None = None) -> list[ModelSpec]:
    """All entries, or those for one task: the registry's in its order, then custom and packed ones."""
    installed = list(packages.packages())
    known = [*(_completed(spec, installed) for spec in builtin()), *_custom.values(), *_packed()]
    return [spec for spec in known if task is None or task in spec.tasks]


def add(spec: ModelSpec, task: str) -> None:
    """Register a custom model for this process.

    Raises:
        ValueError: the name is taken.
    """
    key = spec.name.casefold()
    with _custom_lock:
        taken = _shipped().get(key)
        if (key, task) in _custom or (taken and task in taken.tasks):
            raise ValueError(
                f"Model {spec.name} is already registered in {CLASSES[task]}, if you still want to add this model, "
                "please use another model name"
            )
        _custom[key, task] = spec


def describe(spec: ModelSpec, task: str) -> dict[str, Any]:
    """An entry as FastEmbed's `list_supported_models` shows it: a fresh dict, its keys in FastEmbed's order."""
    settings = spec.tasks[task]
    default = spec.variants[0] if spec.variants else None
    hubs = [s for v in spec.variants for s in v.sources if isinstance(s, HubSource)]
    row: dict[str, Any] = {
        "model": spec.name,
        "sources": {"hf": hubs[0].hub if hubs else None, "url": None, "_deprecated_tar_struct": False},
        "model_file": (default.model or None) if default else None,
        "description": spec.description,
        "license": spec.license,
        "size_in_GB": round((default.rough_size or 0) / 1e9, 3) if default else 0.0,
        "additional_files": [file.path for file in default.files if file.path != default.model] if default else [],
    }
    if isinstance(settings, (DenseTask, LateInteractionTask)):
        task_input = getattr(settings, "task_input", None)
        row |= {"dim": settings.dim, "tasks": dict(task_input.tasks) if task_input else {}}
    if isinstance(settings, SparseTask):
        row |= {"requires_idf": settings.requires_idf or None, "vocab_size": settings.vocab_size}
    return row


def builtin() -> tuple[ModelSpec, ...]:
    """The entries of model_registry.json, in its order."""
    return _shipped().all()


class _Lazy:
    """The rows of a registry file, each made a spec when it is asked for: all take 5 ms, one takes 0.1 ms.

    So a mistake in one row stops nobody who uses another; the tests read all rows.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self._positions = {
            name.casefold(): position
            for position, row in enumerate(rows)
            for name in (row["name"], *row.get("aliases", ()))
        }
        self._spec = functools.cache(lambda position: _model(rows[position], position))

    def get(self, key: str) -> ModelSpec | None:
        position = self._positions.get(key)
        return None if position is None else self._spec(position)

    def all(self) -> tuple[ModelSpec, ...]:
        return tuple(map(self._spec, range(len(self._rows))))


@functools.cache
def _shipped() -> _Lazy:
    here = Path(__file__).parent / "model_registry.json"
    # An editable install has the file where the repository has it: at its top.
    path = here if here.is_file() else here.parents[2] / here.name
    return _Lazy(_rows(path.read_text(encoding="utf-8")))


def _packed(name: str | None = None) -> Iterator[ModelSpec]:
    """Models of users' own in installed packages that say whose configuration they share."""
    for package in packages.packages(name):
        notes = package.manifest
        base = _shipped().get(str(notes.get("like")).casefold())
        if base is None or _shipped().get(package.model.casefold()):
            continue
        yield base._replace(
            name=package.model,
            description=f"A model like {base.name}",
            license=notes["license"],
            # Other weights have other answers.
            tasks=MappingProxyType({task: settings._replace(answers=()) for task, settings in base.tasks.items()}),
            variants=(_packed_variant(notes),),
            aliases=(),
        )


def _completed(spec: ModelSpec, installed: Iterable[packages.Package]) -> ModelSpec:
    """With variants that were made of the registry's files when they were packed, such as int8."""
    known = {file.sha256 for variant in spec.variants for file in variant.files}
    made = tuple(
        _packed_variant(package.manifest)
        for package in installed
        if package.model == spec.name and package.manifest.get("made_of") in known - {None}
    )
    return spec._replace(variants=spec.variants + made) if made else spec


def _packed_variant(notes: Mapping[str, Any]) -> Variant:
    files = tuple(FileSpec(path, facts["size"], facts["sha256"]) for path, facts in notes["files"].items())
    return Variant(notes["variant"], notes["precision"], notes["model_file"], files, ())
