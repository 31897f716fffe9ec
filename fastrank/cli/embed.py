"""`fastrank embed`: vectors of documents, as .npy or JSON lines; or, into a folder, as Parquet files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fastrank.cli import bulk, terminal, writing
from fastrank.cli.options import (
    add_long_text_options,
    add_model_options,
    add_text_options,
    documents,
    long_text_arguments,
    model_arguments,
    positive,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastrank import TextEmbedding
    from fastrank.bulk.reading import Documents

_FLAGS = ("calibrate", "chunks", "late_chunking")
_TYPES = {"float32": "<f4", "float16": "<f2", "int8": "|i1", "uint8": "|u1", "binary": "|i1", "ubinary": "|u1"}


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
    _add_vector_options(parser)
    add_long_text_options(parser)
    add_model_options(parser)
    bulk.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Embed and write."""
    if bulk.is_meant(options):
        _refuse_for_parquet(options)
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
    form = _form(options)
    if (options.chunks or options.late_chunking) and output is not None and output.suffix == ".npy":
        raise ValueError(f"--output {output}: chunks have places in their texts too; name a .jsonl file")
    with TextEmbedding(**model_arguments(options), truncate_dim=options.truncate_dim) as model:
        texts = (row.text for row in source.rows())
        vectors: Iterator[Any]
        if options.calibrate:
            return _calibrate(output, model, list(texts))
        if options.chunks or options.late_chunking:
            form |= {} if options.role == "passage" or "prompt" in form else {"prompt": _prefix(model, options.role)}
            vectors = model.embed_chunks(texts, batch_size, late_chunking=options.late_chunking, **form)
        elif options.role == "plain":
            vectors = model.embed(texts, batch_size, **form)
        elif options.role == "query":
            vectors = model.query_embed(texts, batch_size, **form)
        else:
            vectors = model.passage_embed(texts, batch_size, **form)
        shown = _with_progress(vectors, source, to_terminal=output is None and terminal.is_shown())
        count = _write(output, shown, model.embedding_size, options.output_dtype)
    if not count:
        terminal.note(f"{source.name} has no documents")
    return 0


def _add_vector_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("smaller vectors and parts of texts")
    group.add_argument(
        "--truncate-dim", type=positive, metavar="N", help="keep the first N numbers of a vector (Matryoshka)"
    )
    group.add_argument("--output-dtype", choices=tuple(_TYPES), default="float32", help="of the numbers (%(default)s)")
    group.add_argument(
        "--ranges",
        metavar="FILE.npy",
        help="for int8 and uint8: what --calibrate wrote; or the word unit, for vectors of length 1",
    )
    group.add_argument(
        "--calibrate", action="store_true", help="write the ranges of these texts' vectors, (2, dim), to FILE.npy"
    )
    group.add_argument(
        "--chunks", action="store_true", help="write a vector per chunk of a text, with index, start and stop"
    )
    group.add_argument(
        "--late-chunking", action="store_true", help="the same, pooled after the model has read the whole text"
    )


def _refuse_for_parquet(options: argparse.Namespace) -> None:
    """Refuse options that Parquet files do not have.

    Raises:
        ValueError: one is there.
    """
    given = {"output_dtype": options.output_dtype != "float32", **long_text_arguments(options)}
    given |= {name: getattr(options, name) for name in ("truncate_dim", "ranges", *_FLAGS)}
    for name, value in given.items():
        if value:
            raise ValueError(f"--{name.replace('_', '-')} is for .npy and .jsonl files, not for Parquet")


def _form(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the method: of long texts, and of vectors."""
    form = long_text_arguments(options)
    if options.chunks or options.late_chunking:
        form.pop("overflow", None)
    if options.output_dtype != "float32":
        form["output_dtype"] = options.output_dtype
    if options.ranges is not None:
        import numpy as np

        form["ranges"] = options.ranges if options.ranges == "unit" else np.load(options.ranges, allow_pickle=False)
    return form


def _prefix(model: TextEmbedding, role: str) -> str:
    """The prefix of a role, which chunks get that are not passages."""
    loaded = model.load()
    prefix: str = (loaded.queries if role == "query" else loaded.documents).prefix
    return prefix


def _calibrate(output: Path | None, model: TextEmbedding, texts: list[str]) -> int:
    """Write the ranges of the texts' vectors."""
    import numpy as np

    if output is None or output.suffix != ".npy":
        raise ValueError("--calibrate needs --output FILE.npy for the ranges")
    ranges = model.calibrate(texts)
    with writing.output(output, seek=True) as file:
        np.save(file, ranges, allow_pickle=False)
    return 0


def _with_progress(vectors: Iterator[Any], source: Documents, *, to_terminal: bool) -> Iterator[Any]:
    if to_terminal or not terminal.shows_progress():
        return vectors
    return terminal.progress(vectors, "embed", source.total())


def _write(output: Path | None, vectors: Iterable[Any], dim: int, dtype: str) -> int:
    """Write the vectors and return how many there were."""
    if output is None:
        return _write_lines(sys.stdout.write, vectors)
    npy = output.suffix == ".npy"
    with writing.output(output, seek=npy) as file:
        if npy:
            return _write_npy(file, vectors, -(-dim // 8) if dtype.endswith("binary") else dim, _TYPES[dtype])
        return _write_lines(lambda line: file.write(line.encode()), vectors)


def _write_lines(write: Callable[[str], object], vectors: Iterable[Any]) -> int:
    count = 0
    for found in vectors:
        if (spans := getattr(found, "spans", None)) is not None:  # a vector for each chunk
            for (start, stop), vector in zip(spans, found.vectors, strict=True):
                write(f'{{"index": {count}, "start": {start}, "stop": {stop}, "vector": [{_values(vector)}]}}\n')
        else:
            write(f'{{"index": {count}, "vector": [{_values(found)}]}}\n')
        count += 1
    return count


def _values(vector: NDArray[Any]) -> str:
    # Nine digits bring a float32 back exactly.
    return ",".join(f"{value:.9g}" if isinstance(value, float) else str(value) for value in vector.tolist())


def _write_npy(file: BinaryIO, vectors: Iterable[NDArray[Any]], width: int, dtype: str) -> int:
    import numpy as np

    _npy_header(file, 0, width, dtype)
    count = 0
    for vector in vectors:
        file.write(np.ascontiguousarray(vector, dtype).tobytes())
        count += 1
    file.seek(0, os.SEEK_SET)
    _npy_header(file, count, width, dtype)
    return count


def _npy_header(file: BinaryIO, count: int, width: int, dtype: str) -> None:
    """Numpy leaves room in the header for the first axis to grow, so the count may be written last."""
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": (count, width)})
