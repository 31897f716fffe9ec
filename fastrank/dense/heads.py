"""Dense vectors from a model's output: by what the caller and the registry say, and by what the model's folder says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank import log
from fastrank.engine import pooling
from fastrank.engine.batching import Batch
from fastrank.engine.pipeline import Head
from fastrank.errors import ModelLoadError
from fastrank.models.sentence_transformers import hidden_size, listed, outline, prefixes
from fastrank.models.spec import DenseTask, Prefixes

Vector: TypeAlias = NDArray[np.float32]


class Recipe(NamedTuple):
    """How a model makes a vector of token states.

    Attributes:
        dim: the length of a vector; None if only a run can tell.
        pool: (texts, length, hidden) -> (texts, dim); None: the graph must do that itself.
        own: whether the graph may do it itself and return (texts, dim).
        normalize: whether vectors are brought to length 1.
        prefixes: what to put before texts.
    """

    dim: int | None
    pool: pooling.Pooling | None
    own: bool
    normalize: bool
    prefixes: Prefixes


def recipe(name: str, told: DenseTask, folder: Path) -> Recipe:
    """What is told, completed by what the folder says.

    Raises:
        ModelLoadError: the folder's files are damaged, or do not say how token states become one vector.
    """
    own = told.pooling in (None, "none", "cls")
    if told.pooling is not None and told.dim is not None and told.prefixes is not None:  # as in most of the registry
        return Recipe(told.dim, pooling.POOLINGS.get(told.pooling), own, bool(told.normalize), told.prefixes)
    from fastrank.engine import modules

    chain = modules.chain(folder) if told.pooling is None and listed(folder) else None
    pool: pooling.Pooling | None
    if told.pooling == "none":
        pool, dim = None, told.dim
    elif told.pooling is not None:
        pool, dim = pooling.POOLINGS[told.pooling], told.dim or hidden_size(folder)
    elif chain is not None:
        pool, dim = chain.head, told.dim or chain.dim
    else:
        raise ModelLoadError(
            f"{name}: {folder} has no modules.json, which would say how token states become one vector. Say so: "
            "pooling=PoolingType.MEAN, CLS or LAST_TOKEN, or DISABLED if the graph does it itself; and normalize=True "
            "if vectors should have length 1."
        )
    return Recipe(
        dim,
        pool,
        own,
        bool(chain and chain.normalize) if told.normalize is None else told.normalize,
        prefixes(folder) if told.prefixes is None else told.prefixes,
    )


def head(name: str, found: Recipe, dim: int | None) -> Head[Vector]:
    """Rows of the pipeline's results; `dim` is how many numbers a row must have, None: any."""

    def run(output: pooling.Floats, batch: Batch) -> Sequence[Vector]:
        if found.own and output.ndim == 2:
            rows = output
        elif found.pool and output.ndim == 3:
            rows = found.pool(output, batch)
        else:
            raise ModelLoadError(f"{name}: the model's output has shape {output.shape}, which its pooling cannot take")
        if dim not in (None, rows.shape[1]):
            raise ModelLoadError(f"{name}: the model returns vectors of {rows.shape[1]} numbers, not of {dim}")
        return list(pooling.unit(rows) if found.normalize else rows)

    return run


def compare(name: str, told: DenseTask, folder: Path) -> None:
    """Say if a folder that was given for a name of the registry was made to be used in another way.

    The entry of the name is followed: whoever names a model gets that model's vectors.
    """
    try:
        stated = [step for step in outline(folder) if step not in ("Normalize", "Dropout")]
    except ModelLoadError:
        return  # nothing that is used
    if stated not in ([], [told.pooling]) and told.pooling not in (None, "none"):
        log.warning(
            "%s: %s was made for %s; pooling %s of the model %s is used. For the folder's own settings give it a name "
            "that is not in the registry.",
            name,
            folder,
            " and ".join(stated),
            told.pooling,
            name,
        )
