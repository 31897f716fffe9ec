"""What is in the wheel, and that metadata and code say the same."""

import re
import zipfile
from pathlib import Path

import pytest

import fastrank

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project():
    if not (ROOT / "fastrank").is_dir():
        pytest.skip("only a checkout has the package to build")
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


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


def test_readme_is_short_of_promises_and_quick_to_start():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert any("from fastrank import" in line for line in readme[:20])
    assert any("pip install" in line for line in readme[:20])
