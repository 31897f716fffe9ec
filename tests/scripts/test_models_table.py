"""The table of models in docs/models.md is that of the registry."""

import pytest
from support.scripts import script

from fastrank.models import registry


@pytest.fixture(scope="module")
def tool():
    return script("models_table")


def test_the_page_has_the_table_of_today(tool):
    assert tool.main(["--check"]) == 0, "run python scripts/models_table.py"


def test_an_old_table_is_found_and_replaced(tool, tmp_path, capsys):
    page = tmp_path / "models.md"
    page.write_text(f"before\n{tool.BEGIN}old\n{tool.END}after\n", encoding="utf-8")
    assert tool.main(["--page", str(page), "--check"]) == 1
    assert "run python scripts/models_table.py" in capsys.readouterr().err
    assert tool.main(["--page", str(page)]) == 0
    assert tool.main(["--page", str(page), "--check"]) == 0
    content = page.read_text(encoding="utf-8")
    assert content.startswith(f"before\n{tool.BEGIN}{len(registry.builtin())} models: ")
    assert content.endswith(f"no published values are known.\n{tool.END}after\n")
    assert "old\n" not in content


def test_a_page_without_marks(tool):
    with pytest.raises(ValueError, match="the page has no <!-- models"):
        tool.written("nothing here")


def test_rows_say_what_the_registry_says(tool):
    rows = tool.table(registry.builtin()).splitlines()
    assert "| BAAI/bge-small-en-v1.5 | dense | 384 | 512 | 134 MB | mit | yes | answers |" in rows
    noncommercial = next(row for row in rows if row.startswith("| jinaai/jina-reranker-v2-base-multilingual "))
    assert noncommercial.endswith("| cross-encoder |  | 1024 | ~1.1 GB | *cc-by-nc-4.0* | commit | answers |")
    assert "| Qdrant/bm25 | sparse |  |  | none | apache-2.0 | yes | run |" in rows


def test_every_row_has_a_size(tool):
    rows = [row.split(" | ") for row in tool.table(registry.builtin()).splitlines() if row.startswith("| ")][1:]
    assert len(rows) == len(registry.builtin())
    assert [row[0] for row in rows if not row[4]] == []
