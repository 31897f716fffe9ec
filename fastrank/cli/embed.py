"""`fastrank embed`: vectors of documents, as .npy or JSON lines; or, into a folder, as Parquet files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fastrank.cli import bulk, terminal, writing
from fastrank.cli.options import add_model_options, add_text_options, documents, model_arguments, positive

if TYPE_CHECKING:
    from fastrank.bulk.reading import Documents
    from fastrank.dense.heads import Vector


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "embed",
        help="write the vectors of documents",
        description="Write one vector per document, in the order of the file: a float32 .npy array of shape "
        "(documents, dim) with --output FILE.npy, else JSON lines with index and vector. A blank line is an empty text "
        "and has a vector too: row n of the output belongs to line n of the input. With --output FOLDER/ files become "
        "Parquet files, and a run that is ended goes on where it was when it is started again.",
    )
    add_text_options(parser, several=True)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="FILE.npy or FILE.jsonl, replaced when all is written; a pipe or a device gets JSON lines unless its name "
        "ends in .npy (default: standard output). FOLDER/ or FILE.parquet: Parquet",
    )
    parser.add_argument(
        "--as",
        dest="role",
        choices=("passage", "query", "plain"),
        default="plain",
        help="which of the model's prefixes to put before each text (%(default)s: none)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="the most texts that run together, and are read ahead (256; into Parquet 1024)",
    )
    add_model_options(parser)
    bulk.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Embed and write."""
    if bulk.is_meant(options):
        return bulk.run(options)
    bulk.refuse_options(options)
    from fastrank import TextEmbedding

    batch_size = options.batch_size or 256
    source = documents(options)
    source.require()
    output = Path(options.output) if options.output not in (None, "-", "/dev/stdout") else None
    if output is not None:
        writing.check(output, source.stat())
        if output.suffix not in (".npy", ".jsonl") and not writing.is_stream(output):
            raise ValueError(
                f"--output {output}: the name must end in .npy, .jsonl or .parquet, or in / for a folder of Parquet"
            )
    with TextEmbedding(**model_arguments(options)) as model:
        texts = (row.text for row in source.rows())
        if options.role == "plain":
            vectors = model.embed(texts, batch_size)
        elif options.role == "query":
            vectors = model.query_embed(texts, batch_size)
        else:
            vectors = model.passage_embed(texts, batch_size)
        shown = _with_progress(vectors, source, to_terminal=output is None and terminal.is_shown())
        count = _write(output, shown, model.embedding_size)
    if not count:
        terminal.note(f"{source.name} has no documents")
    return 0


def _with_progress(vectors: Iterator[Vector], source: Documents, *, to_terminal: bool) -> Iterator[Vector]:
    if to_terminal or not terminal.shows_progress():
        return vectors
    return terminal.progress(vectors, "embed", source.total())


def _write(output: Path | None, vectors: Iterable[Vector], dim: int) -> int:
    """Write the vectors and return how many there were."""
    if output is None:
        return _write_lines(sys.stdout.write, vectors)
    npy = output.suffix == ".npy"
    with writing.output(output, seek=npy) as file:
        if npy:
            return _write_npy(file, vectors, dim)
        return _write_lines(lambda line: file.write(line.encode()), vectors)


def _write_lines(write: Callable[[str], object], vectors: Iterable[Vector]) -> int:
    count = 0
    for vector in vectors:
        # Nine digits bring a float32 back exactly.
        values = ",".join(f"{value:.9g}" for value in vector.tolist())
        write(f'{{"index": {count}, "vector": [{values}]}}\n')
        count += 1
    return count


def _write_npy(file: BinaryIO, vectors: Iterable[Vector], dim: int) -> int:
    import numpy as np

    _npy_header(file, 0, dim)
    count = 0
    for vector in vectors:
        file.write(np.ascontiguousarray(vector, "<f4").tobytes())
        count += 1
    file.seek(0, os.SEEK_SET)
    _npy_header(file, count, dim)
    return count


def _npy_header(file: BinaryIO, count: int, dim: int) -> None:
    """Numpy leaves room in the header for the first axis to grow, so the count may be written last."""
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)})
