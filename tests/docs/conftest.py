"""What pages are run with: a cache that has the real all-MiniLM-L6-v2, a hub of tiny models, a server."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import FIXTURES, tiny_models
from support.hub import HubStandIn
from support.waiting import wait_until

from fastrank.models import registry
from fastrank.models.spec import CROSS_ENCODER, LATE_INTERACTION, SPARSE_EMBEDDING, TEXT_EMBEDDING

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TINY = {
    TEXT_EMBEDDING: "sentence_encoder",
    SPARSE_EMBEDDING: "sparse_encoder",
    LATE_INTERACTION: "late_interaction/pylate_bert",
}
SPECIAL = {  # models of which pages show what others do not have
    "BAAI/bge-m3": "hybrid/bge_m3",
    "Qwen/Qwen3-Embedding-0.6B": "families/qwen3_embedding",
    "Qwen/Qwen3-Reranker-0.6B": "families/qwen3_reranker",
}
CLASSIFIER = tiny_models.model_files(tiny_models.tiny_cross_encoder())  # of texts of 512 tokens, as hosts ask for


def files(folder):
    """A folder as path -> content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "expected.json"
    }


@pytest.fixture(scope="session")
def tiny_hub():
    """A hub where every model of the registry is a tiny one of its kind, and so are two repositories of nobody."""
    with HubStandIn() as hub:
        for spec in registry.builtin():
            for task in spec.tasks:
                hub.add_repo(spec.name, CLASSIFIER if task == CROSS_ENCODER else files(FIXTURES / TINY[task]))
        for name, folder in SPECIAL.items():
            hub.add_repo(name, files(FIXTURES / folder))
        hub.add_repo("organisation/repository", files(FIXTURES / TINY[TEXT_EMBEDDING]))
        hub.add_repo("lightonai/GTE-ModernColBERT-v1", files(FIXTURES / TINY[LATE_INTERACTION]))
        yield hub


@pytest.fixture(scope="session")
def cache(tmp_path_factory, real_model_folder):
    """A cache with the real model in it, apart from the user's."""
    made = tmp_path_factory.mktemp("docs") / "cache"
    if real_model_folder.parents[1].name == "models":  # else it is in an installed package
        inside = real_model_folder.relative_to(real_model_folder.parents[2])
        shutil.copytree(real_model_folder, made / inside)  # no links: onnx refuses external data that has others
    return made


@pytest.fixture(scope="session")
def environment(tiny_hub, cache):
    """Variables of a process that runs what a page says."""
    return variables(tiny_hub, cache)


@pytest.fixture
def offline_environment(tiny_hub, tmp_path_factory):
    """The same, without the real model."""
    return variables(tiny_hub, tmp_path_factory.mktemp("cache"))


def variables(hub, cache):
    """This process's variables, but for what users set."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FASTRANK_", "FASTEMBED_"))
    }
    return {
        **kept,
        "FASTRANK_CACHE": str(cache),
        "FASTRANK_PROGRESS": "0",
        "HF_ENDPOINT": hub.url,
        "PIP_NO_INDEX": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


@pytest.fixture(scope="session")
def server(environment, tmp_path_factory):
    """The address of a `fastrank serve` that answers under hosted names."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        sys.executable,
        "-m",
        "fastrank",
        "serve",
        MINILM,
        "--rerank-with",
        "dense",
        "--alias-hosted",
        "--port",
        "0",
    ]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: process.poll() is not None or "http://127.0.0.1:" in log.read_text(encoding="utf-8"))
        said = log.read_text(encoding="utf-8")
        assert process.poll() is None, said
        yield said.partition("http://")[2].split()[0].rstrip('/",.')
    finally:
        process.terminate()
        process.wait(30)
