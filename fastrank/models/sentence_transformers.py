"""What a sentence-transformers folder says about its modules and their settings.

A model there is a list of modules (`modules.json`), each with a folder of its own. Modules and activations are known by
name; nothing that a folder names or contains is executed. Reimers and Gurevych, 2019; sentence-transformers 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models import fields
from fastrank.models.config import Config, is_model2vec, read_json
from fastrank.models.modules import Dense, LayerNorm, Normalize, Pooled, Step, WeightedLayers

MODULES: Final = "modules.json"
TOKENS, SENTENCE, SCORES = "token_embeddings", "sentence_embedding", "scores"
STATIC: Final = "StaticEmbedding"

_MOST_MODULES = 32
_WIDEST = 1_000_000
_STEPS = ("Dense", "LayerNorm", "Normalize", "Dropout")
_LIBRARIES = ("sentence_transformers.", "pylate.")

_POOLINGS = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean-sqrt-length",
    "weightedmean": "weighted-mean",
    "lasttoken": "last-token",
}
# One field per mode, as written before sentence-transformers 5.3; several are concatenated in this order.
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# The last part of torch.nn's path -> our name. With their defaults, as sentence-transformers makes them.
_ACTIVATIONS = {
    "CELU": "celu",
    "ELU": "elu",
    "GELU": "gelu",
    "Hardsigmoid": "hardsigmoid",
    "Hardswish": "hardswish",
    "Hardtanh": "hardtanh",
    "Identity": "identity",
    "LeakyReLU": "leaky_relu",
    "Mish": "mish",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SELU": "selu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}


class Module(NamedTuple):
    """A row of modules.json: the name of its class, and its folder."""

    kind: str
    folder: Path


def modules(folder: Path) -> list[Module]:
    """The modules of a folder, in order; none if it has no modules.json.

    Raises:
        ModelLoadError: the file is damaged, a path leads out of the folder, or a class is the repository's own code.
    """
    path = folder / MODULES
    if not path.exists():
        return _of_model2vec(folder)
    rows = read_json(path)
    if not isinstance(rows, list) or not 0 < len(rows) <= _MOST_MODULES:
        raise ModelLoadError(f"{path} is no list of 1 to {_MOST_MODULES} modules")
    return [_module(folder, row) for row in rows]


def first_module(folder: Path) -> Path:
    """The folder of the first module, where tokenizer and transformer are; the model's own without modules.json."""
    return next((module.folder for module in modules(folder)), folder)


def pooled(folder: Path, listed: Sequence[Module] | None = None, *, scores: bool = False) -> Pooled:
    """The modules after the transformer.

    Args:
        folder: the model's.
        listed: the modules, first to last; None: those of modules.json.
        scores: whether the last Dense may return scores, as that of a cross-encoder does.

    Raises:
        ModelLoadError: a file is missing or damaged, or a module or setting is not supported.
    """
    first, *rest = (modules(folder) if listed is None else listed) or [Module("", folder)]
    if first.kind == STATIC:
        _check_model2vec(first.folder, normalizes=any(module.kind == "Normalize" for module in rest))
        return _pooled(("mean",), None, rest, scores=scores)
    before = next((n for n, module in enumerate(rest) if module.kind == "Pooling"), None)
    if first.kind != "Transformer" or before is None:
        raise ModelLoadError(f"{folder / MODULES} does not begin with Transformer and Pooling")
    hidden = hidden_size(first.folder)
    layers, on_tokens = _weighted_layers(first.folder, rest[:before])
    token_steps, states = steps(on_tokens, hidden, TOKENS)
    poolings, width, include_prompt = _pooling(rest[before].folder)
    total = (width or states or 0) * len(poolings) or None
    found = _pooled(poolings, total, rest[before + 1 :], scores=scores)
    return found._replace(token_steps=tuple(token_steps), layers=layers, include_prompt=include_prompt)


def outline(folder: Path) -> list[str]:
    """The names of the modules after the transformer, poolings by their own: ["mean", "Dense", "Normalize"].

    Raises:
        ModelLoadError: as `modules`, or the pooling is damaged.
    """
    return [
        name for kind, place in modules(folder)[1:] for name in (_pooling(place)[0] if kind == "Pooling" else [kind])
    ]


def dense_modules(folder: Path) -> list[Dense]:
    """The Dense modules of a folder, in order: the projection of a late interaction model.

    Raises:
        ModelLoadError: as `modules`, or a Dense is damaged.
    """
    return [_dense(place, None, TOKENS, SENTENCE, default=TOKENS) for kind, place in modules(folder) if kind == "Dense"]


def steps(
    listed: Sequence[Module], width: int | None, reads: str, *, scores: bool = False, dense_reads: str = SENTENCE
) -> tuple[list[Step], int | None]:
    """Modules that change vectors one by one, and the size of what the last of them returns.

    Args:
        listed: Dense, LayerNorm, Normalize or Dropout.
        width: the size of what the first of them takes; None: unknown.
        reads: what they read and write: `TOKENS` or `SENTENCE`.
        scores: whether the last one may write scores.
        dense_reads: what a Dense reads whose file does not say so.

    Raises:
        ModelLoadError: a module is not supported, or does not fit the one before.
    """
    for kind, folder in listed:
        if kind not in _STEPS:
            raise unsupported(folder.parent, kind, "Pooling, Dense, LayerNorm, Normalize, Dropout")
    made = list[Step]()
    for number, (kind, folder) in enumerate(listed):
        if kind == "Dense":
            last = number == len(listed) - 1
            dense = _dense(folder, width, reads, default=dense_reads, scores=scores and last)
            made.append(dense)
            width = dense.out_features
        elif kind == "LayerNorm":
            if reads != SENTENCE:
                raise ModelLoadError(f"{folder.parent / MODULES}: LayerNorm is supported after Pooling only")
            config = Config.read(folder / "config.json").known(fields.LAYER_NORM)
            size = config.integer("dimension", width, high=_WIDEST)
            if width not in (None, size):
                raise config.error("dimension", f"the module before it returns {width} features")
            made.append(LayerNorm(folder, size))
            width = size
        elif kind == "Normalize":
            _check_names(Config.read_if_present(folder / "config.json").known(fields.NORMALIZE), reads)
            made.append(Normalize())
        else:  # Dropout, which only training uses
            Config.read_if_present(folder / "config.json").known(fields.DROPOUT)
    return made, width


def unsupported(folder: Path, kind: str, supported: str) -> ModelLoadError:
    """The error for a module that cannot be applied: it is never skipped."""
    return ModelLoadError(f"{folder / MODULES}: module {kind!r:.100} is not supported; supported: {supported}")


def hidden_size(folder: Path) -> int | None:
    """The size of a token's hidden state; None if config.json does not say."""
    config = Config.read_if_present(folder / "config.json")
    sizes = (config.integer(field, 0, low=0, high=_WIDEST) for field in ("hidden_size", "dim", "n_embd"))
    return next(filter(None, sizes), None)


def activation(path: str) -> str | None:
    """Our name of an activation of torch.nn, such as "torch.nn.modules.activation.Tanh"; None: it is not known."""
    return _ACTIVATIONS.get(path.rpartition(".")[2]) if path.startswith("torch.nn.") else None


def _of_model2vec(folder: Path) -> list[Module]:
    """What modules.json would say about a model2vec folder, some of which have none."""
    path = folder / "config.json"
    config = read_json(path) if path.exists() else None
    if not isinstance(config, dict) or not is_model2vec(config):
        return []
    static = Module(STATIC, folder)
    return [static, Module("Normalize", folder / "1_Normalize")] if config.get("normalize") is True else [static]


def _check_model2vec(home: Path, *, normalizes: bool) -> None:
    """Refuse a folder of model2vec whose two files disagree: model2vec reads one, sentence-transformers the other.

    Raises:
        ModelLoadError: they do.
    """
    config = Config.read_if_present(home / "config.json")
    if is_model2vec(config.values()) and config.flag("normalize", default=False) != normalizes:
        has = "has" if normalizes else "has no"
        raise config.error("normalize", f"modules.json {has} Normalize, which is the same: let the two agree")


def _module(folder: Path, row: Any) -> Module:
    kind, path = (row.get("type"), row.get("path")) if isinstance(row, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(path, str):
        raise ModelLoadError(f"{folder / MODULES}: a module without type or path")
    Config(folder / MODULES, row).known(fields.MODULES)
    return Module(class_name(folder / MODULES, kind), beneath(folder, path, folder / MODULES, folder))


def class_name(where: Path, path: str) -> str:
    """The last part of a module's name.

    Raises:
        ModelLoadError: it is code of the repository's own.
    """
    if not path.startswith(_LIBRARIES):
        raise ModelLoadError(
            f"{where}: the module {path!r:.200} is not one of sentence-transformers but code of the repository's own, "
            "which fastrank does not run"
        )
    return path.rpartition(".")[2]


def beneath(folder: Path, path: str, where: Path, root: Path) -> Path:
    """The folder of a module, whose `path` in `folder` stands in the file `where`.

    Raises:
        ModelLoadError: it leads out of `root`.
    """
    try:
        place, top = (folder / path).resolve(), root.resolve()
    except (OSError, ValueError) as error:  # a NUL, a surrogate, links in a circle
        raise ModelLoadError(f"{where}: the path {path!r:.200} is invalid: {error}") from error
    if place == top:
        return root
    if top not in place.parents:
        raise ModelLoadError(f"{where}: the path {path!r:.200} leads out of the folder")
    return place


def _pooling(folder: Path) -> tuple[tuple[str, ...], int, bool]:
    """The names of a Pooling's modes; the size of a hidden state, 0 if it does not say; whether prompts count."""
    path = folder / "config.json"
    config, values = Config.read(path).known(fields.POOLING), read_json(path)
    modes = values.get("pooling_mode")
    if modes is None:
        modes = [mode for field, mode in _OLD_POOLINGS.items() if config.flag(field, default=False)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or any(mode not in list(_POOLINGS) for mode in modes):
        raise ModelLoadError(f"{path}: pooling {modes!r:.200} is not supported; supported: {', '.join(_POOLINGS)}")
    if len(set(modes)) < len(modes):
        raise ModelLoadError(f"{path}: pooling {modes!r:.200} names a mode twice")
    include_prompt = config.flag("include_prompt", default="include_prompt" not in values)  # null is false there
    old = config.integer("word_embedding_dimension", 0, low=0, high=_WIDEST)
    size = config.integer("embedding_dimension", old, low=0, high=_WIDEST)
    return tuple(_POOLINGS[mode] for mode in modes), size, include_prompt


def _weighted_layers(home: Path, listed: list[Module]) -> tuple[WeightedLayers | None, list[Module]]:
    """WeightedLayerPooling, if that is the first module after the transformer, and those that follow.

    It does nothing where the transformer does not return the states of all layers.
    """
    if not listed or listed[0].kind != "WeightedLayerPooling":
        return None, listed
    config = Config.read(listed[0].folder / "config.json").known(fields.WEIGHTED_LAYERS)
    start, last = config.integer("layer_start", 4, low=0, high=1_000), config.integer("num_hidden_layers", 12)
    if start > last:
        raise config.error("layer_start", f"num_hidden_layers is {last}")
    if not Config.read_if_present(home / "config.json").flag("output_hidden_states", default=False):
        return None, listed[1:]
    return WeightedLayers(listed[0].folder, start, last), listed[1:]


def _pooled(poolings: tuple[str, ...], width: int | None, rest: list[Module], *, scores: bool) -> Pooled:
    """The poolings, which return `width` features, and the modules after them."""
    made, dim = steps(rest, width, SENTENCE, scores=scores)
    normalize = bool(made) and isinstance(made[-1], Normalize)
    return Pooled(poolings, width, tuple(made[:-1] if normalize else made), normalize, dim)


def _dense(folder: Path, width: int | None, *reads: str, default: str = SENTENCE, scores: bool = False) -> Dense:
    """A Dense module that takes `width` features (None: any) of what is named in `reads`."""
    config = Config.read(folder / "config.json").known(fields.DENSE)
    _check_names(config, *reads, default=default, scores=scores)
    inner, outer = (config.integer(field, high=_WIDEST) for field in ("in_features", "out_features"))
    if width not in (None, inner):
        raise config.error("in_features", f"the module before it returns {width} features")
    name = activation(config.string("activation_function", default="torch.nn.modules.activation.Tanh"))
    if name is None:
        raise config.error("activation_function", "supported: " + ", ".join(f"torch.nn.{a}" for a in _ACTIVATIONS))
    return Dense(
        folder,
        inner,
        outer,
        config.flag("bias", default=True),
        config.flag("use_residual", default=False),
        name,
    )


def _check_names(config: Config, *reads: str, default: str = SENTENCE, scores: bool = False) -> None:
    """Refuse a module that reads or writes something else.

    Args:
        config: the module's.
        reads: what it may read; it writes the same. Late interaction models that older versions of
            sentence-transformers saved name the sentence, though their Dense reads tokens.
        default: what it reads if the file does not say so.
        scores: whether it may write scores.
    """
    config.refuse_null("module_input_name")
    read = config.choice("module_input_name", reads, default)
    config.choice("module_output_name", [read, SCORES] if scores else [read], read)
