"""A model behind `SparseTextEmbedding`: its pipeline, and queries of those that run no model for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from fastrank import store
from fastrank.engine.loading import LazyPipeline, prepare
from fastrank.engine.options import Options
from fastrank.engine.pipeline import Head, Pipeline
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models.sentence_transformers import splade_activation
from fastrank.models.spec import SPARSE_EMBEDDING, ModelSpec, SparseTask
from fastrank.sparse import splade
from fastrank.sparse.bm42 import bm42, bm42_query
from fastrank.sparse.embedding import SparseEmbedding
from fastrank.sparse.minicoil import MiniCOIL

Vectors: TypeAlias = Iterator[SparseEmbedding]

_BUILT = {"splade": "masked-lm", "bm42": "attention", "minicoil": "encoder"}  # what to build on a checkpoint


class ModelEncoder:
    """A model whose output a sparse head reads. Some have queries that run no model. `where` is for `prepare`."""

    def __init__(self, spec: ModelSpec, own: Mapping[str, float], options: Options, **where: Any) -> None:
        task = spec.task(SPARSE_EMBEDDING, SparseTask)
        self._task = task._replace(alpha=own["alpha"]) if "alpha" in own else task
        self._minicoil_options = own if task.kind == "minicoil" else {}
        self._pipeline: LazyPipeline[SparseEmbedding] = prepare(
            spec, self._make_head, options, output=task.output, graph_head=_BUILT[task.kind], **where
        )
        # For models whose queries are made in another way than documents; known when the model is loaded.
        self._query: splade.Query | None = None
        self._query_head: Head[SparseEmbedding] | None = None

    def documents(self, texts: Iterator[str], batch_size: int, workers: int | None) -> Vectors:
        """One vector for each document: int64 ids, float32 values."""
        return self._pipeline.get().run(texts, batch_size, workers)

    def queries(self, texts: Iterator[str], batch_size: int, workers: int | None) -> Vectors:
        """One vector for each query."""
        pipeline = self._pipeline.get()
        if self._query is not None:
            return self._looked_up(pipeline, self._query, texts)
        if self._query_head is not None:
            pipeline = replace(pipeline, head=self._query_head)
        return pipeline.run(texts, batch_size, workers)

    def token_count(self, texts: Iterator[str], batch_size: int) -> int:
        """Tokens of all texts after truncation, special ones included."""
        return self._pipeline.get().token_count(texts, batch_size)

    def load(self) -> None:
        """Load the model."""
        self._pipeline.get()

    def info(self) -> dict[str, Any]:
        """How the model runs."""
        return self._pipeline.info()

    def close(self) -> None:
        """Free the model's memory."""
        self._pipeline.close()

    def _make_head(self, files: store.ModelFiles, tokenizer: Tokenizer) -> Head[SparseEmbedding]:
        if self._task.kind == "minicoil":
            minicoil = MiniCOIL(files.folder, tokenizer, **self._minicoil_options)
            self._query_head = minicoil.queries
            return minicoil.documents
        if self._task.kind == "bm42":
            self._query = bm42_query(self._task, tokenizer)
            return bm42(self._task, tokenizer)
        if self._task.query_weights:
            self._query = splade.idf_query(files.folder, self._task.query_weights, tokenizer)
        activation = self._task.activation or splade_activation(files.folder) or "log1p"
        return splade.splade(self._task._replace(activation=activation), tokenizer)

    @staticmethod
    def _looked_up(pipeline: Pipeline[SparseEmbedding], query: splade.Query, texts: Iterator[str]) -> Vectors:
        for text in texts:
            yield query(pipeline.tokenizer.encode([text])[0])
