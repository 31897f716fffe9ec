"""Jobs on Ray and Spark, as programs that a test kills: python jobs.py ENGINE WHAT INPUT OUTPUT MODEL.

WHAT is "plan" (units as tasks) or "embed" (a dataset with a column more). Each batch adds a line to a log: the process
that has done it, and its rows.
"""

import os
import sys
from pathlib import Path

from fastrank.bulk import Embedder, plan
from fastrank.bulk.embedder import Result

BM25 = "Qdrant/bm25"


class Logged(Embedder):
    """Says who did what. Batches are small, so that a job has many, and there is time to kill it."""

    def result(self, texts, queries, where) -> Result:
        import time

        found = super().result(texts, queries, where)
        time.sleep(float(os.environ["BULK_TEST_PAUSE"]))
        with Path(os.environ["BULK_TEST_LOG"]).open("a", encoding="utf-8") as log:
            log.write(f"{os.getpid()} {len(texts.values)}\n")
        return found


def embedder(model, **options):
    return Logged(model, keep=["id"], batch_size=25, **options)


def ray_session(cpus):
    import ray

    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    return ray


def spark_session(master):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).config("spark.ui.enabled", "false")
    return builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "25").getOrCreate()


def main(engine, what, source, output, model):
    if engine == "ray":
        from fastrank.integrations import ray as integration

        ray = ray_session(3)
        if what == "plan":
            integration.run(plan(source, output, embedder(model), 25))
        else:
            data = ray.data.read_parquet(source, override_num_blocks=8)
            integration.embed(data, embedder(model), workers=2).write_parquet(output)
        ray.shutdown()
    else:
        from fastrank.integrations import spark as integration

        spark = spark_session("local[2,4]")
        if what == "plan":
            integration.run(plan(source, output, embedder(model), 25), spark)
        else:
            data = spark.read.parquet(source).repartitionByRange(8, "id")
            integration.embed(data, embedder(model, lists="variable")).write.parquet(output)
        spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:6])
