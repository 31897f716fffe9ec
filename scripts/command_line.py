"""Write the commands and their options into docs/command-line.md, from the parsers themselves.

python scripts/command_line.py            # after a change of an option
python scripts/command_line.py --check    # exit status 1 if the page's text differs
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import generated

from fastrank import cli

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"
BEGIN, END = "<!-- options: written by scripts/command_line.py -->\n", "<!-- options: end -->\n"


def commands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, one line of help, parser of each command and of commands below it."""
    yield from _below("", cli._parser())  # noqa: SLF001 - it is what `fastrank --help` prints


def _below(before: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            for name, below in action.choices.items():
                yield f"{before}{name}", helps.get(name, ""), below
                yield from _below(f"{before}{name} ", below)


def text() -> str:
    """A heading and a table for each command."""
    parts = []
    for name, summary, parser in commands():
        rows = [_row(action) for action in parser._actions if _shown(action)]  # noqa: SLF001
        title = f"### fastrank {name}\n\n{summary[:1].upper()}{summary[1:]}.\n"
        parts.append(f"{title}\n| | |\n|---|---|\n{''.join(rows)}" if rows else title)
    return "\n" + "\n".join(parts) + "\n"


def _shown(action: argparse.Action) -> bool:
    hidden = isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))  # noqa: SLF001
    return not hidden and action.help is not argparse.SUPPRESS


def _row(action: argparse.Action) -> str:
    metavar = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    value = "" if action.nargs == 0 else f" {' '.join(metavar) if isinstance(metavar, tuple) else metavar}"
    names = ", ".join(action.option_strings) + value if action.option_strings else value.strip()
    if not action.option_strings and action.nargs in ("*", "?"):
        names = f"[{names}]"
    about = argparse.HelpFormatter("fastrank")._expand_help(action) if action.help else ""  # noqa: SLF001 - as --help
    return f"| `{names.replace('|', chr(92) + '|')}` | {re.sub(r'[|<>]', lambda found: chr(92) + found[0], about)} |\n"


def written(page: str) -> str:
    """The page with the commands and options of today."""
    return generated.inserted(page, BEGIN, END, text())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check."""
    return generated.run(arguments, __doc__, PAGE, written)


if __name__ == "__main__":
    sys.exit(main())
