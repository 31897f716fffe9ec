"""The README's table of models is that of the registry."""

import importlib.util
from pathlib import Path

import pytest

from fastrank.models import registry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("scripts_models_table", ROOT / "scripts" / "models_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_has_the_table_of_today(tool):
    assert tool.main(["--check"]) == 0, "run python scripts/models_table.py"


def test_an_old_table_is_found_and_replaced(tool, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tool.BEGIN}old\n{tool.END}after\n", encoding="utf-8")
    assert tool.main(["--readme", str(readme), "--check"]) == 1
    assert "run python scripts/models_table.py" in capsys.readouterr().err
    assert tool.main(["--readme", str(readme)]) == 0
    assert tool.main(["--readme", str(readme), "--check"]) == 0
    content = readme.read_text(encoding="utf-8")
    assert content.startswith(f"before\n{tool.BEGIN}<details>\n")
    assert content.endswith(f"</details>\n{tool.END}after\n")
    assert "old\n" not in content


def test_a_readme_without_marks(tool):
    with pytest.raises(ValueError, match="the README has no <!-- models"):
        tool.written("nothing here", "")


def test_rows_say_what_the_registry_says(tool):
    rows = tool.table(registry.builtin()).splitlines()
    assert "| BAAI/bge-small-en-v1.5 | dense | 384 | 512 | 134 MB | mit | yes |" in rows
    assert (
        "| jinaai/jina-reranker-v2-base-multilingual | cross-encoder |  | 1024 |  | *cc-by-nc-4.0* | commit |" in rows
    )
    assert "| Qdrant/bm25 | sparse |  |  | none | apache-2.0 | yes |" in rows
