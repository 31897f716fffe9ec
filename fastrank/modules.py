"""What a sentence-transformers folder says of itself: what makes a vector of a transformer's states, and prompts.

A model there is a list of modules (`modules.json`), each with a folder of its own. Those after the transformer are
small products over one vector a text, done here in numpy. Modules and activations are known here by name; nothing that
a folder names or holds is executed. Reimers & Gurevych, 2019; sentence-transformers 6.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank import heads
from fastrank.errors import ModelLoadError
from fastrank.graph.config import Config
from fastrank.graph.safetensors import Tensor, read_header
from fastrank.heads import Floats
from fastrank.registry import Prefixes
from fastrank.schedule import Batch

Step: TypeAlias = Callable[[Floats], Floats]

_LIST = "modules.json"
_PROMPTS = "config_sentence_transformers.json"
_LIMIT = "sentence_bert_config.json"
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


@dataclass(frozen=True)
class Chain:
    """The modules after the transformer, as one head.

    Attributes:
        head: (texts, length, hidden) -> (texts, dim), float32; a closing Normalize left out.
        dim: how many numbers a row has; None if no file says so.
        normalize: whether a Normalize closes the list.
    """

    head: heads.Pooling
    dim: int | None
    normalize: bool


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


def chain(folder: Path) -> Chain:
    """What a folder puts on its transformer.

    Raises:
        ModelLoadError: a file is missing or damaged, or a module or setting is one that is not known here.
    """
    first, *rest = listed(folder) or [Module("", folder)]
    if first.kind == "StaticEmbedding":
        return _chain(folder, ["mean"], None, rest)
    if first.kind != "Transformer" or not rest or rest[0].kind != "Pooling":
        raise ModelLoadError(f"{folder / _LIST} does not begin with Transformer and Pooling")
    modes, width = _pooling(rest[0].folder)
    return _chain(folder, modes, (width or hidden_size(folder) or 0) * len(modes) or None, rest[1:])


def _chain(folder: Path, modes: list[str], dim: int | None, rest: list[Module]) -> Chain:
    """Poolings, which give rows of `dim` numbers, and the modules after them."""
    normalize = bool(rest) and rest[-1].kind == "Normalize"
    pool, stated, steps = _joined(modes), dim, []
    for kind, place in rest[: -1 if normalize else None]:
        step, dim = _step(kind, place, dim)
        steps.append(step)

    def head(output: Floats, batch: Batch) -> Floats:
        rows = pool(output, batch)
        if stated not in (None, rows.shape[1]):
            raise ModelLoadError(f"{folder}: pooling gives {rows.shape[1]} numbers a text, its files say {stated}")
        for step in steps:
            rows = step(rows)
        return rows

    return Chain(head, dim, normalize)


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


def _joined(modes: list[str]) -> heads.Pooling:
    pools = [heads.POOLINGS[_POOLINGS[mode]] for mode in modes]
    if len(pools) == 1:
        return pools[0]
    return lambda output, batch: np.concatenate([pool(output, batch) for pool in pools], axis=1)


def _step(kind: str, folder: Path, width: int | None) -> tuple[Step, int | None]:
    """A module as a function over rows of `width` numbers, and how many numbers its rows have."""
    if kind == "Dense":
        return _dense(folder, width)
    if kind == "LayerNorm":
        return _layer_norm(folder, width)
    if kind == "Normalize":
        return heads.unit, width
    if kind == "Dropout":  # for training only
        return _identity, width
    raise ModelLoadError(
        f"{folder.parent / _LIST}: unknown module {kind!r:.100}; known are Pooling, Dense, LayerNorm, Normalize, "
        "Dropout"
    )


def _dense(folder: Path, width: int | None) -> tuple[Step, int]:
    path = folder / "config.json"
    config, fields = Config.read(path), _read(path)
    config.choice("use_residual", [False], default=False)
    config.choice("module_input_name", ["sentence_embedding"], "sentence_embedding")
    inner, outer = (config.integer(field, high=_WIDEST) for field in ("in_features", "out_features"))
    if width not in (None, inner):
        raise config.error("in_features", f"what comes before gives {width} numbers")
    name = str(fields.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.nn.") else None
    if activation is None:
        known = ", ".join(f"torch.nn.{each}" for each in _ACTIVATIONS)
        raise ModelLoadError(f"{path}: activation {name!r:.200}; known are {known}")
    weights = _Weights(folder)
    weight = weights.read("linear.weight", (outer, inner)).T
    biased = config.flag("bias", default=True)
    bias = weights.read("linear.bias", (outer,)) if biased else np.zeros(outer, np.float32)
    return lambda rows: activation(rows @ weight + bias), outer


def _layer_norm(folder: Path, width: int | None) -> tuple[Step, int]:
    size = Config.read(folder / "config.json").integer("dimension", width, high=_WIDEST)
    weights = _Weights(folder)
    weight, bias = weights.read("norm.weight", (size,)), weights.read("norm.bias", (size,))

    def norm(rows: Floats) -> Floats:
        centred = rows - rows.mean(axis=1, keepdims=True)
        scaled: Floats = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))
        return scaled * weight + bias

    return norm, size


def _identity(rows: Floats) -> Floats:
    return rows


def _gelu(rows: Floats) -> Floats:
    """Half of x * (1 + erf(x / sqrt 2)), with erf by Abramowitz & Stegun 7.1.26, to 1.5e-7; numpy has none."""
    scaled = np.abs(rows.astype(np.float64)) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * scaled)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - series * np.exp(-scaled * scaled), rows)
    values: Floats = (rows * (1 + erf) / 2).astype(np.float32)
    return values


_ACTIVATIONS: dict[str, Step] = {
    "GELU": _gelu,
    "Identity": _identity,
    "ReLU": lambda rows: np.maximum(rows, np.float32(0)),
    "Tanh": np.tanh,
}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


class _Weights:
    """The tensors of a module's folder, read as float32."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "model.safetensors"
        if not self._path.is_file() and (folder / "pytorch_model.bin").is_file():
            raise ModelLoadError(
                f"{folder} has its weights in pytorch_model.bin only, a pickle, which runs code when it is read. "
                "fastrank reads safetensors: save the model anew with sentence-transformers 3 or later"
            )
        self._tensors: dict[str, Tensor] = read_header(self._path)

    def read(self, name: str, shape: tuple[int, ...]) -> Floats:
        """A tensor, which must have this shape."""
        if name not in self._tensors:
            raise ModelLoadError(f"{self._path} has no tensor {name}")
        tensor = self._tensors[name]
        if tensor.shape != shape:
            raise ModelLoadError(f"{self._path}: {name} has the shape {tensor.shape}; config.json asks for {shape}")
        if tensor.dtype not in _DTYPES:
            raise ModelLoadError(f"{self._path}: {name} is {tensor.dtype}; known are {', '.join(_DTYPES)}")
        values: NDArray[Any] = np.fromfile(
            self._path, _DTYPES[tensor.dtype], int(np.prod(shape)), offset=tensor.offset
        ).reshape(shape)
        if tensor.dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
