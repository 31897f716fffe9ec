"""`fastrank embed`: vectors of documents, as .npy or JSON lines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrank import environment
from fastrank.cli.options import add_model_options, add_text_options, model_arguments, read_texts

if TYPE_CHECKING:
    from fastrank.dense.heads import Vector


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "embed",
        help="write the vectors of documents",
        description="Write one vector a document, in order: a float32 .npy array of shape (documents, dim) with "
        "--output FILE.npy, else JSON lines with index and vector.",
    )
    add_text_options(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="FILE.npy or FILE.jsonl; default: JSON lines to stdout")
    parser.add_argument("--as", dest="kind", choices=("passage", "query", "plain"), default="plain",
                        help="which of the model's prefixes to put before each text (%(default)s: none)")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=256, help="the most texts that run together (%(default)s)")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Embed and write. A file gets its name when it is whole, not before."""
    from fastrank import TextEmbedding

    output = Path(options.output) if options.output else None
    if output is not None and output.suffix not in (".npy", ".jsonl"):
        raise ValueError(f"--output {output}: the name must end in .npy or .jsonl")
    if output is not None and output.is_dir():
        raise ValueError(f"--output {output}: is a folder")
    with TextEmbedding(**model_arguments(options)) as model:
        texts = read_texts(options)
        if options.kind == "plain":
            vectors = model.embed(texts, options.batch_size)
        elif options.kind == "query":
            vectors = model.query_embed(texts, options.batch_size)
        else:
            vectors = model.passage_embed(texts, options.batch_size)
        vectors = _counted(vectors)
        if output is None:
            sys.stdout.writelines(_lines(vectors))
            return 0
        part = output.with_name(f"{output.name}.{os.getpid()}.part")
        try:
            _write(part, output.suffix, vectors, model.embedding_size)
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)
    return 0


def _write(path: Path, form: str, vectors: Iterable[Vector], dim: int) -> None:
    if form == ".jsonl":
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(_lines(vectors))
        return
    import numpy as np

    with path.open("w+b") as file:
        _npy_header(file, 0, dim)
        count = 0
        for count, vector in enumerate(vectors, 1):  # noqa: B007 - the last number is the count
            file.write(np.ascontiguousarray(vector, "<f4").tobytes())
        file.seek(0, os.SEEK_SET)
        _npy_header(file, count, dim)


def _npy_header(file: Any, count: int, dim: int) -> None:
    """Numpy leaves room in the header for the first axis to grow, so the count may be written last."""
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)})


def _lines(vectors: Iterable[Vector]) -> Iterator[str]:
    for index, vector in enumerate(vectors):
        # Nine digits bring a float32 back exactly.
        values = ",".join(f"{value:.9g}" for value in vector.tolist())
        yield f'{{"index": {json.dumps(index)}, "vector": [{values}]}}\n'


def _counted(vectors: Iterator[Vector]) -> Iterator[Vector]:
    if not environment.progress():
        return vectors
    from tqdm.auto import tqdm

    return iter(tqdm(vectors, desc="embed", unit="doc"))
