"""Model wheels: packed, installed by pip without an index, used where they lie."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import support
from support import tiny_models
from support.waiting import patience

from fastrank import ModelSource, PoolingType, TextCrossEncoder, TextEmbedding, cli, store
from fastrank.cli import wheels
from fastrank.errors import IntegrityError, ModelLoadError, ModelNotCachedError, ModelNotFoundError
from fastrank.models import packages, registry
from fastrank.models.spec import TEXT_EMBEDDING, Answer, DenseTask, FileSpec, HubSource, ModelSpec, Prefixes, Variant
from fastrank.store.lookup import Lookup

NAME = "acme/tiny-v1.5"
PACKAGE = "fastrank_model_acme_tiny_v1_5"
COMMIT = "c" * 40
FILES = tiny_models.model_files()


def pinned(files, name="onnx", precision="fp32"):
    specs = tuple(FileSpec(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items())
    return Variant(name, precision, tiny_models.MODEL_PATH, specs, (HubSource("acme/tiny", COMMIT),))


INT8 = tiny_models.model_files(tiny_models.tiny_encoder(seed=1))


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """A model of the registry, pinned, with two precisions."""
    task = DenseTask(16, "mean", normalize=True, prefixes=Prefixes("query: "))
    spec = ModelSpec(
        name=NAME,
        description="a tiny model",
        license="apache-2.0",
        languages=("en",),
        tasks=MappingProxyType({TEXT_EMBEDDING: task}),
        variants=(pinned(FILES), pinned(INT8, "int8", "int8-dynamic")),
        max_length=64,
    )
    specs = (*registry.builtin(), spec)
    shipped = SimpleNamespace(get={each.name.casefold(): each for each in specs}.get, all=lambda: specs)
    monkeypatch.setattr(registry, "_shipped", lambda: shipped)


@pytest.fixture
def folder(tmp_path):
    return tiny_models.write_model(tmp_path / "downloaded")


def make(*arguments, output):
    """Run `fastrank pack`; the one thing it made."""
    before = set(output.glob("*"))
    assert cli.main(["pack", *map(str, arguments), "-o", str(output)]) == 0
    (made,) = set(output.glob("*")) - before
    return made


@pytest.fixture
def wheel(folder, tmp_path):
    return make(NAME, "--path", folder, output=tmp_path / "dist")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put wheels on the import path, where nothing can be written: by pip, without an index, or just unpacked."""
    site = tmp_path / "site"

    def run(*wheels, pip=False):
        if pip:
            command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-compile", "--quiet"]
            subprocess.run([*command, "--target", site, *wheels], check=True, timeout=patience(120))
        else:
            for wheel in wheels:
                shutil.unpack_archive(wheel, site, "zip")
        for path in [site, *site.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        monkeypatch.syspath_prepend(str(site))
        return site

    yield run
    for path in [site, *site.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


# -- installed --------------------------------------------------------------------------------------------------------


def test_an_installed_model_needs_no_cache_no_home_and_no_connection(wheel, install, folder, monkeypatch, tmp_path):
    expected = next(TextEmbedding(NAME, specific_model_path=folder).query_embed("the cat"))
    site = install(wheel, pip=True)
    for name in ("FASTRANK_CACHE", "HOME", "XDG_CACHE_HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.expanduser", lambda _self: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with TextEmbedding(NAME) as model:
        np.testing.assert_array_equal(next(model.query_embed("the cat")), expected)
    assert store.locate(registry.find(NAME)).folder == site / PACKAGE
    assert sorted(tmp_path.rglob("*")) == before


def test_two_models_and_two_precisions_are_installed_side_by_side(wheel, install, tmp_path):
    int8 = tiny_models.write_model(tmp_path / "int8", tiny_models.tiny_encoder(seed=1))
    own = tiny_models.write_model(tmp_path / "own", tiny_models.tiny_cross_encoder())
    output = tmp_path / "dist"
    site = install(
        wheel,
        make(NAME, "--path", int8, "--precision", "int8", output=output),
        make("acme/judge", "--path", own, output=output),
        pip=True,
    )
    assert store.locate(registry.find(NAME)).folder == site / PACKAGE  # the registry's first
    assert store.locate(registry.find(NAME), Lookup(variant="int8")).folder == site / f"{PACKAGE}_int8"
    TextCrossEncoder.add_custom_model("acme/judge", ModelSource(hf="acme/judge"), max_length=64)
    assert list(TextCrossEncoder("acme/judge").rerank("cat", ["dog"])) == list(
        TextCrossEncoder("acme/judge", specific_model_path=own).rerank("cat", ["dog"])
    )


def test_a_model_of_ones_own_is_known_by_its_name(install, folder, tmp_path, capsys):
    (folder / "pytorch_model.bin").write_bytes(b"not needed")
    (folder / "onnx" / "model_O4.onnx").write_bytes(b"not needed")
    (folder / "onnx" / "model.onnx_data").write_bytes(b"external data")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_bytes(b"{}")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_bytes(b"{}")
    (folder / "LICENSE").write_text("do what you like")
    wheel = make("acme/tuned", "--path", folder, "--like", NAME.upper(), "--license", "MIT", output=tmp_path / "dist")
    site = install(wheel)
    package = site / "fastrank_model_acme_tuned"
    assert {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()} == {
        *("__init__.py", "fastrank.json", "tokenizer.json", "config.json", "LICENSE", "1_Pooling/config.json"),
        *("onnx/model.onnx", "onnx/model.onnx_data"),
    }
    (info,) = site.glob("*.dist-info")
    assert (info / "licenses" / "LICENSE").read_text() == "do what you like"
    assert "License-Expression: MIT\n" in (info / "METADATA").read_text()
    with TextEmbedding("Acme/Tuned") as model:
        expected = next(TextEmbedding(NAME, specific_model_path=folder).query_embed("cat"))
        np.testing.assert_array_equal(next(model.query_embed("cat")), expected)
    assert "acme/tuned" in [row["model"] for row in TextEmbedding.list_supported_models()]
    capsys.readouterr()
    assert cli.main(["verify", "acme/tuned"]) == 0
    assert capsys.readouterr().out.startswith(f"acme/tuned  onnx  {package}: ok\n")


def test_a_model_of_ones_own_may_declare_itself(install, folder, tmp_path):
    install(make("acme/mine", "--path", folder, output=tmp_path / "dist"))
    with pytest.raises(ModelNotFoundError):
        TextEmbedding("acme/mine")
    TextEmbedding.add_custom_model("acme/mine", PoolingType.CLS, True, ModelSource(hf="acme/mine"), 16)
    assert next(TextEmbedding("acme/mine").embed("cat")).shape == (16,)


def test_commands_show_it(wheel, install, capsys):
    site = install(wheel)
    capsys.readouterr()
    cli.main(["models"])
    rows = {row["model"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows[NAME]["installed"]
    assert not rows["BAAI/bge-small-en-v1.5"]["installed"]
    cli.main(["cache"])
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"MB  {NAME}  onnx  installed: {site / PACKAGE}")
    assert cli.main(["verify", NAME]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}  onnx  {site / PACKAGE}: ok\n")


CHECKPOINT = support.FIXTURES / "sentence_encoder"


@pytest.fixture
def checkpoint(monkeypatch):
    """A model of the registry that is a checkpoint, and has no int8."""
    names = ("config.json", "model.safetensors", "tokenizer.json")
    variant = pinned({name: (CHECKPOINT / name).read_bytes() for name in names}, "safetensors")
    variant = variant._replace(model="model.safetensors")
    spec = registry.find(NAME)._replace(name="acme/checkpoint", variants=(variant,))
    task = DenseTask(spec.tasks["text-embedding"].dim, "mean", normalize=True)
    spec = spec._replace(tasks=MappingProxyType({TEXT_EMBEDDING: task._replace(dim=None, prefixes=Prefixes())}))
    shipped = SimpleNamespace(get={spec.name: spec}.get, all=lambda: (spec,))
    monkeypatch.setattr(registry, "_shipped", lambda: shipped)
    return spec


def test_int8_made_of_a_checkpoint_stands_alone(checkpoint, install, tmp_path, monkeypatch, capsys):
    wheel = make(checkpoint.name, "--path", CHECKPOINT, "--precision", "int8", output=tmp_path / "dist")
    again = make(checkpoint.name, "--path", CHECKPOINT, "--precision", "int8", output=tmp_path / "again")
    assert wheel.name == again.name
    assert wheel.read_bytes() == again.read_bytes()
    texts = ["the cat", "paris is the capital of france", "dog"]
    full = np.array(list(TextEmbedding(checkpoint.name, specific_model_path=CHECKPOINT).embed(texts)))
    made = np.array(list(TextEmbedding(checkpoint.name, specific_model_path=CHECKPOINT, precision="int8").embed(texts)))
    package = install(wheel) / "fastrank_model_acme_checkpoint_int8"
    assert not (package / "model.safetensors").exists()
    monkeypatch.setenv("FASTRANK_CACHE", str(tmp_path / "none"))
    for precision in ("auto", "int8"):
        found = np.array(list(TextEmbedding(checkpoint.name, precision=precision).embed(texts)))
        np.testing.assert_array_equal(found, made)
    assert not (tmp_path / "none").exists()
    assert 0 < abs(found - full).max() < 0.1
    with pytest.raises(ModelNotCachedError):
        TextEmbedding(checkpoint.name, precision="fp32", local_files_only=True)
    capsys.readouterr()
    answer = Answer("embed", texts[0], tuple(full[0][:4].tolist()), 1e-6)  # of full precision
    told = {name: task._replace(answers=(answer,)) for name, task in checkpoint.tasks.items()}
    shipped = SimpleNamespace(get={checkpoint.name: checkpoint._replace(tasks=told)}.get)
    monkeypatch.setattr(registry, "_shipped", lambda: shipped)
    assert cli.main(["verify", checkpoint.name]) == 0
    assert f"{checkpoint.name}  int8  {package}: ok\n" in capsys.readouterr().out


def test_int8_made_by_another_version_is_refused(checkpoint, install, tmp_path, monkeypatch):
    install(make(checkpoint.name, "--path", CHECKPOINT, "--precision", "int8", output=tmp_path / "dist"))
    monkeypatch.setattr("fastrank.engine.quantize.VERSION", 99)
    with pytest.raises(ModelLoadError, match="by another version of fastrank"):
        TextEmbedding(checkpoint.name)


def test_int8_of_ones_own(install, tmp_path, checkpoint):
    arguments = ("acme/tuned", "--path", CHECKPOINT, "--precision", "int8")
    assert cli.main(["pack", *map(str, arguments), "-o", str(tmp_path)]) == 1  # how is it used?
    install(make(*arguments, "--like", checkpoint.name, output=tmp_path / "dist"))
    made = next(TextEmbedding(checkpoint.name, specific_model_path=CHECKPOINT, precision="int8").embed("cat"))
    np.testing.assert_array_equal(next(TextEmbedding("acme/tuned").embed("cat")), made)


# -- damage -----------------------------------------------------------------------------------------------------------


def rewrite(path, content):
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_file_of_another_size_is_not_used(wheel, install, caplog):
    site = install(wheel)
    rewrite(site / PACKAGE / "config.json", b"{}")
    with pytest.raises(ModelNotCachedError):
        TextEmbedding(NAME, local_files_only=True)
    assert f"installed package {PACKAGE} is not used: config.json has 2 bytes, " in caplog.text


def test_a_file_that_is_gone_is_not_used(wheel, install, caplog):
    site = install(wheel)
    (site / PACKAGE).chmod(0o755)
    (site / PACKAGE / "tokenizer.json").chmod(0o644)
    (site / PACKAGE / "tokenizer.json").unlink()
    with pytest.raises(ModelNotCachedError):
        TextEmbedding(NAME, local_files_only=True)
    assert "tokenizer.json is missing" in caplog.text


def test_a_changed_byte_is_found_by_verify(wheel, install, capsys):
    site = install(wheel)
    path = site / PACKAGE / "onnx" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    rewrite(path, bytes(content))
    assert cli.main(["verify", NAME]) == 1
    assert "onnx/model.onnx has SHA-256" in capsys.readouterr().out


def test_files_of_another_commit_than_the_registry_pins_are_not_used(wheel, install, monkeypatch, caplog):
    install(wheel)
    spec = registry.find(NAME)
    moved = spec._replace(variants=(pinned({**FILES, "config.json": b"{}"}),))
    with pytest.raises(ModelNotCachedError):
        store.locate(moved, Lookup(local_files_only=True))
    assert f"config.json has {len(FILES['config.json'])} bytes, the registry states 2" in caplog.text


# -- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = f"{PACKAGE}-{wheel.name.split('-')[1]}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        notes = json.loads(archive.read(f"{PACKAGE}/{packages.MANIFEST}"))
        record = archive.read(f"{info}/RECORD").decode()
        assert archive.read(f"{info}/entry_points.txt").decode() == f"[fastrank.models]\n{NAME} = {PACKAGE}\n"
    assert "\nName: fastrank-model-acme-tiny-v1-5\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert f"\nProject-URL: Source, https://huggingface.co/acme/tiny/tree/{COMMIT}\n" in metadata
    assert (notes["model"], notes["variant"], notes["commit"]) == (NAME, "onnx", COMMIT)
    assert notes["files"] == {
        path: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in sorted(FILES.items())
    }
    assert all(f"{PACKAGE}/{path}," in record for path in FILES)


@pytest.mark.parametrize("form", ["wheel", "zip"])
def test_the_same_files_give_the_same_bytes(folder, tmp_path, form):
    first = make(NAME, "--path", folder, "--format", form, output=tmp_path / "one")
    other = tmp_path / "elsewhere"
    shutil.copytree(folder, other)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
        if path.is_file():
            path.chmod(0o600)
    second = make(NAME, "--path", other, "--format", form, output=tmp_path / "two")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_other_files_have_another_version_and_a_given_one_is_newer(folder, tmp_path):
    from packaging.version import Version

    def version(*options):
        return Version(make("acme/mine", "--path", folder, *options, output=tmp_path / "dist").name.split("-")[1])

    first = version()
    (folder / "config.json").write_bytes(b"{}")
    second = version()
    given = version("--version", "1")
    assert first != second
    assert first.local is second.local is None
    assert given > max(first, second)
    with pytest.raises(ValueError, match="newest"):
        wheels.wheel(wheels.gather("acme/mine", path=folder), tmp_path / "dist", "newest")


def test_from_the_cache(hub, tmp_path):
    hub.add_repo("acme/hosted", FILES)
    TextEmbedding.add_custom_model("acme/hosted", PoolingType.MEAN, True, ModelSource(hf="acme/hosted"), 16)
    wheel = make("acme/hosted", output=tmp_path / "dist")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("fastrank_model_acme_hosted/onnx/model.onnx") == FILES["onnx/model.onnx"]
    entry = store.contents()[0]
    (entry.folder / "config.json").write_bytes(b" " * len(FILES["config.json"]))
    with pytest.raises(ModelNotCachedError, match=r"is damaged: config\.json has SHA-256"):
        wheels.gather("acme/hosted", local_files_only=True)
    assert (wheels.gather("acme/hosted").folder / "config.json").read_bytes() == FILES["config.json"], "fetched anew"


@pytest.mark.parametrize(
    ("given", "stated"), [("mit", "MIT"), ("gemma", "LicenseRef-gemma"), ("cc-by-nc-4.0", "CC-BY-NC-4.0")]
)
def test_licences(folder, tmp_path, capsys, given, stated):
    wheel = make("acme/mine", "--path", folder, "--license", given, output=tmp_path / "dist")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    assert f"\nLicense-Expression: {stated}\n" in metadata
    assert ("non-commercial" in capsys.readouterr().err) is (given == "cc-by-nc-4.0")


@pytest.mark.parametrize("form", ["zip", "dir"])
def test_layers(folder, tmp_path, monkeypatch, form):
    made = make(NAME, "--path", folder, "--format", form, output=tmp_path / "dist")
    assert made.name.startswith(PACKAGE)
    opt = made
    if form == "zip":
        with zipfile.ZipFile(made) as archive:
            assert all(member.filename.startswith("python/") for member in archive.infolist())
            assert all(stat.S_IMODE(member.external_attr >> 16) == 0o644 for member in archive.infolist())
            archive.extractall(opt := tmp_path / "opt")
    else:
        with pytest.raises(FileExistsError, match="remove it first"):
            wheels.layer_dir(wheels.gather(NAME, path=folder), tmp_path / "dist")
    monkeypatch.syspath_prepend(str(opt / "python"))
    found = store.locate(registry.find(NAME), Lookup(local_files_only=True))
    assert found.folder == opt / "python" / PACKAGE
    assert store.problems(registry.find(NAME), found) == []


# -- what cannot be packed --------------------------------------------------------------------------------------------


def test_without_hatchling(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "hatchling.builders.wheel", None)
    assert cli.main(["pack", NAME, "--path", str(folder), "-o", str(tmp_path)]) == 1
    assert "Run: pip install 'fastrank-onnx[pack]'" in capsys.readouterr().err


def test_refusals(folder, tmp_path):
    with pytest.raises(ModelNotFoundError):
        wheels.gather("acme/unknown")
    with pytest.raises(ValueError, match="must be like 'organisation/model'"):
        wheels.gather("mine", path=folder)
    with pytest.raises(ValueError, match="needs no files"):
        wheels.gather("Qdrant/bm25")
    with pytest.raises(ValueError, match=r"no variant of precision fp16\. It has: onnx \(fp32\), int8 \(int8\)"):
        wheels.gather(NAME, precision="fp16")
    with pytest.raises(IntegrityError, match=r"does not hold the files of acme/tiny-v1\.5: no onnx/model\.onnx\."):
        wheels.gather(NAME, path=tmp_path)
    with pytest.raises(IntegrityError, match=r"onnx/model\.onnx has SHA-256 .* not in the registry"):
        wheels.gather(NAME, path=folder, variant="int8")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError, match=r"cannot be packed: it has no tokenizer\.json"):
        wheels.gather("acme/mine", path=folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("linked", ["config.json", "onnx/model.onnx", "LICENSE", "onnx"])
@pytest.mark.parametrize("name", ["acme/mine", NAME])
def test_links_out_of_the_folder_are_refused(folder, tmp_path, capsys, name, linked):
    outside = tmp_path / "outside"
    if linked == "LICENSE":
        outside.write_text("a file of this machine")
    else:
        (folder / linked).rename(outside)
    (folder / linked).symlink_to(outside)
    assert cli.main(["pack", name, "--path", str(folder), "-o", str(tmp_path / "dist")]) == 1
    assert "is a link that leads out of the folder" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_inside_the_folder_are_packed_as_files(folder, tmp_path):
    (folder / "onnx" / "model.onnx").rename(folder / "graph")
    (folder / "onnx" / "model.onnx").symlink_to("../graph")
    reached = tmp_path / "link to the folder"
    reached.symlink_to(folder)
    with zipfile.ZipFile(make(NAME, "--path", reached, output=tmp_path / "dist")) as archive:
        assert archive.read(f"{PACKAGE}/onnx/model.onnx") == FILES["onnx/model.onnx"]
        assert not any(stat.S_ISLNK(member.external_attr >> 16) for member in archive.infolist())
