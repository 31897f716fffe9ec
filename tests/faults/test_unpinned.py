"""Rows D27 to D31: models whose sizes and hashes nobody wrote down, as 55 of the registry and all custom ones."""

import json
import struct
import zlib

import numpy as np
import pytest
from support import tiny_models
from support.hub import Fault
from support.pinned_model import FILES, REPO, content, entry, unpinned_entry

from fastrank import ModelSource, PoolingType, TextEmbedding, store
from fastrank.cli import main as fastrank
from fastrank.errors import DownloadError, IntegrityError, ModelNotCachedError
from fastrank.store import forms, layout
from fastrank.store.lookup import Lookup

MODEL = tiny_models.MODEL_PATH
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
LIST = "/api/models/"

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER + bytes(16)


@pytest.fixture(params=["pinned", "unpinned", "custom"])
def spec(request, hub):
    """acme/tiny, pinned; or with nothing to compare its files with; or with files that the repository chooses."""
    commit = hub.add_repo(REPO, FILES)
    if request.param == "pinned":
        return entry(commit)
    if request.param == "unpinned":
        return unpinned_entry()
    TextEmbedding.add_custom_model(REPO, PoolingType.MEAN, True, ModelSource(hf=REPO), 16)
    from fastrank.models import registry

    return registry.find(REPO)


def no_statement(hub):
    """A mirror that gives no list of files, no commit and no ETag: nothing to compare a file with."""
    hub.fault("GET", LIST, Fault(status=404))
    hub.fault("HEAD", ".", Fault(drop_headers=("ETag", "X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size")))


# -- captive portals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [HTML, b'{"error": "log in first"}', b"", b"{}"], ids=["HTML", "JSON", "empty", "{}"])
def test_d27_a_captive_portal_that_answers_everything(hub, spec, cache, quick, page):
    hub.fault("*", ".", Fault(portal=page))
    with pytest.raises(DownloadError):
        store.locate(spec)
    assert list(layout.published(cache)) == []
    hub.clear()
    assert content(store.locate(spec)) == FILES, "when the portal is gone, the model is fetched"


@pytest.mark.parametrize("page", [HTML, b'{"error": "log in first"}'], ids=["HTML", "JSON"])
def test_d27_a_captive_portal_in_the_middle(hub, spec, cache, quick, page):
    """The hub's list is honest; then the session at the portal ends."""
    hub.fault("GET", "/resolve/|/cdn/", Fault(portal=page))
    with pytest.raises(DownloadError, match=f"has {len(page)} bytes, the (registry|hub) states "):
        store.locate(spec)
    assert list(layout.published(cache)) == []


@pytest.mark.parametrize("statement", [{"X-Repo-Commit": "1" * 40}, {}], ids=["a commit", "nothing"])
def test_d27_a_page_of_the_right_size_and_kind_of_answer(hub, cache, quick, statement):
    """An ETag that is no hash says nothing: the form decides."""
    hub.add_repo(REPO, FILES)
    hub.fault("GET", LIST, Fault(status=404))
    hub.fault("HEAD", ".", Fault(portal=b"", headers={"ETag": '"5f3-61c2"', **statement}))
    hub.fault("GET", ".", Fault(portal=HTML))
    with pytest.raises(DownloadError, match=r"is not (JSON|an ONNX graph).*A proxy or a login page may have answered"):
        store.locate(unpinned_entry())
    assert list(layout.published(cache)) == []


# -- bodies that are cut and nobody says how long they are ------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FILES))
@pytest.mark.parametrize("part", [0.01, 0.4, 0.99])
def test_d28_a_body_cut_without_a_length(hub, cache, quick, path, part):
    hub.add_repo(REPO, FILES)
    no_statement(hub)
    short = Fault(short=int(part * len(FILES[path])), no_length=True)
    hub.fault("GET", path if path == "config.json" else f"{path}|/cdn/.*{path}", short)
    with pytest.raises(DownloadError, match=r"is not (JSON|an ONNX graph)"):
        store.locate(unpinned_entry())
    assert list(layout.published(cache)) == []
    hub.clear()
    assert content(store.locate(unpinned_entry())) == FILES


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.onnx", FILES[MODEL]),
        ("model.safetensors", SAFETENSORS),
        ("config.json", FILES["config.json"]),
        ("tokenizer.json", FILES["tokenizer.json"]),
        ("weights.npy", None),
    ],
)
def test_d28_every_cut_is_seen_in_the_form_of_a_file(tmp_path, name, data):
    path = tmp_path / name
    if data is None:
        np.save(path, np.arange(12, dtype=np.float32).reshape(3, 4))
        data = path.read_bytes()
    path.write_bytes(data)
    forms.check_form(path, name)
    for length in [*range(0, len(data), max(1, len(data) // 200)), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(IntegrityError, match="is not "):
            forms.check_form(path, name)
    path.write_bytes(HTML)
    with pytest.raises(IntegrityError, match="is not "):
        forms.check_form(path, name)


def test_d28_a_file_without_a_form_must_be_stated_by_somebody(hub, cache, quick):
    files = {**FILES, "onnx/model.onnx_data": b"raw weights"}
    hub.add_repo(REPO, files)
    assert content(store.locate(unpinned_entry(files=files)), files) == files, "the hub states it"
    store.clear()
    no_statement(hub)
    with pytest.raises(DownloadError, match=r"model\.onnx_data: neither the registry nor the server states its size"):
        store.locate(unpinned_entry(files=files))
    assert list(layout.published(cache)) == []


# -- what the hub states ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [True, False], ids=["in its list", "in headers"])
@pytest.mark.parametrize("path", ["/cdn/", "config.json"], ids=["SHA-256 of a large file", "git's id of a small one"])
def test_d29_what_the_hub_states_must_be_so(hub, cache, quick, listed, path):
    hub.add_repo(REPO, FILES)
    if not listed:
        hub.fault("GET", LIST, Fault(status=404))
    hub.fault("GET", path, Fault(flip=7))
    with pytest.raises(DownloadError, match=r"has (SHA-256|the git blob id) [0-9a-f]+, the hub states "):
        store.locate(unpinned_entry())
    assert list(layout.published(cache)) == []
    hub.clear()
    found = store.locate(unpinned_entry())
    assert content(found) == FILES
    stated = json.loads((found.folder / layout.MANIFEST).read_text())["files"]
    assert {row["stated_by"] for row in stated.values()} == {"hub"}


def test_d29_a_mirror_may_state_the_sha_1_of_the_content(hub):
    import hashlib

    hub.add_repo(REPO, FILES)
    hub.fault("GET", LIST, Fault(status=404))
    digest = hashlib.sha1(FILES["config.json"], usedforsecurity=False).hexdigest()
    hub.fault("HEAD", "config.json", Fault(headers={"ETag": f'"{digest}"'}))
    assert content(store.locate(unpinned_entry())) == FILES


def test_d29_verify_says_what_files_were_compared_with(hub, custom, capsys):
    hub.add_repo(REPO, FILES)
    custom()
    assert fastrank(["verify", REPO]) == 0
    assert "compared with what the hub stated when they were fetched" in capsys.readouterr().out
    store.clear()
    no_statement(hub)
    assert fastrank(["verify", REPO]) == 0
    assert f"nobody stated a hash of config.json, {MODEL}, tokenizer.json" in capsys.readouterr().out


# -- caches that an earlier version filled ----------------------------------------------------------------------------


@pytest.fixture
def poisoned(hub, quick):
    """A cache with a login page as config.json, published by a version that did not look into files."""
    import hashlib

    hub.add_repo(REPO, FILES)
    spec = unpinned_entry()
    folder = store.locate(spec).folder
    (folder / "config.json").write_bytes(HTML)
    manifest = json.loads((folder / layout.MANIFEST).read_text())
    for row in manifest["files"].values():
        row.pop("stated_by")
    manifest["files"]["config.json"] = {"size": len(HTML), "sha256": hashlib.sha256(HTML).hexdigest()}
    (folder / layout.MANIFEST).write_text(json.dumps(manifest))
    return spec


def test_d30_a_page_that_was_published_as_a_model_is_not_used(hub, poisoned, caplog):
    with pytest.raises(ModelNotCachedError, match=r"is damaged: config\.json is not JSON"):
        store.locate(poisoned, Lookup(local_files_only=True))
    with pytest.raises(IntegrityError, match=r"config\.json is not JSON"):
        store.locate(poisoned, Lookup(verify=True))
    assert store.problems(poisoned, store.copies(poisoned)[0])[0].startswith("config.json is not JSON")
    assert content(store.locate(poisoned)) == FILES, "fetched anew"
    assert "config.json is not JSON" in caplog.text


# -- sizes ------------------------------------------------------------------------------------------------------------


def gzip_bomb(size):
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    piece = bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(size >> 20)) + packer.flush()


def test_d31_a_small_file_that_unpacks_to_a_large_one(hub, cache, quick):
    hub.add_repo(REPO, FILES)
    no_statement(hub)
    bomb = gzip_bomb(200 << 20)
    assert len(bomb) < 500_000
    hub.fault("GET", "config.json", Fault(body=bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(DownloadError, match=r"config\.json sends more than the 10000000 bytes it should have"):
        store.locate(unpinned_entry())
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.parametrize("listed", [True, False], ids=["stated", "announced"])
def test_d31_a_configuration_of_any_size(hub, cache, quick, listed):
    hub.add_repo(REPO, {**FILES, "config.json": b'{"a": "' + b"x" * 10_000_000 + b'"}'})
    if not listed:
        no_statement(hub)
    with pytest.raises(DownloadError, match=r"config\.json has 10000009 bytes, such files may have at most 10000000"):
        store.locate(unpinned_entry())
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < 1_000_000
