"""Input files of a plan: what they are, how many rows they have, and any range of their rows."""

from __future__ import annotations

import glob
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from fastrank import inputs
from fastrank.bulk import columns
from fastrank.bulk.columns import Texts
from fastrank.bulk.reading import FORMATS, Documents, Record

_LANCE = "lance"
_SUFFIXES = {".jsonl", ".ndjson", ".jsonlines", ".json", ".csv", ".tsv", ".parquet", ".pq", ".txt", ".lance"}
_EDGE = 1 << 16  # bytes of a file's beginning and end that tell it from another
_ROW_TYPES: Mapping[str, Any] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "json": pa.string(),
    "null": pa.string(),
}


class Input(NamedTuple):
    """An input file, as a plan knows it.

    Attributes:
        path: absolute.
        kind: "lance", or one of reading.FORMATS.
        encoding: of a file of text; None: UTF-8.
        rows: how many.
        size: in bytes; 0 of a Lance dataset.
        mark: a hash that tells it from a file of the same name and size.
        fields: of files whose rows say what columns there are: their kinds, by name.
        blocks: consecutive rows, and the bytes that their texts take, for estimates of time.
    """

    path: str
    kind: str
    encoding: str | None
    rows: int
    size: int
    mark: str
    fields: Mapping[str, str]
    blocks: tuple[tuple[int, int], ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same when a plan is gone on with."""
        return {"path": Path(self.path).name, "rows": self.rows, "size": self.size, "mark": self.mark}

    def bytes_of(self, start: int, stop: int) -> float:
        """About how many bytes the texts of these rows have."""
        total, first = 0.0, 0
        for rows, size in self.blocks:
            inside = min(stop, first + rows) - max(start, first)
            total += size * max(0, inside) / max(1, rows)
            first += rows
        return total


class Chunk(NamedTuple):
    """Consecutive rows.

    Attributes:
        kept: an array for each column that is kept.
        texts: of the rows.
        queries: of the rows, where they have any.
        where: how errors call the n-th of them.
    """

    kept: list[Any]
    texts: Texts
    queries: Texts | None
    where: Callable[[int], str]


class Wanted(NamedTuple):
    """The columns that are read: those that are kept (None: all), that of the texts and that of the queries."""

    keep: tuple[str, ...] | None
    column: str
    queries: str | None


def paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files by name, by pattern (sorted), or all that can be read in a folder (sorted).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder or pattern has none.
    """
    found: list[Path] = []
    for each in [given] if isinstance(given, (str, Path)) else given:
        path = Path(each).expanduser().absolute()
        if path.is_dir() and path.suffix != f".{_LANCE}":
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        elif not path.exists() and glob.has_magic(str(each)):
            inside = [Path(match) for match in sorted(glob.glob(str(path)))]  # noqa: PTH207 - absolute patterns
        else:
            path.stat()  # raises with its name
            inside = [path]
        if not inside:
            raise ValueError(f"{each}: there is no file to read; known are {', '.join(sorted(_SUFFIXES))}")
        found += inside
    return found


def scan(path: Path, wanted: Wanted, form: str | None, encoding: str | None, known: Input | None) -> Input:
    """A file's rows and columns.

    Args:
        path: of the file.
        wanted: the columns that will be read.
        form: its format; None: by its suffix, else text.
        encoding: of a file of text; None: UTF-8.
        known: what an earlier run found, which is taken if the file is still the same: counting rows takes time.

    Raises:
        ValueError: it cannot be read, or has no such column.
        ModuleNotFoundError: a library to read it with is missing.
    """
    if form not in (None, _LANCE, *FORMATS):
        raise ValueError(f"format must be one of {', '.join((*FORMATS, _LANCE))}, not {form!r}")
    if form == _LANCE or (form is None and path.suffix == f".{_LANCE}"):
        dataset = _lance(path)
        rows = int(dataset.count_rows())
        return Input(str(path), _LANCE, None, rows, 0, f"version {dataset.version}", {}, ((rows, rows),))
    kind, size, mark = Documents(str(path), form).kind, path.stat().st_size, _mark(path)
    if kind == "parquet":
        with _parquet(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
            blocks = tuple((group.num_rows, _text_bytes(group, wanted.column)) for group in groups)
            return Input(str(path), kind, None, file.metadata.num_rows, size, mark, {}, blocks)
    if known is not None and (known.kind, known.size, known.mark) == (kind, size, mark):
        return known._replace(path=str(path), encoding=encoding)
    rows, fields = _counted(Documents(str(path), kind, _field(kind, wanted.column), encoding), wanted)
    return Input(str(path), kind, encoding, rows, size, mark, fields, ((rows, size),))


def schema(source: Input, wanted: Wanted) -> Any:
    """Arrow's schema of the columns that are kept.

    Raises:
        ValueError: there is no such column.
        TypeError: the column of texts holds no texts.
    """
    if source.kind == _LANCE:
        whole = _lance(Path(source.path)).schema
    elif source.kind == "parquet":
        with _parquet(Path(source.path)) as file:
            whole = file.schema_arrow
    else:
        whole = pa.schema([(name, _ROW_TYPES[kind]) for name, kind in source.fields.items()])
        if source.kind == "text":
            whole = pa.schema([(wanted.column, pa.string())])
    for name in filter(None, (wanted.column, wanted.queries)):
        if whole.names.count(name) != 1:
            raise ValueError(f"{source.path}: no column {name!r}; it has {', '.join(whole.names) or 'none'}")
        if source.kind in (_LANCE, "parquet"):
            columns.check_type(whole.field(name).type, f"{source.path}: column {name!r}")
    keep = whole.names if wanted.keep is None else wanted.keep
    if missing := [name for name in keep if name not in whole.names]:
        raise ValueError(f"{source.path}: no column {missing[0]!r} to keep; it has {', '.join(whole.names)}")
    return pa.schema([whole.field(name) for name in keep]).remove_metadata()


class Reader:
    """Ranges of rows of files. The reader of a file of lines goes on where the range before ended."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._at: tuple[str, int] | None = None
        self._records: Iterator[Record] = iter(())

    def chunks(self, source: Input, start: int, stop: int, kept: Any, size: int) -> Iterator[Chunk]:
        """The rows from `start` to `stop`, at most `size` at a time.

        Args:
            source: the file.
            start: the first row.
            stop: the first that is not read.
            kept: the schema of the columns that are kept.
            size: rows of a chunk.
        """
        if source.kind in (_LANCE, "parquet"):
            return self._tables(source, start, stop, kept, size)
        return self._rows(source, start, stop, kept, size)

    def _tables(self, source: Input, start: int, stop: int, kept: Any, size: int) -> Iterator[Chunk]:
        wanted = self._wanted
        own = schema(source, wanted._replace(keep=None)).names
        names = [name for name in own if name in {*kept.names, wanted.column, wanted.queries}]
        read = _lance_batches if source.kind == _LANCE else _parquet_batches
        first = start
        for batch in read(Path(source.path), names, start, stop, size):
            arrays = [
                _cast(batch.column(field.name), field.type) if field.name in own else pa.nulls(len(batch), field.type)
                for field in kept
            ]
            queries = None
            if wanted.queries is not None:
                queries = columns.texts(batch.column(wanted.queries), f"column {wanted.queries!r}")
            texts = columns.texts(batch.column(wanted.column), f"column {wanted.column!r}")
            yield Chunk(arrays, texts, queries, _numbered(source.path, first))
            first += batch.num_rows

    def _rows(self, source: Input, start: int, stop: int, kept: Any, size: int) -> Iterator[Chunk]:
        if self._at is None or self._at[0] != source.path or self._at[1] > start:
            field = _field(source.kind, self._wanted.column)
            self._records = Documents(source.path, source.kind, field, source.encoding).records(start)
        else:  # further on in the same file
            next(islice(self._records, start - self._at[1], start - self._at[1]), None)
        self._at = None  # until the range is read
        for first in range(start, stop, size):
            records = list(islice(self._records, min(size, stop - first)))
            if len(records) != min(size, stop - first):
                raise ValueError(f"{source.path} has fewer rows than when the plan was made: it was changed")
            yield self._chunk(records, kept)
        self._at = source.path, stop

    def _chunk(self, records: list[Record], kept: Any) -> Chunk:
        wanted = self._wanted

        def texts(name: str) -> Texts:
            found = columns.texts([_value(record, name) for record in records], f"column {name!r}")
            problems = {row: record.problem for row, record in enumerate(records) if record.problem is not None}
            return found._replace(problems={**found.problems, **problems})

        arrays = [
            _array([_kept_value(record, field.name, wanted.column) for record in records], field.type) for field in kept
        ]
        queries = None if wanted.queries is None else texts(wanted.queries)
        return Chunk(arrays, texts(wanted.column), queries, lambda row: records[row].where)


# -- tables -----------------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Any:
    try:
        return parquet.ParquetFile(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not Parquet: {error}") from None


def _parquet_batches(path: Path, names: list[str], start: int, stop: int, size: int) -> Iterator[Any]:
    with _parquet(path) as file:
        first, groups, skip = 0, [], start
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if first + rows <= start:
                skip -= rows
            elif first < stop:
                groups.append(number)
            first += rows
        left = stop - start
        for batch in file.iter_batches(size, groups, names):
            part = batch.slice(skip, left) if skip < batch.num_rows else batch.slice(0, 0)
            skip = max(0, skip - batch.num_rows)
            left -= part.num_rows
            if part.num_rows:
                yield part
            if not left:
                return


def _lance_batches(path: Path, names: list[str], start: int, stop: int, size: int) -> Iterator[Any]:
    scanner = _lance(path).scanner(columns=names, offset=start, limit=stop - start, batch_size=size, scan_in_order=True)
    yield from scanner.to_batches()


def _lance(path: Path) -> Any:
    try:
        import lance
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path}: Lance is not installed. Run: pip install pylance", name=error.name
        ) from error
    return lance.dataset(str(path))


def _text_bytes(group: Any, column: str) -> int:
    return sum(
        group.column(number).total_uncompressed_size
        for number in range(group.num_columns)
        if group.column(number).path_in_schema == column
    )


def _cast(array: Any, kind: Any) -> Any:
    return array if array.type == kind else array.cast(kind)


def _numbered(path: str, first: int) -> Callable[[int], str]:
    return lambda row: f"{path}, row {first + row}"


# -- rows -------------------------------------------------------------------------------------------------------------


def _field(kind: str, column: str) -> str | None:
    return None if kind == "text" else column


def _counted(source: Documents, wanted: Wanted) -> tuple[int, dict[str, str]]:
    """The number of rows, and the kinds of their fields in the order in which they are first seen."""
    if source.kind == "text":
        return sum(1 for _ in source.records()), {}
    rows = 0
    seen: dict[str, set[str]] = {}
    with closing(_closing(source.records())) as records:
        for record in records:
            rows += 1
            value = {wanted.column: record.value} if isinstance(record.value, str) else record.value
            if isinstance(value, Mapping):
                for name, each in value.items():
                    seen.setdefault(name, set()).add(_kind(each))
    return rows, {name: _common(kinds) for name, kinds in seen.items()} or {wanted.column: "str"}


def _closing(records: Iterator[Record]) -> Any:
    return records


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return "json"
    kinds = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}
    return kinds.get(type(value), "json")


def _common(kinds: set[str]) -> str:
    some = kinds - {"null"}
    if some == {"int", "float"}:
        return "float"
    return next(iter(some)) if len(some) == 1 else ("json" if some else "null")


def _value(record: Record, name: str) -> Any:
    """What a row has as a text: of a string that, of an object the field; null where there is none."""
    if record.problem is not None:
        return None
    if isinstance(record.value, str):
        return record.value
    if isinstance(record.value, Mapping):
        return record.value.get(name)
    return record.value


def _kept_value(record: Record, name: str, column: str) -> Any:
    if isinstance(record.value, Mapping):
        return record.value.get(name)
    return record.value if name == column and isinstance(record.value, str) else None


def _array(values: Iterable[Any], kind: Any) -> Any:
    if kind == pa.string():
        return pa.array([_as_text(value) for value in values], kind)
    if kind == pa.float64():
        return pa.array([None if value is None else float(value) for value in values], kind)
    return pa.array(list(values), kind)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return None if value is None else inputs.text(value, "a field")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _mark(path: Path) -> str:
    with path.open("rb") as file:
        found = hashlib.sha256(file.read(_EDGE))
        file.seek(max(0, path.stat().st_size - _EDGE))
        found.update(file.read(_EDGE))
    return found.hexdigest()[:32]
