"""Loading a learned sparse model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fastrank import store
from fastrank.engine import loading
from fastrank.engine.loaded import LoadedModel
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
    tokenizer = Tokenizer(
        tokenization.read(files.folder),
        request.max_length or spec.max_length,
        capped=request.max_length is None,
        special_tokens_in_text=request.special_tokens_in_text,
    )
    opened = loading.open_session(request, files, settings.graph_head, settings.output)

    def pipeline(head: Any) -> Pipeline[SparseEmbedding]:
        plan = opened.plan
        return Pipeline(tokenizer, opened.session, head, opened.output, plan.uniform_length, plan.max_batch)

    documents, queries = _pipelines(settings, tokenizer, files, pipeline)
    return LoadedModel(documents, queries, settings, loading.info(files, opened, tokenizer.max_length))


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
