"""What is in the wheel, and that metadata and code say the same."""

import os
import re
import shutil
import zipfile

import pytest
from support import PACKAGE, REGISTRY, ROOT
from support.processes import run_python

import fastrank


@pytest.fixture(scope="module")
def project():
    if not (ROOT / "fastrank").is_dir():
        pytest.skip("only a checkout has the package to build")
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture
def site(tmp_path):
    """The package, installed on its own in a folder, and how to run Python with it."""
    shutil.copytree(PACKAGE, tmp_path / "fastrank", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(REGISTRY, tmp_path / "fastrank" / "models" / REGISTRY.name)
    (tmp_path / "fastrank_onnx-0.1.0.dist-info").mkdir()

    def run(*arguments):
        return run_python(*arguments, env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)

    return tmp_path, run


def test_the_package_alone_says_nothing_of_a_namesake(site):
    done = site[1]("-W", "error", "-c", "import fastrank; print(fastrank.__file__)")
    assert done.stdout.startswith(str(site[0])), done.stderr


def test_importing_warns_if_the_index_fastrank_is_installed_as_well(site):
    folder, run = site
    (folder / "fastrank-0.8.0.dist-info").mkdir()
    done = run("-c", "import fastrank; print(fastrank.TextEmbedding)")
    assert "RuntimeWarning: Two projects share the folder" in done.stderr
    assert "pip uninstall -y fastrank fastrank-onnx" in done.stderr
    assert "TextEmbedding" in done.stdout


def test_the_command_says_if_the_index_fastrank_was_installed_over_it(site):
    folder, run = site
    (folder / "fastrank" / "__init__.py").write_text('__version__ = "0.7.0"\n')
    done = run("-m", "fastrank", "info")
    assert done.returncode == 1
    assert done.stderr.startswith("fastrank: fastrank/__init__.py is not this project's: another project")


def test_the_package_may_lie_in_a_zip_file(site):
    folder, run = site
    archive = shutil.make_archive(str(folder / "site"), "zip", folder, "fastrank")
    shutil.rmtree(folder / "fastrank")
    code = f"import sys; sys.path.insert(0, {archive!r}); import fastrank; print(fastrank.__file__)"
    assert run("-W", "error", "-c", code).stdout.startswith(archive)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, project):
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    builder = builders.WheelBuilder(str(ROOT))
    path = next(iter(builder.build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])))
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_has_the_registry_byte_for_byte(wheel):
    assert wheel.read("fastrank/models/model_registry.json") == (ROOT / "model_registry.json").read_bytes()


def test_the_wheel_has_all_of_the_package_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fastrank").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == tracked | {"fastrank/models/model_registry.json"}
    for needed in ("py.typed", "models/model_registry.schema.json", "cli/films.txt"):
        assert f"fastrank/{needed}" in names


def test_metadata(wheel):
    metadata = wheel.read(f"fastrank_onnx-{fastrank.__version__}.dist-info/METADATA").decode()
    assert "\nName: fastrank-onnx\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    base = re.findall(r"^Requires-Dist: ([a-z0-9-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(base) == ["huggingface-hub", "mmh3", "numpy", "onnxruntime", "py-rust-stemmers", "tokenizers", "tqdm"]
    entry = wheel.read(f"fastrank_onnx-{fastrank.__version__}.dist-info/entry_points.txt").decode()
    assert "fastrank = fastrank.cli:main" in entry


def test_every_lint_exception_has_a_reason(project):
    for line in project[project.index("[tool.ruff.lint]") :].splitlines():
        if re.match(r'^    "[A-Z]+\d*",', line):
            assert re.search(r",\s+# \w", line), line


@pytest.mark.parametrize("name", ["first command", "tests"])
def test_readme_marks_what_ci_runs_of_it(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"^<!-- ci: {name} -->\n```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert command.startswith("pip install ")
    assert command.count("\n") == 1


def test_readme_is_short_of_promises_and_quick_to_start():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert any("from fastrank import" in line for line in readme[:20])
    assert any("pip install" in line for line in readme[:20])


def test_readme_is_read_in_a_screen_and_a_half():
    assert len((ROOT / "README.md").read_bytes()) <= 8500
