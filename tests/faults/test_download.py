"""Rows D1 to D26: what may go wrong between a hub and a model on disk."""

import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.hub import Fault
from support.pinned_model import FILES, REPO, content, entry, leftovers, unpinned_entry
from support.processes import ends_well, python, run_python
from support.waiting import patience, wait_until

from fastrank import TextEmbedding, store
from fastrank.cli import main as fastrank
from fastrank.errors import DownloadError, IntegrityError, ModelNotCachedError
from fastrank.models.spec import TEXT_EMBEDDING
from fastrank.store import layout, publish
from fastrank.store.http import redirected
from fastrank.store.lock import exclusive
from fastrank.store.lookup import Lookup

# More bytes than arrive at once, so that a download has a middle.
LARGE = {**FILES, "onnx/model.onnx_data": random.Random(17).randbytes(300_000)}


@pytest.fixture(params=["pinned", "unpinned"])
def spec(request, hub):
    """A small model that the stand-in has: pinned by commit and hashes, or by nothing at all, as 55 of the registry."""
    commit = hub.add_repo(REPO, FILES)
    return entry(commit) if request.param == "pinned" else unpinned_entry()


@pytest.fixture(params=["pinned", "unpinned"])
def large(request, hub):
    """The same of a model with a large file."""
    commit = hub.add_repo(REPO, LARGE)
    return entry(commit, files=LARGE) if request.param == "pinned" else unpinned_entry(files=LARGE)


@pytest.fixture
def breaking(cache):
    """Runs breaking.py for a model; the function it returns gives it an order and returns its answer."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    with contextlib.ExitStack() as started:

        def start(spec):
            program = [sys.executable, "-B", str(Path(__file__).with_name("breaking.py")), str(cache), repr(spec)]
            process = started.enter_context(
                subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )

            def order(line):
                process.stdin.write(line + "\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            return order

        yield start


# -- with nothing wrong -----------------------------------------------------------------------------------------------


def test_d1_fetched_once_then_never_asked_again(hub, spec, cache):
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


def test_d1_a_cached_model_needs_no_connection_no_write_and_no_hub_library(hub, dense, cache):
    expected = [float(x) for x in next(TextEmbedding(REPO).embed("hello"))]
    requests = len(hub.requests)
    code = f"""
import fastrank.models.registry
fastrank.models.registry._custom[spec.name, {TEXT_EMBEDDING!r}] = spec
events = []
def audit(event, arguments):
    if event.startswith(("socket.", "urllib")):
        events.append(event)
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        events.append((event, arguments))
    elif event == "open" and str(arguments[0]).startswith({str(cache)!r}) and arguments[1] not in ("r", "rb"):
        events.append((event, arguments))
sys.addaudithook(audit)
import fastrank
vector = next(fastrank.TextEmbedding(spec.name).embed("hello"))
foreign = sorted(m for m in sys.modules if m.startswith(("huggingface_hub", "httpx", "hf_xet", "tqdm", "ssl", "http.")))
print([events, foreign, vector.tolist()])
"""
    child = python(code, dense, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert json.loads(ends_well(child)) == [[], [], expected]
    assert len(hub.requests) == requests


# -- no connection ----------------------------------------------------------------------------------------------------


def refused_offline(hub, spec, **options):
    begin = time.thread_time()  # of the processor: a busy machine is not our fault
    with pytest.raises(ModelNotCachedError) as error:
        store.locate(spec, Lookup(**options))
    assert time.thread_time() - begin < 0.1
    assert "downloading is off" in str(error.value)
    assert "fastrank download acme/tiny" in str(error.value)
    assert str(layout.cache_entry(store.root(), spec, spec.variants[0]).folder) in str(error.value)
    assert isinstance(error.value, FileNotFoundError)
    assert hub.requests == []


def test_d2_offline_and_absent(hub, spec):
    refused_offline(hub, spec, local_files_only=True)


@pytest.mark.parametrize("switch", ["FASTRANK_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_d3_switched_off_after_the_import(hub, spec, monkeypatch, switch):
    assert "huggingface_hub" in sys.modules  # which reads its switch only then
    monkeypatch.setenv(switch, "1")
    refused_offline(hub, spec)


@pytest.mark.parametrize("transformers", ["1", "0", "", "ON", "no"])
@pytest.mark.parametrize("hub_offline", ["1", "0", "", "yes", "off"])
def test_d3_the_switches_of_others_count_as_for_huggingface_hub(monkeypatch, hub_offline, transformers):
    monkeypatch.setenv("HF_HUB_OFFLINE", hub_offline)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", transformers)
    from fastrank import environment

    program = "import huggingface_hub.constants as c; print(c.HF_HUB_OFFLINE)"
    assert str(environment.offline()) == run_python("-c", program, check=True).stdout.strip()


def test_d3_switched_off_when_huggingface_hub_was_imported(hub, spec, monkeypatch):
    """It sends nothing then, whatever the variables say now."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="huggingface_hub was imported while HF_HUB_OFFLINE"):
        store.locate(spec)
    assert hub.requests == []


def test_d8_connection_refused(hub, spec):
    hub.stop()
    begin = time.monotonic()
    with pytest.raises(DownloadError) as error:
        store.locate(spec)
    assert time.monotonic() - begin < patience(5)
    assert hub.url in str(error.value)
    assert "refused" in str(error.value)


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
    assert len(quick) == 2


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
    assert hub.seen("/resolve/", 1) == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(flip=500), Fault(body=bytes(len(FILES["onnx/model.onnx"]))), Fault(flip=0)],
    ids=["one byte", "zeros", "first byte"],
)
def test_d10_wrong_content_of_the_right_length(hub, spec, cache, fault):
    hub.fault("GET", "/cdn/", fault, times=1)
    with pytest.raises(DownloadError, match=r"has SHA-256 .*, the (registry|hub) states "):
        store.locate(spec)
    assert list(layout.published(cache)) == []
    assert not [path for path in leftovers(cache) if path.name.startswith("model.onnx")]
    assert content(store.locate(spec)) == FILES  # the next run


def test_d11_a_captive_portal(hub, spec, cache, quick):
    hub.fault("GET", ".", Fault(body=b"<html>Please log in</html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(DownloadError, match=r"has 26 bytes, the (registry|hub) states "):
        store.locate(spec)
    assert list(layout.published(cache)) == []


def test_d12_a_body_without_end(hub, spec, cache):
    hub.fault("GET", "/cdn/", Fault(endless=True))
    with pytest.raises(DownloadError, match="sends more than the "):
        store.locate(spec)
    assert sum(path.stat().st_size for path in leftovers(cache)) < 2 * sum(map(len, FILES.values()))


def test_d13_a_drip_is_cut_off_and_resumed(hub, spec, monkeypatch, quick):
    monkeypatch.setattr("fastrank.store.hub._STALL_SECONDS", 0.4)
    hub.fault("GET", "/cdn/", Fault(drip=500), times=1)
    assert content(store.locate(spec)) == FILES
    assert hub.seen("/cdn/", 2) == 2
    assert sum("/cdn/" in request.path and "Range" in request.headers for request in hub.requests) == 1


def test_d14_compression_nobody_asked_for(hub, spec, quick):
    hub.fault("GET", ".", Fault(gzip=True))
    assert content(store.locate(spec)) == FILES


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/acme/tiny/loop"])
def test_d15_redirects_that_lead_nowhere(hub, spec, target, quick):
    hub.fault("GET", ".", Fault(redirect=target))
    with pytest.raises(DownloadError, match="redirect"):
        store.locate(spec)


def test_d15_from_https_to_http_is_not_followed():
    assert redirected("https://hub/x", "//cdn/y", {})[0] == "https://cdn/y"
    with pytest.raises(DownloadError, match="redirects to http://cdn/y, which is not followed"):
        redirected("https://hub/x", "http://cdn/y", {})


@pytest.mark.parametrize("make", [entry, unpinned_entry])
def test_d25_the_pinned_commit_is_served_when_the_branch_moves(hub, make):
    spec = make(hub.add_repo(REPO, FILES))
    hub.add_repo(REPO, {**FILES, "config.json": b"{}"})
    assert content(store.locate(spec)) == FILES


# -- processes that end in the middle ---------------------------------------------------------------------------------


def test_d16_a_killed_download_is_resumed_by_the_next_process(hub, spec, cache):
    hub.fault("GET", "/cdn/", Fault(drip=2000), times=1)
    child = python("store.locate(spec)", spec)
    wait_until(lambda: [p for p in leftovers(cache) if p.name == "model.onnx.part" and p.stat().st_size], 60)
    child.kill()
    child.communicate()
    assert list(layout.published(cache)) == []
    assert content(store.locate(spec)) == FILES
    assert any(request.headers.get("Range") for request in hub.requests)
    assert leftovers(cache) == []


def kept(spec, cache):
    """Bytes of the model that are on this machine; if it is there as a whole, then nothing is wrong with it."""
    try:
        found = store.locate(spec, Lookup(local_files_only=True))
    except ModelNotCachedError:
        ours = {*LARGE, *(f"{path}.part" for path in LARGE)}
        staging = layout.cache_entry(cache, spec, spec.variants[0]).staging
        return sum(path.stat().st_size for name in ours if (path := staging / name).is_file())
    assert store.problems(spec, found) == []
    return sum(map(len, LARGE.values()))


@pytest.mark.parametrize("before", ["nothing", "half a download", "a damaged model"])
def test_d17_a_process_killed_at_any_change_loses_nothing(large, cache, breaking, tmp_path, before):
    """At every n-th open, write, rename, ... in turn; a new process then brings only what is missing."""
    spec = large
    order = breaking(spec)
    cache.mkdir()
    if before == "half a download":
        order("kill 16")
    elif before == "a damaged model":
        order("run 0")
        (next(layout.published(cache)) / "config.json").unlink()
    least = kept(spec, cache)
    cache.rename(tmp_path / "before")
    for number in itertools.count(1):
        shutil.rmtree(cache, ignore_errors=True)
        shutil.copytree(tmp_path / "before", cache)
        answer = order(f"kill {number}")
        here = kept(spec, cache)
        assert here >= least
        if answer["said"] == "delivered":
            break
        assert answer["status"] == -9
        missing = sum(map(len, LARGE.values())) - here
        assert order("run 0") == {"said": "delivered", "received": missing}
        assert content(store.locate(spec, Lookup(local_files_only=True)), LARGE) == LARGE
        assert leftovers(cache) == []
    assert number > 20


# -- disks ------------------------------------------------------------------------------------------------------------


def test_d18_a_disk_that_is_full_at_any_change(large, cache, breaking):
    order = breaking(large)
    for number in itertools.count(1):
        shutil.rmtree(cache, ignore_errors=True)
        answer = order(f"full {number}")
        if answer["said"] == "delivered":
            break
        assert answer["errno"] == 28
        assert "there is no room left. Set FASTRANK_CACHE to another" in answer["said"]
        assert str(cache) in answer["said"]
        assert leftovers(cache) == []
        assert order("run 0")["said"] == "delivered"
    assert number > 15


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_d18_a_real_limit_is_said_at_once(hub, spec, cache, quick):
    """A limit on the size of files stands in for a full disk."""
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


def test_d19_a_read_only_cache_that_has_the_model(spec, breaking):
    store.locate(spec)
    assert breaking(spec)("lock 1") == {"said": "delivered", "received": 0}


def test_d19_a_cache_that_turns_read_only_at_any_change(hub, spec, cache, breaking):
    order = breaking(spec)
    for number in itertools.count(1):
        shutil.rmtree(cache, ignore_errors=True)
        answer = order(f"lock {number}")
        if answer["said"] == "delivered":
            break
        assert answer["errno"] == 30
        assert "it cannot be written. Set FASTRANK_CACHE to another" in answer["said"]
    assert number > 15


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_d19_a_cache_that_may_not_be_written(spec, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o555)
    try:
        with pytest.raises(OSError, match="FASTRANK_CACHE"):
            store.locate(spec)
    finally:
        cache.chmod(0o755)


@pytest.mark.parametrize("damage", ["truncated", "missing", "a folder"])
def test_d23_a_damaged_folder_is_repaired_or_refused(hub, spec, damage):
    folder = store.locate(spec).folder
    path = folder / "onnx" / "model.onnx"
    path.unlink() if damage != "truncated" else path.write_bytes(b"short")
    if damage == "a folder":
        path.mkdir()
    with pytest.raises(ModelNotCachedError):
        store.locate(spec, Lookup(local_files_only=True))
    assert content(store.locate(spec)) == FILES


def test_d24_damage_of_the_same_size_is_named(dense, capsys):
    found = store.locate(dense)
    TextEmbedding(REPO, verify=True).close()
    assert fastrank(["verify", REPO]) == 0
    (found.folder / "config.json").write_bytes(FILES["config.json"][:-1] + b" ")
    assert fastrank(["verify", REPO]) == 1
    assert "config.json has SHA-256 " in capsys.readouterr().out
    with pytest.raises(IntegrityError, match=r"config\.json has SHA-256 .*Remove it to have it fetched anew"):
        TextEmbedding(REPO, verify=True)


def test_d26_all_is_on_the_disk_before_the_rename_and_the_rename_after_it(spec, monkeypatch):
    """By inode: a rename does not change it."""
    order = []
    sync, move = os.fsync, publish.move
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(("sync", os.fstat(fd).st_ino)), sync(fd)))
    monkeypatch.setattr(publish, "move", lambda a, b: (order.append(("move", a.stat().st_ino)), move(a, b)))
    folder = store.locate(spec).folder
    published = order.index(("move", folder.stat().st_ino))
    for path in (*FILES, layout.MANIFEST):
        assert order.index(("sync", (folder / path).stat().st_ino)) < published
    assert order[published + 1 :] == [("sync", folder.parent.stat().st_ino)]


# -- many at once -----------------------------------------------------------------------------------------------------


def test_d20_six_processes_that_start_together_make_one_download(hub, spec):
    hub.fault("GET", "/cdn/", Fault(delay=0.5))
    code = "from fastrank.store.hub import Hub; Hub(); print(flush=True); input(); print(store.locate(spec).folder)"
    children = [python(code, spec) for _ in range(6)]
    for child in children:
        child.stdout.readline()  # until all are ready
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    places = {ends_well(child) for child in children}
    assert places == {str(store.locate(spec, Lookup(local_files_only=True)).folder)}
    assert hub.count("GET", "/cdn/") == 1
    assert hub.count("GET", "/resolve/") == len(FILES)
    assert hub.count("HEAD", "/") == 1


def test_d21_a_file_system_without_locks(hub, spec, cache, without_locks):
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.locate(spec))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({files.folder for files in found}) == 1
    assert content(found[0]) == FILES
    assert leftovers(cache) == []


def test_d22_a_lock_of_a_living_process_is_waited_for_and_named(tmp_path):
    path = tmp_path / "locks" / "x.lock"
    code = f"from fastrank.store.lock import *\nwith exclusive(Path({str(path)!r}), 1): print(flush=True); input()"
    child = python(code)
    child.stdout.readline()
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"x\.lock too long"), exclusive(path, 0.5):
        pass
    assert time.monotonic() - begin >= 0.5
    ends_well(child, "\n")
    with exclusive(path, 0) as locked:
        assert locked


def test_d22_a_lock_of_a_dead_process_is_taken_at_once(tmp_path):
    path = tmp_path / "locks" / "x.lock"
    child = python(
        f"from fastrank.store.lock import *\nwith exclusive(Path({str(path)!r}), 1): print(flush=True); input()"
    )
    child.stdout.readline()
    child.kill()
    child.communicate()
    with exclusive(path, 0) as locked:
        assert locked
