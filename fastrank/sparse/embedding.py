"""A sparse vector: ids and values of its non-zero entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(eq=False)
class SparseEmbedding:
    """A sparse vector, with FastEmbed's fields in FastEmbed's order.

    Attributes:
        values: (terms,). float64 for BM25 documents, int64 ones for BM25 queries, float32 for learned models.
        indices: int64 (terms,). Distinct ids, in no particular order.
    """

    values: NDArray[Any]
    indices: NDArray[np.int64]

    def as_object(self) -> dict[str, NDArray[Any]]:
        """`{"values": ..., "indices": ...}`, as qdrant-client's SparseVector takes it."""
        return {"values": self.values, "indices": self.indices}

    def as_dict(self) -> dict[int, float]:
        """Id -> value, as Python numbers."""
        return dict(zip(self.indices.tolist(), map(float, self.values.tolist()), strict=True))

    @classmethod
    def from_dict(cls, data: Mapping[int, float]) -> SparseEmbedding:
        """A vector from a mapping id -> value, in the mapping's order."""
        if not data:
            return cls(values=np.array([]), indices=np.array([], np.int64))
        return cls(values=np.array(list(data.values())), indices=np.array(list(data), np.int64))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseEmbedding):
            return NotImplemented
        return np.array_equal(self.indices, other.indices) and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]  # as arrays

    def __len__(self) -> int:
        return len(self.indices)


def greatest(vectors: Sequence[SparseEmbedding], _spans: Sequence[Any]) -> SparseEmbedding:
    """One vector of those of a text's chunks: of each id the greatest value, as SPLADE takes it over tokens."""
    if len(vectors) == 1:
        return vectors[0]
    indices, places = np.unique(np.concatenate([vector.indices for vector in vectors]), return_inverse=True)
    values = np.concatenate([vector.values for vector in vectors])
    most = np.full(len(indices), -np.inf, values.dtype)
    np.maximum.at(most, places.reshape(-1), values)
    return SparseEmbedding(values=most, indices=indices)
