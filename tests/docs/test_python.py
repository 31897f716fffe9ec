"""Every Python block of the README and of docs/ compiles and runs, page by page; twice, as people run things again."""

import ast
from pathlib import Path

import pytest
from docs.conftest import MINILM
from support.documents import DOCS, KNOWN, PAGES, blocks, name, read
from support.processes import run_python

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")
RUN = Path(__file__).with_name("run_page.py")
WITH_PYTHON = [page for page in PAGES if blocks(read(page), "python")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_marks_are_known(page):
    for block in blocks(read(page)):
        assert block.marks.keys() <= KNOWN, f"{page}:{block.line}"
        assert block.marks.get("not run", "a reason"), f"{page}:{block.line}: say why it is not run"


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_blocks_compile(page):
    for block in blocks(read(page), "python"):
        if block.language == "python":
            try:
                ast.parse(block.text)
            except SyntaxError as error:
                pytest.fail(f"{page}:{block.line + (error.lineno or 1) - 1}: {error.msg}")


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_blocks_run(page, tmp_path, request):
    text = "".join(block.text for block in blocks(read(page), "python"))
    address = request.getfixturevalue("server") if "127.0.0.1:8321" in text else ""
    environment = request.getfixturevalue("environment" if MINILM.rpartition("/")[2] in text else "offline_environment")
    for _ in range(2):
        done = run_python("-W", "ignore", RUN, page, address, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        if not any(tmp_path.iterdir()):
            break  # nothing is left of the first run


def test_a_block_that_fails_is_found(tmp_path, offline_environment):
    page = tmp_path / "page.md"
    page.write_text("```python\nn = 1\n```\n\n```python\nassert n == 2, n\n```\n", encoding="utf-8")
    done = run_python(RUN, page, "", env=offline_environment, cwd=tmp_path)
    assert done.returncode == 1
    assert 'page.md", line 6' in done.stderr


def test_an_output_that_differs_is_found(tmp_path, offline_environment):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n<!-- output -->\n```text\n2\n```\n", encoding="utf-8")
    done = run_python(RUN, page, "", env=offline_environment, cwd=tmp_path)
    assert "it prints\n1\nand not\n2\n" in done.stderr
