"""Rows D37 to D44: clearing the cache, what others change in it, what is made in it, places it cannot be."""

import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support import FIXTURES
from support.hub import Fault
from support.pinned_model import FILES, REPO, content, entry, unpinned_entry
from support.processes import ends_well, python
from support.waiting import wait_until

from fastrank import PoolingType, TextEmbedding, store
from fastrank.cli import main as fastrank
from fastrank.errors import DownloadError, IntegrityError, ModelLoadError, ModelNotCachedError
from fastrank.store import integrity, layout, permissions
from fastrank.store.lookup import Lookup

POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX modes and links")
CHECKPOINT = FIXTURES / "sentence_encoder"


@pytest.fixture(params=["pinned", "unpinned"])
def spec(request, hub):
    commit = hub.add_repo(REPO, FILES)
    return entry(commit) if request.param == "pinned" else unpinned_entry()


@pytest.fixture
def hashed(monkeypatch):
    """Names of files that were hashed."""
    names, hashes = [], integrity._hashes
    monkeypatch.setattr(integrity, "_hashes", lambda path, **how: names.append(path.name) or hashes(path, **how))
    return names


def edit(path, keep_time=False, replace=False):
    """Change a byte of a file: in place, or by another file of the same size; its time may stay as it was."""
    data, status = path.read_bytes(), path.stat()
    other = bytes([data[0] ^ 1]) + data[1:]
    target = path.with_name("new") if replace else path
    target.write_bytes(other)
    if keep_time:
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    target.replace(path)


# -- clearing ----------------------------------------------------------------------------------------------------------


def snapshot(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "locks" not in path.relative_to(folder).parts
    }


FOREIGN = (
    "derived/data.csv",
    "derived/sub/notes.json",
    f"derived/{'0' * 32}/int8-encoder-2.safetensors",
    f"derived/{'0' * 32}/int8-encoder-2.safetensors.json",
    "staging/site--production/index.html",
    f"staging/acme--tiny--onnx-{'0' * 12}/index.html",
    f"staging/acme--tiny--onnx-{'0' * 12}.abcdefgh/index.html",
    f"verified/{'0' * 32}",
    "verified/report",
    "models/mine/weights.bin",
    "models/mine/run-1/fastrank.json",
    f"models/acme--mine/onnx-{'0' * 12}/weights.bin",
)


def test_d37_clearing_deletes_only_what_carries_our_mark(hub, spec, tmp_path, capsys):
    project = tmp_path / "project"
    for name in FOREIGN:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text('{"precious": 1}')
    before = snapshot(project)
    folder = store.locate(spec, Lookup(cache_dir=project)).folder
    int8_of_a_folder(cache_dir=project)
    assert fastrank(["cache", "--clear", "--cache-dir", str(project)]) == 0
    assert snapshot(project) == before
    out, err = capsys.readouterr()
    assert str(folder) in out
    assert "removed int8-encoder-" in out
    assert f"removed from {project}, 2 in all" in out
    assert f"left {project / 'models/mine/run-1'}: it has no manifest of fastrank's" in err


def test_d37_clearing_takes_what_broken_downloads_left(hub, spec, cache, quick, capsys):
    hub.fault("GET", "/cdn/", Fault(truncate=1000), times=1)
    hub.fault("GET", "/cdn/", Fault(reset=True))
    with pytest.raises(DownloadError):
        store.locate(spec)
    assert any((cache / "staging").iterdir())
    assert fastrank(["cache", "--clear"]) == 0
    assert "removed a broken download, acme--tiny--onnx" in capsys.readouterr().out
    assert not (cache / "staging").exists()


@POSIX
@pytest.mark.parametrize("link", ["models", "models/acme--tiny", "the folder"])
def test_d37_nothing_is_deleted_through_a_link(hub, spec, cache, tmp_path, capsys, link):
    folder = store.locate(spec).folder
    place = folder if link == "the folder" else cache / link
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere, target_is_directory=True)
    before = snapshot(elsewhere)
    assert fastrank(["cache", "--clear"]) == 0
    assert f"{place} is a link" in capsys.readouterr().err
    assert fastrank(["cache", "--remove", REPO]) == 1
    assert f"{place} is a link" in capsys.readouterr().err
    assert snapshot(elsewhere) == before
    assert place.is_symlink()
    assert content(store.locate(spec, Lookup(local_files_only=True))) == FILES


@POSIX
def test_d37_links_in_a_model_folder_go_and_what_they_lead_to_stays(hub, spec, tmp_path):
    folder = store.locate(spec).folder
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (folder / "link").symlink_to(tmp_path / "precious", target_is_directory=True)
    store.clear()
    assert not folder.exists()
    assert (tmp_path / "precious" / "file").read_text() == "x"


@POSIX
@pytest.mark.parametrize("link", ["derived", "staging", "verified"])
def test_d37_folders_of_the_cache_that_are_links_are_left(cache, tmp_path, link):
    elsewhere = tmp_path / "elsewhere"
    for name in (f"{'0' * 32}/int8-x-1.safetensors", f"acme--tiny--onnx-{'0' * 12}/fastrank.json", "a" * 32):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_bytes(integrity.STAMP)
    cache.mkdir()
    (cache / link).symlink_to(elsewhere, target_is_directory=True)
    before = snapshot(elsewhere)
    store.clear()
    assert snapshot(elsewhere) == before


# -- clearing while another process downloads --------------------------------------------------------------------------


def test_d38_what_another_process_downloads_is_left(hub, spec, cache, capsys):
    hub.fault("GET", "/cdn/", Fault(drip=4000), times=1)
    child = python("print(store.locate(spec).folder)", spec)
    wait_until(lambda: list(cache.glob("staging/*/onnx/model.onnx.part")))
    assert fastrank(["cache", "--clear"]) == 0
    assert "another process is downloading it" in capsys.readouterr().err
    assert Path(ends_well(child)).is_dir()
    assert content(store.locate(spec, Lookup(local_files_only=True))) == FILES


def test_d38_without_locks_the_other_process_says_what_happened(hub, spec, cache, without_locks):
    hub.fault("GET", "/cdn/", Fault(drip=2000), times=1)
    outcome = []

    def download():
        try:
            outcome.append(store.locate(spec))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=download)
    thread.start()
    wait_until(lambda: list(cache.glob("staging/*/onnx/model.onnx.part")))
    store.clear()
    thread.join()
    assert isinstance(outcome[0], DownloadError), outcome
    assert "was removed meanwhile, as `fastrank cache --clear` does: start again" in str(outcome[0])
    assert content(store.locate(spec)) == FILES


# -- files that change in the cache ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("how", [{}, {"keep_time": True, "replace": True}], ids=["in place", "by another file"])
def test_d39_a_file_that_was_changed_is_never_used(hub, spec, caplog, name, how):
    folder = store.locate(spec).folder
    edit(folder / name, **how)
    with pytest.raises(ModelNotCachedError, match=f"is damaged: {name} has SHA-256 "):
        store.locate(spec, Lookup(local_files_only=True))
    with pytest.raises(IntegrityError, match=f"{name} has SHA-256 "):
        store.locate(spec, Lookup(verify=True))
    assert content(store.locate(spec)) == FILES, "fetched anew"
    assert f"{name} has SHA-256 " in caplog.text


def test_d39_files_are_hashed_once_and_when_they_were_touched(hub, spec, cache, hashed, monkeypatch):
    folder = store.locate(spec).folder
    hashed.clear()
    for _ in range(3):
        monkeypatch.setattr(integrity, "_seen", set())  # as in a new process
        store.locate(spec)
    assert hashed == []
    (folder / "config.json").touch()
    store.locate(spec)
    assert sorted(hashed) == sorted(Path(name).name for name in FILES)
    hashed.clear()
    monkeypatch.setattr(integrity, "_seen", set())
    store.locate(spec)
    assert hashed == []
    store.locate(spec, Lookup(verify=True))
    assert len(hashed) == len(FILES)


@POSIX
@pytest.mark.parametrize("place", ["the cache", "models", "the folder", "onnx", "onnx/model.onnx", "verified"])
def test_d40_where_others_may_write_every_load_hashes_and_says_so(hub, spec, cache, hashed, caplog, monkeypatch, place):
    folder = store.locate(spec).folder
    path = {"the cache": cache, "models": cache / "models", "the folder": folder, "verified": cache / "verified"}.get(
        place, folder / place
    )
    path.chmod(0o777 if path.is_dir() else 0o666)
    hashed.clear()
    for _ in range(2):
        store.locate(spec)
    assert len(hashed) == 2 * len(FILES)
    assert [text for text in caplog.messages if f"{path} can be written by everybody" in text and "chmod" in text]
    assert len(caplog.messages) == 1
    edit(folder / "config.json", keep_time=True)  # and a stamp forged, for all we know
    with pytest.raises(ModelNotCachedError):
        store.locate(spec, Lookup(local_files_only=True))


@POSIX
def test_d40_groups_and_owners(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "models" / "a" / "b"
    folder.mkdir(parents=True)
    why = lambda: permissions.others_may_write(tmp_path / "cache", folder)  # noqa: E731
    assert why() is None
    folder.chmod(0o775)
    monkeypatch.setattr(permissions, "_is_private", lambda _group: True)  # a group of the user alone
    assert why() is None
    monkeypatch.setattr(permissions, "_is_private", lambda _group: False)
    assert "can be written by its group (mode 775)" in why()
    folder.chmod(0o755)
    (tmp_path / "cache").chmod(0o1777)  # as /tmp
    assert why() is None
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    assert (why() is None) is (real == 0), "another user's files may change, root's may not by others"
    assert permissions._is_private(2**31 - 2) is False


@POSIX
def test_d40_new_caches_are_the_owners_alone(hub, spec, cache):
    umask = os.umask(0)
    try:
        store.locate(spec)
        int8_of_a_folder()
    finally:
        os.umask(umask)
    modes = {path: path.stat().st_mode & 0o022 for path in [cache, *cache.rglob("*")] if "locks" not in path.parts}
    assert len(modes) > 8
    assert not [path for path, mode in modes.items() if mode]


# -- int8 weights ------------------------------------------------------------------------------------------------------


def int8_of_a_folder(**where):
    with TextEmbedding(
        "acme/own", specific_model_path=CHECKPOINT, pooling=PoolingType.MEAN, precision="int8", **where
    ) as model:
        return next(model.embed("cat"))


@pytest.fixture(params=["pinned", "unpinned"])
def checkpoint(request, hub, monkeypatch):
    """acme/tiny as a checkpoint in the hub, whose int8 weights are made here."""
    from fastrank.models import registry
    from fastrank.models.spec import TEXT_EMBEDDING, DenseTask

    names = ("model.safetensors", "config.json", "tokenizer.json")
    files = {name: (CHECKPOINT / name).read_bytes() for name in names}
    commit = hub.add_repo(REPO, files)
    spec = entry(commit, files=files) if request.param == "pinned" else unpinned_entry(files=files)
    variant = spec.variants[0]._replace(name="safetensors", precision="fp32", model="model.safetensors")
    dim = json.loads(files["config.json"])["hidden_size"]
    tasks = {TEXT_EMBEDDING: DenseTask(dim, "mean", normalize=True)}
    monkeypatch.setitem(registry._custom, (REPO, TEXT_EMBEDDING), spec._replace(variants=(variant,), tasks=tasks))


def int8_of_the_hub(**options):
    with TextEmbedding(REPO, precision="int8", **options) as model:
        return next(model.embed("cat"))


def damage(path):
    """Other weights of the same size, behind the same header."""
    data = bytearray(path.read_bytes())
    data[-len(data) // 2 :] = bytes(reversed(data[-len(data) // 2 :]))
    assert bytes(data) != path.read_bytes()
    path.write_bytes(data)


def test_d41_damaged_int8_weights_are_made_again(checkpoint, cache, caplog, capsys):
    expected = int8_of_the_hub()
    (made,) = cache.rglob("int8-*.safetensors")
    whole = made.read_bytes()

    damage(made)
    assert np.array_equal(int8_of_the_hub(), expected), "at a load, as its time of change is another"
    assert made.read_bytes() == whole
    assert f"{made} is damaged and is made again" in caplog.text

    for repair in ("verify=True", "fastrank verify"):
        damage(made)
        record = Path(f"{made}.json")
        facts, status = json.loads(record.read_text()), made.stat()
        facts["identity"] = [status.st_size, status.st_mtime_ns, status.st_ino]  # a bit that fell over leaves no trace
        record.write_text(json.dumps(facts))
        if repair == "verify=True":
            assert np.array_equal(int8_of_the_hub(verify=True), expected)
        else:
            assert fastrank(["verify", REPO]) == 1
            assert f"{made} is damaged" in capsys.readouterr().out
            assert not made.exists()
            assert fastrank(["verify", REPO]) == 0
            assert np.array_equal(int8_of_the_hub(), expected)
        assert made.read_bytes() == whole


@pytest.mark.parametrize("record", [None, b"", b"[]", b"{}", b'{"a":' * 2000, b"\xff", b'{"fastrank": 1}'])
def test_d41_int8_weights_without_a_record_of_their_hash_are_made_again(cache, record):
    expected = int8_of_a_folder()
    (made,) = cache.rglob("int8-*.safetensors")
    whole = made.read_bytes()
    damage(made)
    path = Path(f"{made}.json")
    path.unlink() if record is None else path.write_bytes(record)
    assert np.array_equal(int8_of_a_folder(), expected)
    assert made.read_bytes() == whole


def test_d41_int8_weights_are_hashed_once_and_when_they_were_touched(cache, monkeypatch):
    from fastrank.store import derived

    int8_of_a_folder()
    hashed = []
    monkeypatch.setattr(derived, "sha256", lambda path: hashed.append(path) or integrity.sha256(path))
    int8_of_a_folder()
    assert hashed == []
    (made,) = cache.rglob("int8-*.safetensors")
    made.touch()
    int8_of_a_folder()
    int8_of_a_folder()
    assert hashed == [made]


# -- machines without a place for a cache ------------------------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user without a home folder, as in a container with a user id of its own."""
    monkeypatch.delenv("FASTRANK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~nosuchuser/cache")
    monkeypatch.setenv("LOCALAPPDATA", "~nosuchuser/cache")
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.mark.skipif(sys.platform == "darwin", reason="its cache folder follows HOME alone")
def test_d42_without_a_home_folder(homeless, capsys, tmp_path):
    for arguments in (["info"], ["verify"], ["cache"], ["models"]):
        assert fastrank(arguments) == 0, arguments
    assert "FASTRANK_CACHE" in capsys.readouterr().out
    assert fastrank(["cache", "--clear"]) == 1
    assert "There is no home folder here" in capsys.readouterr().err
    assert np.isfinite(int8_of_a_folder()).all()
    with pytest.raises(OSError, match="Set FASTRANK_CACHE to a folder"):
        TextEmbedding("BAAI/bge-small-en-v1.5")


@pytest.mark.skipif(sys.platform == "darwin", reason="its cache folder follows HOME alone")
def test_d42_without_a_home_folder_and_a_temporary_one(homeless, monkeypatch):
    from fastrank.store import derived

    def refuse(*_arguments, **_options):
        raise FileNotFoundError(2, "No usable temporary directory found")

    derived._temporary.cache_clear()
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(OSError, match=r"could not be kept\. Set FASTRANK_CACHE to a folder with room"):
        int8_of_a_folder()
    derived._temporary.cache_clear()


@pytest.mark.parametrize("name", ["FASTRANK_CACHE", "cache_dir", "specific_model_path"])
def test_d43_a_home_folder_of_nobody(monkeypatch, capsys, name):
    folder = "~nosuchuser/x"
    options = {} if name == "FASTRANK_CACHE" else {name: folder}
    if not options:
        monkeypatch.setenv(name, folder)
    kind = ModelLoadError if name == "specific_model_path" else OSError
    with pytest.raises(kind, match=f"{name}='~nosuchuser/x' names a home folder that does not exist here"):
        TextEmbedding("BAAI/bge-small-en-v1.5", **options)
    option = {"cache_dir": ["--cache-dir", folder]}.get(name, [])
    if name != "specific_model_path":
        assert fastrank(["cache", *option]) == 1
        assert "names a home folder" in capsys.readouterr().err


def test_d43_an_empty_path_is_no_folder():
    with pytest.raises(ValueError, match="specific_model_path is empty"):
        store.locate(unpinned_entry(), Lookup(path=""))
    assert store.root("") == store.root(None)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="paths are Unicode there")
@pytest.mark.parametrize("name", ["FASTRANK_CACHE", "cache_dir", "path"])
def test_d43_a_path_that_is_no_text(hub, spec, tmp_path, monkeypatch, name):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    shutil.copytree(CHECKPOINT, folder)
    if name == "FASTRANK_CACHE":
        monkeypatch.setenv(name, folder)
    options = {} if name == "FASTRANK_CACHE" else {name: folder}
    with pytest.raises((ModelLoadError, OSError), match="is not valid UTF-8, which onnxruntime needs"):
        store.locate(spec, Lookup(**options))


@POSIX
def test_d43_a_cache_that_may_not_be_read(hub, spec, monkeypatch):
    store.locate(spec)

    def refuse(self, **_options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(OSError, match=r"this user cannot read the cache\. Set FASTRANK_CACHE to another"):
        store.locate(spec)


@pytest.mark.parametrize(
    ("manifest", "kind"),
    [
        (b'{"a":' * 200_000, "deep"),
        (b"[]", "list"),
        (b'{"files": []}', "files"),
        (b'{"files": {"../../x": {"size": 1}, "config.json": 5}, "model_file": "../../etc/passwd"}', "paths"),
        (b'{"files": {"config.json": {"size": "1", "sha256": 5}}, "model": {"a": 1}, "variant": []}', "types"),
        (b"\xff\xfe", "bytes"),
    ],
)
def test_d44_a_manifest_of_any_kind_in_the_cache(hub, spec, capsys, manifest, kind):
    folder = store.locate(spec).folder
    (folder / layout.MANIFEST).write_bytes(manifest)
    for arguments in (["cache"], ["verify"], ["cache", "--clear"]):
        fastrank(arguments)
    assert "Traceback" not in capsys.readouterr().err
    found = store.locate(spec)
    assert found.folder.is_relative_to(store.root())
    assert content(found) == FILES
