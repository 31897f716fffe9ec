"""docs/command-line.md has the commands and options of today."""

import pytest
from support.documents import DOCS
from support.scripts import script

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")


@pytest.fixture(scope="module")
def tool():
    return script("command_line")


def test_the_page_has_the_options_of_today(tool):
    assert tool.main(["--check"]) == 0, "run python scripts/command_line.py"


def test_every_command_has_its_part_and_its_options(tool):
    made = tool.text()
    assert "\n### fastrank rerank\n\nRank documents by a query.\n" in made
    assert "\n| `--top-k N` | show only the best N |\n" in made
    assert "| `[FILE]` | a file of documents; - is standard input (default)." in made
    assert r"`--format text\|jsonl\|json" in made
    assert "%(" not in made
    with pytest.raises(ValueError, match="the page has no <!-- options"):
        tool.written("nothing here")
