"""The table in README.md names every test of the matrix, and no other."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
ROWS = {"C": 7, "D": 44, "H": 13, "I": 17, "O": 4, "R": 22}


def table():
    for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| ([CDHIOR]\d+) \|", line):
            yield match[1], re.findall(r"`(test_\w+)`", line)


def written():
    for path in FOLDER.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and re.match(r"test_[cdhior]\d+_", node.name):
                yield node.name


def test_every_row_is_in_the_table_once():
    assert [row for row, _ in table()] == [f"{letter}{n}" for letter, most in ROWS.items() for n in range(1, most + 1)]


def test_every_row_has_a_test_named_after_it():
    for row, names in table():
        assert names, row
        assert all(name.startswith(f"test_{row.lower()}_") for name in names), row


def test_the_table_names_the_tests_that_there_are():
    assert sorted(name for _, names in table() for name in names) == sorted(written())
