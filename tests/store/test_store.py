"""Model delivery: found, fetched, verified, kept. The hub is a stand-in on 127.0.0.1; pip installs from a folder.

What may go wrong on the way is in tests/faults.
"""

import errno
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import sys
import time
import types
from pathlib import Path

import pytest
from support import tiny_models
from support.hub import Fault
from support.pinned_model import FILES, REPO, content, entry, leftovers, unpinned_entry
from support.waiting import patience

from fastrank import store
from fastrank.errors import DownloadError, IntegrityError, ModelLoadError, ModelNotCachedError
from fastrank.models.spec import HubSource, WheelSource
from fastrank.store import layout, publish
from fastrank.store.lookup import Lookup

# -- the order of sources ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wish", "shown"), [("1", True), ("0", False), (None, False)])
def test_a_progress_bar_where_it_is_wanted(hub, spec, monkeypatch, capsys, wish, shown):
    """None: standard error is no terminal here."""
    monkeypatch.delenv("FASTRANK_PROGRESS")
    if wish:
        monkeypatch.setenv("FASTRANK_PROGRESS", wish)
    store.locate(spec)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("acme/tiny:   0%" in err) is shown  # it is taken away when it is full
    assert shown or err == ""


def test_a_given_folder_is_used_as_it_is(tmp_path):
    spec = entry("0" * 40)
    folder = tiny_models.write_model(tmp_path / "own")
    files = store.locate(spec, Lookup(path=folder))
    assert (files.folder, files.model) == (folder, "onnx/model.onnx")
    (folder / "onnx" / "model.onnx").rename(folder / "mine.onnx")
    assert store.locate(spec, Lookup(path=str(folder))).model == "mine.onnx"
    (folder / "mine.onnx").rename(folder / "model.safetensors")
    assert store.locate(spec, Lookup(path=folder)).model == "model.safetensors"


def test_a_named_variant_of_a_given_folder_is_used_or_refused(tmp_path):
    folder = tiny_models.write_model(tmp_path / "own")
    assert store.locate(entry("0" * 40), Lookup(path=folder, variant="onnx")).model == "onnx/model.onnx"
    (folder / "onnx" / "model.onnx").rename(folder / "model.onnx")
    with pytest.raises(ModelLoadError, match=r"looked for onnx/model\.onnx"):
        store.locate(entry("0" * 40), Lookup(path=folder, variant="onnx"))


def test_a_given_folder_without_a_model(tmp_path):
    spec = entry("0" * 40)
    with pytest.raises(ModelLoadError, match="does not exist"):
        store.locate(spec, Lookup(path=tmp_path / "nowhere"))
    (tmp_path / "file.onnx").touch()
    with pytest.raises(ModelLoadError, match="is a file; pass the folder it is in"):
        store.locate(spec, Lookup(path=tmp_path / "file.onnx"))
    with pytest.raises(ModelLoadError, match=r"looked for onnx/model\.onnx"):
        store.locate(spec, Lookup(path=tiny_models.write_model(tmp_path / "x", model_path="model.bin")))
    (tmp_path / "other.onnx").touch()
    with pytest.raises(ModelLoadError, match=r"several graphs \(file\.onnx, other\.onnx\)"):
        store.locate(spec, Lookup(path=tmp_path))


def test_the_next_source_is_tried_and_one_line_said(hub, spec, caplog):
    elsewhere = HubSource("acme/mirror", hub.add_repo("acme/mirror", FILES))
    both = entry(None, sources=(HubSource("acme/gone", "1" * 40), elsewhere))
    with caplog.at_level(logging.WARNING, "fastrank"):
        assert content(store.locate(both)) == FILES
    (line,) = caplog.messages
    assert "\n" not in line
    assert "hub repository acme/gone" in line
    assert "trying the hub repository acme/mirror" in line


def test_when_all_sources_fail_the_error_names_them(hub):
    spec = entry(None, sources=(HubSource("acme/gone", "1" * 40), HubSource("acme/lost", "2" * 40)))
    with pytest.raises(DownloadError) as error:
        store.locate(spec)
    text = str(error.value)
    assert text.startswith("acme/tiny could not be fetched to ")
    for part in (
        "hub repository acme/gone",
        "hub repository acme/lost",
        "HTTP 401",
        "HF_TOKEN",
        "fastrank download acme/tiny",
    ):
        assert part in text
    assert str(store.root()) in text


def test_a_hub_that_gives_no_answer_is_given_up_in_five_seconds(hub, spec):
    hub.fault("*", ".", Fault(delay=60))
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer from http://127.0.0.1:.* within 5 s"):
        store.locate(spec)
    assert time.monotonic() - begin < patience(7)


# -- offline ----------------------------------------------------------------------------------------------------------


def test_offline_and_present(hub, spec, monkeypatch):
    store.locate(spec)
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    requests = len(hub.requests)
    assert content(store.locate(spec)) == FILES
    assert len(hub.requests) == requests


# -- faults on the wire -----------------------------------------------------------------------------------------------


# -- models nobody pinned ---------------------------------------------------------------------------------------------


def test_unpinned_files_are_of_one_commit_and_kept(hub):
    commit = hub.add_repo(REPO, FILES)
    found = store.locate(unpinned_entry(optional=["tokenizer_config.json"]))
    assert content(found) == FILES
    assert not (found.folder / "tokenizer_config.json").exists()
    assert hub.count("GET", f"/resolve/{commit}/") == len(FILES)  # the list says that the optional one is not there
    hub.stop()
    assert store.locate(unpinned_entry(optional=["tokenizer_config.json"])).origin == store.CACHE


def test_files_of_two_commits_are_never_joined(hub, cache, quick):
    """An unpinned download is interrupted, main moves on, and nothing says what the files should be."""
    first = hub.add_repo(REPO, FILES)
    hub.fault("GET", "/cdn/", Fault(truncate=1000), times=1)
    hub.fault("GET", "/cdn/", Fault(reset=True))
    with pytest.raises(DownloadError):
        store.locate(unpinned_entry())
    assert [path for path in leftovers(cache) if path.name == "model.onnx.part"]
    hub.clear()
    other = {**FILES, "onnx/model.onnx": tiny_models.tiny_encoder(seed=1), "config.json": FILES["config.json"] + b" "}
    assert hub.add_repo(REPO, other) != first
    found = store.locate(unpinned_entry())
    assert content(found) == other
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "config.json",
        "fastrank.json",
        "onnx",
        "tokenizer.json",
    ]


def test_a_damaged_unpinned_file_is_noticed(hub):
    hub.add_repo(REPO, FILES)
    found = store.locate(unpinned_entry())
    (found.folder / "config.json").write_bytes(b"{")
    hub.add_repo(REPO, FILES)
    assert content(store.locate(unpinned_entry())) == FILES


# -- the cache --------------------------------------------------------------------------------------------------------


def test_a_cache_folder_that_is_a_file(spec, cache):
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.touch()
    with pytest.raises((FileExistsError, NotADirectoryError)):
        store.locate(spec)


@pytest.mark.parametrize("number", [13, 30])
def test_errors_of_the_file_system_name_the_variable(spec, cache, monkeypatch, number):
    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(publish, "publish", refuse)
    with pytest.raises(OSError, match="Set FASTRANK_CACHE to another") as error:
        store.locate(spec)
    assert error.value.errno == number
    assert str(cache) in str(error.value)


def test_contents_remove_and_clear(hub, spec):
    store.locate(spec)
    (entry,) = store.contents()
    assert (entry.model, entry.variant) == (REPO, "onnx")
    assert entry.size == sum(map(len, FILES.values())) + (entry.folder / "fastrank.json").stat().st_size
    manifest = json.loads((entry.folder / "fastrank.json").read_text())
    assert {path: row["sha256"] for path, row in manifest["files"].items()} == {
        path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()
    }
    store.remove(entry)
    assert store.contents() == []
    store.locate(spec)
    store.clear()
    assert store.contents() == []
    assert not (store.root() / "staging").exists()


def test_clear_deletes_only_what_is_ours(hub, spec, tmp_path, monkeypatch):
    mine = tmp_path / "project"
    for name in ("models/mine/weights.bin", "locks/x", "staging/notes", "verified/report"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("precious")
    before = sorted(mine.rglob("*"))
    store.locate(spec, Lookup(cache_dir=mine))
    store.clear(mine)
    assert [path for path in sorted(mine.rglob("*")) if path.parent.name != "locks"] == [
        path for path in before if path.parent.name != "locks"
    ]
    monkeypatch.chdir(mine)
    assert store.root("") == store.root(None)  # an unset variable of a shell is not this folder


def test_without_locks_a_failed_download_leaves_nothing(hub, spec, cache, quick, without_locks):
    hub.fault("GET", "/cdn/", Fault(truncate=1000), times=1)
    hub.fault("GET", "/cdn/", Fault(reset=True))
    with pytest.raises(DownloadError):
        store.locate(spec)
    assert leftovers(cache) == []


def test_a_token_that_cannot_be_sent_is_said(hub, spec, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_\u00e9")
    with pytest.raises(DownloadError, match=r"cannot be reached: .*codec can't encode"):
        store.locate(spec)


def test_two_sources_of_the_same_files_share_a_folder(hub, spec):
    mirror = entry(hub.add_repo("acme/mirror", FILES))
    assert store.locate(spec).folder == store.locate(mirror).folder


def test_two_models_with_the_same_files_share_a_folder(hub, spec):
    folder = store.locate(spec).folder
    other = entry("1" * 40, name="acme/other")
    assert store.locate(other, Lookup(local_files_only=True)).folder == folder
    store.clear()
    with pytest.raises(ModelNotCachedError):
        store.locate(other, Lookup(local_files_only=True))


# -- other systems ----------------------------------------------------------------------------------------------------


class Msvcrt(types.ModuleType):
    """What the lock uses of it on Windows."""

    LK_NBLCK = 2
    has_locks = True

    def __init__(self):
        super().__init__("msvcrt")
        self.held = []

    def locking(self, descriptor, _mode, _size):
        if not self.has_locks:
            raise OSError(22, "Invalid argument")
        if self.held:
            raise PermissionError(13, "Permission denied")
        self.held.append(descriptor)


def test_locks_on_windows(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt := Msvcrt())
    monkeypatch.setattr(sys, "platform", "win32")
    source = importlib.util.find_spec("fastrank.store.lock")
    lock = importlib.util.module_from_spec(source)
    source.loader.exec_module(lock)
    with lock.exclusive(tmp_path / "x.lock", 0) as locked:
        assert locked
        with pytest.raises(TimeoutError), lock.exclusive(tmp_path / "x.lock", 0):
            pass
    msvcrt.has_locks = False
    with lock.exclusive(tmp_path / "x.lock", 0) as locked:
        assert locked is False


def test_a_file_that_a_virus_scanner_holds_is_waited_for(spec, monkeypatch):
    """On Windows nobody can rename a file that is open, and a scanner opens every new one."""
    real, refusals = Path.replace, [3]

    def replace(self, target):
        if self.name.endswith(".part") and refusals[0]:
            refusals[0] -= 1
            raise PermissionError(13, "Access is denied", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(publish, "_PATIENCE", 10.0)
    assert content(store.locate(spec)) == FILES
    assert refusals == [0]
    refusals[0] = 1000
    monkeypatch.setattr(publish, "_PATIENCE", 0.1)
    store.clear()
    with pytest.raises(OSError, match="it cannot be written"):
        store.locate(spec)


@pytest.mark.parametrize(
    ("number", "length"),
    [(errno.ENAMETOOLONG, 10), (errno.ENOENT, 300)],
    ids=["POSIX", "Windows, where it is said not to exist"],
)
def test_a_path_that_is_too_long_is_said(spec, monkeypatch, number, length):
    def refuse(*_arguments):
        raise OSError(number, os.strerror(number), "C:\\" + "x" * length)

    monkeypatch.setattr(publish, "publish", refuse)
    with pytest.raises(OSError, match=r"its path is too long .* Set FASTRANK_CACHE to another"):
        store.locate(spec)


def test_names_that_differ_by_case_share_no_folder_by_mistake(cache):
    """On macOS and Windows they would be one folder; its name says what is in it."""
    places = set()
    for name, size in (("acme/tiny", 16), ("Acme/Tiny", 24)):
        spec = entry("1" * 40, files=tiny_models.model_files(tiny_models.tiny_encoder(size)), name=name)
        places.add(layout.cache_entry(cache, spec, spec.variants[0]).folder.as_posix().casefold())
    assert len(places) == 2


# -- wheels -----------------------------------------------------------------------------------------------------------


def build_wheel(folder, files, *, name="tiny-model", version="1.0", entry_point=None):
    """A wheel as any packaging tool makes it: a zip with metadata."""
    import base64
    import zipfile

    package = name.replace("-", "_")
    info = f"{package}-{version}.dist-info"
    members = {f"{package}/{path}": data for path, data in files.items()} | {
        f"{package}/__init__.py": b"raise RuntimeError"
    }
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if entry_point:
        members[f"{info}/entry_points.txt"] = f"[fastrank.models]\n{entry_point} = {package}\n".encode()
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in members.items()
    ]
    members[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index: a folder that pip is configured to look in."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def wheel_model(path, *, files=FILES):
    source = WheelSource("tiny-model==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), "tiny_model")
    return entry(None, files=files, sources=(source,))


def test_a_wheel_of_the_package_index(index, cache):
    spec = wheel_model(build_wheel(index, FILES))
    found = store.locate(spec)
    assert content(found) == FILES
    assert found.folder.is_relative_to(cache)
    assert sorted(p.name for p in (cache / "staging").iterdir()) == []
    assert store.locate(spec, Lookup(local_files_only=True)).origin == store.CACHE


def test_what_a_hub_sent_does_not_move_along_with_a_wheel(hub, index, quick):
    wheel = wheel_model(build_wheel(index, FILES)).variants[0].sources
    hub.fault("GET", "/cdn/", Fault(truncate=1000), times=1)
    hub.fault("GET", "/cdn/", Fault(reset=True))
    found = store.locate(entry(None, sources=(HubSource(REPO, hub.add_repo(REPO, FILES)), *wheel)))
    assert found.origin.startswith("wheel ")
    files = {path.relative_to(found.folder).as_posix() for path in found.folder.rglob("*") if path.is_file()}
    assert files == {*FILES, "fastrank.json"}


def test_a_wheel_that_is_not_the_one_stated(index):
    spec = wheel_model(build_wheel(index, FILES))
    build_wheel(index, {**FILES, "config.json": b"{}"})
    with pytest.raises(DownloadError, match=r"(?i)hash"):
        store.locate(spec)


def test_a_wheel_with_other_files_than_stated(index):
    spec = wheel_model(build_wheel(index, {**FILES, "config.json": b"{}"}))
    with pytest.raises(DownloadError, match=r"config\.json has 2 bytes, the registry states "):
        store.locate(spec)


def test_an_index_without_the_wheel(index):
    path = build_wheel(index, FILES)
    spec = wheel_model(path)
    path.unlink()
    with pytest.raises(DownloadError, match=r"pip does not find tiny-model==1\.0: No matching distribution"):
        store.locate(spec)


def test_neither_pip_nor_uv(index, monkeypatch):
    spec = wheel_model(build_wheel(index, FILES))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(DownloadError, match="neither pip nor uv is here"):
        store.locate(spec)


def unpack(wheel, target):
    shutil.unpack_archive(wheel, target, "zip")


@pytest.mark.parametrize("entry_point", [None, REPO])
def test_an_installed_wheel_is_used_where_it_is(hub, tmp_path, index, monkeypatch, entry_point):
    path = build_wheel(index, FILES, entry_point=entry_point)
    spec = entry("1" * 40) if entry_point else wheel_model(path)
    site = tmp_path / "site"
    unpack(path, site)
    monkeypatch.syspath_prepend(str(site))
    found = store.locate(spec)
    assert found.folder == site / "tiny_model"
    assert content(found) == FILES
    assert hub.requests == []
    assert store.contents() == []
    (site / "tiny_model" / "config.json").write_bytes(FILES["config.json"][:-1] + b" ")  # damaged: no more used
    with pytest.raises(ModelNotCachedError):
        store.locate(spec, Lookup(local_files_only=True))


def test_an_installed_wheel_of_another_version_is_not_used(tmp_path, index, monkeypatch):
    spec = wheel_model(build_wheel(index, FILES))
    unpack(build_wheel(index, FILES, version="2.0"), tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ModelNotCachedError):
        store.locate(spec, Lookup(local_files_only=True))


def test_integrity_errors_are_download_errors():
    assert issubclass(IntegrityError, DownloadError)
