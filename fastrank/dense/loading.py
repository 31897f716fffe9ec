"""Loading a dense embedding model."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


@dataclass(frozen=True, eq=False, repr=False)  # a new process need not write methods that nobody calls
class DenseModel(LoadedModel[Pipeline[Vector], Pipeline[Vector], DenseSettings]):
    """A dense embedding model in memory.

    Attributes:
        passages: for passages, which may have a prefix and a limit of their own.
    """

    passages: Pipeline[Vector]


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


def _assembled(request: Request, task: DenseTask, files: store.ModelFiles) -> DenseModel:
    spec, folder = request.spec, files.folder
    if files.variant == store.GIVEN and task.pooling == spec.task(TEXT_EMBEDDING, DenseTask).pooling:
        warn_if_different(spec.name, task, folder)
    resolved = resolve(spec.name, task, folder)
    of_tokenizer = tokenization.read(folder, registered=resolved.in_registry)

    def tokenizer(limit: int | None) -> Tokenizer:
        return Tokenizer(
            of_tokenizer,
            request.max_length or limit or spec.max_length,
            capped=request.max_length is None,
            special_tokens_in_text=request.special_tokens_in_text,
        )

    plain = tokenizer(None)
    opened = loading.open_session(request, files, "encoder", resolved.output, resolved.extra_inputs("embed"))
    documents = Pipeline(
        plain,
        opened.session,
        heads.dense(spec.name, resolved),
        opened.output,
        opened.plan.uniform_length,
        opened.plan.max_batch,
        resolved.prefixes.embed,
    )

    def pipeline(method: str, prefix: str, limit: int | None) -> Pipeline[Vector]:
        own = tokenizer(limit) if limit and not request.max_length else plain
        return replace(documents, tokenizer=own, prefix=prefix, extra_inputs=resolved.extra_inputs(method))

    return DenseModel(
        documents,
        pipeline("query", resolved.prefixes.query, of_tokenizer.query_length),
        resolved,
        loading.info(files, opened, plain.max_length),
        pipeline("passage", resolved.prefixes.passage, of_tokenizer.document_length),
    )
