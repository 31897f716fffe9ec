"""`fastrank info`: what this machine is to fastrank, and how a model would run on it."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

from fastrank import __version__, environment
from fastrank.cli.options import add_run_options, run_arguments
from fastrank.engine import cpu
from fastrank.models.spec import CROSS_ENCODER, LATE_INTERACTION, SPARSE_EMBEDDING, TEXT_EMBEDDING


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "info",
        help="show how a model runs on this machine, and why",
        description="Show versions, providers, processors and where models are kept; with MODEL also its file, "
        "precision, provider and threads. MODEL is fetched if it is not here.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a name that `fastrank models` lists")
    parser.add_argument("--json", action="store_true", help="write JSON")
    add_run_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print facts about this machine, and the model."""
    facts = _machine()
    if options.model:
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
    exact = precision.exact_levels() == precision.ALL_LEVELS
    return {
        "fastrank": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "onnxruntime": version,
        "providers": providers,
        "processors": f"{cpu.available()} (by affinity and container quota)",
        "8-bit products": "exact" if exact else "sums of two saturate at 16 bits: int8 uses 7 bits of activations",
        "cache": str(environment.cache_root()) if environment.has_cache_root() else "none: set FASTRANK_CACHE",
        "offline": environment.offline(),
    }


def _model(options: argparse.Namespace) -> dict[str, Any]:
    import fastrank
    from fastrank.models import registry

    classes = {
        TEXT_EMBEDDING: fastrank.TextEmbedding,
        SPARSE_EMBEDDING: fastrank.SparseTextEmbedding,
        LATE_INTERACTION: fastrank.LateInteractionTextEmbedding,
        CROSS_ENCODER: fastrank.TextCrossEncoder,
    }
    task = next(iter(registry.find(options.model).tasks))
    with classes[task](options.model, **run_arguments(options)) as model:
        return {"model": model.model_name, **model.info()}
