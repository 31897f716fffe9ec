"""How a dense embedding model is used: what arguments, registry and folder say, resolved into one complete record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fastrank import log
from fastrank.engine.vectors import Shortening
from fastrank.errors import ModelLoadError
from fastrank.models.modules import Pooled
from fastrank.models.spec import DenseTask, Prefixes, TaskInput

_NONE: Mapping[str, int] = {}


class DenseSettings(NamedTuple):
    """Complete settings of a dense embedding model.

    Attributes:
        dim: the size of a vector; None if only a run can tell.
        pooled: from token states to a vector; None: the graph must do that itself.
        graph_may_pool: whether the graph may return (texts, dim) itself.
        normalize: whether vectors are L2-normalized.
        prefixes: put before queries, passages, and what `embed` is given.
        output: the output of an ONNX file to use; None: its first.
        task_input: the graph's input that says what a vector is for; None: it has none.
        check_dim: whether a vector of another size than `dim` is an error.
        truncate_dim: how many numbers of a vector are kept, after all else; None: all.
        shortening: how vectors are shortened where the caller asks for it.
        resized: whether `truncate_dim` is the caller's: then it is done by `shortening`, else as sentence-transformers
            does it, which normalizes nothing again.
        in_registry: whether the registry says everything, so that the folder's tokenizer is used as it is.
        home: where the files of the tokenizer and of the transformer are: the model's folder, or one in it.
        routed: whether queries and passages go ways of their own.
    """

    dim: int | None
    pooled: Pooled | None
    graph_may_pool: bool
    normalize: bool
    prefixes: Prefixes
    output: str | None
    task_input: TaskInput | None
    check_dim: bool
    truncate_dim: int | None
    in_registry: bool
    home: Path
    routed: bool
    shortening: Shortening = Shortening()
    resized: bool = False

    def extra_inputs(self, method: str, task_id: int | None = None) -> Mapping[str, int]:
        """The number of the task that a vector is for, where the graph asks for one."""
        return extra_inputs(self.task_input, method, task_id)


def resolve(
    name: str, task: DenseTask, folder: Path, route: str | None = None, truncate_dim: int | None = None
) -> DenseSettings:
    """What arguments and registry say, completed by the model's folder.

    Args:
        name: of the model, for messages.
        task: the registry's entry, with the caller's arguments in it; None in a field: as the folder says.
        folder: the model's.
        route: "query" or "document" for a way of their own that some folders have; None: that of `embed`.
        truncate_dim: how many numbers of a vector the caller wants; None: as the folder says.

    Raises:
        ModelLoadError: the folder's files are damaged, or do not say how token states become one vector.
        ValueError: the vectors are shorter than the caller wants them.
    """
    pooled, dim, normalize = _pooled(name, task, folder, route), task.dim, task.normalize
    if normalize is None:
        normalize = pooled is not None and pooled.normalize
    speaks = task.prefixes is None or task.pooling is None  # no entry of the registry leaves anything to the folder
    prefixes, resized, home, routed = task.prefixes, truncate_dim is not None, folder, False
    if speaks:
        from fastrank.models import encoder_config, router

        home, routed = router.home(folder, route), router.is_routed(folder)
        of_folder = encoder_config.encoder(folder, "SentenceTransformer")
        prefixes = of_folder.prefixes if prefixes is None else prefixes
        truncate_dim = truncate_dim or of_folder.truncate_dim
    whole = dim or (pooled.dim if pooled else None)
    if resized and truncate_dim and whole and truncate_dim > whole:
        raise ValueError(f"truncate_dim={truncate_dim} is more than the {whole} dimensions of this model's vectors")
    layer_norm = task.matryoshka is not None and task.matryoshka.layer_norm
    # A graph that pools by itself may also normalize by itself: its vectors tell.
    again = True if normalize or layer_norm else None if pooled is None else False
    return DenseSettings(
        dim=_shortened(whole, truncate_dim),
        pooled=pooled,
        graph_may_pool=task.pooling in (None, "none", "cls"),
        normalize=normalize,
        prefixes=prefixes or Prefixes(),
        output=task.output,
        task_input=task.task_input,
        check_dim=dim is not None,
        truncate_dim=truncate_dim,
        in_registry=not speaks,
        home=home,
        routed=routed,
        shortening=Shortening(again, layer_norm),
        resized=resized,
    )


def extra_inputs(task_input: TaskInput | None, method: str, task_id: int | None) -> Mapping[str, int]:
    """The number of the task for the graph's input, if it has one: that of `task_id`, else of the method called."""
    if task_input is None:
        return _NONE
    return {task_input.name: task_input.tasks[getattr(task_input, method)] if task_id is None else task_id}


def warn_if_different(name: str, task: DenseTask, folder: Path) -> None:
    """Say if a folder that was given for a name of the registry was made for another pooling.

    The registry's entry is followed: whoever names a model gets that model's vectors.
    """
    from fastrank.models import sentence_transformers

    try:
        modules = [step for step in sentence_transformers.outline(folder) if step not in ("Normalize", "Dropout")]
    except ModelLoadError:
        return  # of files that are not used
    if modules not in ([], [task.pooling]) and task.pooling not in (None, "none"):
        log.warning(
            "%s: %s was made for %s; pooling %s of the model %s is used. For the folder's own settings give it a name "
            "that is not in the registry.",
            name,
            folder,
            " and ".join(modules),
            task.pooling,
            name,
        )


def _shortened(dim: int | None, truncate_dim: int | None) -> int | None:
    return min(dim, truncate_dim) if dim and truncate_dim else dim


def _pooled(name: str, task: DenseTask, folder: Path, route: str | None) -> Pooled | None:
    if task.pooling == "none":
        return None
    if task.pooling is not None and not task.modules:
        return Pooled((task.pooling,), None, (), normalize=False, dim=task.dim or _hidden_size(folder))
    from fastrank.models import router, sentence_transformers  # models of the registry do not need them

    if listed := router.route(folder, route):
        return sentence_transformers.pooled(folder, listed)
    raise ModelLoadError(
        f"{name}: {folder} has no modules.json, which would say how token states become one vector. Say so: "
        "pooling=PoolingType.MEAN, CLS or LAST_TOKEN, or DISABLED if the graph does it itself; and normalize=True "
        "if vectors should be L2-normalized."
    )


def _hidden_size(folder: Path) -> int | None:
    from fastrank.models import sentence_transformers

    return sentence_transformers.hidden_size(folder)
