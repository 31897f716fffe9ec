"""Every Python block of docs/bm25.md runs, one after the other."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "bm25.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the tests of an installed package have no docs")
def test_the_blocks_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) > 8
    names = {}
    for block in blocks:
        lines_before = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(lines_before + block[1], str(PAGE), "exec"), names)  # noqa: S102 - our own page
    assert "that is the question" in capsys.readouterr().out
