"""The models that are served: by which names they are asked for, and which answers when none is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar, get_args

from fastrank.server import hosted
from fastrank.server.wire.errors import ApiError, Kind
from fastrank.server.wire.numbers import MOST_DIMENSIONS

Task: TypeAlias = Literal["dense", "sparse", "late", "rerank"]
TASKS: tuple[Task, ...] = get_args(Task)
_CALLED: dict[Task, str] = {
    "dense": "an embedding model",
    "sparse": "a sparse embedding model",
    "late": "a late interaction model",
    "rerank": "a reranker",
}


class Named(Protocol):
    """A model with a name and a task."""

    @property
    def name(self) -> str:
        """Its full name."""

    @property
    def task(self) -> Task:
        """What it does."""


M = TypeVar("M", bound=Named)


@dataclass(frozen=True)
class Alias:
    """Another name for a model.

    Attributes:
        target: the model's name; None: the default of `task`.
        task: what the alias is for, if it says so.
        dimensions: vectors are padded with zeros to this size unless the client asks for another.
    """

    target: str | None = None
    task: Task | None = None
    dimensions: int | None = None


@dataclass(frozen=True)
class Found(Generic[M]):
    """A model, and how its vectors are fitted.

    Attributes:
        model: the model.
        dimensions: of vectors where the client asks for none; None: the model's own.
        most_dimensions: up to which vectors may be padded with zeros; None: not at all.
    """

    model: M
    dimensions: int | None = None
    most_dimensions: int | None = None


@dataclass(frozen=True)
class Catalog(Generic[M]):
    """Served models and their names. Names match in any case, with or without the organisation before the slash.

    Attributes:
        models: in the order given; the first of a task is its default.
        aliases: further names.
        defaults: models that answer where none is named.
        fallback: the model that answers for unknown names; None: they are errors.
        rerank_with: tasks whose models may rerank too.
        hidden: models that are used only where no other has their task.
    """

    models: Sequence[M]
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    defaults: Mapping[Task, str] = field(default_factory=dict)
    fallback: str | None = None
    rerank_with: Sequence[Task] = ()
    hidden: Sequence[M] = ()

    def __post_init__(self) -> None:
        named = [*self.defaults.values(), self.fallback, *(alias.target for alias in self.aliases.values())]
        for name in named:
            if name is not None and not self._called(name):
                raise ValueError(f"{name} is not served; this server has: {', '.join(self.names())}")

    def names(self) -> list[str]:
        """Names of models, then of aliases, as they were given."""
        return list(dict.fromkeys([model.name for model in self.models] + list(self.aliases)))

    def find(self, name: str | None, tasks: Sequence[Task]) -> Found[M]:
        """The model that answers: of the first of these tasks that has one by this name.

        Args:
            name: as the client said it; None: the default of the first task that has a model.
            tasks: what the model must do, the best first. Rerankers include `rerank_with` by themselves.

        Raises:
            ApiError: unknown, or a model of another task; the message says which there are.
        """
        tasks = self._allowed(tasks)
        if name is None:
            return self._default(tasks)
        alias = _lookup(self.aliases, name)
        if alias is not None:
            found = self._default(tasks) if alias.target is None else self._named(alias.target, tasks)
            return Found(found.model, alias.dimensions, MOST_DIMENSIONS)
        if not self._called(name) and self.fallback is not None:
            return self._named(self.fallback, tasks)
        return self._named(name, tasks)

    def known(self, name: str) -> bool:
        """Whether a model or an alias has this name."""
        return _lookup(self.aliases, name) is not None or bool(self._called(name))

    def _allowed(self, tasks: Sequence[Task]) -> list[Task]:
        return [*tasks, *self.rerank_with] if "rerank" in tasks else list(tasks)

    def _default(self, tasks: Sequence[Task]) -> Found[M]:
        for task in tasks:
            if task in self.defaults:
                return self._named(self.defaults[task], tasks)
        for task in tasks:
            for model in (*self.models, *self.hidden):
                if model.task == task:
                    return Found(model)
        raise ApiError(Kind.WRONG_TASK, f"This server has no model that is {_CALLED[tasks[0]]}{self._have()}", "model")

    def _named(self, name: str, tasks: Sequence[Task]) -> Found[M]:
        models = self._called(name)
        for task in tasks:
            for model in models:
                if model.task == task:
                    return Found(model)
        if models:
            message = f"{name} is not {_CALLED[tasks[0]]}{self._have()}"
            if tasks[0] == "rerank":
                message += ". A model that makes vectors reranks with --rerank-with"
            raise ApiError(Kind.WRONG_TASK, message, "model")
        raise ApiError(Kind.NOT_FOUND, f"There is no model {name!r}{self._have()}", "model", "model_not_found")

    def _called(self, name: str) -> list[M]:
        models = [*self.models, *self.hidden]
        wanted = _plain(name)
        return [model for model in models if _plain(model.name) == wanted] or [
            model for model in models if _short(_plain(model.name)) in (wanted, _short(wanted))
        ]

    def _have(self) -> str:
        return "; this server has: " + ", ".join(f"{model.name} ({model.task})" for model in self.models)


def parse_alias(text: str) -> tuple[str, Alias]:
    """`name=model` or `name=model:1536`.

    Raises:
        ValueError: it looks otherwise.
    """
    name, equals, target = (part.strip() for part in text.partition("="))
    model, colon, size = target.rpartition(":")
    dimensions = int(size) if colon and size.isdecimal() else None
    if dimensions is not None and not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"--alias {text}: dimensions must be from 1 to {MOST_DIMENSIONS}")
    target = target if dimensions is None else model
    if not name or not equals or not target:
        raise ValueError(f"--alias {text}: write name=model, or name=model:1536 to fill vectors up with zeros")
    return name, Alias(target, dimensions=dimensions)


def hosted_aliases(tasks: Iterable[Task]) -> dict[str, Alias]:
    """The names of hosted models, for the defaults of the tasks that are served."""
    names: dict[Task, Sequence[str]] = {"rerank": hosted.RERANK, "dense": hosted.DENSE}
    return {name: Alias(task=task) for task in tasks for name in names.get(task, ())}


def _lookup(aliases: Mapping[str, Alias], name: str) -> Alias | None:
    wanted = _plain(name)
    for known, alias in aliases.items():
        if _plain(known) == wanted:
            return alias
    return None


def _plain(name: str) -> str:
    return name.strip().lower().removesuffix(":latest")  # as Ollama's clients add it


def _short(name: str) -> str:
    return name.rpartition("/")[2]
