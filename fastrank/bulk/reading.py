"""Reads documents from text, JSON lines, JSON, CSV, TSV and Parquet files. No other module knows their encodings."""

from __future__ import annotations

import codecs
import csv
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from fastrank import inputs, log
from fastrank.errors import how_to_install

FORMATS = ("text", "jsonl", "json", "csv", "tsv", "parquet")
_SUFFIXES = {".ndjson": "jsonl", ".jsonlines": "jsonl", ".pq": "parquet"} | {f".{name}": name for name in FORMATS[1:]}
# The longest first: UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = {
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file: say --format parquet",
    b"\x93NUMPY": "a numpy array",
    b"%PDF-": "a PDF",
}
_HEAD = 4096  # bytes looked at before reading
_LARGEST_FIELD = 2**31 - 1  # characters of a CSV field
_UNDECODED = "fastrank.undecoded"


class Row(NamedTuple):
    """A document: its text, and all fields of its row (none in text files and blank lines)."""

    text: str
    fields: Mapping[str, Any]


class Record(NamedTuple):
    """A row as a file has it.

    Attributes:
        where: file and line, or number.
        value: its fields by name, or a string that has none; None where there is a problem.
        problem: what is wrong with it, beginning with `where`.
        blank: it is an empty line: an empty text, without fields.
    """

    where: str
    value: Any
    problem: str | None = None
    blank: bool = False


class Documents(NamedTuple):
    """A file of documents, or standard input.

    Attributes:
        file: its path, or - for standard input.
        format: one of FORMATS; None: by the file's suffix, else JSON lines if there is a field, else text.
        field: the name of the field with the text; None: the only one.
        encoding: of the file; a byte order mark comes first. None: UTF-8.
    """

    file: str
    format: str | None = None
    field: str | None = None
    encoding: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return "standard input" if self.file == "-" else self.file

    @property
    def kind(self) -> str:
        """The format, where it is not stated by the suffix."""
        by_suffix = None if self.file == "-" else _SUFFIXES.get(Path(self.file).suffix.lower())
        return self.format or by_suffix or ("text" if self.field is None else "jsonl")

    def stat(self) -> os.stat_result | None:
        """The status of the file; None: it has none."""
        try:
            return os.fstat(sys.stdin.fileno()) if self.file == "-" else os.stat(self.file)  # noqa: PTH116 - as named
        except (OSError, ValueError, AttributeError):
            return None

    def require(self) -> None:
        """Raise OSError if there is no such file, before a model is loaded for it."""
        if self.file == "-":
            return
        if Path(self.file).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.file)
        os.stat(self.file)  # noqa: PTH116 - named in the error as the user wrote it

    def rows(self) -> Iterator[Row]:
        """The documents one by one, one for each line (or record): a blank line is an empty text.

        Raises:
            OSError: the file cannot be read.
            ValueError: something in it is not what it should be; the message names file and line.
            ModuleNotFoundError: Parquet without pyarrow.
        """
        field = self.field
        for record in self.records():
            if record.problem is not None:
                raise ValueError(record.problem)
            if record.blank:
                yield Row("", {})
                continue
            if self.kind == "text":
                yield Row(record.value, {})
                continue
            field = field or _only_field(record.value, record.where)
            yield _row(record.value, field, record.where)

    def records(self, skip: int = 0) -> Iterator[Record]:
        """The rows as the file has them, without the first `skip`. What is wrong with one row is said in its record.

        Raises:
            OSError: the file cannot be read.
            ValueError: what follows cannot be read either.
            ModuleNotFoundError: Parquet without pyarrow.
        """
        return _READERS[self.kind](self, skip)

    def total(self) -> int | None:
        """How many there are, if that can be known before they are read: of a regular file."""
        if self.file == "-" or not Path(self.file).is_file() or self.kind == "json":
            return None
        if self.kind == "parquet":
            return int(_parquet(self).metadata.num_rows)
        with _opened(self) as stream:
            if self.kind in ("csv", "tsv"):
                with suppress(csv.Error):  # which `rows` raises with its place
                    return max(0, sum(1 for _ in _csv_reader(self, stream)) - 1)
                return None
            last = "\n"
            lines = 0
            while block := stream.read(1 << 20):
                lines, last = lines + block.count("\n"), block[-1]
            return lines + (last != "\n")


# -- formats ----------------------------------------------------------------------------------------------------------


def _text_records(source: Documents, skip: int) -> Iterator[Record]:
    if source.field is not None:
        raise ValueError(f"--field {source.field}: a text file has no fields. Say which --format {source.name} has")
    for line in _lines(source, skip):
        yield Record(line.where, line.text.rstrip("\n"), line.problem)


def _jsonl_records(source: Documents, skip: int) -> Iterator[Record]:
    for line in _lines(source, skip):
        if line.problem is not None:
            yield Record(line.where, None, line.problem)
        elif not line.text.strip():
            yield Record(line.where, "", blank=True)
        else:
            try:
                value = _parsed(line.text, line.where)
            except ValueError as error:
                yield Record(line.where, None, str(error))
            else:
                yield Record(line.where, value)


def _json_records(source: Documents, skip: int) -> Iterator[Record]:
    with _opened(source) as stream:
        text = stream.read()
    if at := _position_of_fault(text):
        line = text.count("\n", 0, at) + 1
        raise ValueError(_fault(text[at - 1], f"{source.name}:{line}", stream.encoding))
    values = _parsed(text, source.name, "; for one object per line say --format jsonl")
    if not isinstance(values, list):
        raise ValueError(f"{source.name}: must be an array of objects or strings, not {_type_name(values)}")  # noqa: TRY004
    for number in range(skip, len(values)):
        yield Record(f"{source.name}[{number}]", values[number])


def _csv_reader(source: Documents, lines: Iterator[str]) -> Any:
    """Cells between commas, or semicolons where the header has only these, or tabs."""
    csv.field_size_limit(_LARGEST_FIELD)
    first = next(lines, "")
    comma = ";" if ";" in first and "," not in first else ","
    return csv.reader(chain([first], lines), delimiter="\t" if source.kind == "tsv" else comma, strict=True)


def _csv_records(source: Documents, skip: int) -> Iterator[Record]:
    reader = _csv_reader(source, (line.sound for line in _lines(source, newline="")))
    try:
        header = next(filter(None, reader), None)
        if header is None:
            return
        where = f"{source.name}:{reader.line_num}"
        field = source.field or _only_field(dict.fromkeys(header, ""), where)
        if header.count(field) != 1:
            problem = "twice" if field in header else "not"
            raise ValueError(f"{where}: the column {field!r} is {problem} in the header: {', '.join(header)}")
        for values in islice(reader, skip, None):
            where = f"{source.name}:{reader.line_num}"
            if not values:
                yield Record(where, "", blank=True)
            elif len(values) != len(header):
                yield Record(where, None, f"{where}: has {len(values)} columns, the header has {len(header)}")
            else:
                yield Record(where, dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{source.name}:{reader.line_num}: not {source.kind.upper()}: {error}") from None


def _parquet_records(source: Documents, skip: int) -> Iterator[Record]:
    file = _parquet(source)
    names = file.schema_arrow.names
    field = source.field or _only_field(dict.fromkeys(names), source.name)
    if field not in names:
        raise ValueError(f"{source.name}: no column {field!r}; it has {', '.join(names)}")
    number = 0
    for batch in file.iter_batches(1024):
        for value in batch.to_pylist():
            if number >= skip:
                yield Record(f"{source.name}, row {number}", value)
            number += 1


def _parquet(source: Documents) -> Any:
    if source.file == "-":
        raise ValueError("--format parquet: standard input cannot be read as Parquet. Name a file")
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{source.name}: pyarrow, which reads Parquet, is not installed. Run: {how_to_install('parquet')}",
            name=error.name,
        ) from error
    try:
        return parquet.ParquetFile(source.file)
    except ArrowException as error:
        raise ValueError(f"{source.name}: not Parquet: {error}") from None


_READERS: Mapping[str, Callable[[Documents, int], Iterator[Record]]] = {
    "text": _text_records,
    "jsonl": _jsonl_records,
    "json": _json_records,
    "csv": _csv_records,
    "tsv": _csv_records,
    "parquet": _parquet_records,
}


# -- fields -----------------------------------------------------------------------------------------------------------


def _parsed(text: str, where: str, advice: str = "") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}{advice}") from None


def _only_field(value: Any, where: str) -> str:
    """The field of an object that has one; "" for a string, which has none."""
    if isinstance(value, str):
        return ""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: must be an object or a string, not {_type_name(value)}")  # noqa: TRY004
    if len(value) != 1:
        raise ValueError(f"{where}: which field is the text? It has {', '.join(value)}. Say --field NAME")
    return str(next(iter(value)))


def _row(value: Any, field: str, where: str) -> Row:
    if not field and isinstance(value, str):
        return Row(inputs.text(value, "text"), {})
    if not isinstance(value, Mapping) or not isinstance(value.get(field), str):
        known = f"; it has {', '.join(value)}" if isinstance(value, Mapping) else ""
        raise ValueError(f"{where}: no string field {field!r}{known}")  # noqa: TRY004 - the file is wrong, no type
    return Row(inputs.text(value[field], field), value)


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# -- bytes and lines --------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    where: str
    text: str  # with its end
    problem: str | None

    @property
    def sound(self) -> str:
        """The text, if nothing is wrong with it.

        Raises:
            ValueError: something is.
        """
        if self.problem is not None:
            raise ValueError(self.problem)
        return self.text


def _lines(source: Documents, skip: int = 0, newline: str | None = None) -> Iterator[_Line]:
    """Lines with their ends, each checked, without the first `skip`."""
    with _opened(source, newline) as stream:
        for number, line in enumerate(islice(stream, skip, None), skip + 1):
            where = f"{source.name}:{number}"
            at = _position_of_fault(line)
            yield _Line(where, line, _fault(line[at - 1], where, stream.encoding) if at else None)


@contextmanager
def _opened(source: Documents, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    """The decoded file; what cannot be decoded is there as lone surrogates that `_position_of_fault` finds."""
    with _bytes(source) as stream:
        head = stream.peek(_HEAD)[:_HEAD]
        encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
        if encoding is None:
            _refuse_binary(head, source)
        codecs.register_error(_UNDECODED, _undecoded)
        text = io.TextIOWrapper(stream, encoding or source.encoding or "utf-8", errors=_UNDECODED, newline=newline)
        try:
            yield text
        finally:
            text.detach()


@contextmanager
def _bytes(source: Documents) -> Iterator[io.BufferedReader]:
    if source.file != "-":
        with open(source.file, "rb") as stream:  # noqa: PTH123 - named in errors as the user wrote it
            yield stream
        return
    if sys.stdin is None:
        raise ValueError("standard input is closed. Name a file with the documents")
    if sys.stdin.isatty():
        log.warning("reading documents from the terminal, one a line; end with Ctrl-D")
    given: Any = sys.stdin.buffer
    yield given if isinstance(given, io.BufferedReader) else io.BufferedReader(given)


def _refuse_binary(head: bytes, source: Documents) -> None:
    for start, what in _PACKED.items():
        if head.startswith(start):
            raise ValueError(f"{source.name}: is {what}, not {source.kind}")
    wide = codecs.lookup(source.encoding or "utf-8").name.startswith(("utf-16", "utf-32"))
    if b"\0" in head and not wide:
        line = head[: head.index(b"\0")].count(b"\n") + 1
        raise ValueError(_fault("\0", f"{source.name}:{line}", ""))


def _undecoded(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return chr(0xDC00 + error.object[error.start]), error.end


def _position_of_fault(text: str) -> int:
    """One more than the position of a NUL or of bytes that could not be decoded; 0: there are none."""
    if "\0" in text:
        return text.index("\0") + 1
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start + 1
    return 0


def _fault(letter: str, where: str, encoding: str) -> str:
    if letter == "\0":
        return f"{where}: has a NUL byte: it is binary, or UTF-16 without a byte order mark (--encoding utf-16-le)"
    byte = f"byte 0x{ord(letter) - 0xDC00:02x}"
    return (
        f"{where}: not {encoding.removesuffix('-sig').upper()}: {byte}. State the file's encoding, such as "
        "--encoding cp1252"
    )


def check_encoding(name: str) -> str:
    """The name of a text encoding that Python has.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), name)
    except LookupError:
        raise ValueError(f"unknown encoding {name!r}; such as utf-8, cp1252, utf-16-le, shift_jis") from None
    return name


def missing(names: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """The names that are a field of no row."""
    known = {name for row in rows for name in row.fields}
    return [name for name in names if name not in known]
