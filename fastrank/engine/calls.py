"""What a call of a public class may say beside its texts, and what becomes of it. Checked at the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar

from fastrank import inputs
from fastrank.engine import progress
from fastrank.engine.loaded import TextPipeline
from fastrank.engine.overflow import DEFAULT, MODES, Chunking, Join, Overflow

T = TypeVar("T")

OverflowMode: TypeAlias = Literal["truncate", "error", "chunk"]
OutputDtype: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]


class TextOptions(TypedDict, total=False):
    """Options of every call.

    Attributes:
        prompt: put before each text (of pairs: before the query) in place of the model's own prefix.
        overflow: what is done with texts that have more tokens than the model takes. "truncate" reads their beginning;
            "error" raises TextTooLongError; "chunk" reads all of it, in chunks (docs/long-documents.md).
        chunk_size: the most tokens of a chunk, prefix and special tokens not counted. Default: as many as the model
            takes.
        chunk_overlap: the most tokens that a chunk shares with the one before. Default: 0.
        on_truncated: is called with the position of each text that was cut.
        show_progress: draw a progress bar (tqdm) on standard error while results are read.
    """

    prompt: str | None
    overflow: OverflowMode | None
    chunk_size: int | None
    chunk_overlap: int | None
    on_truncated: Callable[[int], object] | None
    show_progress: bool | None


class VectorOptions(TextOptions, total=False):
    """Options of calls that return vectors, beside those of every call.

    Attributes:
        truncate_dim: keep so many numbers of a vector, from the first on (Matryoshka), and normalize it again if the
            model's vectors are normalized.
        output_dtype: "float32", "float16", "int8", "uint8", "binary" or "ubinary" (docs/small-vectors.md).
        ranges: for "int8" and "uint8": (2, dim), the least and the greatest value of each dimension, as `calibrate`
            returns them; or "unit" for normalized vectors: `round(127 * x)`.
    """

    truncate_dim: int | None
    output_dtype: OutputDtype | None
    ranges: Any


class Call(NamedTuple):
    """Options of a call, checked.

    Attributes:
        prompt: in place of the prefix; None: that one.
        overflow: what is done with long texts.
        show_progress: whether to draw a progress bar.
    """

    prompt: str | None
    overflow: Overflow
    show_progress: bool

    def pipeline(self, pipeline: TextPipeline[T]) -> TextPipeline[T]:
        """The pipeline with this call's prompt and way with long texts.

        Raises:
            ValueError: the model takes no prompts, or no chunks.
        """
        return pipeline.asked(self.prompt, self.overflow)

    def shown(self, results: Iterator[T], name: str, total: int | None) -> Iterator[T]:
        """The results, with a progress bar if it is wanted."""
        return progress.shown(results, name, total) if self.show_progress else results


def call(method: str, given: Mapping[str, Any], defaults: Overflow, join: Join | None, others: set[str]) -> Call:
    """The options of a call.

    Args:
        method: its name, for errors.
        given: what the caller passed.
        defaults: of the instance.
        join: makes one result of those of a text's chunks; None: there are no chunks here.
        others: options that are read elsewhere.

    Raises:
        TypeError: an option is unknown, or of another type.
        ValueError: an option is out of range.
    """
    if foreign := given.keys() - TextOptions.__annotations__.keys() - others:
        raise TypeError(f"{method}() got an unexpected keyword argument {min(foreign)!r}")
    prompt = given.get("prompt")
    return Call(
        None if prompt is None else inputs.text(prompt, "prompt"),
        overflow(given, defaults, join),
        _flag(given.get("show_progress"), "show_progress"),
    )


def overflow(given: Mapping[str, Any], defaults: Overflow = DEFAULT, join: Join | None = None) -> Overflow:
    """What is done with long texts: as the caller says it, else as the instance does it.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of range, or goes with "chunk" only.
    """
    mode = given.get("overflow") or defaults.mode
    if mode not in MODES:
        raise ValueError(f"overflow must be one of {', '.join(map(repr, MODES))}, not {mode!r}")
    size, overlap = given.get("chunk_size"), given.get("chunk_overlap")
    if mode != "chunk" and (size is not None or overlap is not None):
        raise ValueError('chunk_size and chunk_overlap are for overflow="chunk"')
    callback = given.get("on_truncated")
    if callback is not None and not callable(callback):
        raise TypeError(f"on_truncated must be a function of a position, not {type(callback).__name__}")
    chunks = chunking(size, overlap, defaults.chunking or Chunking()) if mode == "chunk" else None
    return Overflow(mode, chunks, join, callback or defaults.on_truncated)


def chunking(size: Any, overlap: Any, defaults: Chunking) -> Chunking:
    """How chunks are made.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is out of range.
    """
    size = defaults.size if size is None else inputs.positive(size, "chunk_size")
    overlap = defaults.overlap if overlap is None else inputs.not_negative(overlap, "chunk_overlap")
    if size is not None and overlap >= size:
        raise ValueError(f"chunk_overlap must be less than chunk_size, got {overlap} and {size}")
    return Chunking(size, overlap)


def in_chunks(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a call that reads texts in chunks.

    Raises:
        ValueError: they say that it should not.
    """
    if (mode := given.get("overflow")) not in (None, "chunk"):
        raise ValueError(f"this method reads texts in chunks: overflow must be 'chunk', not {mode!r}")
    return {**given, "overflow": "chunk"}


def counted(counts: Iterator[int], *, each: bool) -> int | list[int]:
    """Numbers of tokens: of each text, or of all."""
    return list(counts) if each else sum(counts)


def total(texts: Any) -> int | None:
    """How many texts there are; None: only reading them can tell."""
    if isinstance(texts, str):
        return 1
    try:
        return len(texts)
    except TypeError:
        return None


def _flag(value: Any, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(value)
