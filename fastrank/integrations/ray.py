"""Ray: an embedder over a Ray dataset, and a plan's units as Ray tasks (extra `ray`)."""

from __future__ import annotations

from typing import Any

from fastrank.bulk import Done, Embedder, Plan
from fastrank.integrations._host import required

with required("ray"):
    import ray
    import ray.data


def embed(dataset: Any, embedder: Embedder, workers: int | None = None, num_cpus: float = 1) -> Any:
    """A dataset with the embedder's column, computed by actors that load the model once each.

    Batches are Arrow's: with Ray's own default, numpy, null would become NaN. An actor that is killed is started again
    and its batches are done again. For the order of the rows set `ray.data.DataContext.get_current()
    .execution_options.preserve_order = True`.

    Args:
        dataset: a `ray.data.Dataset`.
        embedder: what to add.
        workers: actors. None: as many as the cluster has room for, with a CPU left over.
        num_cpus: CPUs of each, and so the threads of its model.

    Raises:
        ValueError: the actors would take every CPU of the cluster. Reading files needs one too, and Ray Data would wait
            for it for ever, without a word.
    """
    if not ray.is_initialized():
        ray.init()
    cpus = ray.cluster_resources().get("CPU", 0)
    if workers is None:
        workers = max(1, int((cpus - 1) // num_cpus))
    if workers * num_cpus > cpus - 1:
        raise ValueError(
            f"{workers} workers with {num_cpus:g} CPUs each would leave less than 1 of the cluster's {cpus:g} CPUs for "
            "reading files, which Ray Data would wait for without a word. Take fewer workers, or num_cpus=0.5"
        )
    return dataset.map_batches(
        _Worker,
        fn_constructor_args=(embedder,),
        batch_format="pyarrow",
        batch_size=embedder.batch_size,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=num_cpus,
    )


def run(plan: Plan, num_cpus: float = 1) -> list[Done]:
    """Do the pending units of a plan as Ray tasks, wherever there is room; nodes share the plan's folder.

    A task whose worker is killed is started again. The process of a worker loads the model once.

    Args:
        plan: a plan, or a shard of one.
        num_cpus: CPUs of each task, and so the threads of its model.

    Raises:
        BulkError: a row cannot be embedded; the message names file, row and column.
    """

    def unit_of_plan(unit: Any) -> Done:
        return plan.run(unit)

    task = ray.remote(num_cpus=num_cpus, max_retries=-1)(unit_of_plan)
    try:
        return list(ray.get([task.remote(unit) for unit in plan.pending()]))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise


class _Worker:
    """An actor: the model is loaded when it starts."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder.warm()

    def __call__(self, batch: Any) -> Any:
        return self._embedder(batch)
