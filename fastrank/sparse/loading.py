"""Loading a learned sparse model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fastrank import store
from fastrank.engine import loading
from fastrank.engine.loading import Request
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
    spec = request.spec
    settings = resolve(spec.task(SPARSE_EMBEDDING, SparseTask), options, files.folder)
    of_tokenizer = tokenization.read(files.folder, registered=settings.in_registry)

    def tokenizer(limit: int | None) -> Tokenizer:
        return Tokenizer(
            of_tokenizer,
            request.max_length or limit or spec.max_length,
            capped=request.max_length is None,
            special_tokens_in_text=request.special_tokens_in_text,
        )

    plain = tokenizer(None)
    opened = loading.open_session(request, files, settings.graph_head, settings.output)
    prefixes = settings.prefixes

    def pipeline(head: Any) -> Pipeline[SparseEmbedding]:
        plan = opened.plan
        return Pipeline(plain, opened.session, head, opened.output, plan.uniform_length, plan.max_batch, prefixes.embed)

    def variant(pipeline: SparsePipeline, prefix: str, limit: int | None) -> SparsePipeline:
        if not isinstance(pipeline, Pipeline):
            return pipeline
        return replace(pipeline, tokenizer=tokenizer(limit) if limit else plain, prefix=prefix)

    documents, queries = _pipelines(settings, plain, files, pipeline)
    return SparseModel(
        documents,
        variant(queries, prefixes.query, of_tokenizer.query_length),
        settings,
        loading.info(files, opened, plain.max_length),
        variant(documents, prefixes.passage, of_tokenizer.document_length),
    )


def _pipelines(
    settings: SparseSettings,
    tokenizer: Tokenizer,
    files: store.ModelFiles,
    pipeline: Callable[[Any], Pipeline[SparseEmbedding]],
) -> tuple[SparsePipeline, SparsePipeline]:
    """For documents and for queries, some of which run no model."""
    if settings.kind == "minicoil":
        from fastrank.sparse.minicoil import MiniCOIL

        minicoil = MiniCOIL(files.folder, tokenizer, **settings.bm25)
        documents = pipeline(minicoil.documents)
        return documents, replace(documents, head=minicoil.queries)
    if settings.kind == "bm42":
        from fastrank.sparse import bm42

        return pipeline(bm42.documents(settings, tokenizer)), LookupPipeline(tokenizer, bm42.query(settings, tokenizer))
    from fastrank.sparse import splade

    documents = pipeline(splade.documents(settings, tokenizer))
    if settings.query_weights is None:
        return documents, documents
    return documents, LookupPipeline(tokenizer, splade.query(files.folder, settings.query_weights, tokenizer))
