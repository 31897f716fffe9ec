"""A registry entry as frozen types: `ModelSpec`, its variants, files, sources and task settings."""

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

# The public class of each task, named in error messages.
CLASSES = {
    TEXT_EMBEDDING: "TextEmbedding",
    SPARSE_EMBEDDING: "SparseTextEmbedding",
    LATE_INTERACTION: "LateInteractionTextEmbedding",
    CROSS_ENCODER: "TextCrossEncoder",
}

PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8-weights", "int4-weights")  # of a variant's weights
ACTIVATIONS = ("none", "sigmoid", "softmax")  # of cross-encoders, from logits to scores
NORMALIZED = ("both", "documents", "none")  # which token embeddings are L2-normalized after the graph

# A path that cannot leave its folder on any system: no "..", no drive, no backslash, no hidden file.
PATH = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*"
NAME = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+"
VARIANT = r"[a-z0-9-]{1,20}"
COMMIT = r"[0-9a-f]{40}"
SHA256 = r"[0-9a-f]{64}"
WHEEL = r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!-]+"


# File names of a safetensors checkpoint: a single file, or the index of its shards.
CHECKPOINTS = ("model.safetensors", "model.safetensors.index.json")


def is_checkpoint(model: str) -> bool:
    """Whether this file name is that of a safetensors checkpoint or of its shard index (otherwise: an ONNX graph)."""
    return model.endswith((".safetensors", ".safetensors.index.json"))


class PoolingType(StrEnum):
    """How token states become one vector. Names as in FastEmbed; `PoolingType("mean")` works too."""

    CLS = "CLS"
    MEAN = "MEAN"
    LAST_TOKEN = "LAST_TOKEN"  # noqa: S105 - no password
    DISABLED = "DISABLED"

    @classmethod
    def _missing_(cls, value: object) -> PoolingType | None:
        return cls.__members__.get(str(value).upper())


@dataclass(frozen=True)
class ModelSource:
    """Source of a custom model: `hf` is a repository on the Hugging Face hub. FastEmbed's `url` is not supported.

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
    """A file of a model. `size` (bytes) and `sha256` are None if not pinned."""

    path: str
    size: int | None
    sha256: str | None
    optional: bool = False


class HubSource(NamedTuple):
    """A repository on the Hugging Face hub at a commit; `revision` is None if not pinned (the main branch is used)."""

    hub: str
    revision: str | None


class WheelSource(NamedTuple):
    """A wheel on a package index that contains the files under `folder`."""

    wheel: str
    sha256: str
    folder: str


Source: TypeAlias = HubSource | WheelSource


class Variant(NamedTuple):
    """A complete set of files that runs the model, and where to get them.

    `open`: the file list is chosen from the repository's own listing; `files` are the ones needed in any case, and an
    empty `model` means that the graph or checkpoint is chosen too. `size_approx` is the download in bytes where
    `files` lack a size.
    """

    name: str
    precision: str
    model: str
    files: tuple[FileSpec, ...]
    sources: tuple[Source, ...]
    size_approx: int | None = None
    open: bool = False

    @property
    def size(self) -> int | None:
        """Exact size of the download in bytes; None if the size of a file is unknown."""
        sizes = [file.size for file in self.files if not file.optional]
        return None if self.open or None in sizes else sum(size for size in sizes if size)

    @property
    def size_label(self) -> str:
        """Size of the download for people: "133 MB", "~1.3 GB" if approximate, "?" if unknown."""
        if (size := self.size or self.size_approx) is None:
            return "?"
        number = f"{size / 1e9:.1f} GB" if size >= 999.5e6 else f"{size / 1e6:.0f} MB"
        return number if self.size else f"~{number}"

    @property
    def pinned(self) -> bool:
        """Whether every file has a SHA-256 to check against."""
        return not self.open and all(file.sha256 for file in self.files)


class Prefixes(NamedTuple):
    """Texts that `query_embed`, `passage_embed` and `embed` prepend; only folders have one for `embed`."""

    query: str = ""
    passage: str = ""
    embed: str = ""


INSTRUCTED = (("Instruct: ", "\nQuery:"), ("task: ", " | query: "))  # what stands around a prefix's instruction


def instructed(prefix: str, instruction: str) -> str | None:
    """A query prefix with another instruction; None: it has no place for one."""
    for before, after in INSTRUCTED:
        head, found, tail = prefix.partition(after)
        if found and head.startswith(before):
            return f"{before}{instruction}{after}{tail}"
    return None


class Answer(NamedTuple):
    """A known output of the model: `fastrank verify` compares it with the actual one, within `tolerance`.

    `values` are the first components of a dense vector; the score of a (query, document) pair; the weights at the
    first `indices` (ascending) of a sparse vector; or the first components of each of `rows` token vectors, row by row.
    The method "similarity" has one value: the dot product of the vectors of a query and of a passage.
    """

    method: str
    input: str | tuple[str, str]
    values: tuple[float, ...]
    tolerance: float
    indices: tuple[int, ...] | None = None
    rows: int | None = None


class TaskInput(NamedTuple):
    """A scalar graph input that selects the task of a vector: task ids by name, and the task of each method."""

    name: str
    tasks: Mapping[str, int]
    embed: str
    query: str
    passage: str


class Matryoshka(NamedTuple):
    """Sizes of vectors that a model was trained for, beside the whole: the first numbers are the most important.

    Attributes:
        dims: these.
        least: any size from this one on; None: only `dims`.
        layer_norm: whether mean and variance of a whole vector are normalized before it is shortened, and its length
            after that, although the model's own vectors are not normalized.
    """

    dims: tuple[int, ...] = ()
    least: int | None = None
    layer_norm: bool = False

    def fits(self, dim: int) -> bool:
        """Whether vectors of this size are among them."""
        return dim in self.dims or (self.least is not None and dim >= self.least)

    def __str__(self) -> str:
        sizes = [*map(str, sorted(self.dims)), *([f"{self.least} or more"] if self.least else [])]
        return ", ".join(sizes)


class DenseTask(NamedTuple):
    """How a dense vector is made of the model's output. What is None, the model's folder says.

    Models of the registry leave nothing to it: their vectors must not depend on where the files come from. `modules`:
    Dense and LayerNorm modules follow the pooling; the entry has their files, and modules.json names them.
    """

    dim: int | None = None
    pooling: str | None = None
    normalize: bool | None = None
    prefixes: Prefixes | None = None
    output: str | None = None
    task_input: TaskInput | None = None
    matryoshka: Matryoshka | None = None
    modules: bool = False
    answers: tuple[Answer, ...] = ()


class SparseTask(NamedTuple):
    """How a sparse vector is made. `activation` is SPLADE's; None: as the model's folder says.

    `weights`: of the kind "token-weights", the file of the layer that weighs tokens; empty: the checkpoint has it.
    """

    kind: str
    requires_idf: bool = False
    vocab_size: int | None = None
    activation: str | None = "log1p"
    skip_special_tokens: bool = False
    query_weights: str | None = None
    language: str | None = None
    alpha: float = 0.5
    output: str | None = None
    weights: str = ""
    answers: tuple[Answer, ...] = ()


class LateInteractionTask(NamedTuple):
    """How token embeddings for MaxSim are computed.

    Attributes:
        dim: the size of a token embedding; 0, as for no entry of the registry: the model's folder states all of this.
        query_prefix_token: a token, or its id, inserted into each query at `prefix_position`; None: none.
        document_prefix_token: the same for documents.
        prefix_position: number of tokens before the prefix token.
        query_length: shorter queries are expanded to this number of tokens, special ones included; None: they are not.
        mask_token: the expansion token.
        attend_to_expansion_tokens: whether the model attends to expansion tokens.
        query_max_length: maximum number of tokens per query, special ones included; None: the model's limit.
        document_max_length: the same for documents.
        skiplist: texts whose first token gets no embedding in documents; the model still reads it.
        skiplist_words: vocabulary tokens without an embedding in documents.
        normalize: which embeddings are L2-normalized after the graph: "both", "documents" or "none".
        projection: whether a checkpoint has Dense layers after the encoder. ONNX files include them.
        output: the output of an ONNX file to use; None: its first.
        linear: the file of the layer that makes them of the states of all tokens but the first; empty: the graph does.
        matryoshka: sizes of shorter token embeddings that the model was trained for; None: not known.
        answers: reference results for `fastrank verify`.
    """

    dim: int = 0
    query_prefix_token: int | str | None = None
    document_prefix_token: int | str | None = None
    prefix_position: int = 1
    query_length: int | None = None
    mask_token: str = "[MASK]"  # noqa: S105 - no password
    attend_to_expansion_tokens: bool = False
    query_max_length: int | None = None
    document_max_length: int | None = None
    skiplist: tuple[str, ...] = ()
    skiplist_words: tuple[str, ...] = ()
    normalize: str = "both"
    projection: bool = True
    output: str | None = None
    linear: str = ""
    matryoshka: Matryoshka | None = None
    answers: tuple[Answer, ...] = ()


class CrossEncoderTask(NamedTuple):
    """How a score is made of the model's output: FastEmbed's is the raw logit.

    `label` is the class that means "relevant", where the model has several. `modules`: the graph ends at the encoder,
    and the folder's sentence-transformers modules make the score; None: if it has such modules. `template` is the
    chat template that pairs are put into, Jinja with messages of the roles "query", "document" and perhaps "system";
    empty: the tokenizer gets them as pairs. `score_tokens`: the model is a language model, and the score is the logit
    of the first of these tokens minus that of the second, if there are two.
    """

    activation: str = "none"
    label: int | None = None
    modules: bool | None = False
    template: str = ""
    score_tokens: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()


Task: TypeAlias = DenseTask | SparseTask | LateInteractionTask | CrossEncoderTask

SETTINGS: Mapping[str, type[Task]] = {
    TEXT_EMBEDDING: DenseTask,
    SPARSE_EMBEDDING: SparseTask,
    LATE_INTERACTION: LateInteractionTask,
    CROSS_ENCODER: CrossEncoderTask,
}


RUN, ANSWERS, ARCHITECTURE, SETTINGS_ONLY = "run", "answers", "architecture", "settings"
VERIFIED = {
    RUN: "run with its real weights where fastrank is developed",
    ANSWERS: "published values are in the entry; `fastrank verify` compares them on your machine",
    ARCHITECTURE: "a tiny checkpoint of the same architecture equals the reference; no published values are known",
    SETTINGS_ONLY: "settings are those of the model's card or of FastEmbed; no published values are known",
}
"""How entries of the registry are verified: name -> what it means."""


class ModelSpec(NamedTuple):
    """One entry of the registry. `verified` is a name in `VERIFIED`, where it does not follow from the rest."""

    name: str
    description: str
    license: str
    languages: tuple[str, ...]
    tasks: Mapping[str, Task]
    variants: tuple[Variant, ...]
    aliases: tuple[str, ...] = ()
    year: int | None = None
    max_length: int | None = None
    verified: str = ""

    @property
    def verification(self) -> str:
        """How the entry was verified, a name in `VERIFIED`."""
        if self.verified:
            return self.verified
        if any(task.answers for task in self.tasks.values()):
            return ANSWERS
        return ARCHITECTURE if any(is_checkpoint(variant.model) for variant in self.variants) else SETTINGS_ONLY

    @property
    def noncommercial(self) -> bool:
        """Whether the licence forbids commercial use, as Creative Commons' NC ones do."""
        return "-nc" in self.license.casefold()

    def task(self, task: str, kind: type[S]) -> S:
        """The settings of one task, checked to be of type `kind`."""
        settings = self.tasks[task]
        if not isinstance(settings, kind):
            raise RegistryError(f"{self.name}: {task} has settings of type {type(settings).__name__}")
        return settings

    def variant(self, name: str | None) -> tuple[Variant, ...]:
        """All variants in order of preference, or only the named one.

        Raises:
            ValueError: no variant has this name.
        """
        found = tuple(variant for variant in self.variants if name in (None, variant.name))
        if not found and name is not None:
            known = ", ".join(variant.name for variant in self.variants) or "none"
            raise ValueError(f"{self.name} has no variant {name!r}. It has: {known}")
        return found
