"""Models that are served: found by name, loaded when they are first needed or before the server listens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastrank
from fastrank.errors import ModelNotFoundError
from fastrank.models import registry
from fastrank.models.spec import CROSS_ENCODER, LATE_INTERACTION, SPARSE_EMBEDDING, TEXT_EMBEDDING
from fastrank.server.catalog import TASKS, Task

BM25 = "Qdrant/bm25"  # needs no files, so it is there where no other sparse model is
_IN_REGISTRY: dict[Task, str] = {
    "dense": TEXT_EMBEDDING,
    "rerank": CROSS_ENCODER,
    "sparse": SPARSE_EMBEDDING,
    "late": LATE_INTERACTION,
}


@dataclass
class Served:
    """A model that is served.

    Attributes:
        name: its full name.
        task: what it does.
        make: makes it; may take long and raise what the public classes raise.
    """

    name: str
    task: Task
    make: Callable[[], Any]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: Any = None

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        return self._made is not None

    def get(self) -> Any:
        """The model, an instance of the public class of its task, loaded."""
        with self._lock:
            if self._made is None:
                self._made = self.make()
            return self._made

    def close(self) -> None:
        """Free its memory."""
        with self._lock:
            if self._made is not None:
                self._made.close()


def served(text: str, arguments: Mapping[str, Any]) -> Served:
    """The model that an operator named: `NAME`, `FOLDER`, or either after a task, as in `late:NAME`.

    A name that is in no registry is taken for a repository of the hub if the task is said.

    Args:
        text: as it was given.
        arguments: of the public classes.

    Raises:
        ModelNotFoundError: there is no such model; the message names the nearest.
    """
    prefix, colon, rest = text.partition(":")
    said: Task | None = next((each for each in TASKS if colon and prefix == each), None)
    name = rest if said else text
    if Path(name).is_dir():
        folder = Path(name).absolute()
        return _served(folder.name, said or "dense", {**arguments, "specific_model_path": folder})
    task, full_name = _found(name, said)
    return _served(full_name, task, arguments)


def bm25() -> Served:
    """BM25, which every server has."""
    return Served(BM25, "sparse", lambda: fastrank.SparseTextEmbedding(BM25))


def _served(name: str, task: Task, arguments: Mapping[str, Any]) -> Served:
    return Served(name, task, lambda: _made(task, name, arguments))


def _found(name: str, task: Task | None) -> tuple[Task, str]:
    """The task and the full name of a model."""
    wanted: list[Task] = [task] if task else list(_IN_REGISTRY)
    for each in wanted:
        try:
            return each, registry.find(name, _IN_REGISTRY[each]).name
        except ModelNotFoundError:
            continue
    if task is not None and "/" in name:
        _CLASSES[task].add_custom_model(name)
        return task, name
    if task is None and "/" in name:
        try:
            registry.find(name, TEXT_EMBEDDING)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"{error}\nTo serve a model of the hub, say what it does: dense:{name}") from None
    return wanted[0], registry.find(name, _IN_REGISTRY[wanted[0]]).name


def _made(task: Task, name: str, arguments: Mapping[str, Any]) -> Any:
    if task == "rerank":
        # The query is never cut: every document would be judged by another question.
        return fastrank.TextCrossEncoder(name, truncation="only_second", **arguments)
    return _CLASSES[task](name, **arguments)


_CLASSES: dict[Task, Any] = {
    "dense": fastrank.TextEmbedding,
    "sparse": fastrank.SparseTextEmbedding,
    "late": fastrank.LateInteractionTextEmbedding,
    "rerank": fastrank.TextCrossEncoder,
}
