"""Libraries that use FastEmbed, unchanged (fastembed_hosts/), on fastrank in its place and on FastEmbed itself."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
from support.fastembed_repositories import repositories
from support.hub import HubStandIn
from support.processes import run_python

HOSTS = Path(__file__).with_name("fastembed_hosts")
NEEDED = {
    "uses_llama_index.py": "llama_index.embeddings.fastembed",
    "uses_haystack.py": "haystack_integrations.components.embedders.fastembed",
    "uses_langchain_qdrant.py": "langchain_qdrant",
    "uses_agno.py": "agno",
    "uses_mem0.py": "mem0",
    "uses_chroma.py": "chromadb",
    "uses_qdrant_client.py": "qdrant_client",
}
FASTEMBED = importlib.util.find_spec("fastembed") is not None


def installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module")
def hub():
    with HubStandIn() as standin:
        for repo in ("intfloat/multilingual-e5-small", "Xenova/ms-marco-MiniLM-L-4-v2", "Qdrant/bm25"):
            standin.add_repo(repo, repositories()[repo])
        yield standin


def run(program, hub, folder, *how):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FAST"))},
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "ANONYMIZED_TELEMETRY": "False",
        "MEM0_TELEMETRY": "False",
        "AGNO_TELEMETRY": "false",
        "MEM0_DIR": str(folder / "mem0"),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "FASTEMBED_CACHE_PATH": str(folder / "cache"),
    }
    done = run_python(*how, HOSTS / program, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_close(found, expected):
    if isinstance(expected, (list, dict)):
        assert len(found) == len(expected)
        keys = expected if isinstance(expected, dict) else range(len(expected))
        for key in keys:
            assert_close(found[key], expected[key])
    else:
        assert found == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("program", NEEDED)
def test_a_host_gives_what_it_gives_on_fastembed(program, hub, tmp_path):
    if not installed(NEEDED[program]):
        pytest.skip(f"{NEEDED[program]} is not installed")
    found = run(program, hub, tmp_path, "-m", "fastrank.compat.fastembed")
    assert found
    if FASTEMBED:
        assert_close(found, run(program, hub, tmp_path))


def test_every_program_is_run():
    assert {path.name for path in HOSTS.glob("uses_*.py")} == set(NEEDED)
