"""`fastrank models`, `fastrank download`, `fastrank verify`: what there is, fetching it, checking it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from fastrank import installed, registry, store
from fastrank.cli.options import add_store_options
from fastrank.registry import Answer, ModelSpec


def add_to(commands: Any) -> None:
    """Add these commands to the parser."""
    parser = commands.add_parser("models", help="list the models", description="List the models of the registry.")
    parser.add_argument("--task", choices=tuple(registry.CLASSES), help="only models for this")
    parser.add_argument("--json", action="store_true", help="JSON lines, on a terminal too")
    parser.set_defaults(run=_models)

    parser = commands.add_parser(
        "download", help="fetch models", description="Fetch models into the cache, for offline use later."
    )
    parser.add_argument("model", nargs="+", help="a name that `fastrank models` lists")
    parser.add_argument("--variant", help="which variant to fetch, such as onnx, safetensors or fp16")
    add_store_options(parser)
    parser.set_defaults(run=_download)

    parser = commands.add_parser(
        "verify",
        help="check models on this machine",
        description="Check the SHA-256 of every file of the models on this machine, then run each model and compare "
        "with its known answers. Exit status 1 if something differs.",
    )
    parser.add_argument("model", nargs="*", help="models to check; default: all that are on this machine")
    add_store_options(parser)
    parser.set_defaults(run=_verify)


def _models(options: argparse.Namespace) -> int:
    here = {package.model.casefold() for package in installed.packages()}
    rows: list[dict[str, Any]] = []
    for spec in registry.entries(options.task):
        default = spec.variants[0] if spec.variants else None
        rows.append(
            {
                "model": spec.name,
                "tasks": list(spec.tasks),
                "license": spec.license,
                "max_length": spec.max_length,
                "size_in_GB": round(default.size / 1e9, 3) if default and default.size else None,
                "variants": [variant.name for variant in spec.variants],
                "pinned": all(variant.pinned for variant in spec.variants),
                "installed": spec.name.casefold() in here,
                "description": spec.description,
            }
        )
    if options.json or not sys.stdout.isatty():
        for row in rows:
            print(json.dumps(row))
        return 0
    for row in rows:
        size = f"{row['size_in_GB']:.2f} GB" if row["size_in_GB"] else ("no files" if not row["variants"] else "?")
        note = ("" if row["pinned"] else "  unpinned") + ("  installed" if row["installed"] else "")
        print(f"{row['model']:<45} {', '.join(row['tasks']):<18} {size:>9}  {row['license']}{note}")
    return 0


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


def _verify(options: argparse.Namespace) -> int:
    specs = [registry.find(name) for name in options.model]
    wrong = checked = 0
    for spec in specs or registry.entries():
        here = store.copies(spec, options.cache_dir)
        if not here and specs and spec.variants:
            print(f"{spec.name}: not on this machine; fetch it with: fastrank download {spec.name}")
            wrong += 1
        for copy in here:
            checked += 1
            faults = store.faults(spec, copy) or _answers(spec, copy)
            wrong += bool(faults)
            print(f"{spec.name}  {copy.variant}  {copy.folder}: {'; '.join(faults) if faults else 'ok'}")
            if faults and copy.origin == store.CACHE:
                print(f"  remove it with: fastrank cache --remove {spec.name}")
    if not checked and not wrong:
        print("no models on this machine; nothing was checked")
    return 1 if wrong else 0


def _answers(spec: ModelSpec, copy: store.ModelFiles) -> list[str]:
    """What differs from the known answers, in words."""
    import fastrank

    differing = []
    for task, settings in spec.tasks.items():
        if not settings.answers:
            continue
        with getattr(fastrank, registry.CLASSES[task])(
            spec.name, specific_model_path=copy.folder, variant=copy.variant
        ) as model:
            for answer in settings.answers:
                found = _asked(model, answer)
                largest = max(abs(float(a) - b) for a, b in zip(found, answer.values, strict=False))
                _say(answer, largest)
                if not largest <= answer.tolerance:
                    differing.append(f"{answer.method}({answer.input!r}) differs by {largest:.2g}")
    return differing


def _asked(model: Any, answer: Answer) -> Sequence[float]:
    """What the model says now: the values of a vector, or of token vectors in a row, or one score."""
    if isinstance(answer.input, tuple):
        return list(model.rerank_pairs(answer.input))
    found: Sequence[float] = next(getattr(model, answer.method)(answer.input)).reshape(-1)
    return found


def _say(answer: Answer, largest: float) -> None:
    print(f"  {answer.method}({answer.input!r}): largest difference {largest:.1e}, allowed {answer.tolerance:.1e}")
