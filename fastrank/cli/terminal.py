"""What people see: notes on standard error, progress, colours, columns, and texts without control characters."""

from __future__ import annotations

import contextlib
import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from fastrank import environment

T = TypeVar("T")

_JOINERS = "\u200c\u200d"  # part of Persian words and of emoji


def note(message: str) -> None:
    """Write a message to standard error; silent if nobody can read it."""
    message = f"fastrank: {message.removeprefix('fastrank: ')}"
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            message = "\n".join(map(printable, message.split("\n")))
        print(message, file=sys.stderr, flush=True)


def is_shown() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def shows_progress() -> bool:
    """Whether progress bars are wanted: on a terminal, unless FASTRANK_PROGRESS says otherwise."""
    return environment.progress()


def progress(items: Iterable[T], name: str, total: int | None) -> Iterator[T]:
    """The items, with a bar on standard error where bars are wanted: total, rate and time left."""
    if not shows_progress():
        return iter(items)
    from tqdm.auto import tqdm

    return iter(tqdm(items, desc=name, total=total, unit="doc", leave=False))


def bold(text: str) -> str:
    """The text in bold, on a terminal whose user wants colours."""
    return f"\x1b[1m{text}\x1b[0m" if is_shown() and environment.colours() else text


def faint(text: str) -> str:
    """The text in grey, if colours are on."""
    return f"\x1b[2m{text}\x1b[0m" if is_shown() and environment.colours() else text


def printable(text: str) -> str:
    r"""The text with control characters as `\x1b`: a terminal obeys them, or lets them hide or turn what follows."""
    return text if text.isprintable() else "".join(map(_shown, text))


def json_line(row: Any) -> str:
    """The row as JSON in readable letters; on a terminal, control characters that JSON allows are escaped too."""
    line = json.dumps(row, ensure_ascii=False, default=str)
    if not is_shown() or line.isprintable():
        return line
    return "".join(json.dumps(letter)[1:-1] if _is_control(letter) else letter for letter in line)


def fit(text: str, width: int) -> str:
    """The text in one line of at most `width` columns; East Asian letters take two."""
    text = printable(" ".join(text[: 100 * width].split()))
    columns = 0
    for position, letter in enumerate(text):
        columns += _columns(letter)
        if columns > width:
            return _cut(text[:position], width - 1) + "…"
    return text


def _cut(text: str, width: int) -> str:
    while sum(map(_columns, text)) > width:
        text = text[:-1]
    return text


def _columns(letter: str) -> int:
    if unicodedata.combining(letter) or letter in _JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _is_control(letter: str) -> bool:
    category = unicodedata.category(letter)
    return category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and letter not in _JOINERS)


def _shown(letter: str) -> str:
    return letter.encode("unicode_escape").decode() if _is_control(letter) else letter
