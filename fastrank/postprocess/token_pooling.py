"""Token pooling: fewer embeddings per document, by averaging similar ones.

Clavie, Chaffin and Adams 2024, Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via
Token Pooling (arXiv:2409.14683), as in PyLate 1.6: hierarchical clustering by Ward's method on cosine distances.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ALIKE = 1e-6  # a cosine's rounding, which differs by CPU


def pool_tokens(vectors: ArrayLike, pool_factor: float, protected_tokens: int = 1) -> NDArray[np.float32]:
    """The token vectors of a document, shrunk to one in `pool_factor`.

    Examples:
        >>> [pool_tokens(vectors, 2) for vectors in model.embed(texts)]

    Takes time and memory that grow with the square of the tokens: 8 bytes a pair of them. For documents, not queries.

    Args:
        vectors: (tokens, dim), L2-normalized.
        pool_factor: how many tokens become one, on average; 1: nothing is done;
            1.5 keeps two thirds.
        protected_tokens: how many of the first tokens are kept as they are ([CLS]).

    Returns:
        float32 (fewer tokens, dim): the protected ones, then means, in the order of the first token of each. Means are
        shorter than 1, as in PyLate.

    Raises:
        ValueError: the shape is another, a vector is not finite, or a number is out of range.
    """
    tokens = np.asarray(vectors, np.float32)
    if tokens.ndim != 2:
        raise ValueError(f"vectors must have the shape (tokens, dim), not {tokens.shape}")
    if not np.isfinite(tokens).all():
        raise ValueError("vectors must be finite; they contain NaN or infinity")
    if not 1 <= pool_factor < np.inf:
        raise ValueError(f"pool_factor must be >= 1, got {pool_factor}")
    if protected_tokens < 0:
        raise ValueError(f"protected_tokens must be >= 0, got {protected_tokens}")
    protected, rest = tokens[:protected_tokens], tokens[protected_tokens:]
    wanted = max(int(len(rest) // pool_factor), 1)
    if wanted >= len(rest):
        return tokens
    _, labels, counts = np.unique(_clusters(rest, wanted), return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), rest.shape[1]), np.float32)
    np.add.at(sums, labels.reshape(-1), rest)
    return np.concatenate([protected, sums / counts[:, None].astype(np.float32)])


def _clusters(tokens: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The cluster of each token, named by its first token; at most `count` clusters."""
    distances = 1 - (tokens @ tokens.T).astype(np.float64)
    distances[np.abs(distances) < _ALIKE] = 0
    merges = _ward(distances)
    merges.sort(key=lambda merge: merge[0])  # stable
    threshold = merges[len(tokens) - count - 1][0]
    first = np.arange(len(tokens))
    for distance, one, other in merges:
        if distance > threshold:
            break
        low, high = sorted((first[one], first[other]))
        first[first == high] = low
    return first


def _ward(distances: NDArray[np.float64]) -> list[tuple[float, int, int]]:
    """All merges of Ward's method: (distance, a member of one cluster, a member of the other). Overwrites `distances`.

    Nearest-neighbour chains. Murtagh 1983; Muellner 2011, arXiv:1109.2378, whose order of steps scipy follows too.
    """
    count = len(distances)
    np.fill_diagonal(distances, np.inf)
    sizes = np.ones(count)
    merges: list[tuple[float, int, int]] = []
    chain: list[int] = []
    while len(merges) < count - 1:
        if not chain:
            chain = [int(np.flatnonzero(sizes)[0])]
        while True:
            last = chain[-1]
            near = int(distances[last].argmin())
            if len(chain) > 1 and distances[last, chain[-2]] <= distances[last, near]:
                break
            chain.append(near)
        one, other = sorted((chain.pop(), chain.pop()))
        apart = distances[one, other]
        merges.append((float(apart), one, other))
        _merge(distances, sizes, one, other, apart)
    return merges


def _merge(distances: NDArray[np.float64], sizes: NDArray[np.float64], one: int, other: int, apart: float) -> None:
    """Merge cluster `one` into `other`: the formula of Lance and Williams 1967 for Ward's distances."""
    together = sizes[one] + sizes[other]
    left = np.flatnonzero(sizes)
    left = left[(left != one) & (left != other)]
    size = sizes[left]
    squares = (sizes[one] + size) * distances[one, left] ** 2 + (sizes[other] + size) * distances[other, left] ** 2
    row = np.sqrt(np.maximum(squares - size * apart**2, 0) / (together + size))
    distances[other, left] = distances[left, other] = row
    distances[one, :] = distances[:, one] = np.inf
    sizes[one], sizes[other] = 0, together
