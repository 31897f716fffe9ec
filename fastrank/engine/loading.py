"""From a model's files to a loaded pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic

from fastrank import inputs, store
from fastrank.engine import precision
from fastrank.engine.options import Options
from fastrank.engine.pipeline import Head, Pipeline, T
from fastrank.engine.session import Session
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models import registry
from fastrank.models.spec import ModelSpec

# What `graph.build` calls the output of its heads.
_BUILT_OUTPUTS = {
    "encoder": "last_hidden_state",
    "attention": "attention",
    "colbert": "token_vectors",
    "masked-lm": "logits",
    "sequence-classification": "logits",
}


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
