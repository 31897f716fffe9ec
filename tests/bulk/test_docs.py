"""Every program in docs/bulk.md runs as it stands."""

import argparse
import ast
import importlib.util
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REAL
from support.processes import run_python

from fastrank.cli import embed

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


# -- clusters and tables --------------------------------------------------------------------------------------------

DEPLOYMENT = PAGE.parent / "deployment"
BENCHMARKS = PAGE.parents[1] / "benchmarks"


def test_options_of_the_command_line_exist():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    embed.add_to(commands)
    flags = {flag for action in commands.choices["embed"]._actions for flag in action.option_strings}
    for name in ("bulk-kubernetes.yaml", "bulk-slurm.sh"):
        command = (DEPLOYMENT / name).read_text(encoding="utf-8").partition("exec fastrank embed")[2]
        assert "--shard" in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", command)) <= flags
    told = set(re.findall(r"`(--[a-z-]+)", PAGE.read_text(encoding="utf-8").partition("## Ray")[0]))
    assert {"--shard", "--keep", "--rows-per-file"} <= told <= flags


@pytest.mark.real_model
@pytest.mark.skipif(sys.platform == "win32", reason="it is a shell script")
@pytest.mark.parametrize("kind", ["slurm", "kubernetes"])
def test_what_a_cluster_runs_runs(kind, tmp_path, real_model_folder):
    """One shard of 64, of a corpus that has two files in it."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "corpus").mkdir()
    for name in "ab":
        pq.write_table(pa.table({"id": [1, 2], "text": ["cat", None]}), tmp_path / "corpus" / f"{name}.parquet")
    program = tmp_path / "bin" / "fastrank"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m fastrank "$@" --model {REAL} --path "{real_model_folder}"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    if kind == "slurm":
        script = (DEPLOYMENT / "bulk-slurm.sh").read_text(encoding="utf-8")
    else:
        lines = (DEPLOYMENT / "bulk-kubernetes.yaml").read_text(encoding="utf-8")
        script = re.search(r"args:\n\s+- (exec .*?)\n\s+env:", lines, re.DOTALL)[1].replace("\n", " ")
        script = script.replace("/data/", f"{tmp_path}/")
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_ARRAY_TASK_ID": "1",
        "JOB_COMPLETION_INDEX": "1",
        "FASTRANK_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in (tmp_path / "vectors").glob("*.parquet"))
    assert files == ["part-00001-000000.parquet"]
    assert pq.read_metadata(tmp_path / "vectors" / files[0]).num_rows == 2


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not here")
@pytest.mark.parametrize("program", [["bulk.py", "--costs"], ["window.py"]], ids=["costs", "windows"])
def test_tables_are_what_the_benchmarks_print(program):
    path = os.pathsep.join([str(BENCHMARKS), *sys.path])
    done = run_python(BENCHMARKS / program[0], *program[1:], check=True, env={**os.environ, "PYTHONPATH": path})
    assert len(done.stdout.splitlines()) > 4
    assert done.stdout in PAGE.read_text(encoding="utf-8")
