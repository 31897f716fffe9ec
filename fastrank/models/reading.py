"""Reads `model_registry.json` strictly into `ModelSpec`s; errors name entry and field."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

from fastrank.errors import RegistryError
from fastrank.models.spec import (
    ACTIVATIONS,
    CLASSES,
    COMMIT,
    CROSS_ENCODER,
    LATE_INTERACTION,
    NAME,
    NORMALIZED,
    PATH,
    SHA256,
    SPARSE_EMBEDDING,
    TEXT_EMBEDDING,
    WHEEL,
    Answer,
    CrossEncoderTask,
    DenseTask,
    FileSpec,
    HubSource,
    LateInteractionTask,
    ModelSpec,
    Prefixes,
    S,
    Source,
    SparseTask,
    Task,
    TaskInput,
    Variant,
    WheelSource,
)

# -- reading, strictly ----------------------------------------------------------------------------------------------


def parse(content: str) -> tuple[ModelSpec, ...]:
    """A registry file as specs.

    Raises:
        RegistryError: naming entry and field.
    """
    specs = tuple(_model(row, position) for position, row in enumerate(_rows(content)))
    seen: dict[str, str] = {}
    for spec in specs:
        for name in (spec.name, *spec.aliases):
            if (key := name.casefold()) in seen:
                raise RegistryError(f"{spec.name}: the name {name} already belongs to {seen[key]}")
            seen[key] = spec.name
    return specs


def _rows(content: str) -> list[Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise RegistryError(f"The model registry is not JSON: {error}") from error
    top = _Entry(document, "registry")
    top.skip("$schema")
    if (version := top.take("version", _is(int))) != 1:
        raise RegistryError(f"registry: version is {version}, this fastrank reads version 1")
    rows = top.take("models", _is(list))
    top.close()
    return rows


class _Entry:
    """A JSON object of which every key must be taken, so that a misspelt one is an error and not a default."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, dict):
            raise RegistryError(f"{where}: must be an object, not {type(content).__name__}")
        self._rest = dict(content)
        self.where = where

    def take(self, key: str, check: Callable[[Any], S], default: Any = ...) -> S:
        if key not in self._rest:
            if default is ...:
                raise RegistryError(f"{self.where}: {key} is missing")
            result: S = default
            return result
        value = self._rest.pop(key)
        try:
            return check(value)
        except ValueError as error:
            raise RegistryError(f"{self.where}: {key} {error}, got {value!r:.80}") from None

    def skip(self, key: str) -> None:
        self._rest.pop(key, None)

    def items(self, key: str) -> Iterator[tuple[str, Any]]:
        yield from self.take(key, _is(dict)).items()

    def close(self) -> None:
        if self._rest:
            raise RegistryError(f"{self.where}: unknown field {', '.join(sorted(self._rest))}")


def _is(kind: type[S]) -> Callable[[Any], S]:
    def check(value: Any) -> S:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"must be of type {kind.__name__}")
        return value

    return check


def _matches(pattern: str, longest: int = 200) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > longest or not re.fullmatch(pattern, value):
            raise ValueError(f"must match {pattern}")
        return value

    return check


def _between(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _or_null(check: Callable[[Any], S]) -> Callable[[Any], S | None]:
    return lambda value: None if value is None else check(value)


def _tuple_of(check: Callable[[Any], S]) -> Callable[[Any], tuple[S, ...]]:
    return lambda value: tuple(check(item) for item in _is(list)(value))


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - as every check here
    return float(value)


def _model(row: Any, position: int) -> ModelSpec:
    entry = _Entry(row, f"models[{position}]")
    entry.where = name = entry.take("name", _matches(NAME, 96))
    tasks = {task: _task(task, settings, f"{name}, tasks.{task}") for task, settings in entry.items("tasks")}
    if not tasks:
        raise RegistryError(f"{name}: tasks is empty")
    spec = ModelSpec(
        name=name,
        description=entry.take("description", _matches(r".{10,300}", 300)),
        license=entry.take("license", _matches(r"[a-z0-9][a-z0-9.+-]*")),
        languages=entry.take("languages", _tuple_of(_matches(r"[a-z]{2,3}|multilingual|code"))),
        tasks=MappingProxyType(tasks),
        variants=tuple(_variant(key, value, f"{name}, variants.{key}") for key, value in entry.items("variants")),
        aliases=entry.take("aliases", _tuple_of(_matches(NAME, 96)), ()),
        year=entry.take("year", _between(2015, 2100), None),
        max_length=entry.take("max_length", _between(8, 131_072), None),
    )
    entry.close()
    needs_files = any(not (isinstance(t, SparseTask) and t.kind == "bm25") for t in tasks.values())
    if needs_files and not spec.variants:
        raise RegistryError(f"{name}: variants is empty")
    if needs_files and spec.max_length is None:
        raise RegistryError(f"{name}: max_length is missing")
    return spec


def _variant(name: str, row: Any, where: str) -> Variant:
    entry = _Entry(row, where)
    variant = Variant(
        name=_Entry({"name": name}, where).take("name", _matches(r"[a-z0-9-]{1,20}")),
        precision=entry.take("precision", _one_of("fp32", "fp16", "int8-dynamic", "int8-weights", "int4-weights")),
        model=entry.take("model", _matches(PATH)),
        files=tuple(_file(item, f"{where}.files[{i}]") for i, item in enumerate(entry.take("files", _is(list)))),
        sources=tuple(
            _source(item, f"{where}.sources[{i}]") for i, item in enumerate(entry.take("sources", _is(list)))
        ),
    )
    entry.close()
    paths = [file.path for file in variant.files]
    if len({path.casefold() for path in paths}) != len(paths):
        raise RegistryError(f"{where}: files names a path twice")
    for needed in (variant.model, "tokenizer.json"):
        if needed not in paths:
            raise RegistryError(f"{where}: {needed} is not among files")
    if not variant.sources:
        raise RegistryError(f"{where}: sources is empty")
    return variant


def _file(row: Any, where: str) -> FileSpec:
    entry = _Entry(row, where)
    file = FileSpec(
        path=entry.take("path", _matches(PATH)),
        size=entry.take("size", _or_null(_between(1, 20 << 30))),
        sha256=entry.take("sha256", _or_null(_matches(SHA256))),
    )
    entry.close()
    return file


def _source(row: Any, where: str) -> Source:
    entry = _Entry(row, where)
    source: Source
    if isinstance(row, dict) and "wheel" in row:
        source = WheelSource(
            wheel=entry.take("wheel", _matches(WHEEL)),
            sha256=entry.take("sha256", _matches(SHA256)),
            folder=entry.take("folder", _matches(PATH)),
        )
    else:
        source = HubSource(
            hub=entry.take("hub", _matches(NAME, 96)), revision=entry.take("revision", _or_null(_matches(COMMIT)))
        )
    entry.close()
    return source


def _task(task: str, row: Any, where: str) -> Task:
    entry = _Entry(row, where)
    answers = entry.take("answers", _is(list), [])
    common: dict[str, Any] = {
        "answers": tuple(_answer(item, f"{where}.answers[{i}]") for i, item in enumerate(answers))
    }
    settings: Task
    if task == TEXT_EMBEDDING:
        prefixes = _Entry(entry.take("prefixes", _is(dict), {}), f"{where}.prefixes")
        settings = DenseTask(
            dim=entry.take("dim", _between(1, 65_536)),
            pooling=entry.take("pooling", _one_of("cls", "mean", "last-token", "none")),
            normalize=entry.take("normalize", _is(bool)),
            prefixes=Prefixes(**{name: prefixes.take(name, _is(str), "") for name in Prefixes._fields}),
            output=entry.take("output", _is(str), None),
            task_input=_task_input(entry.take("task_input", _or_null(_is(dict)), None), f"{where}.task_input"),
            **common,
        )
        prefixes.close()
    elif task == SPARSE_EMBEDDING:
        settings = SparseTask(
            kind=entry.take("kind", _one_of("bm25", "splade", "bm42", "minicoil")),
            requires_idf=entry.take("requires_idf", _is(bool), default=False),
            vocab_size=entry.take("vocab_size", _between(1, 10_000_000), None),
            activation=entry.take("activation", _one_of("log1p", "log1p-log1p"), "log1p"),
            skip_special_tokens=entry.take("skip_special_tokens", _is(bool), default=False),
            query_weights=entry.take("query_weights", _matches(PATH), None),
            language=entry.take("language", _is(str), None),
            alpha=entry.take("alpha", _number, 0.5),
            output=entry.take("output", _is(str), None),
            **common,
        )
    elif task == LATE_INTERACTION:
        settings = LateInteractionTask(
            dim=entry.take("dim", _between(1, 65_536)),
            query_marker=entry.take("query_marker", _marker, None),
            document_marker=entry.take("document_marker", _marker, None),
            marker_position=entry.take("marker_position", _between(0, 16), 1),
            query_length=entry.take("query_length", _between(1, 131_072), None),
            mask_token=entry.take("mask_token", _is(str), "[MASK]"),
            attend_to_masks=entry.take("attend_to_masks", _is(bool), default=False),
            query_max_length=entry.take("query_max_length", _between(8, 131_072), None),
            document_max_length=entry.take("document_max_length", _between(8, 131_072), None),
            skip=entry.take("skip", _skipped, ()),
            skip_tokens=entry.take("skip_tokens", _tuple_of(_is(str)), ()),
            normalize=entry.take("normalize", _one_of(*NORMALIZED), "both"),
            projection=entry.take("projection", _is(bool), default=True),
            output=entry.take("output", _is(str), None),
            **common,
        )
    elif task == CROSS_ENCODER:
        settings = CrossEncoderTask(
            activation=entry.take("activation", _one_of(*ACTIVATIONS), "none"),
            label=entry.take("label", _between(0, 1000), None),
            modules=entry.take("modules", _is(bool), default=False),
            **common,
        )
    else:
        raise RegistryError(f"{where}: unknown task; known are {', '.join(CLASSES)}")
    entry.close()
    return settings


def _task_input(row: Any, where: str) -> TaskInput | None:
    if row is None:
        return None
    entry = _Entry(row, where)
    name = entry.take("name", _matches(r"[A-Za-z0-9_]+", 40))
    numbers = _Entry(entry.take("tasks", _is(dict)), f"{where}.tasks")
    tasks = {task: numbers.take(task, _between(0, 1000)) for task in row["tasks"]}
    ours = {method: entry.take(method, _one_of(*tasks)) for method in ("embed", "query", "passage")}
    entry.close()
    return TaskInput(name, MappingProxyType(tasks), **ours)


def _answer(row: Any, where: str) -> Answer:
    entry = _Entry(row, where)
    answer = Answer(
        method=entry.take("method", _one_of("embed", "query_embed", "passage_embed", "rerank")),
        input=entry.take("input", _question),
        values=entry.take("values", _tuple_of(_number)),
        tolerance=entry.take("tolerance", _number),
        indices=entry.take("indices", _tuple_of(_between(0, 1 << 31)), None),
        rows=entry.take("rows", _between(1, 131_072), None),
    )
    entry.close()
    if answer.indices is not None and len(answer.indices) != len(answer.values):
        raise RegistryError(f"{where}: {len(answer.indices)} indices, but {len(answer.values)} values")
    if answer.rows is not None and len(answer.values) % answer.rows:
        raise RegistryError(f"{where}: {len(answer.values)} values cannot be {answer.rows} rows")
    return answer


def _marker(value: Any) -> int | str:
    return value if isinstance(value, str) and value else _between(0, 10_000_000)(value)


def _skipped(value: Any) -> tuple[str, ...]:
    return tuple(string.punctuation) if value == "punctuation" else _tuple_of(_is(str))(value)


def _question(value: Any) -> str | tuple[str, str]:
    if isinstance(value, list):
        query, document = _tuple_of(_is(str))(value) if len(value) == 2 else (None, None)
        if query is None or document is None:
            raise ValueError("must be a string or a pair of strings")
        return query, document
    return _is(str)(value)
