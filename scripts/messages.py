"""Write the list at the end of docs/troubleshooting.md: error messages that name a remedy and stand nowhere above it.

python scripts/messages.py            # after an error message was added or changed
python scripts/messages.py --check    # exit status 1 if the page's list differs
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import generated

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
BEGIN, END = "<!-- messages: written by scripts/messages.py -->\n", "<!-- messages: end -->\n"
REMEDY = re.compile(
    r"\b(Run|Say|Set|Pass|Give|Use|Install|Put|Fetch|Load|Rename|Delete|Make|Remove)\b"
    r"|\b(pip install|unset|call fit|leave out|leave `|pass |use |give |run it with|search with|see )"
)
LEAST = 24  # so many first characters of a fixed part of a message tell whether the page has it


def messages() -> Iterator[tuple[str, str]]:
    """(error class, message) of every `raise` in the package; what is filled in is "..."."""
    for path in sorted((ROOT / "fastrank").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = node.exc.func.id if isinstance(node.exc.func, ast.Name) else "OSError"
                text = max((_text(argument) for argument in node.exc.args), key=len, default="")
                if name[:1].isupper() or " " in text:
                    yield (name.lstrip("_") if name.endswith("Error") else "Error"), text


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(each) if isinstance(each, ast.Constant) else _filled(each) for each in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "..." if isinstance(node, (ast.Call, ast.Name, ast.IfExp)) else ""


def _filled(node: ast.expr) -> str:
    """What stands for a value; `errors.how_to_install` makes a command."""
    value = node.value if isinstance(node, ast.FormattedValue) else node
    command = isinstance(value, ast.Call) and ast.unparse(value.func).endswith("how_to_install")
    return "pip install ..." if command else "..."


def pieces(message: str) -> list[str]:
    """What is fixed in a message, as far as it is long enough to be known by."""
    fixed = (flat(each).lstrip(",:;. ") for each in re.split(r"\.\.\.|\n", message))
    return [each[:LEAST] for each in fixed if len(each) >= LEAST]


def flat(text: str) -> str:
    """With one space for any white space."""
    return " ".join(text.split())


def missing(page: str) -> list[tuple[str, str]]:
    """The messages that name a remedy of which the page has no piece."""
    known = flat(page)
    return [
        (name, message)
        for name, message in dict.fromkeys(messages())
        if REMEDY.search(message) and (found := pieces(message)) and not any(piece in known for piece in found)
    ]


def written(page: str) -> str:
    """The page with its list."""
    outside = page.partition(BEGIN)[0] + page.partition(END)[2]
    lines = [f"- {name}: {_shown(message)}\n" for name, message in missing(outside)]
    return generated.inserted(page, BEGIN, END, "".join(sorted(lines)))


def _shown(message: str) -> str:
    fence = "``" if "`" in message else "`"
    space = " " if fence == "``" else ""
    return f"{fence}{space}{flat(message)}{space}{fence}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check."""
    return generated.run(arguments, __doc__, PAGE, written)


if __name__ == "__main__":
    sys.exit(main())
