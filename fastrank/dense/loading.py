"""Loading a dense embedding model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastrank import store
from fastrank.dense import heads
from fastrank.dense.heads import Vector
from fastrank.dense.settings import DenseSettings, resolve, warn_if_different
from fastrank.engine import loading
from fastrank.engine.loaded import LoadedModel
from fastrank.engine.loading import Opened, Request
from fastrank.engine.overflow import Cuts
from fastrank.engine.pipeline import Head, Pipeline
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models import tokenization
from fastrank.models.spec import LATE_INTERACTION, SPARSE_EMBEDDING, TEXT_EMBEDDING, DenseTask, ModelSpec
from fastrank.models.tokenization import TokenizerSettings


@dataclass(frozen=True, eq=False, repr=False)  # a new process need not write methods that nobody calls
class DenseModel(LoadedModel[Pipeline[Vector], Pipeline[Vector], DenseSettings]):
    """A dense embedding model in memory.

    Attributes:
        passages: for passages, which may have a prefix and a limit of their own.
        late_chunks: for passages whose chunks are pooled after one run; None: the model's pooling is no mean.
    """

    passages: Pipeline[Vector]
    late_chunks: Pipeline[Vector] | None


def load(request: Request, task: DenseTask, truncate_dim: int | None = None) -> DenseModel:
    """A dense embedding model in memory.

    Args:
        request: which model, from where, and how to run it.
        task: the registry's entry with the caller's arguments in it.
        truncate_dim: how many numbers of a vector the caller wants.
    """
    files = loading.find(request)
    with loading.advice(request, files):
        return _assembled(request, task, truncate_dim, files)


def settings(request: Request, task: DenseTask, truncate_dim: int | None = None) -> DenseSettings:
    """The model's settings; its files are fetched if need be, but not loaded."""
    return resolve(request.spec.name, task, loading.find(request).folder, truncate_dim=truncate_dim)


class _Way(NamedTuple):
    """What texts go through. Most models have one way for all texts."""

    settings: DenseSettings
    limits: TokenizerSettings
    tokenizer: Tokenizer
    opened: Opened
    head: Head[Vector]


def _assembled(request: Request, task: DenseTask, truncate_dim: int | None, files: store.ModelFiles) -> DenseModel:
    spec, folder = request.spec, files.folder
    if files.variant == store.GIVEN and task.pooling == spec.task(TEXT_EMBEDDING, DenseTask).pooling:
        warn_if_different(spec.name, task, folder)
    of_embed = _way(request, files, resolve(spec.name, task, folder, truncate_dim=truncate_dim))
    ways = {"embed": of_embed, "query": of_embed, "passage": of_embed}
    if of_embed.settings.routed:
        for method, route in (("query", "query"), ("passage", "document")):
            settings = resolve(spec.name, task, folder, route, truncate_dim)
            same = settings.home == of_embed.settings.home
            ways[method] = _same_model(of_embed, request, settings) if same else _way(request, files, settings)
    cuts = Cuts(spec.name)
    documents, queries, passages = (_pipeline(request, way, method, cuts) for method, way in ways.items())
    of_chunks = heads.late_chunks(spec.name, ways["passage"].settings)
    late_chunks = None if of_chunks is None else replace(passages, head=of_chunks)
    info = loading.info(files, of_embed.opened, of_embed.tokenizer.max_length)
    return DenseModel(documents, queries, of_embed.settings, info, passages, late_chunks)


def _way(request: Request, files: store.ModelFiles, settings: DenseSettings) -> _Way:
    limits = tokenization.read(files.folder, settings.home, registered=settings.in_registry)
    tokenizer = _tokenizer(request, limits, None)
    here = store.within(files, settings.home)
    head = settings.pooled.graph_head if settings.pooled else "encoder"
    opened = loading.open_session(
        request,
        here,
        head,
        settings.output,
        settings.extra_inputs("embed"),
        shared=_has_token_heads(request.spec, files.folder),
    )
    return _Way(settings, limits, tokenizer, opened, heads.dense(request.spec.name, settings))


def _same_model(way: _Way, request: Request, settings: DenseSettings) -> _Way:
    """Another way through the same transformer."""
    return way._replace(settings=settings, head=heads.dense(request.spec.name, settings))


def _pipeline(request: Request, way: _Way, method: str, cuts: Cuts) -> Pipeline[Vector]:
    limits = {"query": way.limits.query_length, "passage": way.limits.document_length}
    limit = None if request.max_length else limits.get(method)
    prefix = getattr(way.settings.prefixes, method)
    leaves_out = way.settings.pooled is not None and not way.settings.pooled.include_prompt

    @lru_cache(maxsize=64)  # jobs run together whose head is the same one
    def head_for(prefix: str) -> Head[Vector]:
        return heads.without_prompt(way.head, way.tokenizer.prompt_length(prefix)) if prefix else way.head

    return Pipeline(
        _tokenizer(request, way.limits, limit) if limit else way.tokenizer,
        way.opened.session,
        head_for(prefix) if leaves_out else way.head,
        way.opened.output,
        way.opened.plan.uniform_length,
        way.opened.plan.max_batch,
        prefix,
        way.settings.extra_inputs(method),
        head_for if leaves_out else None,
        cuts=cuts,
    )


def _tokenizer(request: Request, limits: TokenizerSettings, limit: int | None) -> Tokenizer:
    return Tokenizer(
        limits,
        request.max_length or limit or request.spec.max_length,
        capped=request.max_length is None,
        special_tokens_in_text=request.special_tokens_in_text,
    )


def _has_token_heads(spec: ModelSpec, folder: Path) -> bool:
    """Whether sparse vectors or token embeddings are made of the same output."""
    if spec.variants and not any(variant.open for variant in spec.variants):  # the registry says everything
        sparse, tokens = spec.tasks.get(SPARSE_EMBEDDING), spec.tasks.get(LATE_INTERACTION)
        return getattr(sparse, "kind", "") == "token-weights" or bool(getattr(tokens, "linear", ""))
    from fastrank.models import token_heads

    return token_heads.sparse(folder) is not None or token_heads.tokens(folder) is not None
