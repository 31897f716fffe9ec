"""Options and readers that several commands share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from fastrank import inputs
from fastrank.engine.options import PRECISIONS

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # has a source that needs no model hub


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose a model and how it runs."""
    parser.add_argument("--model", help=f"a name that `fastrank models` lists ({DEFAULT_MODEL}; with --path: none)")
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where a model's files are and how it runs."""
    parser.add_argument("--path", metavar="FOLDER", help="use the model in this folder, as it is, or as --model says")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="cut texts at so many tokens")
    parser.add_argument("--threads", type=int, help="processors to use (all that this process may)")
    parser.add_argument("--cuda", choices=("auto", "cuda", "cpu"), default="auto", help="where to run (%(default)s)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="int8 is for CPUs, fp16 for GPUs (%(default)s)"
    )
    add_store_options(parser)


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where models are kept."""
    parser.add_argument("--cache-dir", metavar="FOLDER", help="where models are kept (FASTRANK_CACHE)")
    parser.add_argument("--offline", action="store_true", help="open no connection (FASTRANK_OFFLINE=1)")


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where texts come from."""
    parser.add_argument(
        "file",
        nargs="?",
        default="-",
        help="a text file with one document a line, or JSONL with --field; - is standard input",
    )
    parser.add_argument("--field", metavar="NAME", help="the file is JSONL; this field of each object is the text")


def model_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_model_options` read, as keyword arguments of the public classes."""
    return {"model_name": options.model or options.path or DEFAULT_MODEL, **run_arguments(options)}


def run_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_run_options` read, as keyword arguments of the public classes."""
    return {
        "cache_dir": options.cache_dir,
        "threads": options.threads,
        "cuda": options.cuda,
        "precision": options.precision,
        "specific_model_path": options.path,
        "local_files_only": options.offline,
        "max_length": options.max_length,
    }


def read_texts(options: argparse.Namespace) -> Iterator[str]:
    """Documents of a text file or JSONL, one by one; empty lines are left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not what it should be; the message names file and line.
    """
    with _opened(options.file) as stream:
        name = "standard input" if options.file == "-" else options.file
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            yield line.rstrip("\r\n") if options.field is None else _field(line, options.field, f"{name}:{number}")


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    if file == "-":
        if sys.stdin.isatty():
            print("fastrank: reading documents from the terminal, one a line; end with Ctrl-D", file=sys.stderr)
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
        yield sys.stdin
    else:
        # A byte that is no UTF-8 is shown as U+FFFD rather than ending a long run.
        with open(file, encoding="utf-8-sig", errors="replace") as stream:  # noqa: PTH123 - named as the user wrote it
            yield stream


def _field(line: str, field: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        known = f"; it has {', '.join(row)}" if isinstance(row, dict) else ""
        raise ValueError(f"{where}: no string field {field!r}{known}")  # noqa: TRY004 - the file is wrong, no type
    return inputs.text(row[field], field)
