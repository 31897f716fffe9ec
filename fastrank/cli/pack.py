"""`fastrank pack`: a model as a wheel, a Lambda layer or a folder, for machines without a model hub."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastrank.cli import wheels
from fastrank.cli.options import add_store_options


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "pack",
        help="pack a model as a wheel",
        description="Pack a model as a wheel. Where the wheel is installed, the model works offline, without a cache "
        "and without configuration.",
    )
    parser.add_argument("model", help="a name that `fastrank models` lists, or with --path any organisation/model")
    parser.add_argument("-o", "--output", default="dist", metavar="FOLDER", help="where to write (%(default)s)")
    parser.add_argument("--path", type=Path, metavar="FOLDER", help="pack the files in this folder")
    parser.add_argument("--like", metavar="MODEL", help="a built-in model with the same configuration as yours")
    parser.add_argument("--license", metavar="SPDX", help="the licence of your own model")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--precision", choices=wheels.PRECISIONS, help="precision of the weights (default: the model's first variant)"
    )
    what.add_argument("--variant", help="variant to pack, such as onnx, safetensors or fp16")
    parser.add_argument(
        "--format",
        choices=tuple(wheels.FORMATS),
        default="wheel",
        help="wheel: for pip; zip: for an AWS Lambda layer; dir: for an image or PYTHONPATH (%(default)s)",
    )
    parser.add_argument(
        "--version",
        help="version of the package; increase it to replace an older one (default: 0.<number from the hashes>)",
    )
    add_store_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Pack and say where it is."""
    with tempfile.TemporaryDirectory() as scratch:
        # What hatchling writes before a wheel is complete goes there too, and with it.
        before, tempfile.tempdir = tempfile.tempdir, scratch
        try:
            return _pack(options, Path(scratch, "weights"))
        finally:
            tempfile.tempdir = before


def _pack(options: argparse.Namespace, scratch: Path) -> int:
    bundle = wheels.gather(
        options.model,
        path=options.path,
        like=options.like,
        license=options.license,
        variant=options.variant,
        precision=options.precision,
        cache_dir=options.cache_dir,
        local_files_only=options.offline,
        scratch=scratch,
    )
    if bundle.model.noncommercial:
        print(
            f"fastrank: {bundle.model.name} is licensed for non-commercial use only ({bundle.model.license})",
            file=sys.stderr,
        )
    print(wheels.FORMATS[options.format](bundle, Path(options.output), options.version))
    return 0
