"""The README and the pages of docs/: their code blocks, and the comments that say what becomes of a block.

A comment stands on the line above the block, several on lines of their own:

    <!-- run -->             this shell block is run, in an empty folder of the page
    <!-- not run: why -->    this Python block is compiled only
    <!-- needs: package -->  this block is left out where the package is not installed
    <!-- output -->          this block is exactly what the block before it prints
"""

import re
from dataclasses import dataclass
from pathlib import Path

from support import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_COMMENTS = re.compile(r"((?:^ *<!-- [^\n]* -->\n)+)\Z", re.MULTILINE)
_COMMENT = re.compile(r"<!-- (?P<name>[a-z ]+?)(?:: (?P<value>.*?))? -->")
KNOWN = {"run", "not run", "needs", "output", "ci"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the word behind the fence.
        text: what is inside, without the fence's own indentation.
        line: of the first line of the text, from 1.
        marks: name -> value of the comments above it.
    """

    language: str
    text: str
    line: int
    marks: dict[str, str]


def read(path):
    """The text of a page."""
    return Path(path).read_text(encoding="utf-8")


def blocks(text, *languages):
    """The fenced blocks of a page, of these languages or of all, in order."""
    found = []
    for fence in _FENCE.finditer(text):
        comments = _COMMENTS.search(text[: fence.start()])
        marks = {each["name"]: each["value"] or "" for each in _COMMENT.finditer(comments[1] if comments else "")}
        indent = fence["indent"]
        inside = "".join(line.removeprefix(indent) for line in fence["text"].splitlines(keepends=True))
        found.append(Block(fence["language"], inside, text.count("\n", 0, fence.start("text")) + 1, marks))
    return [each for each in found if not languages or each.language in languages or "output" in each.marks]


def without_blocks(text):
    """The page with every block's lines empty."""
    return _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)


def name(path):
    """A page's name in the ids of tests."""
    return Path(path).relative_to(ROOT).as_posix()
