"""Loading a cross-encoder."""

from __future__ import annotations

from typing import TypeAlias

from fastrank.engine import loading
from fastrank.engine.loaded import LoadedModel
from fastrank.engine.loading import Request
from fastrank.engine.pipeline import Pipeline
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models import tokenization
from fastrank.models.spec import CrossEncoderTask
from fastrank.rerank import heads
from fastrank.rerank.settings import CrossEncoderSettings, resolve

CrossEncoderModel: TypeAlias = LoadedModel[Pipeline[float], Pipeline[float], CrossEncoderSettings]


def load(request: Request, task: CrossEncoderTask, truncation: str) -> CrossEncoderModel:
    """A cross-encoder in memory.

    Args:
        request: which model, from where, and how to run it.
        task: the registry's entry with the caller's arguments in it.
        truncation: of pairs, as `Tokenizer` has it.
    """
    spec, files = request.spec, loading.find(request)
    with loading.advice(request, files):
        settings = resolve(task, files.folder)
        tokenizer = Tokenizer(
            tokenization.read(files.folder, registered=settings.in_registry),
            request.max_length or spec.max_length,
            truncation,
            capped=request.max_length is None,
            pairs=True,
            special_tokens_in_text=request.special_tokens_in_text,
        )
        opened = loading.open_session(request, files, settings.graph_head)
        pairs = Pipeline(
            tokenizer,
            opened.session,
            heads.scores(spec.name, settings),
            opened.output,
            opened.plan.uniform_length,
            opened.plan.max_batch,
            settings.prefix,
        )
    return LoadedModel(pairs, pairs, settings, loading.info(files, opened, tokenizer.max_length))
