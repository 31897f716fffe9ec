"""What a sentence-transformers folder says about itself: its modules, their settings, and its prompts.

A model there is a list of modules (`modules.json`), each with a folder of its own. Modules and activations are known by
name; nothing that a folder names or contains is executed. Reimers and Gurevych, 2019; sentence-transformers 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from fastrank.errors import ModelLoadError
from fastrank.models.config import Config, read_json
from fastrank.models.spec import Prefixes

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"

_MOST_MODULES = 32
_WIDEST = 1_000_000
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
_ACTIVATIONS = {"GELU": "gelu", "Identity": "identity", "ReLU": "relu", "Tanh": "tanh"}  # last part of torch.nn's path
# What a Dense may take: `module_input_name`, the default first.
_SENTENCE, _TOKENS = ("sentence_embedding",), ("sentence_embedding", "token_embeddings")


class Module(NamedTuple):
    """A row of modules.json: the name of its class, and its folder."""

    kind: str
    folder: Path


class Dense(NamedTuple):
    """A linear layer with an activation: `activation(x @ weight.T + bias)`, plus the input where `residual`.

    Attributes:
        folder: contains model.safetensors with linear.weight (out, in), linear.bias, and residual.weight where needed.
        in_features: the size of what it takes.
        out_features: the size of what it returns.
        bias: whether it has one.
        residual: whether its input is added, through residual.weight if the sizes differ.
        activation: "gelu", "identity", "relu" or "tanh".
    """

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    residual: bool
    activation: str


class LayerNorm(NamedTuple):
    """Layer normalization; model.safetensors in `folder` has norm.weight and norm.bias, both (size,)."""

    folder: Path
    size: int


class Normalize(NamedTuple):
    """L2 normalization."""


Step: TypeAlias = "Dense | LayerNorm | Normalize"


class Pooled(NamedTuple):
    """What follows the transformer in a folder's modules.

    Attributes:
        poolings: names in `engine.pooling.POOLINGS`; several are concatenated.
        width: the size of what pooling returns; None if no file says so.
        steps: the modules after pooling, but for a final Normalize.
        normalize: whether a Normalize ends the list.
        dim: the size of the result; None if no file says so.
    """

    poolings: tuple[str, ...]
    width: int | None
    steps: tuple[Step, ...]
    normalize: bool
    dim: int | None


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


def pooled(folder: Path) -> Pooled:
    """The modules after the transformer.

    Raises:
        ModelLoadError: a file is missing or damaged, or a module or setting is not supported.
    """
    first, *rest = modules(folder) or [Module("", folder)]
    if first.kind == "StaticEmbedding":
        return _pooled(("mean",), None, rest)
    if first.kind != "Transformer" or not rest or rest[0].kind != "Pooling":
        raise ModelLoadError(f"{folder / MODULES} does not begin with Transformer and Pooling")
    poolings, width = _pooling(rest[0].folder)
    return _pooled(poolings, (width or hidden_size(folder) or 0) * len(poolings) or None, rest[1:])


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
    return [_dense(place, None, _TOKENS) for kind, place in modules(folder) if kind == "Dense"]


def splade_activation(folder: Path) -> str | None:
    """How a sparse encoder's folder turns logits into weights: "log1p" or "log1p-log1p"; None without modules.json.

    Raises:
        ModelLoadError: it has other modules than a masked language model with max pooling, or it has prompts.
    """
    listed = modules(folder)
    if not listed:
        return None
    refuse_prompts(folder)
    if [module.kind for module in listed] not in (
        ["MLMTransformer", "SpladePooling"],
        ["Transformer", "SpladePooling"],
    ):
        kinds = ", ".join(module.kind for module in listed)
        raise ModelLoadError(f"{folder / MODULES}: a sparse encoder is MLMTransformer and SpladePooling, not {kinds}")
    config = Config.read(listed[1].folder / "config.json")
    config.choice("pooling_strategy", ["max"], "max")
    activations = {"relu": "log1p", "log1p_relu": "log1p-log1p"}
    return activations[config.choice("activation_function", activations, "relu")]


def prefixes(folder: Path) -> Prefixes:
    """The prompts put before queries and passages: those of these names, else the default prompt, else nothing.

    Raises:
        ModelLoadError: the file with the prompts is damaged.
    """
    path = folder / PROMPTS
    config = read_json(path) if path.exists() else {}
    prompts = (config.get("prompts") or {}) if isinstance(config, dict) else None
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelLoadError(f"{path}: prompts must be an object of strings")
    default = prompts.get(str(config.get("default_prompt_name")), "")

    def prompt(*names: str) -> str:
        own: list[str] = [prompts[name] for name in names if name in prompts]
        return next(filter(None, own), "") if own else default

    return Prefixes(prompt("query"), prompt("document", "passage", "corpus"))


def refuse_prompts(folder: Path) -> None:
    """For models that take no prompts here.

    Raises:
        ModelLoadError: the folder has prompts.
    """
    if prefixes(folder) != Prefixes():
        raise ModelLoadError(f"{folder / PROMPTS}: prompts are supported for dense embeddings only")


def hidden_size(folder: Path) -> int | None:
    """The size of a token's hidden state; None if config.json does not say."""
    config = Config.read_if_present(folder / "config.json")
    sizes = (config.integer(field, 0, low=0, high=_WIDEST) for field in ("hidden_size", "dim", "n_embd"))
    return next(filter(None, sizes), None)


def _of_model2vec(folder: Path) -> list[Module]:
    """What modules.json would say about a model2vec folder, some of which have none."""
    path = folder / "config.json"
    config = read_json(path) if path.exists() else None
    if not isinstance(config, dict) or config.get("model_type") != "model2vec":
        return []
    static = Module("StaticEmbedding", folder)
    return [static, Module("Normalize", folder)] if config.get("normalize") is True else [static]


def _module(folder: Path, row: Any) -> Module:
    kind, path = (row.get("type"), row.get("path")) if isinstance(row, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(path, str):
        raise ModelLoadError(f"{folder / MODULES}: a module without type or path")
    if not kind.startswith(_LIBRARIES):
        raise ModelLoadError(
            f"{folder / MODULES}: the module {kind!r:.200} is not one of sentence-transformers but code of the "
            "repository's own, which fastrank does not run"
        )
    try:
        place, root = (folder / path).resolve(), folder.resolve()
    except (OSError, ValueError) as error:  # a NUL, a surrogate, links in a circle
        raise ModelLoadError(f"{folder / MODULES}: the path {path!r:.200} is invalid: {error}") from error
    if place != root and root not in place.parents:
        raise ModelLoadError(f"{folder / MODULES}: the path {path!r:.200} leads out of the folder")
    return Module(kind.rpartition(".")[2], place)


def _pooling(folder: Path) -> tuple[tuple[str, ...], int]:
    """The names of a Pooling's modes, and the size of a hidden state, 0 if it does not say."""
    path = folder / "config.json"
    config, fields = Config.read(path), read_json(path)
    config.choice("include_prompt", [True], default=True)
    modes = fields.get("pooling_mode")
    if modes is None:
        modes = [mode for field, mode in _OLD_POOLINGS.items() if config.flag(field, default=False)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or any(mode not in list(_POOLINGS) for mode in modes):
        raise ModelLoadError(f"{path}: pooling {modes!r:.200} is not supported; supported: {', '.join(_POOLINGS)}")
    if len(set(modes)) < len(modes):
        raise ModelLoadError(f"{path}: pooling {modes!r:.200} names a mode twice")
    old = config.integer("word_embedding_dimension", 0, low=0, high=_WIDEST)
    size = config.integer("embedding_dimension", old, low=0, high=_WIDEST)
    return tuple(_POOLINGS[mode] for mode in modes), size


def _pooled(poolings: tuple[str, ...], width: int | None, rest: list[Module]) -> Pooled:
    """The poolings, which return `width` features, and the modules after them."""
    normalize = bool(rest) and rest[-1].kind == "Normalize"
    dim, steps = width, list[Step]()
    for kind, folder in rest[: -1 if normalize else None]:
        if kind == "Dense":
            dense = _dense(folder, dim, _SENTENCE)
            steps.append(dense)
            dim = dense.out_features
        elif kind == "LayerNorm":
            dim = Config.read(folder / "config.json").integer("dimension", dim, high=_WIDEST)
            steps.append(LayerNorm(folder, dim))
        elif kind == "Normalize":
            steps.append(Normalize())
        elif kind != "Dropout":  # which only training uses
            raise ModelLoadError(
                f"{folder.parent / MODULES}: module {kind!r:.100} is not supported; supported: Pooling, Dense, "
                "LayerNorm, Normalize, Dropout"
            )
    return Pooled(poolings, width, tuple(steps), normalize, dim)


def _dense(folder: Path, width: int | None, inputs: Sequence[str]) -> Dense:
    """A Dense module that takes `width` features (None: any) of one of these kinds of input."""
    path = folder / "config.json"
    config, fields = Config.read(path), read_json(path)
    config.choice("module_input_name", inputs, inputs[0])
    inner, outer = (config.integer(field, high=_WIDEST) for field in ("in_features", "out_features"))
    if width not in (None, inner):
        raise config.error("in_features", f"the module before it returns {width} features")
    name = str(fields.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.nn.") else None
    if activation is None:
        raise config.error("activation_function", "supported: " + ", ".join(f"torch.nn.{a}" for a in _ACTIVATIONS))
    return Dense(
        folder,
        inner,
        outer,
        config.flag("bias", default=True),
        config.flag("use_residual", default=False),
        activation,
    )
