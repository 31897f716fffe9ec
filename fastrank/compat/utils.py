"""The functions of `fastembed.common.utils`, with FastEmbed's results."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastrank import environment, inputs

T = TypeVar("T")
Array = NDArray[Any]


def normalize(input_array: Array, p: int = 2, dim: int = 1, eps: float = 1e-12) -> Array:
    """Divide by the `p`-norm along axis `dim`."""
    if input_array.dtype == np.float16:  # whose sums of squares overflow
        return normalize(input_array.astype(np.float32), p, dim, eps).astype(np.float16)
    norms = np.linalg.norm(input_array, ord=p, axis=dim, keepdims=True)
    normalized: Array = input_array / np.maximum(norms, eps)
    return normalized


def mean_pooling(input_array: Array, attention_mask: NDArray[np.int64]) -> Array:
    """Average token states (texts, tokens, dim) where the mask (texts, tokens) is 1: (texts, dim), float64."""
    kept = attention_mask[:, :, np.newaxis].astype(bool)
    sums = np.sum(input_array, axis=1, where=kept, dtype=np.float64)
    means: Array = sums / np.maximum(attention_mask.sum(axis=1, keepdims=True), 1e-9)
    return means


def last_token_pooling(input_array: Array, attention_mask: NDArray[np.int64]) -> Array:
    """The state of the last token whose mask is 1, whichever side is padded: (texts, dim)."""
    last = attention_mask.shape[1] - 1 - np.argmax(attention_mask[:, ::-1], axis=1)
    states: Array = input_array[np.arange(len(input_array)), last]
    return states


def iter_batch(iterable: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter.

    Raises:
        ValueError: at the call, if `size` is below 1.
    """
    size = inputs.positive(size, "batch_size")
    items = iter(iterable)
    return iter(lambda: list(islice(items, size)), [])


def define_cache_dir(cache_dir: str | None = None) -> Path:
    """The folder for models, which is created: `cache_dir`, FASTEMBED_CACHE_PATH, or fastrank's own."""
    path = Path(cache_dir or environment.fastembed_cache() or environment.cache_root())
    path.mkdir(parents=True, exist_ok=True)
    return path


def get_all_punctuation() -> set[str]:
    """Every character of a Unicode category P*."""
    return set(_punctuation())


def remove_non_alphanumeric(text: str) -> str:
    r"""Replace every character that is neither `\w` nor `\s` by a space."""
    return re.sub(r"[^\w\s]", " ", text)


class SimpleTokenizer:
    """FastEmbed's words for BM25."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        """The words of a text in lower case."""
        return re.sub(r"[^\w]", " ", text.lower()).split()


@cache
def _punctuation() -> frozenset[str]:
    return frozenset(chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i)).startswith("P"))
