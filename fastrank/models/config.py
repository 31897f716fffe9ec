"""The one reader of a model's JSON files: size-limited, regular files only, every field checked where it is used."""

from __future__ import annotations

import json
import reprlib
from typing import TYPE_CHECKING, Any, Final

from fastrank.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from fastrank.models.fields import Fields

MAX_BYTES: Final = 10_000_000
_OF_MODEL2VEC: Final = ("apply_pca", "apply_zipf", "embedding_dtype")
MAX_INTEGER: Final = 10_000_000  # above any vocabulary


def read_json(path: Path, most: int = MAX_BYTES) -> Any:
    """The value in a JSON file.

    Raises:
        ModelLoadError: the file is missing, not a regular file, larger than `most` bytes, or not JSON.
    """
    try:
        if not path.is_file():  # opening a pipe would wait forever
            raise ModelLoadError(f"{path}: there is no such file")
        if path.stat().st_size > most:
            raise ModelLoadError(f"{path}: larger than {most} bytes, which no such file of a model is")
        raw = path.read_bytes()
        value = json.loads(raw)
        if rb"\ud" in raw.lower():  # halves of characters, which no tokenizer takes
            json.dumps(value, ensure_ascii=False).encode()
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: not valid JSON: {error}") from error
    return value


def read_object(path: Path, most: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelLoadError: as `read_json`, or the value is not an object.
    """
    values = read_json(path, most)
    if not isinstance(values, dict):
        raise ModelLoadError(f"{path}: not a JSON object")
    return values


def is_model2vec(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is model2vec's; old versions wrote no model_type, but how the table was distilled."""
    old = values.get("model_type") is None and any(field in values for field in _OF_MODEL2VEC)
    return old or values.get("model_type") == "model2vec"


class Config:
    """A JSON object of a model's folder, such as `config.json`.

    Every getter raises ModelLoadError naming the file and the field when the value is missing (and there is no
    default), has the wrong type or is out of range. `null` counts as missing. Defaults are those of transformers.
    """

    def __init__(self, path: Path, values: Mapping[str, Any], within: str = "") -> None:
        self.path = path
        self._values = values
        self._within = within  # the way to a nested object, such as "rope_parameters."
        self._read: set[str] = set()
        self._sections: dict[str, Config] = {}

    @classmethod
    def read(cls, path: Path) -> Config:
        """The file's values.

        Raises:
            ModelLoadError: as `read_object`.
        """
        return cls(path, read_object(path))

    @classmethod
    def read_if_present(cls, path: Path) -> Config:
        """The file's values; no values if there is no such file. A path that is no regular file is an error."""
        return cls.read(path) if path.exists() else cls(path, {})

    def known(self, fields: Fields) -> Config:
        """The same, if every field is one that `fields` knows.

        Raises:
            ModelLoadError: a field is refused, or of a name that no table has.
        """
        for field, value in self._values.items():
            asks_for_nothing = value is None or value is False or value in ("", [], {})
            if field in fields.applied or field in fields.harmless or asks_for_nothing:
                continue
            if field in fields.refused:
                raise self.error(field, f"fastrank cannot apply it: {fields.refused[field]}")
            if not fields.others:
                raise self.error(field, "fastrank does not know this field, so results might be wrong")
        return self

    def integer(self, field: str, default: int | None = None, low: int = 1, high: int = MAX_INTEGER) -> int:
        """An integer from `low` to `high`."""
        value = self._get(field, default)
        if type(value) is int and low <= value <= high:
            return value
        raise self.error(field, f"expected an integer from {low} to {high}")

    def number(self, field: str, default: float, low: float = 0, high: float = 1) -> float:
        """A number of at least `low` and below `high`."""
        value = self._get(field, default)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value < high:
            return float(value)
        raise self.error(field, f"expected a number of at least {low:g} and below {high:g}")

    def flag(self, field: str, *, default: bool) -> bool:
        """True or false."""
        return bool(self.choice(field, [True, False], default))

    def string(self, field: str, default: str | None = None) -> str:
        """A string."""
        value = self._get(field, default)
        if isinstance(value, str):
            return value
        raise self.error(field, "expected a string")

    def strings(self, field: str, default: list[str] | None = None) -> list[str]:
        """A list of strings."""
        value = self._get(field, default)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise self.error(field, "expected a list of strings")

    def choice(self, field: str, options: Collection[Any], default: Any = None) -> Any:
        """One of `options`; the message lists them."""
        value = self._get(field, default)
        if any(type(value) is type(option) and value == option for option in options):
            return value
        raise self.error(field, f"supported: {', '.join(map(repr, options))}")

    def choices(self, field: str, options: Collection[str], default: list[str]) -> list[str]:
        """A list of some of `options`."""
        values = self._get(field, default)
        if isinstance(values, list) and all(isinstance(value, str) and value in options for value in values):
            return values
        raise self.error(field, f"expected a list of: {', '.join(map(repr, options))}")

    def width_and_heads(self, width: str, heads: str) -> tuple[int, int]:
        """Two fields: how wide the hidden states are, and how many heads share them in equal parts."""
        hidden, count = self.integer(width, high=100_000), self.integer(heads, high=10_000)
        if hidden % count:
            raise self.error(heads, f"{width} {hidden} is not a multiple of it")
        return hidden, count

    def first(self, *fields: str) -> str:
        """The first of several names of one field that stands there, else the last."""
        self._read.update(fields)
        return next((field for field in fields if self._values.get(field) is not None), fields[-1])

    def one_of(self, field: str, alias: str) -> str:
        """A field or its alias, of transformers' `attribute_map`: whichever stands there.

        Raises:
            ModelLoadError: both do, and disagree; which of them counts depends on their order there.
        """
        self._read.update((field, alias))
        stated, other = self._values.get(field), self._values.get(alias)
        if stated is not None and other is not None and stated != other:
            raise self.error(alias, f"{field}, which is the same field, is {self.text(field)}")
        return alias if stated is None and other is not None else field

    def has(self, field: str) -> bool:
        """Whether the field is there and not null."""
        self._read.add(field)
        return self._values.get(field) is not None

    def is_text(self, field: str) -> bool:
        """Whether the field is there and a string, for fields that may be of several types."""
        return isinstance(self._values.get(field), str)

    def refuse_null(self, *fields: str) -> None:
        """Refuse fields that are there and null, where the reference takes null for something else than a missing one.

        Raises:
            ModelLoadError: a field is null.
        """
        for field in fields:
            if field in self._values and self._values[field] is None:
                raise self.error(field, "give it a value, or take it out")

    def fields(self) -> list[str]:
        """The names of all fields that are not null."""
        return [field for field, value in self._values.items() if value is not None]

    def value(self, field: str) -> Any:
        """Whatever stands there; None if nothing does."""
        return self._get(field, None)

    def values(self) -> dict[str, Any]:
        """All fields that are not null, with their values."""
        return {field: value for field, value in self._values.items() if value is not None}

    def section(self, field: str) -> Config:
        """A nested object; without fields if it is missing."""
        if field in self._sections:
            return self._sections[field]
        value = self._get(field, {})
        if isinstance(value, dict):
            return self._sections.setdefault(field, Config(self.path, value, f"{self._within}{field}."))
        raise self.error(field, "expected an object")

    def refuse_unread(self, ignored: Collection[str], off: Collection[str]) -> None:
        """Refuse fields that nothing has read, unless they are null or empty.

        Args:
            ignored: Fields that may have any value.
            off: Fields that may be false.

        Raises:
            ModelLoadError: There is such a field; the message names it.
        """
        for field, value in self._values.items():
            harmless = value is None or value in ("", [], {}) or (value is False and field in off)
            if field not in self._read and field not in ignored and not harmless:
                raise self.error(field, "fastrank does not know this field, so results might be wrong")
        for section in self._sections.values():
            section.refuse_unread((), ())

    def text(self, field: str) -> str:
        """Whatever stands there, shortened, for a message."""
        return reprlib.repr(self._values.get(field))

    def error(self, field: str, expected: str) -> ModelLoadError:
        """The error to raise for a field, for checks that concern more than one."""
        where = f"{self.path}: field {self._within + field!r}"
        if field not in self._values:
            return ModelLoadError(f"{where} is missing; {expected}")
        return ModelLoadError(f"{where} is {self.text(field)}; {expected}")

    def _get(self, field: str, default: Any) -> Any:
        self._read.add(field)
        value = self._values.get(field)
        return default if value is None else value
