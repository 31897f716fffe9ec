"""Documents in the formats and encodings that the command line reads."""

import csv
import json
import sys

import pytest
from support.processes import run_python

from fastrank.bulk import reading
from fastrank.bulk.reading import Documents

ROWS = [
    {"id": 1, "title": "Über", "body": "the cat is red"},
    {"id": 2, "title": "x, y", "body": 'a "quoted"\nline'},
    {"id": 3, "title": "", "body": "日本語 😀"},
]
TEXTS = [row["body"] for row in ROWS]


def texts(path, **options):
    return [row.text for row in Documents(str(path), **options).rows()]


def refused(path, **options):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the tests look at the message
        texts(path, **options)
    return str(error.value)


@pytest.fixture(params=["jsonl", "json", "csv", "tsv", "semicolons.csv", "parquet"])
def file(request, tmp_path):
    """The rows in a file of each format, of which the suffix tells the format."""
    path = tmp_path / f"rows.{request.param}"
    if request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    elif request.param == "json":
        path.write_text(json.dumps(ROWS, ensure_ascii=False, indent=2), encoding="utf-8")
    elif request.param == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        delimiter = {"csv": ",", "tsv": "\t"}.get(request.param, ";")
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    return path


def test_every_format_is_known_by_its_suffix(file):
    assert texts(file, field="body") == TEXTS
    fields = [row.fields for row in Documents(str(file), field="body").rows()]
    assert [str(row["id"]) for row in fields] == ["1", "2", "3"]
    assert [row["title"] for row in fields] == ["Über", "x, y", ""]


def test_every_format_may_be_stated(file):
    other = file.with_name("rows.dat")
    kind = Documents(str(file)).kind
    file.rename(other)
    assert texts(other, field="body", format=kind) == TEXTS


def test_which_field_is_asked_where_there_are_several(file):
    assert "which field is the text? It has id, title, body. Say --field NAME" in refused(file)
    assert "'text'" in refused(file, field="text")


def test_the_total_is_that_of_the_rows(file):
    assert Documents(str(file), field="body").total() in (3, None)
    assert Documents(str(file), field="body").total() == 3 or file.suffix == ".json"


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_the_only_field_needs_no_name(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"text": ["red", "blue"]}), path)
    else:
        path.write_text({"jsonl": '{"text": "red"}\n"blue"\n'.replace('"blue"', '{"text": "blue"}'),
                         "json": '[{"text": "red"}, {"text": "blue"}]'}.get(kind, "text\nred\nblue\n"))  # fmt: skip
    assert texts(path) == ["red", "blue"]


def test_strings_of_json_need_no_field(tmp_path):
    (tmp_path / "a.json").write_text('["red", "blue"]')
    (tmp_path / "a.jsonl").write_text('"red"\n"blue"\n')
    assert texts(tmp_path / "a.json") == texts(tmp_path / "a.jsonl") == ["red", "blue"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding, end):
    for kind, content in (
        ("txt", f"Über{end}{end}日本語 😀{end}"),
        ("jsonl", f'{{"a": "Über"}}{end}{end}{{"a": "日本語 😀"}}{end}'),
        ("csv", f"a{end}Über{end}{end}日本語 😀{end}"),
    ):
        path = tmp_path / f"rows.{kind}"
        path.write_bytes(content.encode(encoding))
        assert texts(path) == ["Über", "", "日本語 😀"]
    (tmp_path / "rows.json").write_bytes('["Über"]'.encode(encoding))
    assert texts(tmp_path / "rows.json") == ["Über"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("cp1252", "Café – 5 €"), ("shift_jis", "日本語"), ("utf-16-le", "Über"), ("utf-8", "日本語")],
)
def test_the_encoding_may_be_stated(tmp_path, encoding, text):
    path = tmp_path / "rows.txt"
    path.write_bytes(f"{text}\n".encode(encoding))
    assert texts(path, encoding=encoding) == [text]
    path.write_bytes(f"{text}\n".encode("utf-8-sig"))
    assert texts(path, encoding=encoding) == [text], "a byte order mark comes first"


@pytest.mark.parametrize("name", ["utf-9", "hex", "rot13", ""])
def test_an_encoding_that_is_none_is_wrong_usage(name):
    done = run_python("-m", "fastrank", "embed", "--encoding", name)
    assert done.returncode == 2
    assert f"argument --encoding: unknown encoding {name!r}" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,body\n1,red\n2\n", "a.csv:3: has 1 columns, the header has 2"),
        ("a.csv", 'id,body\n1,"red\n2,blue\n', "a.csv:3: not CSV: unexpected end of data"),
        ("a.csv", "id,body,body\n1,x,y\n", "a.csv:1: the column 'body' is twice in the header"),
        ("a.csv", "id,text\n1,x\n", "a.csv:1: the column 'body' is not in the header: id, text"),
        ("a.json", '{"body": 1}', "a.json: must be an array of objects or strings, not an object"),
        ("a.json", '{"body": "x"}\n{"body": "y"}', "for one object per line say --format jsonl"),
        ("a.json", '[{"body": "x"}, {"body": null}]', "a.json[1]: no string field 'body'; it has body"),
        ("a.json", "[" * 100_000, "a.json: not JSON"),
        ("a.jsonl", '{"body": "x"}\n7\n', "a.jsonl:2: no string field 'body'"),
        ("a.txt", '{"body": "x"}\n{"body": 7}\n', "a.txt:2: no string field 'body'"),
        ("a.parquet", "PAR1", "a.parquet: not Parquet"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, name, content, message):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert message in refused(path, field="body")


def test_a_field_of_plain_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("red\n")
    assert "a text file has no fields" in refused(tmp_path / "a.txt", field="body", format="text")


def test_empty_files_have_no_documents(tmp_path):
    for name in ("a.txt", "a.jsonl", "a.csv"):
        (tmp_path / name).write_bytes(b"")
        assert texts(tmp_path / name) == []
        assert Documents(str(tmp_path / name)).total() == 0
    (tmp_path / "a.txt").write_bytes(b"\n\nlast")
    assert texts(tmp_path / "a.txt") == ["", "", "last"]
    assert Documents(str(tmp_path / "a.txt")).total() == 3


def test_long_fields_of_csv(tmp_path):
    (tmp_path / "a.csv").write_text("body\n" + "word " * 100_000 + "\n")
    assert len(texts(tmp_path / "a.csv")[0]) == 500_000


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastrank-onnx\[parquet\]'"):
        list(Documents(str(tmp_path / "a.parquet")).rows())


def test_the_formats_are_those_that_are_read():
    assert set(reading._READERS) == set(reading.FORMATS)
