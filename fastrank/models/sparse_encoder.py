"""What a folder of sentence-transformers' SparseEncoder says: a masked language model with SPLADE pooling."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models import encoder_config, fields
from fastrank.models.config import Config
from fastrank.models.sentence_transformers import MODULES, Module, modules
from fastrank.models.spec import Prefixes

_LANGUAGE_MODELS = ("MLMTransformer", "Transformer")
_ACTIVATIONS = {"relu": "log1p", "log1p_relu": "log1p-log1p"}


class SparseEncoder(NamedTuple):
    """A model that weighs the words of its vocabulary.

    Attributes:
        activation: from logits to weights: "log1p" or "log1p-log1p".
        pooling: over the tokens of a text: "max" or "sum".
        prefixes: put before texts.
        max_active_dims: how many of the largest weights are kept; None: all.
    """

    activation: str = "log1p"
    pooling: str = "max"
    prefixes: Prefixes = Prefixes()
    max_active_dims: int | None = None


def read(folder: Path) -> SparseEncoder:
    """The settings of the model in a folder; those of SPLADE if it has no modules.json.

    Raises:
        ModelLoadError: a file is damaged, or a module, field or value cannot be applied.
    """
    encoder = encoder_config.encoder(folder, "SparseEncoder")
    listed = modules(folder)
    if not listed:
        return SparseEncoder(prefixes=encoder.prefixes, max_active_dims=encoder.max_active_dims)
    pooling = Config.read(_pooling(folder, listed).folder / "config.json").known(fields.SPLADE_POOLING)
    return SparseEncoder(
        _ACTIVATIONS[pooling.choice("activation_function", _ACTIVATIONS, "relu")],
        pooling.choice("pooling_strategy", ["max", "sum"], "max"),
        encoder.prefixes,
        encoder.max_active_dims,
    )


def _pooling(folder: Path, listed: list[Module]) -> Module:
    kinds = [module.kind for module in listed]
    if kinds not in [[model, "SpladePooling"] for model in _LANGUAGE_MODELS]:
        raise ModelLoadError(
            f"{folder / MODULES}: a sparse encoder is MLMTransformer and SpladePooling, not {', '.join(kinds)}"
        )
    return listed[1]
