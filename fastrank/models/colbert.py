"""What a model's folder says of how its token vectors are made, for models that are not in the registry.

PyLate (https://github.com/lightonai/pylate, 1.6) writes config_sentence_transformers.json, ColBERT
(https://github.com/stanford-futuredata/ColBERT, 0.2) artifact.metadata. What a file leaves out is as PyLate has it.
"""

from __future__ import annotations

import string
from pathlib import Path

from fastrank import log
from fastrank.errors import ModelLoadError
from fastrank.models import encoder_config, fields
from fastrank.models.config import Config
from fastrank.models.multi_vector import expansion_token
from fastrank.models.sentence_transformers import dense_modules, first_module, modules, unsupported
from fastrank.models.spec import LateInteractionTask, ModelSpec

_PYLATE, _COLBERT = encoder_config.ENCODER, "artifact.metadata"
_MODULES = ("Transformer", "Dense", "Dropout")  # PyLate normalizes after them, whatever stands in modules.json
_LONGEST = 131_072


def read(name: str, folder: Path) -> LateInteractionTask:
    """The settings of the model in a folder.

    Raises:
        ModelLoadError: a file is damaged, or none says how token vectors are made.
    """
    if (folder / _COLBERT).is_file() and not (folder / _PYLATE).is_file():
        return _colbert(Config.read(folder / _COLBERT).known(fields.COLBERT), folder)
    if (folder / "modules.json").is_file():
        return _pylate(Config.read(folder / _PYLATE), folder)
    raise ModelLoadError(
        f"{name}: {folder} does not say how token vectors are made: it has neither modules.json with {_PYLATE} nor "
        f"{_COLBERT}. Say so with LateInteractionTextEmbedding.add_custom_model(..., dim=...)"
    )


def warn_if_different(spec: ModelSpec, task: LateInteractionTask, folder: Path) -> None:
    """Say if a PyLate folder that was given for a known name wants other lengths: it is another model, most likely.

    The registry's settings are used: whoever names a model gets that model's vectors.
    """
    try:
        own = _pylate(Config.read(folder / _PYLATE), folder)
    except ModelLoadError:
        return  # nothing that is used
    limit = task.document_max_length or spec.max_length
    if (own.dim, own.query_length, own.document_max_length) != (task.dim, task.query_length, limit):
        log.warning(
            "%s: %s has settings of its own, which differ; those of %s are used. For the folder's own give it a name "
            "that is not in the registry.",
            spec.name,
            folder,
            spec.name,
        )


def prompt(folder: Path) -> str:
    """The text that PyLate puts before queries and documents alike: the default prompt; mostly none.

    Raises:
        ModelLoadError: the file with the prompts is damaged.
    """
    return encoder_config.encoder(folder, "ColBERT").prefixes.embed


def _pylate(config: Config, folder: Path) -> LateInteractionTask:
    config.known(fields.SENTENCE_TRANSFORMERS)
    home = first_module(folder)
    for module in modules(folder):
        if module.kind not in _MODULES:
            raise unsupported(folder, module.kind, ", ".join(_MODULES))
    layers = dense_modules(folder)
    dim = layers[-1].out_features if layers else Config.read(home / "config.json").integer("hidden_size")
    length = config.integer("query_length", default=32, high=_LONGEST)
    expanded = config.flag("do_query_expansion", default=True)
    return LateInteractionTask(
        dim=dim,
        query_prefix_token=config.string("query_prefix", default="[Q] ") or None,
        document_prefix_token=config.string("document_prefix", default="[D] ") or None,
        query_length=length if expanded else None,
        mask_token=expansion_token(home, padding=True) if expanded else "",
        attend_to_expansion_tokens=expanded and config.flag("attend_to_expansion_tokens", default=False),
        query_max_length=length,
        document_max_length=config.integer("document_length", default=180, high=_LONGEST),
        skiplist_words=tuple(config.strings("skiplist_words", default=list(string.punctuation))),
        projection=bool(layers),
    )


def _colbert(config: Config, folder: Path) -> LateInteractionTask:
    config.choice("similarity", ["cosine", "l2"], "cosine")  # vectors are L2-normalized in any case, in ColBERT too
    config.choice("interaction", ["colbert"], "colbert")
    length = config.integer("query_maxlen", default=32, high=_LONGEST)
    return LateInteractionTask(
        dim=config.integer("dim", default=128),
        query_prefix_token=config.string("query_token_id", default="[unused0]"),
        document_prefix_token=config.string("doc_token_id", default="[unused1]"),
        query_length=length,
        mask_token=expansion_token(folder, padding=True),
        attend_to_expansion_tokens=config.flag("attend_to_mask_tokens", default=False),
        query_max_length=length,
        document_max_length=config.integer("doc_maxlen", default=180, high=_LONGEST),
        skiplist=tuple(string.punctuation) if config.flag("mask_punctuation", default=True) else (),
    )
