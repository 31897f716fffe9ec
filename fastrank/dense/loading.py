"""Loading a dense embedding model."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from fastrank import store
from fastrank.dense import heads
from fastrank.dense.heads import Vector
from fastrank.dense.settings import DenseSettings, resolve, warn_if_different
from fastrank.engine import loading
from fastrank.engine.loaded import LoadedModel
from fastrank.engine.loading import Request
from fastrank.engine.pipeline import Pipeline
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models import tokenization
from fastrank.models.spec import TEXT_EMBEDDING, DenseTask

DenseModel: TypeAlias = LoadedModel[Pipeline[Vector], Pipeline[Vector], DenseSettings]


def load(request: Request, task: DenseTask) -> DenseModel:
    """A dense embedding model in memory.

    Args:
        request: which model, from where, and how to run it.
        task: the registry's entry with the caller's arguments in it.
    """
    files = loading.find(request)
    with loading.advice(request, files):
        return _assembled(request, task, files)


def settings(request: Request, task: DenseTask) -> DenseSettings:
    """The model's settings; its files are fetched if need be, but not loaded."""
    return resolve(request.spec.name, task, loading.find(request).folder)


def passages(model: DenseModel) -> Pipeline[Vector]:
    """The pipeline for passages: documents with the passage prefix."""
    resolved = model.settings
    return replace(model.documents, prefix=resolved.prefixes.passage, extra_inputs=resolved.extra_inputs("passage"))


def _assembled(request: Request, task: DenseTask, files: store.ModelFiles) -> DenseModel:
    spec, folder = request.spec, files.folder
    if files.variant == store.GIVEN and task.pooling == spec.task(TEXT_EMBEDDING, DenseTask).pooling:
        warn_if_different(spec.name, task, folder)
    resolved = resolve(spec.name, task, folder)
    tokenizer = Tokenizer(
        tokenization.read(folder),
        request.max_length or spec.max_length,
        capped=request.max_length is None,
        special_tokens_in_text=request.special_tokens_in_text,
    )
    opened = loading.open_session(request, files, "encoder", resolved.output, resolved.extra_inputs("embed"))
    documents = Pipeline(
        tokenizer,
        opened.session,
        heads.dense(spec.name, resolved),
        opened.output,
        opened.plan.uniform_length,
        opened.plan.max_batch,
    )
    queries = replace(documents, prefix=resolved.prefixes.query, extra_inputs=resolved.extra_inputs("query"))
    return LoadedModel(documents, queries, resolved, loading.info(files, opened, tokenizer.max_length))
