"""`fastrank.bulk.Embedder`: a column of results beside what came, in every kind, type and form of batch."""

import json
import logging
import pickle
import shutil

import numpy as np
import pytest
from support import FIXTURES, tiny_models
from support.processes import run_python

pa = pytest.importorskip("pyarrow")

from fastrank import (  # noqa: E402
    LateInteractionTextEmbedding,
    ModelSource,
    PoolingType,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)
from fastrank.bulk import BulkError, Embedder  # noqa: E402
from fastrank.engine import shared  # noqa: E402
from fastrank.errors import ModelNotFoundError  # noqa: E402

TEXTS = ["hello world", "", "the cat is red", "paris is the capital of france", "rank " * 60, "Straße 中文 😀"]
QUERIES = ["what is red", "where", "cat", "capital", "", "one two"]
BM25 = "Qdrant/bm25"
DENSE = {"kind": "dense", "pooling": PoolingType.MEAN, "normalize": True}


@pytest.fixture(autouse=True)
def _no_shared_models(monkeypatch):
    monkeypatch.setattr(shared, "_models", {})


@pytest.fixture
def nan_folder(tmp_path):
    return tiny_models.write_model(tmp_path / "nan", tiny_models.tiny_encoder(nan=True))


@pytest.fixture
def late_name(tmp_path):
    LateInteractionTextEmbedding.add_custom_model(
        "acme/late", ModelSource(hf="acme/late"), dim=tiny_models.DIM, max_length=64, projection=False
    )
    return "acme/late"


@pytest.fixture
def made(request, tmp_path, tiny, late_name):
    """kind -> (arguments of the Embedder, what `embed` gives)."""
    kind = request.param
    cross = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
    if kind == "dense":
        options = {"pooling": PoolingType.MEAN, "normalize": True, "specific_model_path": str(tiny)}
        return ("tiny", {"kind": kind, **options}), list(TextEmbedding("tiny", **options).embed(TEXTS, 1024))
    if kind == "sparse":
        return (BM25, {"language": "german"}), list(SparseTextEmbedding(BM25, language="german").embed(TEXTS))
    if kind == "late":
        options = {"specific_model_path": str(tiny)}
        model = LateInteractionTextEmbedding(late_name, **options)
        return (late_name, {"kind": kind, **options}), list(model.embed(TEXTS, 1024))
    options = {"specific_model_path": str(cross)}
    scores = TextCrossEncoder("cross", **options).rerank_pairs(zip(QUERIES, TEXTS, strict=True), 1024)
    return ("cross", {"kind": kind, **options}), list(scores)


def table(texts=None, **columns):
    texts = TEXTS if texts is None else texts
    rows = len(texts)
    return pa.table({"id": list(range(rows)), "text": texts, "query": (QUERIES * rows)[:rows], **columns})


def rows_of(array, kind):
    """Each row as numpy sees it."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if kind == "rerank":
        return array.to_numpy(zero_copy_only=False)
    if kind == "sparse":
        return [(np.array(row["indices"], np.int64), np.array(row["values"], np.float32)) for row in array.to_pylist()]
    return [np.array(row, np.float32) for row in array.to_pylist()]


def assert_same(kind, array, expected):
    found = rows_of(array, kind)
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        if kind == "sparse":
            assert np.array_equal(row[0], other.indices)
            assert np.array_equal(row[1], other.values.astype(np.float32))
        else:
            assert np.array_equal(row, np.asarray(other, np.float32))


ALL = pytest.mark.parametrize("made", ["dense", "sparse", "late", "rerank"], indirect=True)


@ALL
def test_values_are_those_of_the_public_classes_bit_for_bit(made):
    (name, options), expected = made
    embedder = Embedder(name, **options)
    result = embedder(table())
    assert result.column_names == ["id", "text", "query", embedder.output]
    assert result.schema.field(embedder.output).type == embedder.type
    assert result.schema == embedder.schema(table().schema)
    assert_same(embedder.kind, result.column(embedder.output), expected)
    queries = QUERIES if embedder.kind == "rerank" else None
    assert_same(embedder.kind, embedder.embed(TEXTS, queries), expected)


@ALL
def test_null_is_null_and_its_neighbours_are_as_they_are_without_it(made):
    (name, options), expected = made
    embedder = Embedder(name, **options)
    texts = [None, TEXTS[0], None, *TEXTS[1:]]
    queries = [QUERIES[0], QUERIES[0], "x", *QUERIES[1:]]
    found = embedder(pa.table({"text": texts, "query": queries})).column(embedder.output).combine_chunks()
    assert [not value.is_valid for value in found] == [True, False, True, *[False] * 5]
    assert_same(embedder.kind, found.drop_null(), expected)


@ALL
def test_no_rows_have_the_right_schema(made):
    (name, options), _ = made
    embedder = Embedder(name, **options)
    empty = table().slice(0, 0)
    assert embedder(empty).schema == embedder.schema(empty.schema)
    assert embedder(empty).num_rows == 0
    nothing = embedder(pa.table({"text": pa.nulls(3), "query": pa.nulls(3)})).column(embedder.output)
    assert nothing.type == embedder.type
    assert nothing.null_count == 3


@ALL
def test_pickled_as_configuration_and_loaded_once(made):
    (name, options), expected = made
    embedder = Embedder(name, threads=1, keep=["id"], output="out", **options)
    sent = pickle.dumps(embedder)
    assert len(sent) < 1000
    assert not embedder.model._model.is_loaded  # nothing that was asked for so far needs it
    arrived = [pickle.loads(sent) for _ in range(3)]  # noqa: S301 - ours
    assert [repr(each) for each in arrived] == [repr(embedder)] * 3
    results = [each(table()) for each in arrived]
    assert all(each.model is embedder.model for each in arrived)
    assert len(shared._models) == 1
    for result in results:
        assert result.column_names == ["id", "out"]
        assert_same(embedder.kind, result.column("out"), expected)


def test_making_and_pickling_load_nothing_in_a_process_of_its_own():
    code = """
import pickle, sys
import pyarrow as pa
from fastrank.bulk import Embedder
e = Embedder("all-MiniLM-L6-v2", dtype="float16")
pickle.loads(pickle.dumps(e))
print(e.schema(pa.schema([("text", pa.string())])).field("embedding").type, e.dim)
print(sorted({"onnxruntime", "tokenizers", "huggingface_hub"} & set(sys.modules)))
"""
    assert run_python("-c", code, check=True).stdout == "fixed_size_list<item: halffloat>[384] 384\n[]\n"


def test_a_custom_model_arrives_where_it_was_not_registered(tiny, late_name):
    embedder = Embedder(late_name, specific_model_path=str(tiny))
    code = "import pickle, sys; e = pickle.load(sys.stdin.buffer); print(e.embed(['cat']).type, e.kind)"
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(embedder), capture_output=True, check=False)
    assert done.stdout.decode().strip() == "list<item: fixed_size_list<item: float>[16]> late", done.stderr.decode()


# -- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists", ["fixed", "variable"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_types_of_dense_vectors(tiny, dtype, lists):
    embedder = Embedder("tiny", specific_model_path=tiny, dtype=dtype, lists=lists, **DENSE)
    texts = [None, *TEXTS]
    found = embedder.embed(texts)
    value = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}[dtype]
    assert found.type == embedder.type == pa.list_(value, 16 if lists == "fixed" else -1)
    assert found[0].as_py() is None
    vectors = np.stack(list(TextEmbedding("tiny", specific_model_path=tiny, **_own(DENSE)).embed(TEXTS, 1024)))
    values = np.array(found.to_pylist()[1:])
    if dtype == "int8":
        assert np.abs(values).max(axis=1).tolist() == [127] * len(TEXTS)
        lengths = np.linalg.norm(values, axis=1)
        assert ((values / lengths[:, None]) * vectors).sum(axis=1).min() > 0.999
    else:
        assert np.array_equal(values.astype(dtype), vectors.astype(dtype))


@pytest.mark.parametrize("lists", ["fixed", "variable"])
def test_types_of_token_vectors(tiny, late_name, lists):
    embedder = Embedder(late_name, specific_model_path=tiny, dtype="float16", lists=lists)
    found = embedder.embed(["hello world", None, "cat"])
    assert found.type == embedder.type == pa.list_(pa.list_(pa.float16(), 16 if lists == "fixed" else -1))
    expected = [
        np.float16(each)
        for each in LateInteractionTextEmbedding(late_name, specific_model_path=tiny).embed(["hello world", "cat"])
    ]
    first, nothing, last = found.to_pylist()
    assert nothing is None
    assert np.array_equal(np.array(first, np.float16), expected[0])
    assert np.array_equal(np.array(last, np.float16), expected[1])


def test_sparse_indices_keep_more_than_31_bits():
    found = Embedder(BM25).embed(["hello", ""])
    assert found.type == pa.struct([("indices", pa.list_(pa.int64())), ("values", pa.list_(pa.float32()))])
    assert found[1].as_py() == {"indices": [], "values": []}
    assert Embedder(BM25, dtype="float16").type.field("values").type == pa.list_(pa.float16())


def test_arguments_are_checked_at_the_call(tiny):
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        Embedder("acme/none")
    with pytest.raises(ValueError, match="say what the model in the folder is"):
        Embedder("own", specific_model_path=tiny)
    with pytest.raises(TypeError, match="max_len"):
        Embedder(BM25, max_len=3)
    with pytest.raises(TypeError, match=r"analyzer must be data.*function"):
        Embedder(BM25, analyzer=lambda text: text.split())
    with pytest.raises(TypeError, match="lazy_load"):
        Embedder(BM25, lazy_load=True)
    for name, value in [("dtype", "int8"), ("role", "document"), ("lists", "big"), ("on_error", "skip"), ("kind", "x")]:
        with pytest.raises(ValueError, match=f"{name} must be"):
            Embedder(BM25, **{name: value})
    with pytest.raises(ValueError, match="error_column is for"):
        Embedder(BM25, error_column="why")
    with pytest.raises(TypeError, match="keep must be a list"):
        Embedder(BM25, keep="id")
    with pytest.raises(ValueError, match="threads must be >= 1"):
        Embedder(BM25, threads=0)
    with pytest.raises(ValueError, match="no dim"):
        _ = Embedder(BM25).dim


# -- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"bytes", 3, 1.5, ["a"], {"a": 1}, True])
def test_a_poison_row_is_named(value):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"text": pd.Series(["a", "b", value, None, "c"], dtype=object)})
    with pytest.raises(BulkError) as raised:
        Embedder(BM25)(frame)
    kind = type(value).__name__
    assert str(raised.value) == f"column 'text', row 2 of this batch: must be a string, not {kind}"
    again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301
    assert (again.row, str(again), isinstance(again, ValueError)) == (2, str(raised.value), True)


def test_with_null_a_poison_row_is_null_with_a_reason_and_its_neighbours_are_untouched(caplog):
    embedder = Embedder(BM25, on_error="null", error_column="why")
    with caplog.at_level(logging.WARNING, "fastrank"):
        found = embedder({"text": ["hello", b"x", None, float("nan"), 7, "cat"]})
    assert len(caplog.records) == 1
    assert caplog.messages == ["column 'text': row 1 of this batch and 1 more: must be a string, not bytes"]
    assert found["why"] == [None, "must be a string, not bytes", None, None, "must be a string, not int", None]
    assert [value is None for value in found["sparse_embedding"]] == [False, True, True, True, True, False]
    expected = list(SparseTextEmbedding(BM25).embed(["hello", "cat"]))
    for row, other in zip((0, 5), expected, strict=True):
        assert np.array_equal(found["sparse_embedding"][row]["indices"], other.indices)


@pytest.mark.parametrize(
    "values",
    [pa.array([1, 2]), pa.array([b"a", b"b"]), pa.array([1.0, None]), pa.array([[1], [2]]), np.array([1, 2])],
)
@pytest.mark.parametrize("on_error", ["raise", "null"])
def test_a_column_that_holds_no_texts_is_refused_whatever_on_error_says(values, on_error):
    with pytest.raises(TypeError, match=r"column 'text' holds .*, not text"):
        Embedder(BM25, on_error=on_error)({"text": values})


def test_nan_from_the_model_is_poison(nan_folder):
    texts = ["hello world", "nan", *TEXTS, "a nan b", None, "cat"] * 3
    options = {"specific_model_path": nan_folder, **DENSE}
    with pytest.raises(BulkError, match=r"row 1 of this batch: the model returned NaN") as raised:
        Embedder("tiny", **options).embed(texts)
    assert raised.value.row == 1
    embedder = Embedder("tiny", on_error="null", error_column="why", **options)
    found = embedder(pa.table({"text": texts}))
    bad = [row for row, text in enumerate(texts) if text and "nan" in text]
    assert [row for row, why in enumerate(found.column("why").to_pylist()) if why] == bad
    good = [row for row, text in enumerate(texts) if text is not None and row not in bad]
    assert [row for row, vector in enumerate(found.column("embedding").to_pylist()) if vector] == good
    expected = np.stack(
        list(TextEmbedding("tiny", specific_model_path=nan_folder, **_own(DENSE)).embed([texts[row] for row in good]))
    )
    vectors = np.array([found.column("embedding")[row].as_py() for row in good])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_model_that_always_returns_nan_costs_no_square_of_the_rows(nan_folder):
    embedder = Embedder("tiny", on_error="null", specific_model_path=nan_folder, **DENSE)
    assert embedder.embed(["nan"] * 500).null_count == 500
    assert embedder.encoder.tokens <= 3 * 500 * 12  # by halving; one by one would be 3 * 500 * 250


def test_invalid_utf8_becomes_replacement_characters():
    buffers = [None, pa.py_buffer(np.array([0, 6, 9], np.int32)), pa.py_buffer(b"gr\xfcn a\xc3\xa9!")]
    column = pa.Array.from_buffers(pa.string(), 2, buffers)
    found = Embedder(BM25).embed(column)
    expected = list(SparseTextEmbedding(BM25).embed(["gr\ufffdn a", "é!"]))
    assert_same("sparse", found, expected)
    lone = Embedder(BM25).embed(["a\ud800b"])
    assert_same("sparse", lone, list(SparseTextEmbedding(BM25).embed(["a\ufffdb"])))


def test_rerank_is_null_if_either_is_null_and_needs_both_columns(tmp_path):
    cross = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
    embedder = Embedder("cross", kind="rerank", specific_model_path=cross, query_column="q")
    found = embedder(pa.table({"text": ["a", None, "c"], "q": [None, "x", "y"]})).column("score")
    assert [value is None for value in found.to_pylist()] == [True, True, False]
    with pytest.raises(ValueError, match="no column 'q'; its columns: text"):
        embedder(pa.table({"text": ["a"]}))
    with pytest.raises(TypeError, match="two columns"):
        embedder(pa.array(["a"]))
    with pytest.raises(TypeError, match="needs them"):
        embedder.embed(["a"])
    with pytest.raises(ValueError, match="1 queries for 2 texts"):
        embedder.embed(["a", "b"], ["q"])


def test_columns_that_are_missing_or_there_already():
    embedder = Embedder(BM25, "body", keep=["id"])
    with pytest.raises(ValueError, match="no column 'body'; its columns: id, text, query"):
        embedder(table())
    with pytest.raises(ValueError, match="keep: no column 'id'"):
        embedder(pa.table({"body": ["a"]}))
    twice = Embedder(BM25)
    with pytest.raises(ValueError, match="has a column 'sparse_embedding' already"):
        twice(twice(table()))
    assert Embedder(BM25, keep=["id"])(twice(table())).column_names == ["id", "sparse_embedding"]


@pytest.mark.parametrize("value", ["text", b"text", None, 3, ["a", "b"]])
def test_what_is_no_batch_is_refused(value):
    with pytest.raises(TypeError, match=r"called with a batch of rows.*embed\(texts\)"):
        Embedder(BM25)(value)


# -- forms ----------------------------------------------------------------------------------------------------------


def test_arrow_forms_come_back_as_they_came():
    embedder = Embedder(BM25)
    whole = table()
    assert isinstance(embedder(whole), pa.Table)
    batch = whole.to_batches()[0]
    result = embedder(batch)
    assert isinstance(result, pa.RecordBatch)
    assert result.schema == embedder.schema(batch.schema)
    assert isinstance(embedder(whole.column("text")), pa.ChunkedArray)
    assert isinstance(embedder(batch.column(1)), pa.Array)
    stream = embedder(iter([batch, batch]))
    assert [each.num_rows for each in stream] == [len(TEXTS)] * 2
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch, batch.slice(0, 2)])
    assert [each.num_rows for each in embedder(reader)] == [len(TEXTS), 2]
    chunked = pa.concat_tables([whole.slice(0, 2), whole.slice(2)])
    assert embedder(chunked).equals(embedder(whole))
    assert embedder(whole.slice(1, 3)).equals(embedder(whole).slice(1, 3))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), "string_view"])
def test_other_arrow_types_of_text(kind):
    kind = getattr(pa, kind)() if isinstance(kind, str) else kind
    column = pa.array([*TEXTS, None]).cast(kind) if kind != getattr(pa, "string_view", lambda: 0)() else None
    if column is None:
        column = pa.array([*TEXTS, None], kind)
    assert Embedder(BM25).embed(column).equals(Embedder(BM25).embed([*TEXTS, None]))


def test_a_streams_batches_of_token_vectors_stay_small(tiny, late_name):
    embedder = Embedder(late_name, specific_model_path=tiny)
    batch = pa.table({"text": ["cat"] * 2500}).to_batches()[0]
    assert [each.num_rows for each in embedder(iter([batch]))] == [1024, 1024, 452]


def test_dicts_of_lists_and_of_arrays(tiny):
    embedder = Embedder("tiny", specific_model_path=tiny, **DENSE)
    lists = embedder({"id": [1, 2], "text": ["cat", "dog"]})
    assert lists["id"] == [1, 2]
    assert [row.shape for row in lists["embedding"]] == [(16,), (16,)]
    assert all(row.dtype == np.float32 for row in lists["embedding"])
    arrays = embedder({"id": np.array([1, 2]), "text": np.array(["cat", "dog"], object)})
    assert arrays["embedding"].shape == (2, 16)
    assert np.array_equal(arrays["embedding"], np.stack(lists["embedding"]))
    with_null = embedder({"text": np.array(["cat", None], object)})["embedding"]
    assert with_null.dtype == object
    assert with_null[1] is None


def test_dicts_of_token_vectors_and_of_scores(tiny, late_name, tmp_path):
    found = Embedder(late_name, specific_model_path=tiny)({"text": ["cat", None, "the red cat"]})["token_embeddings"]
    assert [None if row is None else row.shape[1] for row in found] == [16, None, 16]
    cross = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
    scores = Embedder("cross", kind="rerank", specific_model_path=cross)
    found = scores({"text": np.array(["a", None], object), "query": np.array(["q", "q"], object)})["score"]
    assert found.dtype == np.float32
    assert np.isnan(found[1])


def test_pandas(tiny):
    pd = pytest.importorskip("pandas")
    embedder = Embedder("tiny", specific_model_path=tiny, **DENSE)
    frame = pd.DataFrame({"id": [3, 4, 5], "text": ["cat", None, "dog"]}, index=[7, 8, 9])
    found = embedder(frame)
    assert list(found.index) == [7, 8, 9]
    assert list(found.columns) == ["id", "text", "embedding"]
    array = pa.array(found["embedding"])
    assert array.type == embedder.type
    assert array.equals(embedder.embed(["cat", None, "dog"]))
    assert pa.array(embedder(frame["text"])).equals(array)
    assert frame.columns.tolist() == ["id", "text"]  # what came is as it was
    for missing in (pd.NA, pd.NaT, float("nan"), None):
        column = pd.Series(["a", missing], dtype=object)
        assert Embedder(BM25).embed(column).null_count == 1
    nothing = pd.DataFrame({"text": [float("nan")] * 2})
    assert Embedder(BM25)(nothing)["sparse_embedding"].isna().all()
    assert Embedder(BM25).embed(pd.Series(["a", "b", "a"], dtype="category")).null_count == 0


def test_polars(tiny):
    pl = pytest.importorskip("polars")
    embedder = Embedder("tiny", specific_model_path=tiny, **DENSE)
    frame = pl.DataFrame({"id": [3, 4, 5], "text": ["cat", None, "dog"]})
    found = embedder(frame)
    assert found.schema["embedding"] == pl.Array(pl.Float32, 16)
    assert found["embedding"].to_arrow().equals(embedder.embed(["cat", None, "dog"]))
    column = embedder(frame["text"])
    assert (column.name, column.null_count()) == ("text", 1)
    with pytest.raises(BulkError, match="row 1 of this batch: must be a string, not bytes"):
        Embedder(BM25)(pl.DataFrame({"text": pl.Series(["a", b"b"], dtype=pl.Object)}))


# -- roles, threads, fingerprints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["plain", "passage", "query"])
@pytest.mark.parametrize("prefixes", [True, False])
def test_roles_are_the_methods_of_the_class(tiny, role, prefixes):
    TextEmbedding.add_custom_model(
        "acme/tiny", PoolingType.MEAN, True, dim=16, query_prefix="query: ", passage_prefix="text: "
    )
    options = {"specific_model_path": tiny, "prefixes": prefixes}
    found = Embedder("acme/tiny", role=role, **options).embed(TEXTS)
    model = TextEmbedding("acme/tiny", **options)
    method = {"plain": model.embed, "passage": model.passage_embed, "query": model.query_embed}[role]
    assert_same("dense", found, list(method(TEXTS, 1024)))


@pytest.mark.parametrize("role", ["plain", "passage", "query"])
@pytest.mark.parametrize("prefixes", [True, False])
def test_prompts_that_pooling_leaves_out(tmp_path, role, prefixes):
    folder = shutil.copytree(FIXTURES / "folders" / "dense", tmp_path / "dense", copy_function=shutil.copyfile)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    options = {"specific_model_path": folder, "prefixes": prefixes}
    found = Embedder("acme/own", kind="dense", role=role, **options).embed(TEXTS)
    model = TextEmbedding("acme/own", **options)
    method = {"plain": model.embed, "passage": model.passage_embed, "query": model.query_embed}[role]
    assert_same("dense", found, list(method(TEXTS, 1024)))


def test_bm25_queries():
    found = Embedder(BM25, role="query").embed(TEXTS)
    assert_same("sparse", found, list(SparseTextEmbedding(BM25).query_embed(TEXTS)))


@pytest.mark.parametrize(
    ("said", "own", "granted", "available", "threads"),
    [
        (3, "2", "1", 8, 3),
        (None, "2", "1", 8, 2),
        (None, "", "1", 8, 1),
        (None, "", "4,2", 8, 4),
        (None, "", "64", 8, 8),
        (None, "", "", 8, 8),
        (None, "", "many", 8, 8),
        (None, "", "0", 8, 8),
    ],
)
def test_threads_are_as_said_then_as_granted(monkeypatch, tiny, said, own, granted, available, threads):
    from fastrank.engine import cpu

    monkeypatch.setattr(cpu, "available", lambda: available)
    monkeypatch.setenv("FASTRANK_THREADS", own)
    monkeypatch.setenv("OMP_NUM_THREADS", granted)
    embedder = Embedder("tiny", specific_model_path=tiny, threads=said, **DENSE).warm()
    assert embedder.model.info()["threads"] == threads


def test_fastrank_threads_that_is_no_number_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv("FASTRANK_THREADS", "two")
    with pytest.raises(ValueError, match="FASTRANK_THREADS='two' must be a whole number >= 1"):
        Embedder(BM25).warm()


def test_outside_bulk_the_grant_of_an_engine_does_not_count(monkeypatch, tiny):
    from fastrank.engine import cpu

    monkeypatch.setattr(cpu, "available", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert TextEmbedding("tiny", specific_model_path=tiny, **_own(DENSE)).info()["threads"] == 8


def test_a_fingerprint_is_of_what_changes_values(tiny, nan_folder, tmp_path):
    def of(**changes):
        return Embedder("tiny", **{"specific_model_path": tiny, **DENSE, **changes}).fingerprint()

    same = of()
    assert same == of(threads=1, on_error="null", error_column="e", column="body", batch_size=7, output="x", keep=[])
    import shutil

    assert same == of(specific_model_path=shutil.copytree(tiny, tmp_path / "elsewhere"))
    others = {
        of(specific_model_path=nan_folder),
        of(max_length=32),
        of(dtype="float16"),
        of(lists="variable"),
        of(role="query"),
        of(normalize=False),
    }
    assert len(others - {same}) == 6
    assert Embedder(BM25).fingerprint() != Embedder(BM25, language="german").fingerprint()


def test_a_closed_model_is_made_anew():
    embedder = Embedder(BM25)
    expected = embedder.embed(TEXTS)
    embedder.model.close()
    assert embedder.embed(TEXTS).equals(expected)


def test_without_pyarrow_the_error_says_what_to_install():
    code = "import sys; sys.modules['pyarrow'] = None; import fastrank.bulk; from fastrank.bulk import Embedder"
    done = run_python("-c", code)
    assert done.stderr.strip().splitlines()[-1] == (
        "ModuleNotFoundError: pyarrow is not installed. "
        "Run: pip install 'fastrank-onnx[bulk]' (in a checkout: pip install '.[bulk]')"
    )


def _own(options):
    return {name: value for name, value in options.items() if name != "kind"}
