"""Pooling: token embeddings of a batch to one vector per text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.engine.batching import Batch

Floats: TypeAlias = NDArray[np.float32]
Pooling: TypeAlias = Callable[[Floats, Batch], Floats]


def mean(output: Floats, batch: Batch) -> Floats:
    """Mean over each text's tokens: (texts, tokens, dim) -> (texts, dim). Reimers & Gurevych, 2019."""
    mask = batch.mask[:, None, :].astype(np.float32)
    total: Floats = (mask @ output)[:, 0]
    means: Floats = total / np.maximum(mask.sum(axis=2), 1)
    return means


def cls(output: Floats, batch: Batch) -> Floats:
    """The embedding of the first token that counts: (texts, tokens, dim) -> (texts, dim)."""
    first: Floats = output[np.arange(len(output)), batch.mask.argmax(axis=1)]
    return first


def last_token(output: Floats, batch: Batch) -> Floats:
    """The embedding of the last token that counts, zeros if none does: (texts, tokens, dim) -> (texts, dim)."""
    last = batch.mask.shape[1] - 1 - batch.mask[:, ::-1].argmax(axis=1)
    texts = np.arange(len(output))
    rows: Floats = output[texts, last] * batch.mask[texts, last, None].astype(np.float32)
    return rows


def maximum(output: Floats, batch: Batch) -> Floats:
    """Element-wise maximum over each text's tokens: (texts, tokens, dim) -> (texts, dim)."""
    largest: Floats = np.where(batch.mask[:, :, None] > 0, output, np.float32(-np.inf)).max(axis=1)
    return largest


def mean_sqrt_length(output: Floats, batch: Batch) -> Floats:
    """Sum over each text's tokens, divided by the square root of their number: (texts, tokens, dim) -> (texts, dim)."""
    roots: Floats = np.sqrt(batch.mask.sum(axis=1, keepdims=True)).astype(np.float32)
    return mean(output, batch) * roots


def weighted_mean(output: Floats, batch: Batch) -> Floats:
    """Mean in which the n-th token has weight n: (texts, tokens, dim) -> (texts, dim). Muennighoff, SGPT, 2022."""
    weights = (batch.mask * np.arange(1, batch.mask.shape[1] + 1)).astype(np.float32)
    total: Floats = (weights[:, None, :] @ output)[:, 0]
    means: Floats = total / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    return means


def without_prompt(tokens: int, batch: Batch) -> Batch:
    """A batch whose first tokens do not count, as a Pooling with `include_prompt` false has it."""
    mask = batch.mask.copy()
    mask[:, :tokens] = 0
    return batch._replace(mask=mask)


def unit(rows: Floats) -> Floats:
    """L2-normalized rows: (texts, dim) -> (texts, dim). A zero row stays zero; an infinite one becomes NaN."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN is an error that names its text, later
        units: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return units


POOLINGS: dict[str, Pooling] = {
    "mean": mean,
    "cls": cls,
    "last-token": last_token,
    "max": maximum,
    "mean-sqrt-length": mean_sqrt_length,
    "weighted-mean": weighted_mean,
}
