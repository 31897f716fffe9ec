"""What a folder of sentence-transformers' SparseEncoder says: a masked language model with SPLADE pooling.

Or a table of weights, one a token, as queries of inference-free models have it (Geng et al., 2024, arXiv:2411.04403).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models import encoder_config, fields, router
from fastrank.models.config import Config
from fastrank.models.sentence_transformers import MODULES, Module, modules
from fastrank.models.spec import Prefixes

_LANGUAGE_MODELS = ("MLMTransformer", "Transformer")
_TABLE = "SparseStaticEmbedding"
_OWN_MODULES = ("SpladePooling", "Router", _TABLE)
_ACTIVATIONS = {"relu": "log1p", "log1p_relu": "log1p-log1p"}


class SparseEncoder(NamedTuple):
    """A model that weighs the words of its vocabulary.

    Attributes:
        activation: from logits to weights: "log1p" or "log1p-log1p".
        pooling: over the tokens of a text: "max" or "sum".
        prefixes: put before texts.
        max_active_dims: how many of the largest weights are kept; None: all.
        home: where the files of the tokenizer and of the language model, or of the table, are; None: in the folder.
        table: whether each token has a weight, in model.safetensors in `home`, and no model is run.
        routed: whether queries and passages go ways of their own.
    """

    activation: str = "log1p"
    pooling: str = "max"
    prefixes: Prefixes = Prefixes()
    max_active_dims: int | None = None
    home: Path | None = None
    table: bool = False
    routed: bool = False


def is_saved(folder: Path) -> bool:
    """Whether a folder is a SparseEncoder's, by its modules.

    Raises:
        ModelLoadError: modules.json is damaged.
    """
    return any(module.kind in _OWN_MODULES for module in modules(folder))


def read(folder: Path, route: str | None = None) -> SparseEncoder:
    """The settings of the model in a folder; those of SPLADE if it has no modules.json.

    Args:
        folder: the model's.
        route: "query" or "document" for a way of their own that some folders have; None: that of `embed`.

    Raises:
        ModelLoadError: a file is damaged, or a module, field or value cannot be applied.
    """
    encoder = encoder_config.encoder(folder, "SparseEncoder")
    listed = router.route(folder, route)
    found = SparseEncoder(prefixes=encoder.prefixes, max_active_dims=encoder.max_active_dims)
    if not listed:
        return found
    found = found._replace(home=listed[0].folder, routed=router.is_routed(folder))
    if [module.kind for module in listed] == [_TABLE]:
        Config.read_if_present(listed[0].folder / "config.json").known(fields.SPARSE_STATIC)
        return found._replace(table=True)
    pooling = Config.read(_pooling(folder, listed).folder / "config.json").known(fields.SPLADE_POOLING)
    return found._replace(
        activation=_ACTIVATIONS[pooling.choice("activation_function", _ACTIVATIONS, "relu")],
        pooling=pooling.choice("pooling_strategy", ["max", "sum"], "max"),
    )


def _pooling(folder: Path, listed: list[Module]) -> Module:
    kinds = [module.kind for module in listed]
    if kinds not in [[model, "SpladePooling"] for model in _LANGUAGE_MODELS]:
        raise ModelLoadError(
            f"{folder / MODULES}: a sparse encoder is MLMTransformer and SpladePooling, or {_TABLE}, not "
            f"{', '.join(kinds)}"
        )
    return listed[1]
