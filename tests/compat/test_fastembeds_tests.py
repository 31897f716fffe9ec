"""What FastEmbed's tests and README do (tests/compat/suite), run on FastEmbed and on fastrank in its place."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.fastembed_repositories import repositories
from support.hub import HubStandIn

SUITE = Path(__file__).with_name("suite")
PARTS = ["dense.py", "sparse.py", "late_interaction.py", "cross_encoder.py", "models.py", "readme.py"]
FASTEMBED = importlib.util.find_spec("fastembed") is not None


@pytest.fixture(scope="module")
def hub():
    with HubStandIn() as standin:
        for repo, files in repositories().items():
            standin.add_repo(repo, files)
        yield standin


def run(part, hub, folder, *plugins):
    """The results that a part of the suite notes."""
    results = folder / "results.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins]
    command += ["-c", os.devnull, "--rootdir", str(SUITE), "--confcutdir", str(SUITE), str(SUITE / part)]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FAST"))},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "FASTEMBED_CACHE_PATH": str(folder / "cache"),
        "SUITE_RESULTS": str(results),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(results.read_text(encoding="utf-8"))


def assert_same(found, expected, name):
    """Equal, numbers to 1e-5 and their types exactly."""
    assert type(found) is type(expected), name
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key in expected:
            assert_same(found[key], expected[key], f"{name}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), name
        for position, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{name}[{position}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5), name
    else:
        assert found == expected, name


@pytest.mark.parametrize("part", PARTS)
def test_it_passes_and_gives_what_fastembed_gives(part, hub, tmp_path):
    if part == "readme.py" and not FASTEMBED:
        pytest.skip("fastembed, which carries its README, is not installed")
    (tmp_path / "ours").mkdir()
    found = run(part, hub, tmp_path / "ours", "-p", "fastrank.compat.fastembed")
    assert found
    if FASTEMBED:
        (tmp_path / "theirs").mkdir()
        expected = run(part, hub, tmp_path / "theirs")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same(found[name], value, name)
