"""MUVERA: one vector of fixed size for a text's token embeddings, so that any vector index finds candidates for MaxSim.

Dhulipala et al. 2024, MUVERA (arXiv:2405.19504). Random numbers are drawn as in FastEmbed 0.9, so that encodings of
both can share an index.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrank import inputs

_MOST_PLANES = 20  # a million clusters


class _MultiVectorModel(Protocol):
    @property
    def embedding_size(self) -> int: ...


class Muvera:
    """Fixed-dimensional encodings of token embeddings, whose inner products approximate MaxSim.

    Examples:
        >>> muvera = Muvera.from_multivector_model(model)
        >>> documents = [muvera.process_document(vectors) for vectors in model.embed(texts)]
        >>> query = muvera.process_query(next(model.query_embed(question)))
        >>> scores = np.stack(documents) @ query

    Random hyperplanes split the space into clusters (SimHash). The tokens of each cluster are summed (query) or
    averaged (document), and the result is projected to fewer dimensions. The encoding concatenates several such
    repetitions.

    Args:
        dim: the size of a token embedding.
        k_sim: number of hyperplanes, for 2 ** k_sim clusters.
        dim_proj: dimensions to which each cluster is projected; `dim`: no projection.
        r_reps: number of repetitions.
        random_seed: seed of hyperplanes and projections. Queries and documents must use the same.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, dim: int, k_sim: int = 5, dim_proj: int = 16, r_reps: int = 20, random_seed: int = 42) -> None:
        self.dim = inputs.positive(dim, "dim")
        self.k_sim = inputs.positive(k_sim, "k_sim")
        self.dim_proj = inputs.positive(dim_proj, "dim_proj")
        self.r_reps = inputs.positive(r_reps, "r_reps")
        if dim_proj > dim:
            raise ValueError(f"Cannot project to a higher dimensionality (dim_proj={dim_proj} > dim={dim})")
        if k_sim > _MOST_PLANES:
            raise ValueError(f"k_sim must be <= {_MOST_PLANES}, got {k_sim}")
        generator = np.random.default_rng(random_seed)
        self._planes = np.stack([generator.normal(size=(dim, k_sim)) for _ in range(r_reps)])
        self._projections = generator.choice([-1, 1], size=(r_reps, dim, dim_proj)) / np.sqrt(dim_proj)

    @classmethod
    def from_multivector_model(
        cls,
        model: _MultiVectorModel,
        k_sim: int = 5,
        dim_proj: int = 16,
        r_reps: int = 20,
        random_seed: int = 42,
    ) -> Muvera:
        """A `Muvera` for the embeddings of a late interaction model."""
        return cls(model.embedding_size, k_sim, dim_proj, r_reps, random_seed)

    @property
    def embedding_size(self) -> int:
        """The size of an encoding: r_reps * 2 ** k_sim * dim_proj."""
        return self.r_reps * (1 << self.k_sim) * self.dim_proj

    def process_document(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """Encode a document: clusters are averaged, and empty ones take the first token of the nearest cluster.

        Args:
            vectors: (tokens, dim).

        Returns:
            float32 (embedding_size,).

        Raises:
            ValueError: wrong shape, or no tokens.
        """
        return self.process(vectors, fill_empty_clusters=True, normalize_by_count=True)

    def process_query(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """Encode a query: clusters are summed, and empty ones stay 0. Otherwise as `process_document`."""
        return self.process(vectors, fill_empty_clusters=False, normalize_by_count=False)

    def process(
        self, vectors: ArrayLike, fill_empty_clusters: bool = True, normalize_by_count: bool = True
    ) -> NDArray[np.float32]:
        """Encode token embeddings; see `process_document` and `process_query`."""
        tokens = np.asarray(vectors, np.float64)
        if tokens.ndim != 2 or tokens.shape[1] != self.dim:
            raise ValueError(f"vectors must have the shape (tokens, {self.dim}), not {tokens.shape}")
        if len(tokens) == 0:
            raise ValueError("Cannot encode an empty multivector")
        parts = []
        for planes, projection in zip(self._planes, self._projections, strict=True):
            clusters = (tokens @ planes > 0) @ (1 << np.arange(self.k_sim))
            centres = self._centres(tokens, clusters, fill=fill_empty_clusters, average=normalize_by_count)
            parts.append(centres @ projection if self.dim_proj < self.dim else centres)
        return np.concatenate(parts, axis=None).astype(np.float32)

    def _centres(
        self, tokens: NDArray[np.float64], clusters: NDArray[np.int64], *, fill: bool, average: bool
    ) -> NDArray[np.float64]:
        """(tokens, dim) and cluster numbers (tokens,) -> (clusters, dim)."""
        order = np.argsort(clusters, kind="stable")
        occupied, starts, counts = np.unique(clusters[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(tokens[order], starts, axis=0)
        centres = np.zeros((1 << self.k_sim, self.dim))
        centres[occupied] = sums / counts[:, None] if average else sums
        if fill:
            empty = np.setdiff1d(np.arange(len(centres)), occupied)
            nearest = _bits_set(empty[:, None] ^ occupied, self.k_sim).argmin(axis=1)  # ties: the lowest
            centres[empty] = tokens[order[starts[nearest]]]
        return centres


def _bits_set(numbers: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """The number of bits set in each integer."""
    return sum(((numbers >> bit & 1) for bit in range(bits)), np.zeros_like(numbers))
