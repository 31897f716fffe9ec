"""txtai: dense vectors for its `Embeddings`, and a similarity function for its `Reranker`.

>>> from txtai import Embeddings
>>> from fastrank.integrations.txtai import METHOD
>>> embeddings = Embeddings({"method": METHOD, "path": "BAAI/bge-small-en-v1.5", "content": True})

A model is loaded once per process, at its first use; queries and documents get its own prompts. An index that txtai
saves keeps the names, and loads this module again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import device_options, reranker, shared

with required("txtai"):
    from txtai.vectors import Vectors

__all__ = ["METHOD", "FastrankSimilarity", "FastrankVectors"]

METHOD = "fastrank.integrations.txtai.FastrankVectors"  # what `method` of txtai's configuration names


class FastrankVectors(Vectors):
    """Dense vectors, which txtai makes of these fields of its configuration.

    path: a model of `fastrank.TextEmbedding`;
    vectors: further arguments of that class, such as `{"threads": 2}`;
    encodebatch: the largest batch.
    """

    def loadmodel(self, path: str) -> TextEmbedding:
        """The model."""
        return shared(TextEmbedding, path, **(self.config.get("vectors") or {}))

    def encode(self, data: Sequence[str], category: str | None = None) -> Any:
        """Vectors of texts, float32 (texts, dim): of queries, of documents ("data"), or of texts that are neither."""
        known = {"query": self.model.query_embed, "data": self.model.passage_embed}
        embed: Any = known.get(category or "", self.model.embed)
        vectors = list(embed(data, batch_size=self.encodebatch))
        return np.stack(vectors) if vectors else np.zeros((0, self.model.embedding_size), np.float32)


class FastrankSimilarity:
    """Scores of texts for a query, as txtai's `Similarity`: for `Reranker(embeddings, FastrankSimilarity(...))`.

    Args:
        path: a model of `fastrank.TextCrossEncoder` or `fastrank.LateInteractionTextEmbedding`.
        late_interaction: whether it is of the second class; None: as the registry says.
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the largest batch.
        **options: further arguments of the class.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as the class.
    """

    def __init__(
        self,
        path: str,
        device: str | None = None,
        batch_size: int = 64,
        *,
        late_interaction: bool | None = None,
        **options: Any,
    ) -> None:
        self.model = reranker(path, late_interaction=late_interaction, **{**device_options(device), **options})
        self.batch_size = batch_size

    def __call__(self, query: str | list[str], texts: Sequence[str], **_: Any) -> Any:
        """(position, score) of each text, best first; for a list of queries a list of such lists."""
        if isinstance(query, list):
            return [self(each, texts) for each in query]
        ranked = self.model.rank(query, list(texts), batch_size=self.batch_size) if texts else []
        return [(each.index, each.score) for each in ranked]
