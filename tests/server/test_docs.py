"""What docs/server.md and docs/deployment say of options is so."""

import argparse
import re
from pathlib import Path

import pytest

from fastrank.cli import serve
from fastrank.server.wire import routes

DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted([DOCS / "server.md", *(DOCS / "deployment").glob("[!b]*")])  # bulk-* are of `fastrank embed`
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")


def options():
    """Flags of `fastrank serve`, and what variables of it are called."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    serve.add_to(commands)
    actions = commands.choices["serve"]._actions
    return {flag for action in actions for flag in action.option_strings}, {action.dest for action in actions}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_options_and_variables_exist(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "README.md":
        text = text[text.index("\n## The server\n") :]  # before it: models as wheels
    flags, names = options()
    foreign = (
        {"--no-cache-dir", "--from", "--interval", "--timeout", "--start-period"}
        if path.name == "Dockerfile"
        else set()
    )
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - foreign <= flags
    assert {name.lower() for name in re.findall(r"FASTRANK_SERVE_([A-Z_]+)", text)} <= names


def test_the_paths_are_those_that_are_served():
    table = (DOCS / "server.md").read_text(encoding="utf-8").partition("## Paths")[2].partition("## Scores")[0]
    told = {path for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for path in re.findall(r"`(.*?)`", row)}
    assert set(routes.POST) - told == {"/page/match"}
    for path in told - {"/docs", "/openapi.json", "/health", "/ping", "/ready", "/metrics", "/v1/models", "/info"}:
        assert routes.reader(path) is not None or path.startswith("/api/"), path


def test_probes_ask_the_right_paths():
    text = (DOCS / "deployment" / "kubernetes.yaml").read_text(encoding="utf-8")
    assert re.findall(r"(\w+)Probe:\n\s+httpGet: \{path: (\S+),", text) == [
        ("startup", "/ready"),
        ("readiness", "/ready"),
        ("liveness", "/health"),
    ]
