"""`fastrank models`, `fastrank download`: what there is, and fetching it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from fastrank import store
from fastrank.cli.options import add_store_options
from fastrank.models import packages, registry
from fastrank.models.spec import CLASSES, ModelSpec

_NAME, _TASKS = 64, 16  # widths of columns


def add_to(commands: Any) -> None:
    """Add these commands to the parser."""
    parser = commands.add_parser("models", help="list the models", description="List the models of the registry.")
    parser.add_argument("--task", choices=tuple(CLASSES), help="only models for this")
    parser.add_argument("--json", action="store_true", help="JSON lines, on a terminal too")
    parser.set_defaults(run=_models)

    parser = commands.add_parser(
        "download", help="fetch models", description="Fetch models into the cache, for offline use later."
    )
    parser.add_argument("model", nargs="+", help="a name that `fastrank models` lists")
    parser.add_argument("--variant", help="which variant to fetch, such as onnx, safetensors or fp16")
    add_store_options(parser)
    parser.set_defaults(run=_download)


def _models(options: argparse.Namespace) -> int:
    specs = registry.entries(options.task)
    here = {package.model.casefold() for package in packages.packages()}
    if options.json or not sys.stdout.isatty():
        for spec in specs:
            facts = _facts(spec) | {"installed": spec.name.casefold() in here}
            print(json.dumps(facts, ensure_ascii=False))
        return 0
    for spec in specs:
        default = spec.variants[0] if spec.variants else None
        size = "no files" if default is None else f"{default.rough_size / 1e9:.2f} GB" if default.rough_size else "?"
        tokens = f"{spec.max_length} tokens" if spec.max_length else ""
        notes = [spec.license or "?", *(["unpinned"] if default and not default.pinned else [])]
        notes += ["installed"] if spec.name.casefold() in here else []
        tasks = ", ".join(spec.tasks)
        print(f"{spec.name:<{_NAME}} {tasks:<{_TASKS}} {_dim(spec):>8} {tokens:>12} {size:>8}  {', '.join(notes)}")
    print(f"{len(specs)} models. Unpinned: no SHA-256 is known to check the files against. All facts: --json")
    return 0


def _facts(spec: ModelSpec) -> dict[str, Any]:
    default = spec.variants[0] if spec.variants else None
    return {
        "model": spec.name,
        "aliases": list(spec.aliases),
        "tasks": list(spec.tasks),
        "license": spec.license,
        "languages": list(spec.languages),
        "year": spec.year,
        "max_length": spec.max_length,
        "dim": _dim_of(spec),
        "size_in_GB": round(default.rough_size / 1e9, 3) if default and default.rough_size else None,
        "variants": [variant.name for variant in spec.variants],
        "unpinned": [variant.name for variant in spec.variants if not variant.pinned],
        "description": spec.description,
    }


def _dim_of(spec: ModelSpec) -> int | None:
    dims = (getattr(settings, "dim", None) for settings in spec.tasks.values())
    return next((dim for dim in dims if dim is not None), None)


def _dim(spec: ModelSpec) -> str:
    dim = _dim_of(spec)
    return "" if dim is None else f"{dim} dims"


def _download(options: argparse.Namespace) -> int:
    for name in options.model:
        spec = registry.find(name)
        if not spec.variants:
            print(f"{spec.name} needs no files")
            continue
        files = store.locate(
            spec, cache_dir=options.cache_dir, local_files_only=options.offline, variant=options.variant
        )
        print(f"{spec.name}  {files.variant}  {files.folder}")
    return 0
