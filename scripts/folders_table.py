"""Write the tables of docs/folders.md from fastrank/models/fields.py.

python scripts/folders_table.py            # after a change of a field
python scripts/folders_table.py --check    # exit status 1 if the page's tables differ
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import generated

from fastrank.models import fields

PAGE = Path(__file__).parents[1] / "docs" / "folders.md"
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->"


def tables() -> str:
    """One table per kind of file: field, what becomes of it, and what it does or why."""
    return "\n\n".join(_table(each) for each in fields.ALL)


def _table(of_file: fields.Fields) -> str:
    groups = {"applied": of_file.applied, "harmless": of_file.harmless, "refused": of_file.refused}
    rows = [
        f"| `{field}` | {what} | {text} |" for what, listed in groups.items() for field, text in sorted(listed.items())
    ]
    rest = f"harmless | {of_file.others}" if of_file.others else "refused | not known, so results might be wrong"
    return "\n".join([f"### {of_file.file}", "", "| field | | |", "|---|---|---|", *rows, f"| any other | {rest} |"])


def written(page: str) -> str:
    """The page with tables of its own."""
    return generated.inserted(page, BEGIN, END, f"\n{tables()}\n\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check."""
    return generated.run(arguments, __doc__, PAGE, written)


if __name__ == "__main__":
    sys.exit(main())
