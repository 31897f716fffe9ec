"""Base of the public classes: close(), info(), context manager, pickling, repr."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from fastrank.models import registry
from fastrank.models.spec import ModelSpec

if TYPE_CHECKING:
    from fastrank.engine.loaded import Lazy, LoadedModel


class PublicModel:
    """A model that can be closed, and pickled as its configuration: weights are loaded again where it arrives."""

    model_name: str
    _model: Lazy[LoadedModel[Any, Any, Any]]
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the arguments, which are what is pickled."""
        model = super().__new__(cls)
        model._arguments = args, kwargs
        return model

    def load(self) -> LoadedModel[Any, Any, Any]:
        """Load the model now, if it is not; its pipelines, for those who schedule texts themselves.

        They treat long texts as the constructor was told to; `output_dtype` is for the methods of this class alone.

        Raises:
            RuntimeError: it was closed.
        """
        loaded = self._model.get()
        overflow = getattr(self, "_overflow", None)
        return loaded if overflow is None or overflow.mode == "truncate" else loaded.asked(overflow)

    def close(self) -> None:
        """Free the model's memory. Iterators that are running finish; new calls raise RuntimeError."""
        self._model.close()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._model.is_closed

    def info(self) -> dict[str, Any]:
        """How this model runs on this machine and why: file, precision, provider, threads. Loads the model.

        "truncated_texts" counts the texts so far that had more tokens than the model takes and were cut. The keys are
        for people to read and may change.
        """
        loaded = self._model.get()
        cuts = getattr(loaded.documents, "cuts", None)
        return {**loaded.info, **({} if cuts is None else {"truncated_texts": cuts.texts})}

    def __reduce__(self) -> tuple[Any, ...]:
        return _construct, (type(self), *self._arguments, registry.custom(self.model_name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_name!r})"


def _construct(
    cls: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], custom: list[tuple[str, ModelSpec]]
) -> Any:
    registry.add_if_missing(custom)
    return cls(*args, **kwargs)
