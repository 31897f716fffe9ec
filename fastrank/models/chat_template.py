"""The chat templates of rerankers: from a query and a document to the prompt that the language model reads.

A template is a Jinja program in the model's folder. What templates of rerankers consist of is run here, by a parser of
that part of the language, and nothing else: no calls, no loops, no attributes of Python objects. Other templates need
jinja2 (the extra `templates`), in its sandbox, as transformers runs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from fastrank.errors import ModelLoadError, how_to_install
from fastrank.models.config import MAX_BYTES, Config

FILE: Final = "chat_template.jinja"

Variables: TypeAlias = Mapping[str, Any]
Render: TypeAlias = Callable[[Variables], str]

_NAME: Final = "default"  # of the template that is used where there are several


def read(folder: Path) -> str | None:
    """The template of a folder's tokenizer; None if it has none.

    Raises:
        ModelLoadError: a file is damaged.
    """
    path = folder / FILE
    if path.exists():
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ModelLoadError(f"{path} is no template: a file of at most {MAX_BYTES} bytes is expected")
        try:
            return path.read_bytes().decode()
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"{path}: cannot be read: {error}") from error
    config = Config.read_if_present(folder / "tokenizer_config.json")
    value = config.value("chat_template")
    if isinstance(value, list):  # several, each with a name
        named = [each for each in value if isinstance(each, dict) and each.get("name") == _NAME]
        value = named[0].get("template") if named else None
    if value is None or isinstance(value, str):
        return value
    raise config.error("chat_template", "expected a string")


def compiled(source: str, where: object) -> Render:
    """The function that a template is: from its variables to a text.

    Args:
        source: the template.
        where: what errors call it.

    Raises:
        ModelLoadError: it cannot be parsed, or needs jinja2, which is not there. The function raises it if the template
            cannot be rendered.
    """
    try:
        return _named(_parsed(source), where)
    except UnsupportedError as unsupported:
        return _with_jinja(source, where, str(unsupported))


def is_structured(source: str) -> bool:
    """Whether a message's content is a list of parts, judged as sentence-transformers does by the template's text."""
    return any(part in source for part in ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content["))


class UnsupportedError(Exception):
    """The template has something that only jinja2 runs."""


def _named(render: Render, where: object) -> Render:
    def run(variables: Variables) -> str:
        try:
            return render(variables)
        except (TypeError, ValueError, LookupError, RecursionError) as error:
            raise ModelLoadError(f"{where}: the chat template cannot be rendered: {error}") from error

    return run


# -- with jinja2 ----------------------------------------------------------------------------------------------------


def _with_jinja(source: str, where: object, reason: str) -> Render:
    try:
        import jinja2.sandbox  # an extra, which few templates need
    except ImportError as error:
        raise ModelLoadError(
            f"{where}: the chat template has {reason}, which jinja2 runs: {how_to_install('templates')}"
        ) from error

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    try:
        template = environment.from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ModelLoadError(f"{where}: the chat template cannot be parsed: {error}") from error

    def render(variables: Variables) -> str:
        try:
            return template.render(**variables)
        except (jinja2.TemplateError, ArithmeticError, AttributeError, MemoryError) as error:
            raise ModelLoadError(f"{where}: the chat template cannot be rendered: {error}") from error

    return _named(render, where)


def _to_json(value: Any, indent: int | None = None, *, ensure_ascii: bool = False, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


# -- without it -----------------------------------------------------------------------------------------------------


class _Undefined:
    """What a missing variable, field or message is: empty, false, and without parts."""

    def __str__(self) -> str:
        return ""

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())


UNDEFINED: Final = _Undefined()

Evaluate: TypeAlias = "Callable[[dict[str, Any]], Any]"


class _Tag(NamedTuple):
    """A part of a template: text where `kind` is empty, else the tokens of `{{ ... }}` or `{% ... %}`."""

    kind: str
    text: str
    tokens: Sequence[str]


_OPENING: Final = re.compile(r"\{([{%#])([-+]?)")
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<end>[-+]?[%}]\})|(?P<token>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d+|\w+|==|!=|[|.,()\[\]=~+]))""",
    re.DOTALL,
)
_KEYWORDS: Final = {"and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"}
_PYTHON: Final = {*dir(dict), *dir(str), *dir(list)}  # methods, which only jinja2 calls
_DEEPEST: Final = 50


def _parsed(source: str) -> Render:
    tags = list(_tags(re.sub(r"\r\n|\r", "\n", source)))
    block, rest = _block(tags, 0, ())
    if rest != len(tags):
        raise UnsupportedError(f"{{% {' '.join(tags[rest].tokens)} %}}")
    return lambda variables: "".join(block(dict(variables)))


def _tags(source: str) -> Iterator[_Tag]:
    """The parts of a template, with white space as `trim_blocks` and `lstrip_blocks` leave it."""
    source = source.removesuffix("\n")
    position, strips = 0, ""  # how the tag before treats the text
    while (found := _OPENING.search(source, position)) is not None:
        text, kind, sign = source[position : found.start()], found[1], found[2]
        yield _Tag("", _shortened(text, strips, kind, sign, starts_line=position == 0), ())
        if kind == "#":
            end = re.compile(r"[-+]?#\}").search(source, found.end())
            if end is None:
                raise UnsupportedError("a comment without an end")
            position, mark = end.end(), end[0]
        else:
            tokens, position, mark = _tokens(source, found.end(), kind)
            yield _Tag(kind, "", tokens)
        strips = mark[0] if mark[0] in "-+" else "" if kind == "{" else "line"
    yield _Tag("", _shortened(source[position:], strips, "", "", starts_line=position == 0), ())


def _shortened(text: str, before: str, kind: str, sign: str, *, starts_line: bool) -> str:
    """The text between two tags: `before` is how the first treats it, `kind` and `sign` are of the second."""
    at_start = starts_line
    if before == "-":
        text = text.lstrip()
    elif before == "line" and text.startswith("\n"):
        text, at_start = text[1:], True
    if sign == "-":
        return text.rstrip()
    if kind in ("%", "#") and sign != "+":
        line = text[text.rfind("\n") + 1 :]
        if not line.strip() and ("\n" in text or at_start):
            return text[: len(text) - len(line)]
    return text


def _tokens(source: str, position: int, kind: str) -> tuple[list[str], int, str]:
    """The tokens of a tag, where it ends, and its last mark."""
    tokens = list[str]()
    while (found := _TOKEN.match(source, position)) is not None:
        position = found.end()
        if (end := found["end"]) is not None:
            if end[-2] != {"{": "}", "%": "%"}[kind]:
                break
            return tokens, position, end
        tokens.append(found["token"])
    raise UnsupportedError(f"{source[position : position + 20]!r}")


Block: TypeAlias = "Callable[[dict[str, Any]], Iterable[str]]"


def _block(tags: Sequence[_Tag], position: int, ends: Sequence[str], depth: int = 0) -> tuple[Block, int]:
    """What stands up to one of the statements `ends`, or to the end; and where that is."""
    if depth > _DEEPEST:
        raise UnsupportedError("deep nesting")
    parts = list[Block]()
    while position < len(tags):
        kind, text, tokens = tags[position]
        if kind == "%" and tokens and tokens[0] in ends:
            break
        if kind == "":
            parts.append(_text(text))
        elif kind == "{":
            parts.append(_output(_Expression(tokens).whole()))
        elif tokens[:1] == ["if"]:
            part, position = _conditional(tags, position, depth)
            parts.append(part)
        elif tokens[:1] == ["set"] and len(tokens) > 3 and tokens[1].isidentifier() and tokens[2] == "=":
            parts.append(_assignment(tokens[1], _Expression(tokens[3:]).whole()))
        else:
            break
        position += 1

    def run(variables: dict[str, Any]) -> Iterator[str]:
        for part in parts:
            yield from part(variables)

    return run, position


def _text(text: str) -> Block:
    return lambda _variables: (text,)


def _output(value: Evaluate) -> Block:
    return lambda variables: (str(value(variables)),)


def _assignment(name: str, value: Evaluate) -> Block:
    def run(variables: dict[str, Any]) -> tuple[()]:
        variables[name] = value(variables)
        return ()

    return run


def _conditional(tags: Sequence[_Tag], position: int, depth: int) -> tuple[Block, int]:
    """The branches of an `if`, and where its `endif` is."""
    branches = list[tuple[Evaluate, Block]]()
    while True:
        keyword, *condition = tags[position].tokens
        test = _always if keyword == "else" else _Expression(condition).whole()
        body, position = _block(tags, position + 1, ("elif", "else", "endif"), depth + 1)
        branches.append((test, body))
        if position >= len(tags) or tags[position].tokens[0] not in ("elif", "else", "endif"):
            what = f"{{% {' '.join(tags[position].tokens)} %}}" if position < len(tags) else "an if without an end"
            raise UnsupportedError(what)
        if tags[position].tokens[0] == "endif":
            return _first_true(branches), position


def _first_true(branches: Sequence[tuple[Evaluate, Block]]) -> Block:
    def run(variables: dict[str, Any]) -> Iterable[str]:
        return next((body(variables) for test, body in branches if test(variables)), ())

    return run


def _always(_variables: dict[str, Any]) -> bool:
    return True


class _Expression:
    """A parser of expressions, by precedence as Jinja has it. Every method returns a function of the variables."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens, self._next, self._depth = tokens, 0, 0

    def whole(self) -> Evaluate:
        """The expression that all tokens are."""
        value = self._choice()
        if self._next < len(self._tokens):
            raise self._unsupported()
        return value

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self, *tokens: str) -> str:
        """The next token, if it is one of these; else nothing."""
        token = self._peek()
        if token and token in tokens:
            self._next += 1
            return token
        return ""

    def _want(self, token: str) -> None:
        if not self._take(token):
            raise self._unsupported()

    def _unsupported(self) -> UnsupportedError:
        return UnsupportedError(f"{' '.join(self._tokens)!r}")

    def _choice(self) -> Evaluate:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise UnsupportedError("deep nesting")
        value = self._either()
        if self._take("if"):
            test = self._either()
            other: Evaluate = _undefined
            if self._take("else"):
                other = self._choice()
            value = _if_else(test, value, other)
        self._depth -= 1
        return value

    def _either(self) -> Evaluate:
        value = self._both()
        while self._take("or"):
            value = _or(value, self._both())
        return value

    def _both(self) -> Evaluate:
        value = self._negated()
        while self._take("and"):
            value = _and(value, self._negated())
        return value

    def _negated(self) -> Evaluate:
        negations = 0
        while self._take("not"):
            negations += 1
        value = self._compared()
        return value if not negations else _not(value, negations)

    def _compared(self) -> Evaluate:
        value = self._sum()
        if sign := self._take("==", "!="):
            return _equal(value, self._sum(), wanted=sign == "==")
        return value

    def _sum(self) -> Evaluate:
        value = self._joined()
        while self._take("+"):
            value = _plus(value, self._joined())
        return value

    def _joined(self) -> Evaluate:
        parts = [self._filtered()]
        while self._take("~"):
            parts.append(self._filtered())
        return parts[0] if len(parts) == 1 else _join(parts)

    def _filtered(self) -> Evaluate:
        value = self._part()
        while sign := self._take("|", "is"):
            value = self._filter(value) if sign == "|" else self._test(value)
        return value

    def _part(self) -> Evaluate:
        value = self._atom()
        while sign := self._take(".", "["):
            if sign == ".":
                name = self._name()
                if name in _PYTHON or name.startswith("_"):
                    raise self._unsupported()
                value = _item(value, name)
            else:
                key = self._constant()
                self._want("]")
                if isinstance(key, str) and (key in _PYTHON or key.startswith("_")):
                    raise self._unsupported()
                value = _item(value, key)
        return value

    def _atom(self) -> Evaluate:
        if self._take("("):
            value = self._choice()
            self._want(")")
            return value
        token = self._peek()
        if token[:1] in ("'", '"') or token.isdigit() or token.lower() in ("true", "false", "none"):
            return _constantly(self._constant())
        return _variable(self._name())

    def _name(self) -> str:
        name = self._peek()
        if not name.isidentifier() or name in _KEYWORDS:
            raise self._unsupported()
        self._next += 1
        return name

    def _constant(self) -> Any:
        token = self._peek()
        self._next += 1
        if token[:1] in ("'", '"'):  # as Jinja reads escapes
            return token[1:-1].encode("ascii", "backslashreplace").decode("unicode-escape")
        if token.isdigit():
            return int(token)
        constants: Mapping[str, Any] = {"true": True, "false": False, "none": None}
        if token in ("true", "false", "none", "True", "False", "None"):
            return constants[token.lower()]
        raise self._unsupported()

    def _arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Constants in brackets, if there are any."""
        given, named = list[Any](), dict[str, Any]()
        if self._take("("):
            while not self._take(")"):
                if given or named:
                    self._want(",")
                if self._peek().isidentifier() and self._tokens[self._next + 1 : self._next + 2] == ["="]:
                    name = self._name()
                    self._want("=")
                    named[name] = self._constant()
                else:
                    given.append(self._constant())
        return given, named

    def _filter(self, value: Evaluate) -> Evaluate:
        name = self._name()
        given, named = self._arguments()
        if name in ("default", "d") and not named and 1 <= len(given) <= 2:
            return _default(value, given[0], when_false=len(given) == 2 and bool(given[1]))
        if name == "selectattr" and not named and len(given) == 3 and given[1] in ("eq", "equalto", "=="):
            return _select(value, str(given[0]), given[2])
        if name == "map" and not given and named.keys() == {"attribute"} and "." not in str(named["attribute"]):
            return _map(value, named["attribute"])
        if name in _FILTERS and not given and not named:
            return _call(_FILTERS[name], value)
        raise self._unsupported()

    def _test(self, value: Evaluate) -> Evaluate:
        wanted = not self._take("not")
        name = self._peek()
        self._next += 1
        if name not in _TESTS:
            raise self._unsupported()
        test = _TESTS[name]
        return lambda variables: test(value(variables)) == wanted


def _undefined(_variables: dict[str, Any]) -> Any:
    return UNDEFINED


def _constantly(value: Any) -> Evaluate:
    return lambda _variables: value


def _variable(name: str) -> Evaluate:
    return lambda variables: variables.get(name, UNDEFINED)


def _item(value: Evaluate, key: Any) -> Evaluate:
    def run(variables: dict[str, Any]) -> Any:
        holder = value(variables)
        if holder is UNDEFINED:
            raise ValueError(f"{key!r} of something undefined")
        return _field(holder, key)

    return run


def _field(holder: Any, key: Any) -> Any:
    try:
        return holder[key]
    except (LookupError, TypeError):
        return UNDEFINED


def _if_else(test: Evaluate, value: Evaluate, other: Evaluate) -> Evaluate:
    return lambda variables: value(variables) if test(variables) else other(variables)


def _or(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda variables: left(variables) or right(variables)


def _and(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda variables: left(variables) and right(variables)


def _not(value: Evaluate, times: int) -> Evaluate:
    return lambda variables: bool(value(variables)) != bool(times % 2)


def _equal(left: Evaluate, right: Evaluate, *, wanted: bool) -> Evaluate:
    return lambda variables: (left(variables) == right(variables)) == wanted


def _plus(left: Evaluate, right: Evaluate) -> Evaluate:
    def run(variables: dict[str, Any]) -> Any:
        total = left(variables), right(variables)
        if UNDEFINED in total:
            raise ValueError("something undefined is added")
        return total[0] + total[1]

    return run


def _join(parts: Sequence[Evaluate]) -> Evaluate:
    return lambda variables: "".join(str(part(variables)) for part in parts)


def _default(value: Evaluate, other: Any, *, when_false: bool) -> Evaluate:
    def run(variables: dict[str, Any]) -> Any:
        found = value(variables)
        return other if found is UNDEFINED or (when_false and not found) else found

    return run


def _select(value: Evaluate, attribute: str, wanted: Any) -> Evaluate:
    return lambda variables: (each for each in value(variables) if _field(each, attribute) == wanted)


def _map(value: Evaluate, attribute: Any) -> Evaluate:
    return lambda variables: (_field(each, attribute) for each in value(variables))


def _call(function: Callable[[Any], Any], value: Evaluate) -> Evaluate:
    return lambda variables: function(value(variables))


_FILTERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "first": lambda items: next(iter(items), UNDEFINED),
    "last": lambda items: next(reversed(items), UNDEFINED),
    "length": len,
    "count": len,
    "list": list,
    "lower": lambda text: str(text).lower(),
    "string": str,
    "trim": lambda text: str(text).strip(),
    "upper": lambda text: str(text).upper(),
}
_TESTS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "defined": lambda value: value is not UNDEFINED,
    "undefined": lambda value: value is UNDEFINED,
    "none": lambda value: value is None,
    "string": lambda value: isinstance(value, str),
    "mapping": lambda value: isinstance(value, dict),
}
