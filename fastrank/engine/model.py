"""What the public classes have in common beside their constructors: a name, an end, and use in a `with` statement."""

from __future__ import annotations

from typing import Any, Protocol, Self


class _Closes(Protocol):
    def close(self) -> None: ...
    def info(self) -> dict[str, Any]: ...


class Closeable:
    """A model that can be closed."""

    model_name: str
    _engine: _Closes

    def close(self) -> None:
        """Free the model's memory. Iterators that are running finish; new calls raise RuntimeError."""
        self._engine.close()

    def info(self) -> dict[str, Any]:
        """How this model runs on this machine and why: its file, precision, provider, threads. Loads the model.

        The keys are for people to read; what they are may change.
        """
        return self._engine.info()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_name!r})"
