"""Spark: an embedder over a DataFrame by `mapInArrow`, and a plan's units as Spark tasks (extra `spark`)."""

from __future__ import annotations

from typing import Any

from fastrank.bulk import Done, Embedder, Plan


def embed(frame: Any, embedder: Embedder) -> Any:
    """A DataFrame with the embedder's column. A Python worker loads the model once, for all its tasks.

    Rows keep their order within a partition.

    Args:
        frame: a Spark DataFrame.
        embedder: what to add; with `lists="variable"`, as Spark has no lists of a fixed size.

    Raises:
        ValueError: Spark does not have the type of the column.
        TypeError: the column holds no texts.
    """
    schema = embedder.spark_schema(frame.schema)
    for name in (embedder.column, *([embedder.query_column] if embedder.kind == "rerank" else [])):
        if name not in frame.columns:
            raise ValueError(f"the DataFrame has no column {name!r}; it has {', '.join(frame.columns)}")
        if (kind := frame.schema[name].dataType.simpleString()) not in ("string", "void"):
            raise TypeError(f"column {name!r} holds {kind}, not text. Name another column, or cast it to string")
    return frame.mapInArrow(embedder, schema)


def run(plan: Plan, spark: Any) -> list[Done]:
    """Do the pending units of a plan as tasks, one each; executors share the plan's folder.

    A task whose worker is killed is started again as often as `spark.task.maxFailures` says: 4 on a cluster, 1 with
    `local[2]`, 4 with `local[2,4]`.

    Args:
        plan: a plan, or a shard of one.
        spark: the SparkSession.
    """
    pending = plan.pending()
    if not pending:
        return []
    return list(spark.sparkContext.parallelize(pending, len(pending)).map(plan.run).collect())
