"""Makes specs from JSON that is known to fit: the shipped registry, checked against its schema before every release.

The form of an entry is described in one place, `model_registry.schema.json`. Here the annotations of the named tuples
in `spec` say how a JSON value becomes a field. What comes from elsewhere (manifests of installed packages) is checked
field by field in `packages`.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Callable, Mapping
from types import MappingProxyType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from fastrank.errors import RegistryError
from fastrank.models.spec import SETTINGS, TEXT_EMBEDDING, ModelSpec, Task

CHARACTER_SETS = {"punctuation": tuple(string.punctuation)}  # a name in place of a list
# Registry entries leave nothing to the model's folder: no prefixes stated means none, whatever the folder says.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {TEXT_EMBEDDING: {"prefixes": {}}}

Read = Callable[[Any], Any]


def model_spec(entry: Any) -> ModelSpec:
    """One entry of the registry's `models`.

    Raises:
        RegistryError: the entry does not fit the types; `scripts/registry.py validate` says more.
    """
    try:
        variants = [{"name": name, **fields} for name, fields in entry["variants"].items()]
        tasks = {task: _task(task, fields) for task, fields in entry["tasks"].items()}
        spec: ModelSpec = _reader(ModelSpec)({**entry, "tasks": {}, "variants": variants})
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        name = entry.get("name", "?") if isinstance(entry, dict) else "?"
        raise RegistryError(f"{name}: the entry does not fit model_registry.schema.json: {error}") from error
    return spec._replace(tasks=MappingProxyType(tasks))


def _task(name: str, fields: Mapping[str, Any]) -> Task:
    kind: Any = SETTINGS[name]
    settings: Task = _reader(kind)({**DEFAULTS.get(name, {}), **fields})
    return settings


@functools.cache
def _reader(kind: Any) -> Read:
    """The function that turns a JSON value into this type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and hasattr(kind, "_fields"):
        return _named_tuple(kind)
    if origin is tuple:
        item = _reader(arguments[0])
        return lambda value: tuple(map(item, CHARACTER_SETS[value] if isinstance(value, str) else value))
    if origin is Mapping:
        item = _reader(arguments[1])
        return lambda value: MappingProxyType({key: item(each) for key, each in value.items()})
    if origin is UnionType:
        return _union(arguments)
    return float if kind is float else _as_it_is


def _named_tuple(kind: type[Any]) -> Read:
    readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items() if name in kind._fields}
    return lambda value: kind(**{key: readers[key](each) for key, each in value.items()})


def _union(kinds: tuple[Any, ...]) -> Read:
    """A JSON object is the named tuple that has its keys, a list is the tuple, and anything else is taken as it is."""
    records = [kind for kind in kinds if hasattr(kind, "_fields")]
    lists = [kind for kind in kinds if get_origin(kind) is tuple]

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return _reader(next((kind for kind in records if value.keys() <= {*kind._fields}), records[0]))(value)
        return _reader(lists[0])(value) if isinstance(value, list) else value

    return read


def _as_it_is(value: Any) -> Any:
    return value
