"""What the scripts here share that write a part of a page: the part lies between two marks, and --check compares it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def inserted(page: str, begin: str, end: str, made: str) -> str:
    """The page with `made` between its two marks.

    Raises:
        ValueError: the page lacks one of them.
    """
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no {begin.strip()} ... {end.strip()}")
    return f"{before}{begin}{made}{end}{after}"


def run(arguments: Sequence[str] | None, about: str | None, page: Path, written: Callable[[str], str]) -> int:
    """The command of such a script: write the page, or with --check compare it; the exit status.

    Args:
        arguments: of the command line; None: this process's.
        about: the script's docstring: what it is, then its command line.
        page: the page that it writes.
        written: from the page's text to its new text.
    """
    summary, _, usage = (about or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the page would change")
    parser.add_argument("--page", type=Path, default=page, help="the file to work on")
    options = parser.parse_args(arguments)
    old = options.page.read_text(encoding="utf-8")
    new = written(old)
    if options.check and new != old:
        command = usage.partition("#")[0].strip()
        print(f"docs/{page.name} is out of date: run {command}", file=sys.stderr)
        return 1
    if not options.check:
        options.page.write_text(new, encoding="utf-8", newline="\n")
    return 0
