"""What each engine makes of an embedder, as a program: python accept.py ENGINE FOLDER. Asserts; prints "accepted"."""

import sys
import traceback
from pathlib import Path

import jobs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastrank import LateInteractionTextEmbedding, SparseTextEmbedding, TextEmbedding
from fastrank.bulk import BulkError, Embedder

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = [None if n % 7 == 3 else ("" if n % 11 == 0 else f"film number {n} " * (1 + n % 4)) for n in range(120)]
GIVEN = [text for text in TEXTS if text is not None]


class Counted(Embedder):
    """Says in which process, with how many threads, and from which loaded model a batch's results come."""

    def result(self, texts, queries, where):
        import os
        import time

        found = super().result(texts, queries, where)
        time.sleep(0.05)  # so that all workers get some
        threads = self.model.info().get("threads", 0)
        with Path(os.environ["BULK_TEST_LOG"]).open("a", encoding="utf-8") as log:
            log.write(f"{os.getpid()} {threads} {id(self.encoder.model)}\n")
        return found


def expected(kind):
    if kind == "sparse":
        return list(SparseTextEmbedding(jobs.BM25).embed(GIVEN))
    model = LateInteractionTextEmbedding if kind == "late" else TextEmbedding
    return list(model(MODEL).embed(GIVEN))


def check(table, embedder, output="embedding", *, ordered=True):
    """The rows are those that went in, each with what `embed` gives."""
    rows = table.to_pylist()
    ids = [row["id"] for row in rows]
    assert sorted(ids) == list(range(len(TEXTS))), "a row is missing, or there twice"
    assert not ordered or ids == sorted(ids), "the order of the rows"
    rows.sort(key=lambda row: row["id"])
    assert [row[output] is None for row in rows] == [text is None for text in TEXTS]
    found = [row[output] for row in rows if row[output] is not None]
    for row, other in zip(found, expected(embedder.kind), strict=True):
        if embedder.kind == "sparse":
            assert row["indices"] == other.indices.tolist()
            assert row["values"] == other.values.astype(np.float32).tolist()
        elif embedder.dtype == "int8":
            cosine = np.dot(row, other) / np.linalg.norm(row) / np.linalg.norm(other)
            assert cosine > 0.999
        else:  # batches differ, so rounding does
            np.testing.assert_allclose(
                np.array(row, np.float32), other, atol=1e-3 if embedder.dtype == "float16" else 2e-6
            )


def log():
    import os

    path = Path(os.environ["BULK_TEST_LOG"])
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("", encoding="utf-8")
    return lines


def whole(error):
    """An error with its causes, as text."""
    return "".join(traceback.format_exception(error))


def kinds(lists):
    yield Embedder(MODEL, lists=lists, batch_size=40)
    yield Embedder(MODEL, lists=lists, dtype="int8", output="embedding", batch_size=40)
    yield Embedder(MODEL, lists=lists, kind="late", output="embedding", batch_size=40)
    yield Embedder(jobs.BM25, output="embedding", batch_size=40)
    if lists == "fixed":
        yield Embedder(MODEL, dtype="float16", batch_size=40)


def accept_ray(folder):
    from fastrank.integrations import ray as integration

    ray = jobs.ray_session(3)
    for embedder in kinds("fixed"):
        data = ray.data.read_parquet(str(folder / "in.parquet"), override_num_blocks=4)
        result = integration.embed(data, embedder, workers=2)
        table = pa.concat_tables(ray.get(result.to_arrow_refs()))
        assert table.schema.field("embedding").type == embedder.type
        check(table, embedder)
        if embedder.dtype == "float32" and embedder.kind == "dense":
            written = integration.embed(data, Embedder(MODEL, lists="variable"), workers=2)  # see docs/bulk.md, "Nulls"
            written.write_parquet(str(folder / "ray"))
            check(pq.read_table(folder / "ray"), embedder, ordered=False)
    data = ray.data.read_parquet(str(folder / "in.parquet"), override_num_blocks=8)
    table = pa.concat_tables(ray.get(integration.embed(data, Counted(MODEL, batch_size=10), workers=2).to_arrow_refs()))
    check(table, Embedder(MODEL))
    lines = log()
    assert {threads for _, threads, _ in lines} == {"1"}, "threads of an actor with one CPU"
    assert len({process for process, _, _ in lines}) == len({(line[0], line[2]) for line in lines}) <= 2, "loads"
    table = pa.concat_tables(  # the class itself, as in Ray's documentation
        ray.get(
            ray.data.read_parquet(str(folder / "in.parquet"))
            .map_batches(
                Embedder,
                fn_constructor_args=(MODEL,),
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=1),
                num_cpus=1,
            )
            .to_arrow_refs()
        )
    )
    check(table, Embedder(MODEL))
    poison = ray.data.from_items([{"id": 0, "text": "cat"}, {"id": 1, "text": b"cat"}])
    with pytest.raises(Exception) as raised:
        integration.embed(poison, Embedder(jobs.BM25), workers=1).materialize()
    assert "holds binary, not text" in whole(raised.value)
    with pytest.raises(ValueError) as raised:
        integration.embed(data, Embedder(jobs.BM25), workers=3)
    assert "which Ray Data would wait for without a word" in str(raised.value)
    ray.shutdown()


def accept_spark(folder):
    from fastrank.integrations import spark as integration

    spark = jobs.spark_session("local[2]")
    data = spark.read.parquet(str(folder / "in.parquet")).repartitionByRange(4, "id")
    for number, embedder in enumerate(kinds("variable")):
        integration.embed(data, embedder).write.parquet(str(folder / f"spark{number}"))
        check(pq.read_table(folder / f"spark{number}"), embedder, ordered=False)
    rows = integration.embed(data.coalesce(1), Embedder(jobs.BM25)).select("id").collect()
    assert [row.id for row in rows] == [row.id for row in data.coalesce(1).select("id").collect()], (
        "order in a partition"
    )
    log()
    integration.embed(data.repartition(8), Counted(MODEL, lists="variable")).count()
    integration.embed(data.repartition(8), Counted(MODEL, lists="variable")).write.parquet(str(folder / "counted"))
    lines = log()
    assert {threads for _, threads, _ in lines} == {"1"}, "threads of a task with one CPU"
    assert len({(line[0], line[2]) for line in lines}) == len({line[0] for line in lines}) <= 2, "loads"
    for wrong, error in (
        (Embedder(MODEL), "lists='variable'"),
        (Embedder(MODEL, lists="variable", dtype="float16"), "float16"),
    ):
        with pytest.raises(ValueError) as raised:
            integration.embed(data, wrong)
        assert error in str(raised.value)
    with pytest.raises(TypeError) as raised:
        integration.embed(data.selectExpr("id", "cast(text as binary) as text"), Embedder(jobs.BM25))
    assert "holds binary, not text" in str(raised.value)
    spark.stop()


def accept_daft(folder):
    import daft
    from daft.functions import embed_text

    from fastrank.integrations import daft as integration

    integration.install()
    data = daft.read_parquet(str(folder / "in.parquet"))
    column = data["text"]
    dense = Embedder(MODEL)
    check(data.with_column("embedding", embed_text(column, provider="fastrank", model=MODEL)).to_arrow(), dense)
    for embedder in kinds("fixed"):
        result = data.with_column("embedding", integration.expression(embedder, column)).to_arrow()
        check(result, embedder)
    check(
        data.with_column("embedding", integration.expression(Embedder(MODEL, lists="variable"), column)).to_arrow(),
        dense,
    )
    written = integration.expression(Embedder(MODEL, lists="variable"), column)  # see docs/bulk.md, "Nulls"
    data.with_column("embedding", written).write_parquet(str(folder / "daft"))
    check(pq.read_table(folder / "daft"), dense, ordered=False)
    with pytest.raises(ValueError) as raised:
        embed_text(column, provider="fastrank", model=MODEL, dimensions=7)
    assert "which is fixed" in str(raised.value)
    poison = daft.from_pydict({"id": [0, 1, 2], "text": ["cat", b"dog", "red"]})
    with pytest.raises(Exception) as raised:
        poison.with_column("embedding", integration.expression(Embedder(jobs.BM25), poison["text"])).to_arrow()
    assert "not text" in whole(raised.value) or "must be a string" in whole(raised.value)
    assert BulkError.__mro__[2] is ValueError


if __name__ == "__main__":
    engine, folder = sys.argv[1], Path(sys.argv[2])
    pq.write_table(pa.table({"id": range(len(TEXTS)), "text": TEXTS}), folder / "in.parquet", row_group_size=30)
    {"ray": accept_ray, "spark": accept_spark, "daft": accept_daft}[engine](folder)
    print("accepted")
