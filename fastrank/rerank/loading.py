"""Loading a cross-encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from fastrank import store
from fastrank.engine import loading
from fastrank.engine.loaded import LoadedModel
from fastrank.engine.loading import Request
from fastrank.engine.overflow import Cuts
from fastrank.engine.pipeline import Pipeline
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models import tokenization
from fastrank.models.pair_prompt import ScoreTokens
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
        tokenizer = _tokenizer(request, settings, files.folder, truncation)
        score_tokens = _ids(settings.score_tokens, tokenizer) if settings.score_tokens else None
        here = store.within(files, settings.home)
        opened = loading.open_session(request, here, settings.graph_head, score_tokens=score_tokens)
        pairs = Pipeline(
            tokenizer,
            opened.session,
            heads.scores(spec.name, settings, tokenizer.prompt_length(settings.prefix)),
            opened.output,
            opened.plan.uniform_length,
            opened.plan.max_batch,
            settings.prefix,
            cuts=Cuts(spec.name),
        )
    return LoadedModel(pairs, pairs, settings, loading.info(files, opened, tokenizer.max_length))


def instructed(tokenizer: Tokenizer, instruction: str) -> Tokenizer | None:
    """The same tokenizer with another instruction in its prompts; None: it has none.

    Raises:
        ValueError: its prompts have no place for an instruction.
    """
    from fastrank.rerank.prompts import PromptTokenizer

    return tokenizer.instructed(instruction) if isinstance(tokenizer, PromptTokenizer) else None


def _tokenizer(request: Request, settings: CrossEncoderSettings, folder: Path, truncation: str) -> Tokenizer:
    of_folder = tokenization.read(
        folder, settings.home, registered=settings.in_registry, messages=settings.prompt is not None
    )
    limit, capped = request.max_length or request.spec.max_length, request.max_length is None
    in_text = request.special_tokens_in_text
    if settings.prompt:
        from fastrank.rerank.prompts import PromptTokenizer  # few models have prompts

        return PromptTokenizer(of_folder, settings.prompt, limit, capped=capped, special_tokens_in_text=in_text)
    return Tokenizer(of_folder, limit, truncation, capped=capped, pairs=True, special_tokens_in_text=in_text)


def _ids(tokens: ScoreTokens, tokenizer: Tokenizer) -> tuple[int, int | None]:
    """The ids of the tokens that score a pair.

    Raises:
        ModelLoadError: the vocabulary has no such token.
    """

    def token_id(token: int | str) -> int:
        found = tokenizer.token_to_id(token) if isinstance(token, str) else token
        if found is None:
            raise ModelLoadError(f"the tokenizer has no token {token!r}, whose logit would be the score")
        return found

    return token_id(tokens.true), None if tokens.false is None else token_id(tokens.false)
