"""Write the tables of docs/folders.md from fastrank/models/fields.py.

python scripts/folders_table.py
"""

from __future__ import annotations

from pathlib import Path

from fastrank.models import fields

PAGE = Path(__file__).parents[1] / "docs" / "folders.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


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
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
