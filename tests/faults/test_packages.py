"""Rows H8 to H11: installed packages with models, and what is packed into one.

Only metadata is read; a malformed package is one warning and is left out.
"""

import hashlib
import json
import os
import sys

import pytest
from support import tiny_models

import fastrank
from fastrank import cli, store
from fastrank.errors import ModelNotCachedError, ModelNotFoundError
from fastrank.models import packages, registry
from fastrank.models.packages import MANIFEST, Manifest
from fastrank.models.spec import TEXT_EMBEDDING, FileSpec, HubSource, Variant
from fastrank.store.lookup import Lookup

NAME = "acme/tuned"
PACKAGE = "acme_tuned"
LIKE = "sentence-transformers/all-MiniLM-L6-v2"
FILES = tiny_models.model_files()
MODEL = tiny_models.MODEL_PATH


def facts(files):
    return {path: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()}


def manifest(**changes):
    content = {
        "model": NAME,
        "variant": "onnx",
        "precision": "unknown",
        "model_file": MODEL,
        "like": LIKE,
        "made_of": None,
        "license": "MIT",
        "source": "a folder",
        "commit": None,
        "files": facts(FILES),
        **changes,
    }
    return {key: value for key, value in content.items() if value is not ...}


@pytest.fixture(autouse=True)
def _forget_warnings(monkeypatch):
    monkeypatch.setattr(packages, "_warned", set())


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the import path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site, content=None, *, name=NAME, package=PACKAGE, files=FILES, entry_points=None):
    """A package as pip leaves it; `content` is the manifest: an object, text, or None for a package without one."""
    folder = site.joinpath(*package.split("."))
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "__init__.py").write_text("raise SystemExit('the package was imported')")
    if content is not None:
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        (folder / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    described = site / f"{package.replace('.', '_')}-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    default = f"[console_scripts]\nx = y:z\n\n[fastrank.models]\n# a comment\n{name} = {package}\n"
    (described / "entry_points.txt").write_text(default if entry_points is None else entry_points)
    return folder


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "fastrank"]


# -- what is well-formed ----------------------------------------------------------------------------------------------


def test_a_manifest_is_read(site):
    folder = install(site, manifest())
    (package,) = packages.packages(NAME.upper())
    assert package.folder == folder
    files = tuple(FileSpec(path, row["size"], row["sha256"]) for path, row in facts(FILES).items())
    assert package.manifest == Manifest("onnx", "unknown", MODEL, LIKE, None, "MIT", files)
    assert registry.find(NAME, TEXT_EMBEDDING).license == "MIT"


def test_a_package_without_a_manifest_is_no_fault(site, caplog):
    folder = install(site, None)
    assert [(each.folder, each.manifest) for each in packages.packages(NAME)] == [(folder, None)]
    assert warnings(caplog) == []


def test_the_first_of_two_distributions_of_one_name_counts(site, tmp_path, monkeypatch):
    install(site, manifest(license="MIT"))
    other = tmp_path / "earlier"
    install(other, manifest(license="ISC"))
    monkeypatch.syspath_prepend(str(other))
    assert [each.manifest.license for each in packages.packages(NAME)] == ["ISC"]


# -- nothing is run ---------------------------------------------------------------------------------------------------


def test_h9_listing_models_runs_no_code_of_a_package(site, capsys):
    """A dotted entry point once imported, and so executed, the packages around it."""
    folder = install(site, manifest(), package="acme_models.tuned")
    (site / "acme_models" / "__init__.py").write_text("raise SystemExit('the parent was imported')")
    before = set(sys.modules)
    assert [each.folder for each in packages.packages()] == [folder]
    assert NAME in [row["model"] for row in fastrank.TextEmbedding.list_supported_models()]
    assert cli.main(["models"]) == 0
    assert NAME in capsys.readouterr().out
    assert not any(name.startswith("acme_models") for name in set(sys.modules) - before)


# -- what is malformed ------------------------------------------------------------------------------------------------

SHA = "0" * 64
MALFORMED = {
    "only like and variant": ({"like": LIKE, "variant": "onnx"}, "model is missing"),
    **{f"no {field}": (manifest(**{field: ...}), field) for field in manifest()},
    "a license that is a number": (manifest(license=7), "license"),
    "a license that is null": (manifest(license=None), "license"),
    "escapes for the terminal": (manifest(license="\x1b[31mMIT"), "license"),
    "a long license": (manifest(license="x" * 201), "license"),
    "another model": (manifest(model="acme/other"), "model"),
    "a variant with blanks": (manifest(variant="on nx"), "variant"),
    "an unknown precision": (manifest(precision="fp8"), "precision"),
    "a model file that is not there": (manifest(model_file="other.onnx"), "model_file"),
    "a model file outside": (manifest(model_file="../model.onnx"), "model_file"),
    "like something else": (manifest(like=["x"]), "like"),
    "made of nothing": (manifest(made_of="abc"), "made_of"),
    "a branch for a commit": (manifest(commit="main"), "commit"),
    "an unknown field": (manifest(extra=1), "extra"),
    "files as a list": (manifest(files=["model.onnx"]), "files"),
    "no files": (manifest(files={}), "files"),
    "a file outside": (manifest(files={**facts(FILES), "../x": {"size": 1, "sha256": SHA}}), "../x"),
    "an absolute file": (manifest(files={**facts(FILES), "/etc/passwd": {"size": 1, "sha256": SHA}}), "/etc/passwd"),
    "a size as text": (manifest(files={**facts(FILES), "x": {"size": "1", "sha256": SHA}}), "files.x.size"),
    "a size that is true": (manifest(files={**facts(FILES), "x": {"size": True, "sha256": SHA}}), "files.x.size"),
    "a negative size": (manifest(files={**facts(FILES), "x": {"size": -1, "sha256": SHA}}), "files.x.size"),
    "no size": (manifest(files={**facts(FILES), "x": {"sha256": SHA}}), "files.x"),
    "a hash that is null": (manifest(files={**facts(FILES), "x": {"size": 1, "sha256": None}}), "files.x.sha256"),
    "half a hash": (manifest(files={**facts(FILES), "x": {"size": 1, "sha256": "00"}}), "files.x.sha256"),
    "a file that is a number": (manifest(files={**facts(FILES), "x": 1}), "files.x"),
    "an array": ([], "not a JSON object"),
    "null": ("null", "not a JSON object"),
    "empty": ("", "not valid JSON"),
    "cut off": (json.dumps(manifest())[:-9], "not valid JSON"),
    "not UTF-8": (b"\xff\xfe{}", "not valid JSON"),
    "deep": ("[" * 100_000, "not valid JSON"),
    "large": (" " * 11_000_000 + "{}", "larger than"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_h8_a_malformed_manifest_is_one_warning_and_left_out(site, caplog, capsys, kind):
    content, field = MALFORMED[kind]
    install(site, content)
    for _ in range(2):
        assert NAME not in [row["model"] for row in fastrank.TextEmbedding.list_supported_models()]
        assert cli.main(["models", "--json"]) == 0
        assert cli.main(["cache"]) == 0
        with pytest.raises(ModelNotFoundError):
            registry.find("acme/unknown", TEXT_EMBEDDING)
        with pytest.raises(ModelNotFoundError):
            registry.find(NAME, TEXT_EMBEDDING)
    assert "BAAI/bge-small-en-v1.5" in capsys.readouterr().out
    (warning,) = warnings(caplog)
    assert PACKAGE in warning
    assert MANIFEST in warning
    assert field in warning


ENTRY_POINTS = {
    "no name": ("[fastrank.models]\n= acme_tuned\n", "not a model name"),
    "no organisation": ("[fastrank.models]\ntuned = acme_tuned\n", "not a model name"),
    "escapes": ("[fastrank.models]\nacme/\x1b[31m = acme_tuned\n", "not a model name"),
    "no package": ("[fastrank.models]\nacme/tuned\n", "not the name of a package"),
    "an attribute": ("[fastrank.models]\nacme/tuned = acme_tuned:folder\n", "not the name of a package"),
    "a path": ("[fastrank.models]\nacme/tuned = ../acme_tuned\n", "not the name of a package"),
    "a package that is gone": ("[fastrank.models]\nacme/tuned = acme_gone\n", "no folder of the package acme_gone"),
    "a module": ("[fastrank.models]\nacme/tuned = json.decoder\n", "no folder of the package json.decoder"),
}


@pytest.mark.parametrize("kind", ENTRY_POINTS)
def test_h8_a_malformed_entry_point_is_one_warning_and_left_out(site, caplog, kind):
    text, reason = ENTRY_POINTS[kind]
    install(site, manifest(), entry_points=text)
    for _ in range(2):
        assert NAME not in [spec.name for spec in registry.entries()]
    (warning,) = warnings(caplog)
    assert PACKAGE in warning
    assert reason in warning
    assert "\x1b" not in warning


@pytest.mark.parametrize(
    "text", ["", "[", "[other]\nacme/tuned = acme_tuned\n", "acme/tuned = acme_tuned\n", "\0\n=\n"]
)
def test_entry_points_of_other_groups_are_nothing_to_us(site, caplog, text):
    install(site, manifest(), entry_points=text)
    assert list(packages.packages()) == []
    assert warnings(caplog) == []


def test_h8_metadata_that_is_no_text_stops_nothing(site):
    install(site, manifest())
    broken = site / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "entry_points.txt").write_bytes(b"\xff\xfe[fastrank.models\n\xff = x\n")
    (site / "a_file-1.0.egg-info").write_text("Name: a_file")
    (site / "a_folder-1.0.dist-info" / "entry_points.txt").mkdir(parents=True)
    assert [package.model for package in packages.packages()] == [NAME]


@pytest.mark.parametrize("what", ["the package", "the import path"])
def test_h8_what_may_not_be_read_stops_nothing(site, caplog, monkeypatch, what):
    folder = install(site, manifest())
    denied = folder if what == "the package" else site.parent / "denied"
    stat, lstat = os.stat, os.lstat

    def refuse(call):
        def checked(path, *arguments, **options):
            if not isinstance(path, int) and str(path).startswith(f"{denied}{os.sep}"):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *arguments, **options)

        return checked

    monkeypatch.syspath_prepend(str(site.parent / "denied"))
    monkeypatch.setattr(os, "stat", refuse(stat))
    monkeypatch.setattr(os, "lstat", refuse(lstat))
    listed = NAME in [package.model for package in packages.packages()]
    assert listed == (what == "the import path")
    registry.entries()
    assert len(warnings(caplog)) == (what == "the package")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
@pytest.mark.parametrize("path", [MANIFEST, "config.json", "entry points"])
def test_h8_a_pipe_is_left_out_and_not_waited_for(site, caplog, path):
    folder = install(site, manifest())
    if path == "entry points":
        pipe = site / "pipe-1.0.dist-info" / "entry_points.txt"
        pipe.parent.mkdir()
    else:
        pipe = folder / path
        pipe.unlink()
    os.mkfifo(pipe)
    names = [package.model for package in packages.packages()]
    if path == "entry points":
        assert names == [NAME]
    else:
        assert names == []
        assert f"{path} is not a regular file" in warnings(caplog)[0]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("path", [MANIFEST, "config.json", MODEL])
def test_h8_a_link_out_of_the_package_is_left_out(site, tmp_path, caplog, path):
    folder = install(site, manifest())
    outside = tmp_path / "outside"
    (folder / path).rename(outside)
    (folder / path).symlink_to(outside)
    assert list(packages.packages()) == []
    (warning,) = warnings(caplog)
    assert f"{path} is a link that leads out of the package" in warning


def test_h8_a_model_like_an_unknown_one_is_one_warning(site, caplog):
    install(site, manifest(like="acme/unknown"))
    for _ in range(2):
        assert NAME not in [spec.name for spec in registry.entries()]
    (warning,) = warnings(caplog)
    assert "like is acme/unknown, an unknown model" in warning


# -- a package under a built-in's name --------------------------------------------------------------------------------

OTHER = tiny_models.model_files(tiny_models.tiny_encoder(seed=1))


@pytest.fixture
def builtin(monkeypatch):
    """A pinned model of the registry, as small as the packages here."""
    specs = tuple(FileSpec(path, row["size"], row["sha256"]) for path, row in facts(FILES).items())
    variant = Variant("onnx", "fp32", MODEL, specs, (HubSource(NAME, "c" * 40),))
    spec = registry.find(LIKE)._replace(name=NAME, variants=(variant,), aliases=())

    class Shipped:
        get = staticmethod({NAME: spec}.get)

    monkeypatch.setattr(registry, "_shipped", lambda: Shipped)
    return spec


@pytest.fixture
def hashed(monkeypatch):
    """Paths of files that were hashed."""
    from fastrank.store import integrity

    paths, hashes = [], integrity._hashes
    monkeypatch.setattr(integrity, "_hashes", lambda path, **options: paths.append(path) or hashes(path, **options))
    return paths


def same_size(content):
    """Other bytes of the same number."""
    return bytes([content[0] ^ 1]) + content[1:]


def test_h10_files_under_a_builtins_name_are_hashed_once(site, builtin, cache, hashed):
    cache.mkdir(exist_ok=True)
    folder = install(site, manifest(like=None))
    for _ in range(2):
        assert store.locate(builtin, Lookup(local_files_only=True)).folder == folder
    assert sorted(hashed) == sorted(folder / path for path in FILES)


def test_h10_a_lying_manifest_under_a_builtins_name_is_not_used(site, builtin, cache, caplog):
    """The manifest states the registry's hashes; the files have other bytes of the same size."""
    cache.mkdir(exist_ok=True)
    lying = {path: same_size(data) if path == MODEL else data for path, data in FILES.items()}
    install(site, manifest(like=None), files=lying)
    with pytest.raises(ModelNotCachedError):
        store.locate(builtin, Lookup(local_files_only=True))
    assert f"{MODEL} has SHA-256" in caplog.text


def test_h10_a_file_that_changes_is_hashed_again(site, builtin, cache, hashed, caplog):
    cache.mkdir(exist_ok=True)
    folder = install(site, manifest(like=None))
    store.locate(builtin, Lookup(local_files_only=True))
    path = folder / MODEL
    times = path.stat()
    replaced = path.with_name("new")
    replaced.write_bytes(same_size(path.read_bytes()))
    os.utime(replaced, ns=(times.st_atime_ns, times.st_mtime_ns))
    replaced.rename(path)  # the same size and time, another inode
    hashed.clear()
    with pytest.raises(ModelNotCachedError):
        store.locate(builtin, Lookup(local_files_only=True))
    assert path in hashed


@pytest.mark.parametrize("where", ["no home", "no folder"])
def test_h10_without_a_cache_folder_files_are_hashed_once_per_process(site, builtin, cache, hashed, monkeypatch, where):
    if where == "no home":
        monkeypatch.delenv("FASTRANK_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "~nosuchuser/cache")
    install(site, manifest(like=None))
    for _ in range(2):
        store.locate(builtin, Lookup(local_files_only=True))
    assert len(hashed) == len(FILES)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("changes", "changed", "reason"),
    [
        ({}, "config.json", "files.config.json.sha256 is not the registry's"),
        ({"variant": "onnx"}, "", "variant onnx of precision int8-weights is not the registry's"),
        ({"precision": "fp32"}, "", "variant int8 of precision fp32 is not the registry's"),
    ],
)
def test_h10_weights_said_to_be_made_of_a_builtins_must_be_int8_beside_its_files(
    site, builtin, caplog, changes, changed, reason
):
    files = {path: same_size(data) if path == changed else data for path, data in FILES.items()}
    content = {
        "like": None,
        "variant": "int8",
        "precision": "int8-weights",
        "made_of": facts(FILES)[MODEL]["sha256"],
        "files": facts(files),
        **changes,
    }
    install(site, manifest(**content), files=files)
    assert [variant.name for variant in registry.find(NAME).variants] == ["onnx"]
    assert reason in caplog.text


# -- packing ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_h11_a_link_out_of_the_folder_is_not_packed(tmp_path, capsys):
    folder = tiny_models.write_model(tmp_path / "model")
    secret = tmp_path / "secret"
    secret.write_text("a file of this machine")
    (folder / "LICENSE").symlink_to(secret)
    assert cli.main(["pack", "acme/mine", "--path", str(folder), "-o", str(tmp_path / "dist")]) == 1
    assert "LICENSE is a link that leads out of the folder" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()
