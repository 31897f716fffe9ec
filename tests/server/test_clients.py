"""Official clients against a live server, each in a process of its own; those that are not installed are skipped.

FASTRANK_TEST_CLIENTS names further Pythons with clients that exclude those of this one, FASTRANK_TEST_NODE_CLIENTS a
folder whose node_modules has the JavaScript ones (CONTRIBUTING says how to make them).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from server.clients.cases import CASES
from server.live import serving
from support.waiting import patience

import fastrank.integrations
from fastrank.integrations import _redirect
from fastrank.server import start
from fastrank.server.app import Application
from fastrank.server.metrics import Metrics
from fastrank.server.runner import ModelRunner
from fastrank.server.settings import Settings

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "fixtures"
PYTHONS = [sys.executable, *filter(None, os.environ.get("FASTRANK_TEST_CLIENTS", "").split(os.pathsep))]
NODE_FOLDER = os.environ.get("FASTRANK_TEST_NODE_CLIENTS")
MODELS = [f"rerank:{FIXTURES / 'pair_classifier'}", f"dense:{FIXTURES / 'sentence_encoder'}"]
PACKAGE = str(Path(fastrank.__file__).parents[1])


@pytest.fixture(scope="module")
def live():
    catalog = start.catalog(start.Plan(MODELS, alias_hosted=True))
    runner = ModelRunner(catalog, Settings(), Metrics())
    runner.load()
    with serving(Application(Settings(), catalog, runner, Metrics()), runner) as found:
        yield found
    runner.close()


def outcomes(command):
    """What each case became, by name."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "FASTRANK_"))}
    environment["PYTHONPATH"] = PACKAGE
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(300), check=False, env=environment)
    found, name = {}, None
    for line in done.stdout.splitlines():
        head, colon, rest = line.partition(": ")
        if colon and (head in CASES or rest in ("ok", "skipped")):
            name, line = head, rest  # noqa: PLW2901 - what is left of it
        if name is not None and found.get(name) not in ("ok", "skipped"):  # hosts print what they like
            found[name] = f"{found[name]}\n{line}" if name in found else line
    assert found, done.stderr
    return found


@pytest.fixture(scope="module", params=PYTHONS)
def of_python(request, live):
    return outcomes([request.param, str(HERE / "clients" / "cases.py"), live.url])


@pytest.mark.parametrize("name", CASES)
def test_python_client(of_python, name):
    _judge(of_python.get(name, "it did not run"))


@pytest.mark.parametrize("name", ["openai", "cohere-ai", "voyageai", "@langchain/cohere", "@langchain/openai"])
def test_javascript_client(live, name):
    node = shutil.which("node")
    if node is None or NODE_FOLDER is None:
        pytest.skip("FASTRANK_TEST_NODE_CLIENTS names no folder")
    found = outcomes([node, str(HERE / "clients" / "cases.mjs"), live.url, NODE_FOLDER])
    _judge(found.get(name, "it did not run"))


def _judge(outcome):
    if outcome == "skipped":
        pytest.skip("not installed")
    assert outcome == "ok", outcome


# -- redirect ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _variables(monkeypatch):
    for name in ("CO_API_URL", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "before")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/v1"])
@pytest.mark.usefixtures("_variables")
def test_redirect_sets_the_variables_that_clients_read(url, monkeypatch):
    monkeypatch.setattr(_redirect, "find_spec", lambda _name: None)
    fastrank.integrations.redirect(url)
    assert os.environ["CO_API_URL"] == "http://127.0.0.1:1"
    assert os.environ["OPENAI_BASE_URL"] == "http://127.0.0.1:1/v1"


def test_redirect_takes_urls_only():
    with pytest.raises(ValueError, match="must begin with http"):
        fastrank.integrations.redirect("127.0.0.1:8321")


def test_defaults_of_arguments_are_changed_wherever_they_stand():
    def one(a, base_url="x", b=3):
        return a, base_url, b

    def two(a, *, base_url=None):
        return a, base_url

    def three(a, b=1):
        return a, b

    for function in (one, two, three):
        _redirect._set_default(function, "base_url", "new")
    assert one(0) == (0, "new", 3)
    assert two(0) == (0, "new")
    assert three(0) == (0, 1)
