"""`fastrank models`, `fastrank download`: list models and fetch them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

from fastrank import store
from fastrank.cli.options import add_store_options
from fastrank.models import packages, registry
from fastrank.models.spec import (
    CLASSES,
    CROSS_ENCODER,
    LATE_INTERACTION,
    SPARSE_EMBEDDING,
    TEXT_EMBEDDING,
    ModelSpec,
)
from fastrank.store.lookup import Lookup

_TASKS = {"dense": TEXT_EMBEDDING, "sparse": SPARSE_EMBEDDING, "late": LATE_INTERACTION, "cross-encoder": CROSS_ENCODER}
_SHORT = {task: short for short, task in _TASKS.items()}
_PERMISSIVE = ("0bsd", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "isc", "mit", "unlicense")
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_WIDTHS = {"name": 36, "task": 14, "language": 5, "size": 7}  # of columns: with the licence, a line fits 80


def add_to(commands: Any) -> None:
    """Add these commands to the parser."""
    parser = commands.add_parser("models", help="list the models", description="List the models, all or some of them.")
    parser.add_argument("--task", type=_task, metavar="|".join(_TASKS), help="only models for this task")
    parser.add_argument(
        "--language", metavar="CODE", help="only models for this language (ISO 639, such as de), or for more than 20"
    )
    parser.add_argument(
        "--license", metavar="NAME", help="only models under this licence, or under any `permissive` one (MIT, ...)"
    )
    parser.add_argument(
        "--max-size", type=_bytes, metavar="SIZE", help="only models with a download no larger than this, such as 200MB"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines, on a terminal too")
    parser.set_defaults(run=_models)

    parser = commands.add_parser(
        "download", help="fetch models", description="Fetch models into the cache, for offline use later."
    )
    parser.add_argument("model", nargs="+", help="a name that `fastrank models` lists, or its unique last part")
    parser.add_argument("--variant", help="which variant to fetch, such as onnx, safetensors or fp16")
    add_store_options(parser)
    parser.set_defaults(run=_download)


def _task(value: str) -> str:
    if value not in (*_TASKS, *CLASSES):
        raise argparse.ArgumentTypeError(f"{value!r} is not one of {', '.join(_TASKS)}")
    return _TASKS.get(value, value)


def _bytes(value: str) -> int:
    parts = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([a-z]*)", value.lower())
    if not parts or parts[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{value!r} is not a size such as 200MB or 1.5GB")
    return int(float(parts[1]) * _UNITS[parts[2]])


def _models(options: argparse.Namespace) -> int:
    specs = [spec for spec in registry.entries(options.task) if _matches(spec, options)]
    installed = {package.model.casefold() for package in packages.packages()}
    if options.json or not sys.stdout.isatty():
        for spec in specs:
            row = _facts(spec) | {"installed": spec.name.casefold() in installed}
            print(json.dumps(row, ensure_ascii=False))
        return 0
    if specs:
        print(_line("model", "task", "lang", "size", "licence"))
    for spec in specs:
        mark = " *" if spec.name.casefold() in installed else ""
        print(_line(spec.name, _tasks(spec), _languages(spec), _size(spec), (spec.license or "?") + mark))
    print(f"{len(specs)} models. ~ approximate, * installed as a package. Everything else: --json")
    return 0


def _matches(spec: ModelSpec, options: argparse.Namespace) -> bool:
    licenses = _PERMISSIVE if options.license == "permissive" else (str(options.license).casefold(),)
    size = _bytes_of(spec)
    return (
        (options.language is None or not {options.language.lower(), "multilingual"}.isdisjoint(spec.languages))
        and (options.license is None or spec.license.casefold() in licenses)
        and (options.max_size is None or (size is not None and size <= options.max_size))
    )


def _line(name: str, task: str, language: str, size: str, license: str) -> str:  # noqa: A002
    """One line of the table, or two where the name is longer than its column."""
    width = _WIDTHS["name"]
    name = name if len(name) <= width else f"{name}\n{'':{width}}"
    cells = f"{task:<{_WIDTHS['task']}} {language:<{_WIDTHS['language']}} {size:>{_WIDTHS['size']}} {license}"
    return f"{name:<{width}} {cells}".rstrip()


def _tasks(spec: ModelSpec) -> str:
    """Such as "dense 384"."""
    tasks = "+".join(_SHORT[task] for task in spec.tasks)
    dim = _dim(spec)
    return f"{tasks} {dim}" if dim else tasks


def _languages(spec: ModelSpec) -> str:
    """Such as "en", "en,zh", "ar+" (and more), "multi" (more than 20)."""
    if "multilingual" in spec.languages:
        return "multi"
    listed = ",".join(spec.languages)
    return listed if len(listed) <= _WIDTHS["language"] else listed.partition(",")[0] + "+"


def _size(spec: ModelSpec) -> str:
    return spec.variants[0].size_label if spec.variants else "none"


def _bytes_of(spec: ModelSpec) -> int | None:
    """The download of the default variant; None if unknown."""
    return (spec.variants[0].size or spec.variants[0].size_approx) if spec.variants else 0


def _facts(spec: ModelSpec) -> dict[str, Any]:
    default = spec.variants[0] if spec.variants else None
    size = _bytes_of(spec)
    return {
        "model": spec.name,
        "aliases": list(spec.aliases),
        "tasks": list(spec.tasks),
        "license": spec.license,
        "languages": list(spec.languages),
        "year": spec.year,
        "max_length": spec.max_length,
        "dim": _dim(spec),
        "size_in_GB": None if size is None else round(size / 1e9, 3),
        "size_approximate": bool(default and default.size is None),
        "variants": [variant.name for variant in spec.variants],
        "sizes": {variant.name: variant.size or variant.size_approx for variant in spec.variants},
        "unpinned": [variant.name for variant in spec.variants if not variant.pinned],
        "verified": spec.verification,
        "description": spec.description,
    }


def _dim(spec: ModelSpec) -> int | None:
    dims = (getattr(settings, "dim", None) for settings in spec.tasks.values())
    return next((dim for dim in dims if dim is not None), None)


def _download(options: argparse.Namespace) -> int:
    for name in options.model:
        spec = registry.find(name)
        if not spec.variants:
            print(f"{spec.name} needs no files")
            continue
        files = store.locate(
            spec, Lookup(cache_dir=options.cache_dir, local_files_only=options.offline, variant=options.variant)
        )
        print(f"{spec.name}  {files.variant}  {files.folder}")
    return 0
