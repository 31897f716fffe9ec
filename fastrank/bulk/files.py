"""Files to files, without an engine: units of work that are done once, whoever does them and however often it dies."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

import fastrank
from fastrank import inputs as checks
from fastrank import log
from fastrank.bulk import sources
from fastrank.bulk.embedder import Embedder, reasons
from fastrank.bulk.sources import Input, Reader, Wanted
from fastrank.errors import BulkError

MANIFEST = "_fastrank.json"
_FORMAT = 1  # of the manifest
_METADATA = b"fastrank"  # of a Parquet file
_GROUP_ROWS = 16_384
_GROUP_BYTES = 32 << 20
_REASONS = 10  # that a file tells of
_READS_NULLS = 26  # the version of pyarrow that reads null lists of a fixed size

Progress = Callable[[int, int], None]


class Unit(NamedTuple):
    """A range of rows of one input file, and the file that they become.

    Attributes:
        number: in the plan.
        source: the number of the input.
        start: the first row.
        stop: the first row that does not belong to it.
        name: of the output file; names sort as the input.
    """

    number: int
    source: int
    start: int
    stop: int
    name: str


class Done(NamedTuple):
    """A unit that is done.

    Attributes:
        path: of the output file.
        rows: in it.
        failed: rows that could not be embedded, which have null.
        tokens: that the model read; None: it has no tokens, as BM25.
        reasons: why rows failed, of the first ten.
        now: whether this call did it; False: the file was there.
    """

    path: str
    rows: int
    failed: int
    tokens: int | None
    reasons: tuple[str, ...]
    now: bool


def plan(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    embedder: Embedder,
    rows_per_file: int = 50_000,
    *,
    format: str | None = None,  # noqa: A002 - as the command line's --format
    encoding: str | None = None,
) -> Plan:
    """A plan that embeds files into a folder of Parquet files; the one that is there already is gone on with.

    The folder gets `_fastrank.json`, which says which model and which input the files in it are of.

    Args:
        inputs: files of Parquet, JSON lines, JSON, CSV, TSV, text or Lance; patterns; folders of such files.
        output: a folder on a file system. It is made if need be.
        embedder: says which column, which model and what is kept.
        rows_per_file: rows of an output file at most: 50,000 vectors of 384 float32 numbers are 77 MB.
        format: of all inputs, if their suffix does not say it: "parquet", "jsonl", "json", "csv", "tsv", "text" or
            "lance".
        encoding: of files of text. None: UTF-8, or what a byte order mark says.

    Raises:
        FileNotFoundError: an input does not exist.
        ValueError: an input cannot be read or has no such column; or the folder has files of another plan: the message
            says what differs.
        TypeError: the column holds no texts.
    """
    checks.positive(rows_per_file, "rows_per_file")
    folder = Path(output).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output: {folder} is a file. Name a folder")
    found = sources.paths(inputs)
    before = _manifest(folder)
    columns = wanted(embedder)
    known = [] if before is None else [_input(each) for each in before["inputs"]]
    read = tuple(
        sources.scan(path, columns, format, encoding, known[number] if number < len(known) else None)
        for number, path in enumerate(found)
    )
    made = Plan(read, folder, embedder, rows_per_file)
    made.check(before)
    if (
        before is None
        and pa.types.is_fixed_size_list(embedder.type)
        and int(pa.__version__.split(".")[0]) < _READS_NULLS
    ):
        log.warning(
            "pyarrow %s cannot read a Parquet column of fixed-size lists that has nulls; pyarrow %s and other readers "
            "can. Where that is a problem: lists='variable'",
            pa.__version__,
            _READS_NULLS,
        )
    return made


class Plan:
    """Units of work, each of which turns a range of rows into one file.

    It is pickled as its configuration, so that `run` can be sent anywhere: `ray.remote(plan.run)`,
    `sc.parallelize(plan.pending()).map(plan.run)`. A file that has its name is whole, so going on is looking at what is
    there: `for unit in plan.pending(): plan.run(unit)`.

    Args:
        inputs: the input files.
        output: the folder.
        embedder: embeds.
        rows_per_file: rows of a unit at most.
        part: which units are this plan's: (i, n) is every n-th from the i-th.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        output: Path,
        embedder: Embedder,
        rows_per_file: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.inputs, self.output, self.embedder = tuple(inputs), output, embedder
        self.rows_per_file, self.part = rows_per_file, part
        self._wanted = wanted(embedder)
        schemas = [sources.schema(each, self._wanted) for each in self.inputs]
        try:
            self._kept = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise ValueError(f"the inputs' columns do not fit together: {error}. Say which to keep") from None
        self.schema = _output_schema(embedder, self._kept)
        self.units = tuple(_units(self.inputs, rows_per_file))[part[0] :: part[1]]
        self._reader = Reader(self._wanted)

    def shard(self, i: int, n: int) -> Plan:
        """The i-th of n parts, i from 0: every n-th unit. All parts together are the plan.

        Raises:
            ValueError: `i` is not in range(n), or this is a part already.
        """
        if not 0 <= i < n:
            raise ValueError(f"shard {i}/{n}: shards are numbered from 0 to {n - 1}")
        if self.part != (0, 1):
            raise ValueError("this plan is a shard already")
        return Plan(self.inputs, self.output, self.embedder, self.rows_per_file, (i, n))

    def pending(self) -> list[Unit]:
        """The units whose files are not there."""
        there = {path.name for path in self.output.iterdir()} if self.output.is_dir() else set()
        return [unit for unit in self.units if unit.name not in there]

    def run(self, unit: Unit, progress: Progress | None = None) -> Done:
        """Do a unit, if its file is not there. The file has its name once it is whole and on the disk.

        Args:
            unit: one of `units`.
            progress: called with the rows and the tokens that were added, each time some were.

        Raises:
            BulkError: a row cannot be embedded, unless the embedder has `on_error="null"`; the message names file, row
                and column.
            OSError: the file cannot be written.
        """
        path = self.output / unit.name
        if path.exists():
            return done(path)
        part = self.output / f".{unit.name}.{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part"
        try:
            with part.open("xb") as file:
                found = write(self, [unit], file, progress)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):  # another process had the same unit, and was first
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        _sync_folder(self.output)
        for other in self.output.glob(f".{unit.name}.*.part"):  # of processes that were killed
            other.unlink(missing_ok=True)
        return found._replace(path=str(path))

    def batches(self, unit: Unit, progress: Progress | None = None) -> Iterator[tuple[Any, dict[int, str]]]:
        """The rows of a unit with their results, and why some have none, by row of the file."""
        embedder, source = self.embedder, self.inputs[unit.source]
        first = unit.start
        for chunk in self._reader.chunks(source, unit.start, unit.stop, self._kept, embedder.batch_size):
            before = embedder.encoder.tokens or 0
            try:
                result = embedder.result(chunk.texts, chunk.queries, "")
            except BulkError as error:
                row = error.row or 0
                raise BulkError(_named(chunk, row, first, embedder, error.reason), first + row, error.reason) from error
            rows = len(chunk.texts.values)
            added = [*chunk.kept, result.array]
            if embedder.error_column is not None:
                added.append(reasons(rows, result.problems))
            named = {
                first + row: _named(chunk, row, first, embedder, reason)
                for row, reason in sorted(result.problems.items())
            }
            yield pa.RecordBatch.from_arrays(added, schema=self.schema), named
            if progress is not None:
                progress(rows, (embedder.encoder.tokens or 0) - before)
            first += rows

    def bytes_of(self, unit: Unit) -> float:
        """About how many bytes the texts of a unit have: for estimates of time."""
        return self.inputs[unit.source].bytes_of(unit.start, unit.stop)

    def check(self, before: Mapping[str, Any] | None) -> None:
        """Write the manifest; or, if there is one, see that it says the same.

        Raises:
            ValueError: it does not; the message says what differs.
        """
        own = self._manifest()
        if before is None:
            self.output.mkdir(parents=True, exist_ok=True)
            if others := [path.name for path in self.output.glob("*.parquet")][:1]:
                raise ValueError(
                    f"{self.output} has files of something else, such as {others[0]}. Name an empty folder, or a new "
                    "one"
                )
            before = _published(self.output, own)
        for key, what in (
            ("model", "the model"),
            ("columns", "the columns"),
            ("rows_per_file", "rows_per_file"),
            ("inputs", "the input"),
        ):
            if difference := _difference(_comparable(before, key), _comparable(own, key)):
                raise ValueError(
                    f"{self.output / MANIFEST}: the files in this folder were made with another setting of {what}: "
                    f"{difference}. Name another folder, or remove this one to begin anew"
                )

    def _manifest(self) -> dict[str, Any]:
        embedder = self.embedder
        return {
            "format": _FORMAT,
            "written_by": f"fastrank {fastrank.__version__}",
            "fingerprint": embedder.fingerprint(),
            "model": embedder.describe(),
            "columns": {
                "text": embedder.column,
                "query": embedder.query_column if embedder.kind == "rerank" else None,
                "output": {field.name: str(field.type) for field in self.schema},
            },
            "rows_per_file": self.rows_per_file,
            "inputs": [each._asdict() for each in self.inputs],
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self.inputs, self.output, self.embedder, self.rows_per_file, self.part)

    def __repr__(self) -> str:
        return f"Plan({len(self.inputs)} inputs, {len(self.units)} units, {str(self.output)!r})"


def done(path: Path) -> Done:
    """What the file of a unit says of itself."""
    metadata = parquet.read_metadata(path)
    own = json.loads((metadata.metadata or {}).get(_METADATA, b"{}"))
    reasons_ = tuple(own.get("reasons", ()))
    return Done(str(path), metadata.num_rows, own.get("failed", 0), own.get("tokens"), reasons_, now=False)


def write(made: Plan, units: Sequence[Unit], file: Any, progress: Progress | None = None) -> Done:
    """Write units of a plan into one open file, as Parquet."""
    rows = tokens = 0
    problems: list[str] = []
    waiting: list[Any] = []
    encoder = made.embedder.encoder

    def count(added: int, read: int) -> None:
        nonlocal rows, tokens
        rows, tokens = rows + added, tokens + read
        if progress is not None:
            progress(added, read)

    names = set(made.schema.names) - {made.embedder.output}
    with parquet.ParquetWriter(file, made.schema, compression="zstd", use_dictionary=sorted(names)) as writer:
        for unit in units:
            for batch, named in made.batches(unit, count):
                problems += named.values()
                waiting.append(batch)
                if sum(each.num_rows for each in waiting) >= _GROUP_ROWS or _size(waiting) >= _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(waiting))
                    waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
        counted = None if encoder.tokens is None else tokens
        own = {"failed": len(problems), "tokens": counted, "reasons": problems[:_REASONS]}
        writer.add_key_value_metadata({_METADATA: json.dumps(own)})
    return Done("", rows, len(problems), counted, tuple(problems[:_REASONS]), now=True)


# -- units and columns ------------------------------------------------------------------------------------------------


def _units(inputs: Sequence[Input], rows_per_file: int) -> Iterator[Unit]:
    number = 0
    for source, each in enumerate(inputs):
        for part, start in enumerate(range(0, each.rows, rows_per_file)):
            stop = min(start + rows_per_file, each.rows)
            yield Unit(number, source, start, stop, f"part-{source:05}-{part:06}.parquet")
            number += 1


def wanted(embedder: Embedder) -> Wanted:
    """The columns that an embedder reads and keeps."""
    return Wanted(embedder.keep, embedder.column, embedder.query_column if embedder.kind == "rerank" else None)


def _output_schema(embedder: Embedder, kept: Any) -> Any:
    for name in filter(None, (embedder.output, embedder.error_column)):
        if name in kept.names:
            raise ValueError(
                f"the inputs have a column {name!r} already: name the new one with output= or error_column=, or leave "
                "the old one out with keep="
            )
    fields = [*kept, pa.field(embedder.output, embedder.type)]
    if embedder.error_column is not None:
        fields.append(pa.field(embedder.error_column, pa.string()))
    return pa.schema(fields)


def _named(chunk: sources.Chunk, row: int, first: int, embedder: Embedder, reason: str) -> str:
    where = chunk.where(row)
    number = "" if where.endswith(f"row {first + row}") else f", row {first + row}"
    return f"{where}{number}, column {embedder.column!r}: {reason.removeprefix(f'{where}: ')}"


def _size(batches: Sequence[Any]) -> int:
    return sum(batch.nbytes for batch in batches)


# -- the manifest -----------------------------------------------------------------------------------------------------


def _manifest(folder: Path) -> Any:
    """What the folder's manifest says; None: there is none."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise ValueError(f"{path} is of another version of fastrank. Name another folder")
        [_input(each) for each in found["inputs"]]
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}. Name another folder, or remove this one") from error
    return found


def _input(saved: Mapping[str, Any]) -> Input:
    return Input(**{**saved, "blocks": tuple((rows, size) for rows, size in saved["blocks"])})


def _published(folder: Path, own: Mapping[str, Any]) -> Any:
    """The manifest that is there once several processes have tried to write theirs: the first one's."""
    part = folder / f".{MANIFEST}.{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part"
    try:
        with part.open("x", encoding="utf-8") as file:
            json.dump(own, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, folder / MANIFEST)  # unlike a rename, it replaces nothing
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not (folder / MANIFEST).exists():
                part.replace(folder / MANIFEST)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(folder)
    return _manifest(folder)


def _comparable(manifest: Mapping[str, Any], key: str) -> Any:
    value = json.loads(json.dumps(manifest.get(key)))
    if key != "inputs":
        return value
    return {number: _input(each).identity for number, each in enumerate(value)}


def _difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first thing in which two values differ."""
    if before == now:
        return None
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            if found := _difference(before.get(key), now.get(key), f"{name}.{key}" if name else str(key)):
                return found
    return f"{name or 'it'} was {_short(before)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk, where a folder can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
