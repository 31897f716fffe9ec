"""Every program in docs/bulk.md runs as it stands."""

import ast
import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import REAL
from support.processes import run_python

pytest.importorskip("pyarrow")

PAGE = Path(__file__).parents[2] / "docs" / "bulk.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here")
PROGRAMS = (
    re.findall(r"^#{1,3} ([^\n]+)\n(?:(?!^#).)*?^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)  # noqa: FURB167
    if PAGE.is_file()
    else []
)


def imported(program):
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_all_programs_are_found():
    text = PAGE.read_text(encoding="utf-8")
    assert len(PROGRAMS) == text.count("```python\n") >= 9


@pytest.mark.parametrize(("heading", "program"), PROGRAMS, ids=[heading for heading, _ in PROGRAMS])
def test_the_program_runs_and_prints_what_it_says(heading, program, tmp_path, request):
    for module in imported(program):
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            pytest.skip(f"{module.partition('.')[0]} is not installed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FASTRANK_OFFLINE": "1"}
    if REAL in program:
        folder = request.getfixturevalue("real_model_folder")
        program = program.replace(f'"{REAL}"', f'"{REAL}", specific_model_path="{folder}"')

    if heading == "Spark" and not any(Path(each, "java").exists() for each in os.environ["PATH"].split(os.pathsep)):
        pytest.skip("there is no Java")
    environment |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1"}
    environment |= {"DAFT_ANALYTICS_ENABLED": "0", "HF_DATASETS_CACHE": str(tmp_path / "hf")}
    done = run_python("-c", program, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    for said in re.findall(r"^print\(.*\)  # (.*)$", program, re.M):  # noqa: FURB167
        for part in said.split(", ") if "[" not in said and "(" not in said else [said]:
            assert part in done.stdout
