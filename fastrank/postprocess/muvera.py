"""One vector of fixed length for a text's token vectors, so that any index finds candidates for MaxSim.

Dhulipala et al. 2024, MUVERA (arXiv:2405.19504). Random numbers are drawn as in FastEmbed 0.9, so that encodings of
both may stand in one index.
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
    """Fixed-dimensional encodings of token vectors, whose inner products come near to MaxSim.

    >>> muvera = Muvera.from_multivector_model(model)
    >>> documents = [muvera.process_document(vectors) for vectors in model.embed(texts)]
    >>> query = muvera.process_query(next(model.query_embed(question)))
    >>> scores = np.stack(documents) @ query

    Random planes part the space into clusters; of each the tokens are summed (a query's) or averaged (a document's),
    and what comes out is projected to fewer numbers. All that several times, one behind the other.

    Args:
        dim: the length of a token's vector.
        k_sim: planes, which make 2 ** k_sim clusters.
        dim_proj: numbers to which a cluster is projected; at most `dim`, which leaves it as it is.
        r_reps: how many times.
        random_seed: of the planes and projections. Queries and documents must have the same.

    Raises:
        ValueError: a number is out of range.
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
        """One that fits a model of late interaction."""
        return cls(model.embedding_size, k_sim, dim_proj, r_reps, random_seed)

    @property
    def embedding_size(self) -> int:
        """The length of an encoding: r_reps * 2 ** k_sim * dim_proj."""
        return self.r_reps * (1 << self.k_sim) * self.dim_proj

    def process_document(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """The encoding of a document: averages, and empty clusters get the first token of the nearest.

        Args:
            vectors: (tokens, dim).

        Returns:
            float32 (embedding_size,).

        Raises:
            ValueError: the shape is another, or there are no tokens.
        """
        return self.process(vectors, fill_empty_clusters=True, normalize_by_count=True)

    def process_query(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """The encoding of a query: sums, and empty clusters stay 0. Else as `process_document`."""
        return self.process(vectors, fill_empty_clusters=False, normalize_by_count=False)

    def process(
        self, vectors: ArrayLike, fill_empty_clusters: bool = True, normalize_by_count: bool = True
    ) -> NDArray[np.float32]:
        """The encoding of token vectors; see `process_document` and `process_query`."""
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
        """One row a cluster, from one row a token and the number of its cluster."""
        order = np.argsort(clusters, kind="stable")
        occupied, starts, counts = np.unique(clusters[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(tokens[order], starts, axis=0)
        centres = np.zeros((1 << self.k_sim, self.dim))
        centres[occupied] = sums / counts[:, None] if average else sums
        if fill:
            empty = np.setdiff1d(np.arange(len(centres)), occupied)
            nearest = _differing_bits(empty[:, None] ^ occupied, self.k_sim).argmin(
                axis=1
            )  # the lowest, if several are
            centres[empty] = tokens[order[starts[nearest]]]
        return centres


def _differing_bits(numbers: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """How many bits of each number are set."""
    return sum(((numbers >> bit & 1) for bit in range(bits)), np.zeros_like(numbers))
