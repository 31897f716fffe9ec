"""The path of a text: gate, tokens, schedule, session, head, order. One loaded model is shared by all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np

from fastrank import inputs, precision, processors, registry, store
from fastrank.errors import ModelLoadError, OutputError
from fastrank.heads import Floats
from fastrank.options import Options
from fastrank.precision import Arithmetic
from fastrank.registry import ModelSpec
from fastrank.schedule import Batch, Tokens, Window, collate, plan, spans, step, windows
from fastrank.session import Session
from fastrank.tokenizer import Text, Tokenizer

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

# What `graph.build` calls the output of its heads.
_BUILT_OUTPUTS = {
    "encoder": "last_hidden_state",
    "attention": "attention",
    "colbert": "token_vectors",
    "masked-lm": "logits",
    "sequence-classification": "logits",
}

T = TypeVar("T")
R = TypeVar("R")
Head: TypeAlias = "Callable[[Floats, Batch], Sequence[T]]"


@dataclass(frozen=True)
class Pipeline(Generic[T]):
    """A loaded model, whose head makes a T of each text or pair of texts."""

    files: store.ModelFiles
    how: Arithmetic
    tokenizer: Tokenizer
    session: Session
    head: Head[T]
    output: str | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)  # scalar inputs that differ from the session's

    def run(
        self,
        texts: Iterator[Text],
        batch_size: int,
        workers: int | None,
        named: Callable[[int], str] = "documents[{}]".format,
    ) -> Iterator[T]:
        """One result for each text, in order. `named` says how errors call the n-th.

        Texts are read ahead by a window, never more, so memory stays flat over endless iterators; for a GPU by two, as
        the second is tokenized while the first runs. What comes before an error in the iterator is delivered before the
        error is raised.

        Raises:
            OutputError: the model returned NaN or infinity for a text.
        """
        read = windows(texts, max(self.session.window, batch_size))
        with _SideBySide(self._workers(workers)) as side_by_side, closing(self._tokenized(read)) as tokenized:
            start = 0
            for window, tokens in tokenized:
                yield from self._window(tokens, partial(_offset, named, start), batch_size, side_by_side)
                if window.error:
                    raise window.error
                start += len(window.items)

    def token_count(self, texts: Iterator[Text], batch_size: int) -> int:
        """Tokens of all texts after truncation, special ones included."""
        total = 0
        for window in windows(texts, batch_size):
            if window.error:
                raise window.error
            total += sum(len(tokens.ids) for tokens in self.tokenizer.encode(window.items))
        return total

    def info(self) -> dict[str, Any]:
        """How the model runs; see `Closeable.info`."""
        session, how = self.session, self.how
        together = "texts of equal length only" if how.equal else f"texts of similar length, {session.budget} tokens"
        return {
            "file": str(how.path),
            "from": self.files.origin,
            "precision": how.name,
            "because": how.reason,
            "provider": session.provider,
            **({} if session.on_cpu else {"devices": session.devices}),
            "threads": session.threads,
            "runs together": "one text alone" if how.alone else together,
            "max_length": self.tokenizer.max_length,
        }

    def _workers(self, asked: int | None) -> int:
        """`parallel` of the public methods: None is what measured best, 0 one a processor."""
        return self.session.workers if asked is None else asked or processors.available()

    def _tokenized(self, read: Iterator[Window[Text]]) -> Generator[tuple[Window[Text], list[Tokens]], None, None]:
        def tokens(window: Window[Text]) -> list[Tokens]:
            return self.tokenizer.encode(window.items)

        return _one_by_one(tokens, read) if self.session.on_cpu else _ahead(tokens, read)

    def _window(
        self, tokens: Sequence[Tokens], named: Callable[[int], str], batch_size: int, side_by_side: _SideBySide
    ) -> Iterator[T]:
        if len(tokens) == 1:  # a query, most likely: there is nothing to plan
            yield from self._run(collate(tokens, [0], self.tokenizer.pad_id, self._padded(len(tokens[0].ids))), named)
            return
        for part in spans([len(each.ids) for each in tokens]):
            yield from self._sorted(tokens[part], partial(_offset, named, part.start), batch_size, side_by_side)

    def _sorted(
        self, tokens: Sequence[Tokens], named: Callable[[int], str], batch_size: int, side_by_side: _SideBySide
    ) -> Iterator[T]:
        most = 1 if self.how.alone else batch_size
        lengths = [self._padded(len(each.ids)) for each in tokens]
        batches = plan(lengths, self.session.budget, most, square=self.session.square, equal=self.how.equal)
        wide = len(batches) == 1
        results: dict[int, T] = {}

        def run(positions: list[int]) -> Sequence[T]:
            batch = collate(tokens, positions, self.tokenizer.pad_id, lengths[positions[0]])
            return self._run(batch, named, wide=wide)

        for positions, found in zip(batches, side_by_side.map(run, batches), strict=True):
            results.update(zip(positions, found, strict=True))
        for position in range(len(tokens)):
            yield results.pop(position)

    def _run(self, batch: Batch, named: Callable[[int], str], *, wide: bool = True) -> Sequence[T]:
        found = self.head(self.session.run(batch, self.output, wide=wide, numbers=self.numbers), batch)
        _check_finite(found, batch, named)
        return found

    def _padded(self, length: int) -> int:
        """What a text of this length is padded to at least: on a GPU a length that others have too."""
        if self.session.on_cpu:
            return length
        return max(length, min(step(length), self.tokenizer.max_length))


class LazyPipeline(Generic[T]):
    """A pipeline that is loaded once, under a lock, when it is first needed; and closed when told so."""

    def __init__(self, locate: Callable[[], store.ModelFiles], load: Callable[[store.ModelFiles], Pipeline[T]]) -> None:
        self._locate, self._load = locate, load
        self._lock = threading.RLock()
        self._files: store.ModelFiles | None = None
        self._loaded: Pipeline[T] | None = None
        self._closed = False

    def files(self) -> store.ModelFiles:
        """The model's files, fetched if need be; the model need not be loaded."""
        with self._lock:
            if self._files is None:
                self._files = self._locate()
            return self._files

    def get(self) -> Pipeline[T]:
        """The loaded pipeline.

        Raises:
            RuntimeError: it was closed.
        """
        if (loaded := self._loaded) is not None:
            return loaded
        with self._lock:
            if self._closed:
                raise RuntimeError("This model is closed. Make a new one.")
            if self._loaded is None:
                self._loaded = self._load(self.files())
            return self._loaded

    def info(self) -> dict[str, Any]:
        """How the model runs; see `Closeable.info`."""
        return self.get().info()

    def close(self) -> None:
        """Let go of the model's memory. Iterators that are running finish."""
        with self._lock:
            self._closed, self._loaded = True, None


class _SideBySide:
    """A `map` over so many threads. onnxruntime lets go of the interpreter lock, so they do run side by side."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[list[int]], R], batches: Sequence[list[int]]) -> Iterable[R]:
        if len(batches) == 1 or self._workers == 1:
            return map(function, batches)
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # a query in a new process needs none

            self._pool = ThreadPoolExecutor(self._workers, "fastrank")
        return self._pool.map(function, batches)

    def __enter__(self) -> _SideBySide:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _one_by_one(function: Callable[[T], R], items: Iterator[T]) -> Generator[tuple[T, R], None, None]:
    """Each item with what the function makes of it."""
    for item in items:
        yield item, function(item)


def _ahead(function: Callable[[T], R], items: Iterator[T]) -> Generator[tuple[T, R], None, None]:
    """The same, but while an item is in use a thread makes that of the next, which this thread has taken before."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "fastrank-ahead") as thread:
        make: Callable[[], R] | None = None
        item = next(items, None)
        while item is not None:
            made = make() if make else function(item)
            following = next(items, None)
            make = None if following is None else thread.submit(function, following).result
            yield item, made
            item = following


def _offset(named: Callable[[int], str], start: int, position: int) -> str:
    return named(start + position)


def _check_finite(results: Sequence[T], batch: Batch, named: Callable[[int], str]) -> None:
    for position, result in zip(batch.positions, results, strict=True):
        values: Any = getattr(result, "values", result)  # a vector, or something that has values
        if not np.isfinite(values).all():
            raise OutputError(f"The model returned NaN or infinity for {named(position)}. Its weights may be damaged.")


@contextmanager
def _advice(name: str, files: store.ModelFiles) -> Iterator[None]:
    """Say how files can be checked that cannot be used."""
    try:
        yield
    except ModelLoadError as error:
        if files.variant == store.GIVEN:
            raise
        raise ModelLoadError(f"{error}\nIf the files may be damaged, check them: fastrank verify {name}") from error


def prepare(
    spec: ModelSpec,
    make_head: Callable[[store.ModelFiles, Tokenizer], Head[T]],
    options: Options,
    *,
    cache_dir: str | Path | None,
    given: str | Path | None,
    local_files_only: bool,
    variant: str | None,
    max_length: int | None,
    output: str | None = None,
    graph_head: str | Callable[[Path], str] = "encoder",
    truncation: str = "longest_first",
    make_tokenizer: Callable[[store.ModelFiles], Tokenizer] | None = None,
    numbers: Mapping[str, int] = MappingProxyType({}),
    special_tokens_in_text: bool = True,
    verify: bool = False,
) -> LazyPipeline[T]:
    """A pipeline that finds a model's files and loads them when it is first needed. Arguments are checked now.

    `output` is the output of an ONNX file to use (None: its first), `graph_head` what to build on a checkpoint; a
    function is asked once the folder is known. `make_tokenizer` makes a tokenizer of another kind. `numbers` are
    scalar inputs of the graph beside the tokens.
    """
    spec = precision.narrowed(spec, options, variant, given=given is not None)
    limit = spec.max_length if max_length is None else inputs.positive(max_length, "max_length")

    def locate() -> store.ModelFiles:
        return store.locate(
            spec,
            cache_dir=cache_dir,
            given=given,
            local_files_only=local_files_only,
            variant=variant,
            verify=verify,
        )

    def load(files: store.ModelFiles) -> Pipeline[T]:
        registry.note_license(spec)
        with _advice(spec.name, files):
            return assemble(files)

    def assemble(files: store.ModelFiles) -> Pipeline[T]:
        if make_tokenizer is None:
            tokenizer = Tokenizer(
                files.folder,
                limit,
                truncation,
                capped=max_length is None,
                special_tokens_in_text=special_tokens_in_text,
            )
        else:
            tokenizer = make_tokenizer(files)
        built = graph_head if isinstance(graph_head, str) else graph_head(files.folder)
        how = precision.arithmetic(spec, files, built, options, cache_dir)
        session = Session(how.path, how.options, how.build, numbers, finished=how.finished)
        named = _BUILT_OUTPUTS[built] if how.build else output
        return Pipeline(files, how, tokenizer, session, make_head(files, tokenizer), named)

    return LazyPipeline(locate, load)
