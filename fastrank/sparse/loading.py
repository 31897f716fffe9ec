"""Loading a learned sparse model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fastrank import store
from fastrank.engine import loading
from fastrank.engine.batching import Tokens
from fastrank.engine.loading import Request
from fastrank.engine.overflow import Cuts
from fastrank.engine.pipeline import LookupPipeline, Pipeline
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models import tokenization
from fastrank.models.spec import SPARSE_EMBEDDING, SparseTask
from fastrank.sparse.embedding import SparseEmbedding
from fastrank.sparse.model import SparseModel, SparsePipeline
from fastrank.sparse.settings import SparseSettings, resolve


def load(request: Request, options: Mapping[str, float]) -> SparseModel:
    """A learned sparse model in memory.

    Args:
        request: which model, from where, and how to run it.
        options: the caller's arguments for this kind of model.
    """
    files = loading.find(request)
    with loading.advice(request, files):
        return _assembled(request, options, files)


def _assembled(request: Request, options: Mapping[str, float], files: store.ModelFiles) -> SparseModel:
    task = request.spec.task(SPARSE_EMBEDDING, SparseTask)
    of_embed = _Way(request, files, resolve(task, options, files.folder))
    of_query, of_passage = of_embed, of_embed
    if of_embed.settings.routed:
        of_query, of_passage = (
            of_embed.other(resolve(task, options, files.folder, route)) for route in ("query", "document")
        )
    prefixes = of_embed.settings.prefixes
    return SparseModel(
        of_embed.documents(prefixes.embed, None),
        of_query.queries(prefixes.query),
        of_embed.settings,
        of_embed.info(),
        of_passage.documents(prefixes.passage, of_passage.limits.document_length),
    )


class _Way:
    """What texts go through. Most models have one way for all texts.

    Attributes:
        settings: the way's.
        limits: of its tokenizer.
    """

    def __init__(self, request: Request, files: store.ModelFiles, settings: SparseSettings) -> None:
        self.settings, self._request, self._files = settings, request, files
        self.limits = tokenization.read(
            files.folder, settings.home, registered=settings.in_registry, table=settings.table
        )
        self._tokenizer, self._cuts = self._limited(None), Cuts(request.spec.name)
        self._opened: loading.Opened | None = None
        self._documents: SparsePipeline
        self._queries: SparsePipeline
        if settings.table:
            self._documents = self._queries = LookupPipeline(self._tokenizer, _table(settings, self._tokenizer))
            return
        here = store.within(files, settings.home)
        self._opened = loading.open_session(
            request, here, settings.graph_head, settings.output, shared=settings.head is not None
        )
        self._documents, self._queries = self._pipelines(self._opened)

    def other(self, settings: SparseSettings) -> _Way:
        """A way of other settings, or this one where they are the same."""
        return self if settings == self.settings else _Way(self._request, self._files, settings)

    def documents(self, prefix: str, limit: int | None) -> SparsePipeline:
        """For documents; `limit` is the folder's, in tokens."""
        return self._variant(self._documents, prefix, limit)

    def queries(self, prefix: str) -> SparsePipeline:
        """For queries, some of which run no model."""
        return self._variant(self._queries, prefix, self.limits.query_length)

    def info(self) -> Mapping[str, Any]:
        """How the way runs."""
        if self._opened is None:
            return {"folder": str(self._files.folder), "file": "none: a table of weights", "source": self._files.origin}
        return loading.info(self._files, self._opened, self._tokenizer.max_length)

    def _limited(self, limit: int | None) -> Tokenizer:
        request = self._request
        return Tokenizer(
            self.limits,
            request.max_length or limit or request.spec.max_length,
            capped=request.max_length is None,
            special_tokens_in_text=request.special_tokens_in_text,
        )

    def _variant(self, pipeline: SparsePipeline, prefix: str, limit: int | None) -> SparsePipeline:
        if isinstance(pipeline, LookupPipeline):
            pipeline = pipeline._replace(cuts=self._cuts)
            return pipeline._replace(prefix=prefix) if self.settings.table else pipeline
        if not isinstance(pipeline, Pipeline):
            return pipeline
        return replace(pipeline, tokenizer=self._limited(limit) if limit else self._tokenizer, prefix=prefix)

    def _pipelines(self, opened: loading.Opened) -> tuple[SparsePipeline, SparsePipeline]:
        """For documents and for queries."""
        settings, tokenizer, folder, plan = self.settings, self._tokenizer, self._files.folder, opened.plan

        def pipeline(head: Any) -> Pipeline[SparseEmbedding]:
            return Pipeline(
                tokenizer,
                opened.session,
                head,
                opened.output,
                plan.uniform_length,
                plan.max_batch,
                cuts=self._cuts,
            )

        if settings.kind == "minicoil":
            from fastrank.sparse.minicoil import MiniCOIL

            minicoil = MiniCOIL(folder, tokenizer, **settings.bm25)
            documents = pipeline(minicoil.documents)
            return documents, replace(documents, head=minicoil.queries)
        if settings.kind == "bm42":
            from fastrank.sparse import bm42

            lookup = LookupPipeline(tokenizer, bm42.query(settings, tokenizer))
            return pipeline(bm42.documents(settings, tokenizer)), lookup
        if settings.head is not None:
            from fastrank.engine.linear import linear
            from fastrank.sparse import token_weights

            ids = [tokenizer.token_to_id(token) for token in settings.without_weight]
            weighed = token_weights.documents(linear(settings.head), [each for each in ids if each is not None])
            return pipeline(weighed), pipeline(weighed)
        from fastrank.sparse import splade

        documents = pipeline(splade.documents(settings, tokenizer))
        if settings.query_weights is None:
            return documents, documents
        return documents, LookupPipeline(tokenizer, splade.query(folder, settings.query_weights, tokenizer))


def _table(settings: SparseSettings, tokenizer: Tokenizer) -> Callable[[Tokens], SparseEmbedding]:
    from fastrank.sparse import splade  # few models need it

    return splade.table(settings, tokenizer)
