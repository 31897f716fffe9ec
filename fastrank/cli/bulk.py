"""`fastrank embed ... -o FOLDER/`: files to Parquet files, in units that are done once however often the run dies."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from fastrank.cli import streams, terminal, writing
from fastrank.cli.options import DEFAULT_MODEL, add_word_options, positive, run_arguments
from fastrank.errors import BulkError

if TYPE_CHECKING:
    from fastrank.bulk import Embedder, Plan

ROWS_FAILED = 3  # exit status
_KINDS = {"dense": "dense", "sparse": "sparse", "bm25": "sparse", "late": "late", "rerank": "rerank"}
_MODELS = {"dense": DEFAULT_MODEL, "late": DEFAULT_MODEL, "sparse": "Qdrant/bm25", "bm25": "Qdrant/bm25"}
_NAMES = ("kind", "keep", "dtype", "lists", "on_error", "error_column", "rows_per_file", "shard", "query_column")
_SAID = 10  # reasons of failed rows
_EVERY = 0.5  # seconds between two looks at the progress


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only Parquet files have."""
    group = parser.add_argument_group("with --output FOLDER/ (needs fastrank-onnx[bulk])")
    group.add_argument(
        "--kind",
        choices=tuple(_KINDS),
        help="what is made of a text: a vector, a sparse vector, the words' weights, token vectors, or a score for it "
        "and the text of --query-column (default: as the model is)",
    )
    group.add_argument("--keep", metavar="NAMES", help="columns to keep, with commas between them (default: all)")
    group.add_argument("--dtype", choices=("float32", "float16", "int8"), help="of the numbers (float32)")
    group.add_argument("--lists", choices=("fixed", "variable"), help="variable: lists without a fixed size (fixed)")
    group.add_argument("--query-column", metavar="NAME", help="for --kind rerank (query)")
    group.add_argument(
        "--on-error",
        choices=("raise", "null"),
        help="a row that cannot be embedded ends the run, or gets null (raise); the exit status is 3 in both cases",
    )
    group.add_argument("--error-column", metavar="NAME", help="with --on-error null: a column with the reasons")
    group.add_argument("--rows-per-file", type=positive, metavar="N", help="rows of a Parquet file at most (50000)")
    group.add_argument(
        "--shard", metavar="I/N", help="do only every N-th file from the I-th, from 0: N processes do all of them"
    )
    add_word_options(group)  # type: ignore[arg-type]  # a group takes arguments as a parser does


def is_meant(options: argparse.Namespace) -> bool:
    """Whether the output is Parquet."""
    output = str(options.output or "")
    return output.endswith(("/", os.sep, ".parquet")) or (
        output not in ("", "-") and not output.endswith((".npy", ".jsonl")) and Path(output).is_dir()
    )


def refuse_options(options: argparse.Namespace) -> None:
    """Refuse the options that only Parquet files have.

    Raises:
        ValueError: one is there.
    """
    given = [name for name in _NAMES if getattr(options, name) not in (None, "dense")]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} is for Parquet: --output FOLDER/ or FILE.parquet")


def run(options: argparse.Namespace) -> int:
    """Embed files. The exit status is 3 if rows failed."""
    from fastrank.bulk import plan

    if not options.files:
        raise ValueError("name the files to embed: standard input cannot be read twice, as a run that goes on would")
    known = {None, ".jsonl", ".ndjson", ".jsonlines", ".json", ".csv", ".tsv", ".parquet", ".pq", ".lance", ".txt"}
    form = options.format
    if form is None and options.field is not None and {Path(each).suffix.lower() for each in options.files} - known:
        form = None if any(Path(each).is_dir() for each in options.files) else "jsonl"  # as --field says
    output, embedder = Path(options.output), _embedder(options)
    rows = options.rows_per_file or 50_000
    single = output.suffix == ".parquet" and not output.is_dir()
    try:
        if single:
            return _one_file(options, output, embedder, form)
        made = plan(options.files, output, embedder, rows, format=form, encoding=options.encoding)
        if options.shard is not None:
            made = made.shard(*_shard(options.shard))
        return _units(made)
    except BulkError as error:
        streams.flush()
        terminal.note(f"{error}. With --on-error null such rows get null")
        return ROWS_FAILED


def _embedder(options: argparse.Namespace) -> Embedder:
    from fastrank.bulk import Embedder

    arguments = {name: value for name, value in run_arguments(options).items() if value not in (None, False, "auto")}
    kind = options.kind
    name = options.model or options.path or _MODELS.get(kind or "dense")
    if name is None:
        raise ValueError(f"--kind {kind} needs --model")
    if "specific_model_path" in arguments and kind is None and options.model is None:
        kind = "dense"
    if kind == "bm25" or name == "Qdrant/bm25":
        arguments |= {} if options.language == "english" else {"language": options.language}
        arguments |= {} if options.analyzer is None else {"analyzer": options.analyzer}
    keep = options.keep
    said = {
        "column": options.field,
        "kind": _KINDS[kind] if kind else None,
        "keep": None if keep is None else [each for each in keep.split(",") if each],
        **{each: getattr(options, each) for each in ("dtype", "lists", "on_error", "error_column", "query_column")},
        "batch_size": options.batch_size,
    }
    said = {key: value for key, value in said.items() if value is not None}
    return Embedder(name, role=options.role, **said, **arguments)


def _units(made: Plan) -> int:
    """Do what is not done yet; a SIGTERM ends the run after the file that is being made."""
    from fastrank.bulk.files import done

    pending = made.pending()
    with _after_this() as ending, _Progress(made, pending) as shown:
        for unit in pending:
            if ending.is_set():
                break
            shown.begun(unit)
            made.run(unit, shown.add)
            shown.finished(unit)
    results = [done(made.output / unit.name) for unit in made.units if (made.output / unit.name).exists()]
    failed = sum(each.failed for each in results)
    rows = sum(each.rows for each in results)
    text = f"{made.output}: {len(results)} of {len(made.units)} files, {rows:,} rows"
    for reason in [each for result in results for each in result.reasons][:_SAID]:
        terminal.note(reason)
    terminal.note(f"{text}, {failed:,} of them failed" if failed else text)
    if ending.is_set():
        return 128 + signal.SIGTERM
    return ROWS_FAILED if failed else 0


def _one_file(options: argparse.Namespace, output: Path, embedder: Embedder, form: str | None) -> int:
    """All rows in one file, which is replaced when it is whole. Such a run begins anew each time."""
    from fastrank.bulk import files, sources

    if options.shard is not None or options.rows_per_file is not None:
        raise ValueError("--shard and --rows-per-file are for folders: --output FOLDER/")
    writing.check(output, None)
    found = sources.paths(options.files)
    if output.exists() and any(output.samefile(path) for path in found):
        raise ValueError(f"--output {output}: is an input, which would be lost. Name another file")
    wanted = files.wanted(embedder)
    read = [sources.scan(path, wanted, form, options.encoding, None) for path in found]
    made = files.Plan(read, output.parent, embedder, max(1, *(each.rows for each in read)))
    with _Progress(made, list(made.units)) as shown, writing.output(output, seek=True) as file:
        result = files.write(made, made.units, file, shown.add)
    for reason in result.reasons:
        terminal.note(reason)
    terminal.note(f"{output}: {result.rows:,} rows" + (f", {result.failed:,} of them failed" if result.failed else ""))
    return ROWS_FAILED if result.failed else 0


def _shard(text: str) -> tuple[int, int]:
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise ValueError(f"--shard {text}: must be I/N with I from 0 to N - 1, such as 0/8")
    return int(i), int(n)


@contextlib.contextmanager
def _after_this() -> Iterator[threading.Event]:
    """An event that the first SIGTERM sets; the second ends the run at once, as elsewhere."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGTERM)):
        yield event
        return
    before: Any = signal.getsignal(signal.SIGTERM)

    def end(_number: int, _frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGTERM, before)
        terminal.note("ending after this file; once more ends at once, without it")

    signal.signal(signal.SIGTERM, end)
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


class _Progress:
    """Rows, tokens, rate and time left: in one line of a terminal, else a line for each file, if they are wanted.

    The time left goes by the bytes of texts and not by rows, as long texts take longer than short ones.
    """

    def __init__(self, made: Plan, pending: list[Any]) -> None:
        self._made = made
        self._rows = sum(unit.stop - unit.start for unit in pending)
        self._bytes = sum(map(made.bytes_of, pending))
        self._wanted, self._line = terminal.shows_progress(), sys.stderr.isatty()
        self._density = self._bytes / self._rows if self._rows else 0.0
        self._done = self._tokens = 0
        self._finished_bytes = 0.0
        self._in_unit = 0
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._wanted and self._line:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def add(self, rows: int, tokens: int) -> None:
        """Rows were embedded."""
        self._done, self._tokens, self._in_unit = self._done + rows, self._tokens + tokens, self._in_unit + rows
        now = time.monotonic()
        if self._wanted and self._line and now - self._shown >= _EVERY:
            self._shown = now
            sys.stderr.write(f"\r\x1b[K{self._text(now)}")
            sys.stderr.flush()

    def begun(self, unit: Any) -> None:
        """The rows that come now are of this unit."""
        self._density = self._made.bytes_of(unit) / max(1, unit.stop - unit.start)

    def finished(self, unit: Any) -> None:
        """A file is whole."""
        self._finished_bytes += self._made.bytes_of(unit)
        self._in_unit = 0
        if self._wanted and not self._line:
            terminal.note(f"{unit.name}: {self._text(time.monotonic())}")

    def _text(self, now: float) -> str:
        seconds = max(now - self._start, 1e-9)
        read = self._finished_bytes + self._in_unit * self._density
        left = (self._bytes - read) * seconds / read if read else math.inf
        tokens = f", {self._tokens:,} tokens" if self._tokens else ""
        return f"{self._done:,} of {self._rows:,} rows{tokens}, {self._done / seconds:,.0f} rows/s, {_time(left)} left"


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
