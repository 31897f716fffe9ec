"""docs/troubleshooting.md has every error message that names a remedy, and quotes none that is not there."""

import ast
import re

import pytest
from support import ROOT
from support.scripts import script

pytestmark = pytest.mark.skipif(not (ROOT / "fastrank").is_dir(), reason="the source is not here")


@pytest.fixture(scope="module")
def tool():
    return script("messages")


def test_the_page_has_the_list_of_today(tool):
    assert tool.main(["--check"]) == 0, "run python scripts/messages.py"


def test_what_the_page_quotes_is_said_somewhere(tool):
    page = tool.PAGE.read_text(encoding="utf-8").partition("## Other messages")[0]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "fastrank").rglob("*.py")]
    texts = [each.value for tree in trees for each in ast.walk(tree) if isinstance(each, ast.Constant)]
    said = "\n".join(tool.flat(each) for each in texts if isinstance(each, str))
    for heading in re.findall(r"^### (.+)$", page, re.MULTILINE):
        for quoted in re.findall(r"`([^`]+)`", heading):
            for piece in tool.pieces(quoted):
                assert piece in said or piece.startswith("No module named"), quoted


def test_a_message_that_stands_nowhere_is_listed(tool):
    page = f"# Page\n{tool.BEGIN}{tool.END}"
    made = tool.written(page)
    assert "- ValueError: `specific_model_path is empty. Pass a folder, or None to use the cache`\n" in made
    quoted = "`specific_model_path is empty`\n" + page
    assert "specific_model_path is empty. Pass" not in tool.written(quoted)
    with pytest.raises(ValueError, match="the page has no <!-- messages"):
        tool.written("nothing here")
