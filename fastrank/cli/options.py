"""Options that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fastrank.bm25 import LANGUAGES
from fastrank.bulk import reading
from fastrank.engine.options import PRECISIONS

ANALYZERS = (  # those of BM25, whose module takes time to import
    *("unicode", "bigram", "unigram+bigram", "code"),
    *("jieba", "fugashi", "pythainlp", "kiwipiepy"),
)
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # has a source that needs no model hub


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose a model and how it runs."""
    parser.add_argument("--model", help=f"a name that `fastrank models` lists ({DEFAULT_MODEL}; with --path: none)")
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where a model's files are and how it runs."""
    parser.add_argument(
        "--path", metavar="FOLDER", help="use the model in this folder, with its own settings or those of --model"
    )
    parser.add_argument("--max-length", type=positive, metavar="TOKENS", help="truncate texts to this many tokens")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: every core this process may use)"
    )
    parser.add_argument(
        "--cuda", choices=("auto", "cuda", "cpu"), default="auto", help="device to run on (%(default)s)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="int8 is for CPUs, fp16 for GPUs (%(default)s)"
    )
    add_store_options(parser)


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where models are kept."""
    parser.add_argument("--cache-dir", metavar="FOLDER", help="where models are kept (FASTRANK_CACHE)")
    parser.add_argument("--offline", action="store_true", help="never open a connection (FASTRANK_OFFLINE=1)")


def add_text_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """The options that say where texts come from and how they are read: from one file, or several."""
    parser.add_argument(
        *(["files"] if several else ["file"]),
        nargs="*" if several else "?",
        default=[] if several else "-",
        metavar="FILE",
        help="a file of documents; - is standard input (default). By suffix: .jsonl: one object per line; .json: an "
        "array of objects; .csv and .tsv: with a header; .parquet; any other: text, one document per line",
    )
    parser.add_argument(
        "--field",
        "--column",
        metavar="NAME",
        help="the field or column with the text, if there are several; with it, a file of another suffix is JSON lines",
    )
    parser.add_argument("--format", choices=reading.FORMATS, help="of the documents (default: by the suffix of FILE)")
    parser.add_argument(
        "--encoding",
        type=_encoding,
        metavar="NAME",
        help="of the documents, such as cp1252 (default: UTF-8, or what a byte order mark says)",
    )


def add_word_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how BM25 finds words."""
    parser.add_argument("--language", choices=LANGUAGES, default="english", help="of the words, for bm25 (%(default)s)")
    parser.add_argument(
        "--analyzer",
        choices=ANALYZERS,
        help="how bm25 finds words: unicode: with combining marks (Hindi, Tamil); bigram: also pairs of characters, "
        "where words have no spaces (Chinese, Japanese, Thai); unigram+bigram: single characters too; code: "
        "identifiers and their parts; jieba (Chinese), fugashi (Japanese), pythainlp (Thai), kiwipiepy (Korean): the "
        "words that this package finds, if it is installed",
    )


def documents(options: argparse.Namespace) -> reading.Documents:
    """What `add_text_options` read.

    Raises:
        ValueError: there are several files, where one is read.
    """
    files = options.files or ["-"] if hasattr(options, "files") else [options.file]
    if len(files) != 1:
        raise ValueError(f"one file becomes one output, not {len(files)}: for several name a folder, --output FOLDER/")
    return reading.Documents(files[0], options.format, options.field, options.encoding)


def refuse_forgotten_query(options: argparse.Namespace, command: str) -> None:
    """`fastrank rerank documents.txt` would wait for documents from the terminal."""
    waits = options.file == "-" and sys.stdin is not None and sys.stdin.isatty()
    if waits and Path(options.query).is_file():
        raise ValueError(
            f"{options.query} is a file, and the query is missing. Run: fastrank {command} QUERY {options.query}"
        )


def add_long_text_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what is put before texts, and what is done with long ones."""
    group = parser.add_argument_group("long texts and prompts")
    group.add_argument("--prompt", metavar="TEXT", help="put before each text or query, in place of the model's prefix")
    group.add_argument(
        "--overflow",
        choices=("truncate", "error", "chunk"),
        help="a text of more tokens than the model takes is cut, is an error, or is read in chunks (truncate)",
    )
    group.add_argument(
        "--chunk-size", type=positive, metavar="TOKENS", help="of a chunk, at most (as many as the model takes)"
    )
    group.add_argument(
        "--chunk-overlap", type=int, metavar="TOKENS", help="that a chunk shares with the one before (0)"
    )


def long_text_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_long_text_options` read, as keyword arguments of the methods."""
    names = ("prompt", "overflow", "chunk_size", "chunk_overlap")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def positive(value: str) -> int:
    """An option's value as a whole number of at least 1."""
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {value}")
    return number


def _encoding(name: str) -> str:
    try:
        return reading.check_encoding(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
