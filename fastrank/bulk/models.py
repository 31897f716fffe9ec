"""From the configuration of an `Embedder` to a loaded model that encodes texts, one a process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import fastrank
from fastrank import environment, inputs
from fastrank.engine import cpu
from fastrank.engine.pipeline import LookupPipeline, Pipeline
from fastrank.engine.shared import shared
from fastrank.errors import ModelNotFoundError
from fastrank.models import packages, registry
from fastrank.models.spec import CROSS_ENCODER, LATE_INTERACTION, SPARSE_EMBEDDING, TEXT_EMBEDDING
from fastrank.store import integrity

KINDS: Mapping[str, Any] = {  # in the order in which a model of several tasks is taken
    "dense": fastrank.TextEmbedding,
    "sparse": fastrank.SparseTextEmbedding,
    "late": fastrank.LateInteractionTextEmbedding,
    "rerank": fastrank.TextCrossEncoder,
}
_TASKS = {
    TEXT_EMBEDDING: "dense",
    SPARSE_EMBEDDING: "sparse",
    LATE_INTERACTION: "late",
    CROSS_ENCODER: "rerank",
}
_NOT_OPTIONS = {"lazy_load", "model_name"}
_PATHS = {"cache_dir", "specific_model_path"}
_NOT_VALUES = {"local_files_only", "verify", "enable_cpu_mem_arena", *_PATHS}  # they change no vector
_SMALL = 64 << 20  # bytes: of files beside the model that may change its vectors
_BESIDE = {".json", ".txt", ".model"}


class Config(NamedTuple):
    """Which model, and how it is made.

    Attributes:
        name: of the model.
        kind: one of KINDS.
        role: "plain", "passage" or "query".
        threads: as the caller said; None: as the engine grants.
        options: arguments of the public class.
    """

    name: str
    kind: str
    role: str
    threads: int | None
    options: Mapping[str, Any]

    def check(self) -> None:
        """Raise what the constructor of the public class raises for these arguments; nothing is loaded."""
        KINDS[self.kind](self.name, threads=self.threads, lazy_load=True, **self.options)

    def model(self) -> Any:
        """The model of this process, which is loaded when it is first used."""
        return shared(KINDS[self.kind], self.name, threads=threads(self.threads), **self.options)


def kind_of(name: str, *, own: bool) -> str:
    """The kind of a model that serves several tasks, or one.

    Args:
        name: of the model.
        own: whether its files are in a folder of the caller's.

    Raises:
        ModelNotFoundError: there is no such model.
        ValueError: the registry cannot say.
    """
    try:
        spec = registry.find(name)
    except ModelNotFoundError:
        if not own:
            raise
        raise ValueError(
            f"{name!r} is not in the registry: say what the model in the folder is, kind='dense', 'sparse', 'late' or "
            "'rerank'"
        ) from None
    kinds = {_TASKS[task] for task in spec.tasks}
    return next(kind for kind in KINDS if kind in kinds)


def data(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, if they are data: they travel to other machines and are compared there. Paths become absolute.

    Raises:
        TypeError: one is not.
    """
    for name in options:
        if name in _NOT_OPTIONS:
            raise TypeError(f"Embedder takes no {name}: a model is loaded once in each process, when it is first used")
        if name in ("output_dtype", "ranges"):
            raise TypeError(f"Embedder takes no {name}: its columns have the type that `dtype` says")
    return {
        name: str(Path(value).expanduser().absolute()) if name in _PATHS and value is not None else _datum(name, value)
        for name, value in options.items()
    }


def threads(said: int | None) -> int:
    """CPU threads of a model in this process: those that the caller said, else FASTRANK_THREADS, else as granted.

    Ray, Spark and Dask state the CPUs that they grant a worker only in OMP_NUM_THREADS: they set no affinity.

    Raises:
        ValueError: FASTRANK_THREADS is no number.
    """
    if chosen := said or environment.bulk_threads():
        return chosen
    available = cpu.available()
    return min(environment.granted_threads() or available, available)


class Encoder:
    """A loaded model with one of its ways to read texts.

    Attributes:
        tokens: how many it has read, special ones included; None: it cannot say, as BM25 has words.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.model = config.model()
        self._loaded = self.model.load()
        self._count = [0]
        self._pipeline = self._chosen()

    @property
    def is_closed(self) -> bool:
        """Whether somebody closed the model."""
        return bool(self.model.is_closed)

    @property
    def tokens(self) -> int | None:
        """How many tokens it has read."""
        return self._count[0] if isinstance(self._pipeline, (Pipeline, LookupPipeline)) else None

    def run(self, texts: Sequence[str], queries: Sequence[str] | None, batch_size: int) -> Iterator[Any]:
        """One result per text, or per pair with its query, in order.

        Raises:
            OutputError: a result is not finite.
        """
        if queries is None:
            return iter(self._pipeline.run(inputs.texts(texts), batch_size, None))
        pairs = inputs.pairs(list(zip(queries, texts, strict=True)))
        return iter(self._pipeline.run(pairs, batch_size, None))

    def _chosen(self) -> Any:
        loaded, config = self._loaded, self._config
        pipeline = {
            "plain": loaded.documents,
            "query": loaded.queries,
            "passage": getattr(loaded, "passages", loaded.documents),
        }[config.role]
        if config.kind == "dense":
            if config.options.get("prefixes") is False:
                pipeline = pipeline.with_prefix("")
            if config.role == "plain" and (task := config.options.get("task_id")) is not None:
                pipeline = replace(pipeline, extra_inputs=loaded.settings.extra_inputs("embed", task))
        return self._counting(pipeline)

    def _counting(self, pipeline: Any) -> Any:
        if isinstance(pipeline, LookupPipeline):
            return pipeline._replace(tokenizer=_Counting(pipeline.tokenizer, self._count))  # type: ignore[arg-type]
        if isinstance(pipeline, Pipeline):
            return replace(pipeline, tokenizer=_Counting(pipeline.tokenizer, self._count))  # type: ignore[arg-type]
        return pipeline


class _Counting:
    """A tokenizer that counts what it gives."""

    def __init__(self, tokenizer: Any, count: list[int]) -> None:
        self._tokenizer, self._count = tokenizer, count

    def encode(self, texts: Sequence[Any]) -> Any:
        """The tokens of each text."""
        found = self._tokenizer.encode(texts)
        self._count[0] += sum(len(tokens.ids) for tokens in found)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def description(config: Config) -> dict[str, Any]:
    """What decides the values of results: for people to compare, and to make a fingerprint of.

    The model is loaded. Its files are read, so that two machines with different ones differ.
    """
    model = config.model()
    values = {name: value for name, value in config.options.items() if name not in _NOT_VALUES and value is not None}
    about: dict[str, Any] = {
        "fastrank": fastrank.__version__,
        "model": model.model_name,
        "kind": config.kind,
        "role": config.role,
        "options": json.loads(json.dumps(values, default=str)),
    }
    info = model.info()
    if "folder" in info:
        about |= {
            "precision": info["precision"],
            "files": _files(model.model_name, Path(info["folder"]), Path(info["file"])),
        }
    return about


def fingerprint(about: Mapping[str, Any]) -> str:
    """The SHA-256 of a description, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _files(name: str, folder: Path, model: Path) -> dict[str, str]:
    """SHA-256 of the files that decide a model's results, by their names in its folder.

    Of a model of the registry they are those that its entry lists, as a wheel may have others beside them.
    """
    if registry.is_builtin(name):
        listed = [
            {file.path for file in variant.files if not file.optional}
            for variant in registry.find(name).variants
            if variant.model and (folder / variant.model == model or not model.is_relative_to(folder))
        ]
        named = [paths for paths in listed if all((folder / path).is_file() for path in paths)]
        if named:
            return {path: integrity.sha256(folder / path) for path in sorted(named[0])}
    beside = [path for path in folder.rglob("*") if path.suffix in _BESIDE and path.is_file()]
    beside = [path for path in beside if path.stat().st_size <= _SMALL and path.name != packages.MANIFEST]
    weights = [*model.parent.glob(f"{model.name}*")] if model.is_relative_to(folder) else []
    if model.suffix != ".onnx" or not weights:
        weights += folder.rglob("*.safetensors")
    paths = {path for path in [*weights, *beside] if path.is_file()}
    return {path.relative_to(folder).as_posix(): integrity.sha256(path) for path in sorted(paths)}


def _datum(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str, Path)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(_datum(name, each) for each in (sorted(value) if isinstance(value, (set, frozenset)) else value))
    if isinstance(value, dict):
        return {key: _datum(name, each) for key, each in value.items()}
    raise TypeError(
        f"{name} must be data (a number, a string, a list ...), not {type(value).__name__}: an Embedder is sent to "
        "other processes as its configuration"
    )
