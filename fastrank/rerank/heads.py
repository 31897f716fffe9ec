"""From a model's output to scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrank.engine.batching import Batch
from fastrank.engine.overflow import Span
from fastrank.engine.pipeline import Head
from fastrank.engine.pooling import Floats, without_prompt
from fastrank.errors import ModelLoadError
from fastrank.rerank.settings import CrossEncoderSettings


def scores(name: str, settings: CrossEncoderSettings, prompt: int = 0) -> Head[float]:
    """Logits, or token embeddings where modules compute the logits -> one Python float per pair.

    Args:
        name: of the model, for messages.
        settings: the model's.
        prompt: how many tokens of each pair are those of a prompt.

    Raises:
        ModelLoadError: a module's weights are missing or damaged; while running, `label` does not fit the model.
    """
    score = _scores(name, settings)
    if settings.pooled is None:
        return score
    from fastrank.engine import modules  # most models need none

    logits = modules.head(settings.pooled)
    skipped = 0 if settings.pooled.include_prompt else prompt
    if not skipped:
        return lambda output, batch: score(logits(output, batch), batch)
    return lambda output, batch: score(logits(output, without_prompt(skipped, batch)), batch)


def best(scores: Sequence[float], _spans: Sequence[Span]) -> float:
    """The score of a document, of those of its chunks: the highest. Dai and Callan 2019 (MaxP)."""
    return max(scores)


def _scores(name: str, settings: CrossEncoderSettings) -> Head[float]:
    """Logits of shape (pairs,) or (pairs, labels) -> one Python float per pair."""

    def head(output: Floats, batch: Batch) -> list[float]:
        logits = output.reshape(len(batch.ids), -1)
        classes = logits.shape[1]
        label = settings.label
        if label is None:
            if classes != 1:
                raise ModelLoadError(
                    f"{name}: the model has {classes} labels. Say which one is the score: label=... in add_custom_model"
                )
            label = 0
        if label >= classes:
            raise ModelLoadError(f"{name}: label={label}, but the model has only {classes} labels")
        if settings.activation == "softmax":
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            logits = powers / powers.sum(axis=1, keepdims=True)
        scores = logits[:, label]
        if settings.activation == "sigmoid":
            scores = 0.5 * (1 + np.tanh(0.5 * scores))  # does not overflow
        values: list[float] = scores.tolist()
        return values

    return head
