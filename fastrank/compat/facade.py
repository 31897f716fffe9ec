"""What FastEmbed's classes have in common: their constructor, their lists, and the object they keep as `.model`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple

from fastrank import environment, store
from fastrank.compat import descriptions
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider
from fastrank.errors import ModelLoadError
from fastrank.models import registry
from fastrank.models.config import read_object
from fastrank.models.spec import ModelSpec
from fastrank.store.lookup import Lookup

# Tokens at which FastEmbed truncates: `max_length` in tokenizer_config.json of its own copies of these models.
LIMITS = {
    "Qdrant/bm42-all-minilm-l6-v2-attentions": 128,
    "prithivida/Splade_PP_en_v1": 128,
    "sentence-transformers/all-MiniLM-L6-v2": 128,
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": 128,
    "thenlper/gte-large": 128,
}
_OPTIONS = frozenset({"specific_model_path", "local_files_only", "device_id", "enable_cpu_mem_arena"})
_NO_EFFECT = {"mmap"}  # FastEmbed's choice of how a static model is read: the vectors are the same


class FastEmbedModel(PublicModel):
    """A fastrank class with FastEmbed's defaults: limits, files and ignored options. Put before that class.

    Attributes:
        task: what the class's models are for.
        fixed: options of the fastrank class that make it behave as FastEmbed's.
    """

    task: ClassVar[str]
    fixed: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init__(
        self,
        model_name: str,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[OnnxProvider] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        **options: Any,
    ) -> None:
        spec = descriptions.find(model_name, self.task)
        cache = cache_dir or environment.fastembed_cache()
        known = {name: options.pop(name) for name in self._known_options(spec) & options.keys()}
        self.model_name = spec.name
        self._ignore(options.keys() - _NO_EFFECT)
        self._inside = Inside(spec, threads, cache, known)
        self._has_run = not lazy_load
        super().__init__(  # type: ignore[call-arg]  # of the fastrank class, which comes next
            spec.name,
            cache,
            threads,
            providers,
            cuda,
            device_ids,
            lazy_load,
            **{**known, **self.fixed, **like_fastembed(spec, cache, known)},
        )

    @property
    def model(self) -> Any:
        """What FastEmbed's class keeps here; see `Implementation`."""
        return Implementation(self, self._inside, loaded=self._has_run)

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models, as FastEmbed lists them."""
        return descriptions.rows(cls.task)

    @classmethod
    def _list_supported_models(cls) -> list[Any]:
        """The models as FastEmbed's objects."""
        return [descriptions.describe(row, cls.task) for row in cls.list_supported_models()]

    def _known_options(self, spec: ModelSpec) -> frozenset[str]:
        """Options that FastEmbed has for this model."""
        del spec
        return _OPTIONS

    def _run(self, ignored: Iterable[str] = ()) -> None:
        """Note that the model is being run, and warn of arguments that FastEmbed ignores."""
        self._ignore(ignored)
        self._has_run = True

    def _ignore(self, options: Iterable[str]) -> None:
        if names := ", ".join(sorted(options)):
            warnings.warn(f"{self.model_name} ignores {names}, as FastEmbed does", stacklevel=4)


class Inside(NamedTuple):
    """How a model was asked for."""

    spec: ModelSpec
    threads: int | None
    cache_dir: str | Path | None
    options: Mapping[str, Any]

    def folder(self) -> Path:
        """The folder of the model's files, which are fetched if need be."""
        return store.locate(
            self.spec,
            Lookup(
                cache_dir=self.cache_dir,
                path=self.options.get("specific_model_path"),
                local_files_only=self.options.get("local_files_only", False),
                variant=descriptions.half_precision(self.spec),
            ),
        ).folder


class Implementation:
    """What programs reach through `.model` of FastEmbed's classes: the same methods, the session, the folder.

    As in FastEmbed there is no attribute `model` before the model is loaded.

    >>> embedding.model.model.get_providers()
    ['CPUExecutionProvider']
    """

    def __init__(self, facade: FastEmbedModel, inside: Inside, *, loaded: bool) -> None:
        self._facade = facade
        self._inside = inside
        if loaded:
            self.model = Session(facade, inside)

    @property
    def _model_dir(self) -> Path:
        return self._inside.folder()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "model" or not hasattr(self._facade, name):
            raise AttributeError(f"{name} of FastEmbed's model objects is not there (yet): {self._facade!r}")
        return getattr(self._facade, name)


class Session:
    """The part of onnxruntime.InferenceSession that programs ask for how a model runs."""

    def __init__(self, facade: FastEmbedModel, inside: Inside) -> None:
        self._facade = facade
        self._inside = inside

    def get_providers(self) -> list[str]:
        """The execution providers, the one in use first."""
        return list(dict.fromkeys([self._facade.info()["provider"], "CPUExecutionProvider"]))

    def get_session_options(self) -> SimpleNamespace:
        """`enable_cpu_mem_arena` and the numbers of threads, 0 where none was given: for reading."""
        threads = self._inside.threads or 0
        return SimpleNamespace(
            enable_cpu_mem_arena=self._inside.options.get("enable_cpu_mem_arena", True),
            intra_op_num_threads=threads,
            inter_op_num_threads=threads,
        )


def like_fastembed(spec: ModelSpec, cache_dir: str | Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The limit and the file that FastEmbed uses, as options of fastrank's classes."""
    if not spec.variants:  # BM25
        return {}
    given = options.get("specific_model_path")
    if given is not None or spec not in registry.builtin():
        files = store.locate(
            spec, Lookup(cache_dir=cache_dir, path=given, local_files_only=options.get("local_files_only", False))
        )
        return {"max_length": _limit(files.folder)}
    return {"max_length": LIMITS.get(spec.name), "variant": descriptions.half_precision(spec)}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if it cannot be read: what loads the model says so."""
    try:
        return read_object(path)
    except ModelLoadError:
        return {}


def _limit(folder: Path) -> int | None:
    """The limit that FastEmbed takes from a folder's tokenizer_config.json; None: there is none it could use."""
    limits = [read_json(folder / "tokenizer_config.json").get(key) for key in ("model_max_length", "max_length")]
    limit = min((n for n in limits if type(n) is int and 0 < n <= sys.maxsize), default=None)
    positions = read_json(folder / "config.json").get("max_position_embeddings")
    too_long = limit is not None and isinstance(positions, int) and limit > positions
    return None if too_long else limit
