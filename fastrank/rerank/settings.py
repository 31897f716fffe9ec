"""How a cross-encoder is used: arguments over registry over folder, resolved into one complete record."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models import pair_prompt
from fastrank.models.config import Config
from fastrank.models.modules import Pooled
from fastrank.models.pair_prompt import PairPrompt, ScoreTokens
from fastrank.models.spec import CrossEncoderTask


class CrossEncoderSettings(NamedTuple):
    """Complete settings of a cross-encoder.

    Attributes:
        activation: from logits to scores: "none", "sigmoid" or "softmax".
        label: the class that means "relevant"; None: the only one.
        pooled: modules that make the logits of token states; None: the graph has a classifier.
        prefix: put before the first text of each pair.
        in_registry: whether the registry says everything, so that the folder's tokenizer is used as it is.
        home: where the files of the tokenizer and of the transformer are: the model's folder, or one in it.
        prompt: what pairs are put into; None: the tokenizer gets them as pairs.
        score_tokens: the tokens whose logits are the score, of language models; None: the graph has a classifier.
    """

    activation: str
    label: int | None
    pooled: Pooled | None
    prefix: str
    in_registry: bool
    home: Path
    prompt: PairPrompt | None = None
    score_tokens: ScoreTokens | None = None

    @property
    def graph_head(self) -> str:
        """What to build on a checkpoint."""
        if self.score_tokens:
            return "logit-score"
        return self.pooled.graph_head if self.pooled else "sequence-classification"


def resolve(task: CrossEncoderTask, folder: Path) -> CrossEncoderSettings:
    """What arguments and registry say, completed by the model's folder.

    Args:
        task: the registry's entry with the caller's arguments in it; `modules` None: as the folder says.
        folder: the model's.

    Raises:
        ModelLoadError: the folder's files are damaged, or have something that cannot be applied.
    """
    in_registry = task.modules is not None
    if in_registry and task.activation != "auto":  # nothing is left to the folder
        return _registered(task, folder, task.activation)
    from fastrank.models import encoder_config

    of_folder = encoder_config.encoder(folder, "CrossEncoder")
    activation = task.activation
    if activation == "auto":
        activation = _of_folder(folder, of_folder.activation, task.label)
    if in_registry:
        return _registered(task, folder, activation)
    from fastrank.models import logit_score, sentence_transformers

    home = sentence_transformers.first_module(folder)
    # sentence-transformers' default prompt is the system message of a chat template, if there is one.
    prefix = of_folder.prefixes.embed
    prompt, tokens = logit_score.prompt(folder, prefix), logit_score.score_tokens(folder)
    pooled = None if tokens else _pooled(folder, task.modules)
    return CrossEncoderSettings(
        activation, task.label, pooled, "" if prompt else prefix, in_registry, home, prompt, tokens
    )


def _registered(task: CrossEncoderTask, folder: Path, activation: str) -> CrossEncoderSettings:
    """The settings of a model of the registry."""
    return CrossEncoderSettings(
        activation,
        task.label,
        _pooled(folder, task.modules),
        "",
        in_registry=True,
        home=folder,
        prompt=pair_prompt.registered(task.template) if task.template else None,
        score_tokens=ScoreTokens(task.score_tokens[0], next(iter(task.score_tokens[1:]), None))
        if task.score_tokens
        else None,
    )


def _pooled(folder: Path, by_modules: bool | None) -> Pooled | None:
    """What makes the logits of token states; None: the graph's classifier. `by_modules` None: as the folder says."""
    if by_modules is False:
        return None
    from fastrank.models import sentence_transformers

    listed = sentence_transformers.modules(folder)
    if listed and not by_modules and listed[0].kind != "Transformer":
        raise sentence_transformers.unsupported(folder, listed[0].kind, "Transformer, and modules after it")
    if by_modules or len(listed) > 1:
        return sentence_transformers.pooled(folder, scores=True)
    return None


def _of_folder(folder: Path, stated: str | None, label: int | None) -> str:
    """The activation that sentence-transformers takes: the folder's, else a sigmoid where there is one label.

    Raises:
        ModelLoadError: it is another one than those supported.
    """
    from fastrank.models import sentence_transformers

    config = Config.read_if_present(sentence_transformers.first_module(folder) / "config.json")
    older = config.string("sbert_ce_default_activation_function", default="") or None
    path = stated or config.section("sentence_transformers").string("activation_fn", default="") or older
    if path is None:
        return "sigmoid" if label is None else "none"
    name = sentence_transformers.activation(path)
    if name not in _ACTIVATIONS:
        raise ModelLoadError(
            f"{folder}: activation_fn {path!r:.200} is not supported; supported: torch.nn.Sigmoid and "
            'torch.nn.Identity. Say activation="none" for logits'
        )
    return _ACTIVATIONS[name]


_ACTIVATIONS = {"identity": "none", "sigmoid": "sigmoid"}
