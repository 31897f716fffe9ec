"""`fastrank info`: this machine as fastrank sees it, and how a model would run on it."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

import fastrank
from fastrank import environment
from fastrank.cli.options import add_run_options, run_arguments
from fastrank.engine import cpu
from fastrank.errors import ModelLoadError, ModelNotFoundError
from fastrank.models import registry
from fastrank.models.spec import CLASSES

_CLASSES = {  # by the names that `fastrank models --task` has
    "dense": "TextEmbedding",
    "sparse": "SparseTextEmbedding",
    "late": "LateInteractionTextEmbedding",
    "cross-encoder": "TextCrossEncoder",
}


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "info",
        help="show how a model runs on this machine, and why",
        description="Show versions, providers, CPU cores and the cache folder; with MODEL or --path also the model's "
        "file, precision, provider and threads. MODEL is downloaded if it is not cached.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a name that `fastrank models` lists")
    parser.add_argument(
        "--task",
        choices=tuple(_CLASSES),
        help="the model's task (default: as in the registry; for a folder, the first that loads it)",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    add_run_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print facts about this machine, and the model."""
    facts = _machine()
    if options.model or options.path is not None:
        facts |= _model(options)
    if options.json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:{width}}{shown}")
    return 0


def _machine() -> dict[str, Any]:
    from fastrank.engine import precision
    from fastrank.engine.providers import runtime

    version, providers = runtime()
    return {
        "fastrank": fastrank.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "onnxruntime": version,
        "providers": providers,
        "CPU threads": f"{cpu.available()} (affinity and container quota)",
        "8-bit products": "exact"
        if precision.adds_exactly()
        else "sums of two saturate at 16 bits: int8 uses unsigned weights, which are exact and about as fast as fp32",
        "cache": str(environment.cache_root()) if environment.has_cache_root() else "none: set FASTRANK_CACHE",
        "offline": environment.offline(),
    }


def _model(options: argparse.Namespace) -> dict[str, Any]:
    name = options.model or options.path
    failures = []
    for task in _tasks(options):
        try:
            with getattr(fastrank, _CLASSES[task])(name, **run_arguments(options)) as model:
                return {"model": model.model_name, "task": task, **model.info()}
        except ModelLoadError as error:
            failures.append(error)
    raise failures[0]


def _tasks(options: argparse.Namespace) -> list[str]:
    """The tasks to try: the one that is stated, else the registry's, else all."""
    if options.task:
        return [options.task]
    try:
        spec = registry.find(options.model or "")
    except ModelNotFoundError:
        if options.path is None:
            raise
        return list(_CLASSES)
    classes = [CLASSES[task] for task in spec.tasks]
    return [task for task, name in _CLASSES.items() if name in classes][:1]
