"""What a sentence-transformers folder says of itself: its modules, poolings and prompts.

Nothing that a folder names or holds is executed. Reimers & Gurevych, 2019; sentence-transformers 6.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models.config import Config
from fastrank.models.spec import Prefixes

_LIST = "modules.json"
_PROMPTS = "config_sentence_transformers.json"
_LIBRARY = "sentence_transformers."
_MOST_MODULES = 32
_WIDEST = 1_000_000

_POOLINGS = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean-sqrt-length",
    "weightedmean": "weighted-mean",
    "lasttoken": "last-token",
}
# One field a mode, as sentence-transformers wrote them before 5.3; several are put side by side in this order.
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class Module(NamedTuple):
    """A row of modules.json: the name of its class, and its folder."""

    kind: str
    folder: Path


def listed(folder: Path) -> list[Module]:
    """The modules of a folder, in order; none if it has no modules.json.

    Raises:
        ModelLoadError: the file is damaged, a path leads out of the folder, or a class is the repository's own code.
    """
    path = folder / _LIST
    if not path.exists():
        return _of_model2vec(folder)
    rows = _read(path)
    if not isinstance(rows, list) or not 0 < len(rows) <= _MOST_MODULES:
        raise ModelLoadError(f"{path} is no list of 1 to {_MOST_MODULES} modules")
    return [_module(folder, row) for row in rows]


def outline(folder: Path) -> list[str]:
    """The modules after the transformer by name, poolings by theirs: ["mean", "Dense", "Normalize"].

    Raises:
        ModelLoadError: as `listed`, or the pooling is damaged.
    """
    return [
        name
        for kind, place in listed(folder)[1:]
        for name in ([_POOLINGS[mode] for mode in _pooling(place)[0]] if kind == "Pooling" else [kind])
    ]


def splade_activation(folder: Path) -> str | None:
    """What a sparse encoder's folder does to logits: "log1p" or "log1p-log1p"; None if it has no modules.json.

    Raises:
        ModelLoadError: it has other modules than a masked language model and max pooling over it, or prompts.
    """
    found = listed(folder)
    if not found:
        return None
    refuse_prompts(folder)
    if [module.kind for module in found] not in (["MLMTransformer", "SpladePooling"], ["Transformer", "SpladePooling"]):
        kinds = ", ".join(module.kind for module in found)
        raise ModelLoadError(f"{folder / _LIST}: a sparse encoder is MLMTransformer and SpladePooling, not {kinds}")
    config = Config.read(found[1].folder / "config.json")
    config.choice("pooling_strategy", ["max"], "max")
    activations = {"relu": "log1p", "log1p_relu": "log1p-log1p"}
    return activations[config.choice("activation_function", activations, "relu")]


def prefixes(folder: Path) -> Prefixes:
    """What to put before queries and passages: the prompts of those names, else the default prompt, else nothing.

    Raises:
        ModelLoadError: the file with the prompts is damaged.
    """
    path = folder / _PROMPTS
    stated = _read(path) if path.exists() else {}
    prompts = (stated.get("prompts") or {}) if isinstance(stated, dict) else None
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelLoadError(f"{path}: prompts must be an object of strings")
    default = prompts.get(str(stated.get("default_prompt_name")), "")

    def prompt(*names: str) -> str:
        own: list[str] = [prompts[name] for name in names if name in prompts]
        return next(filter(None, own), "") if own else default

    return Prefixes(prompt("query"), prompt("document", "passage", "corpus"))


def refuse_prompts(folder: Path) -> None:
    """For models that put nothing before texts here.

    Raises:
        ModelLoadError: the folder has prompts that are to be put there.
    """
    if prefixes(folder) != Prefixes():
        raise ModelLoadError(f"{folder / _PROMPTS}: prompts are put before texts for dense vectors only")


def hidden_size(folder: Path) -> int | None:
    """How many numbers a token's state has; None if config.json does not say."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    config = Config.read(path)
    sizes = (config.integer(field, 0, low=0, high=_WIDEST) for field in ("hidden_size", "dim", "n_embd"))
    return next(filter(None, sizes), None)


def _of_model2vec(folder: Path) -> list[Module]:
    """What modules.json would say of a model2vec folder, some of which have none."""
    path = folder / "config.json"
    fields = _read(path) if path.is_file() else None
    if not isinstance(fields, dict) or fields.get("model_type") != "model2vec":
        return []
    static = Module("StaticEmbedding", folder)
    return [static, Module("Normalize", folder)] if fields.get("normalize") is True else [static]


def _module(folder: Path, row: Any) -> Module:
    kind, path = (row.get("type"), row.get("path")) if isinstance(row, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(path, str):
        raise ModelLoadError(f"{folder / _LIST}: a module without type or path")
    if not kind.startswith(_LIBRARY):
        raise ModelLoadError(
            f"{folder / _LIST}: the module {kind!r:.200} is not one of sentence-transformers but code of the "
            "repository's own, which fastrank does not run"
        )
    try:
        place, root = (folder / path).resolve(), folder.resolve()
    except (OSError, ValueError) as error:  # a NUL, a surrogate, links in a circle
        raise ModelLoadError(f"{folder / _LIST}: the path {path!r:.200} is none: {error}") from error
    if place != root and root not in place.parents:
        raise ModelLoadError(f"{folder / _LIST}: the path {path!r:.200} leads out of the folder")
    return Module(kind.rpartition(".")[2], place)


def _pooling(folder: Path) -> tuple[list[str], int]:
    """Its modes, and how many numbers a token's state has, 0 if it does not say."""
    path = folder / "config.json"
    config, fields = Config.read(path), _read(path)
    config.choice("include_prompt", [True], default=True)
    modes = fields.get("pooling_mode")
    if modes is None:
        modes = [mode for field, mode in _OLD_POOLINGS.items() if config.flag(field, default=False)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or any(mode not in list(_POOLINGS) for mode in modes):
        raise ModelLoadError(f"{path}: pooling {modes!r:.200}; known are {', '.join(_POOLINGS)}")
    if len(set(modes)) < len(modes):
        raise ModelLoadError(f"{path}: pooling {modes!r:.200} names a mode twice")
    old = config.integer("word_embedding_dimension", 0, low=0, high=_WIDEST)
    return modes, config.integer("embedding_dimension", old, low=0, high=_WIDEST)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
