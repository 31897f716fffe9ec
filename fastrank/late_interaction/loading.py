"""Loading a late interaction model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from fastrank import store
from fastrank.engine import loading, vectors
from fastrank.engine.loaded import LoadedModel
from fastrank.engine.loading import Request
from fastrank.engine.overflow import Cuts
from fastrank.engine.pipeline import Head, Pipeline
from fastrank.engine.pooling import Floats
from fastrank.engine.tokenizer import Tokenizer
from fastrank.late_interaction import heads
from fastrank.late_interaction.settings import LateInteractionSettings, resolve
from fastrank.late_interaction.tokens import LateInteractionTokenizer
from fastrank.models import tokenization
from fastrank.models.spec import LATE_INTERACTION, LateInteractionTask

LateInteractionModel: TypeAlias = LoadedModel[Pipeline[Floats], Pipeline[Floats], LateInteractionSettings]


def load(request: Request, truncate_dim: int | None = None) -> LateInteractionModel:
    """A late interaction model in memory; `truncate_dim`: how many numbers of an embedding the caller wants."""
    files = loading.find(request)
    with loading.advice(request, files):
        return _assembled(request, files, truncate_dim)


def settings(
    request: Request, files: store.ModelFiles | None = None, truncate_dim: int | None = None
) -> LateInteractionSettings:
    """The model's settings; its files are fetched if need be, but not loaded.

    Raises:
        ValueError: the embeddings are shorter than the caller wants them.
    """
    spec, files = request.spec, files or loading.find(request)
    task, given = spec.task(LATE_INTERACTION, LateInteractionTask), files.variant == store.GIVEN
    found = resolve(spec, task, request.max_length, files.folder, given=given)
    return found._replace(dim=vectors.size(found.dim, truncate_dim) or found.dim)


def _assembled(request: Request, files: store.ModelFiles, truncate_dim: int | None) -> LateInteractionModel:
    spec, of_model = request.spec, settings(request, files)
    short = settings(request, files, truncate_dim)
    in_folder, in_text = (
        tokenization.read(files.folder, of_model.home, registered=of_model.in_registry),
        request.special_tokens_in_text,
    )
    tokenizer = LateInteractionTokenizer(in_folder, of_model.documents, special_tokens_in_text=in_text)
    of_queries = LateInteractionTokenizer(in_folder, of_model.queries, special_tokens_in_text=in_text)
    skiplist = skipped_ids(tokenizer, of_model)
    here = store.within(files, of_model.home)
    opened = loading.open_session(request, here, of_model.graph_head, of_model.output, shared=of_model.head is not None)
    documents = Pipeline(
        tokenizer,
        opened.session,
        _head(spec.name, of_model, "document", skiplist, truncate_dim),
        opened.output,
        opened.plan.uniform_length,
        opened.plan.max_batch,
        of_model.documents.prompt,
        cuts=Cuts(spec.name),
    )
    queries = replace(
        documents,
        tokenizer=of_queries,
        head=_head(spec.name, of_model, "query", skiplist, truncate_dim),
        prefix=of_model.queries.prompt,
    )
    return LoadedModel(documents, queries, short, loading.info(files, opened, tokenizer.max_length))


def skipped_ids(tokenizer: Tokenizer, of_model: LateInteractionSettings) -> list[int]:
    """Tokens that leave no embedding in documents."""
    ids = [
        *map(tokenizer.first_token_id, of_model.skiplist_texts),
        *map(tokenizer.token_to_id, of_model.skiplist_tokens),
    ]
    return [token_id for token_id in ids if token_id is not None]


def _head(
    name: str, of_model: LateInteractionSettings, task: str, skiplist: Sequence[int], truncate_dim: int | None
) -> Head[Floats]:
    head = _whole_head(name, of_model, task, skiplist)
    return head if truncate_dim is None else heads.shortened(head, truncate_dim)


def _whole_head(name: str, of_model: LateInteractionSettings, task: str, skiplist: Sequence[int]) -> Head[Floats]:
    queries = task == "query"
    if of_model.head is not None:
        from fastrank.engine.linear import linear  # few models have it

        return heads.projected(name, linear(of_model.head))
    if of_model.modules is not None:
        expanded = of_model.queries.expand_to if queries and of_model.modules.counted else 0
        return heads.by_modules(of_model.modules, task, skiplist, expanded)
    if queries:
        return heads.queries(name, of_model.dim, of_model.queries.expand_to, normalize=of_model.normalize_queries)
    return heads.documents(name, of_model.dim, skiplist, normalize=of_model.normalize_documents)
