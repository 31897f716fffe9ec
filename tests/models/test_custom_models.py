"""Models of any repository on the hub: its own files say what is needed and how it is used."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import support
from support import tiny_models
from support.hub import Fault

from fastrank import ModelSource, PoolingType, TextEmbedding, store
from fastrank.errors import DownloadError, IntegrityError, ModelLoadError, ModelNotCachedError
from fastrank.models import registry
from fastrank.models.spec import TEXT_EMBEDDING, FileSpec
from fastrank.store import choose
from fastrank.store.lookup import Lookup

FIXTURE = support.FIXTURES / "sentence_encoder"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
SAVED = {
    path.relative_to(FIXTURE).as_posix(): path.read_bytes()
    for path in FIXTURE.rglob("*")
    if path.is_file() and path.name != "expected.json"
}
CLUTTER = {"README.md": b"# readme", "pytorch_model.bin": b"\x80\x04", "tf_model.h5": b"h5", ".gitattributes": b""}
NAME = "acme/tuned"


def add(**options):
    TextEmbedding.add_custom_model(NAME, **options)


def rows(vectors):
    return np.stack(list(vectors))


def fetched(model):
    folder = Path(model.info()["folder"])
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"fastrank.json"}


def test_a_name_is_enough(hub):
    hub.add_repo(NAME, {**SAVED, **CLUTTER})
    add()
    assert TextEmbedding.list_supported_models()[-1]["dim"] is None
    with TextEmbedding(NAME) as model:
        np.testing.assert_allclose(rows(model.embed(EXPECTED["texts"])), EXPECTED["cases"][0]["embed"], atol=1e-5)
        found = rows(model.query_embed(EXPECTED["texts"]))
        np.testing.assert_allclose(found, EXPECTED["cases"][0]["query_embed"], atol=1e-5)
        assert fetched(model) == set(SAVED)
    assert hub.count("GET", "README|pytorch_model|tf_model") == 0


def test_the_size_is_known_when_the_files_are(hub, monkeypatch):
    import fastrank.engine.loading as module

    monkeypatch.setattr(module, "Session", None)
    hub.add_repo(NAME, SAVED)
    add()
    with pytest.raises(ValueError, match=r"acme/tuned was added without dim\. Load it and use its embedding_size"):
        TextEmbedding.get_embedding_size(NAME)
    assert TextEmbedding(NAME, lazy_load=True).embedding_size == 24


def test_a_cached_model_costs_no_request(hub, monkeypatch):
    hub.add_repo(NAME, SAVED)
    add()
    with TextEmbedding(NAME) as model:
        first = model.info()
    requests = len(hub.requests)
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    with TextEmbedding(NAME) as model:
        again = model.info()
        assert (again["folder"], Path(again["file"]).name, again["source"]) == (
            first["folder"],
            "model.safetensors",
            store.CACHE,
        )
    assert len(hub.requests) == requests
    spec = registry.find(NAME, TEXT_EMBEDDING)
    (copy,) = store.copies(spec)
    assert (copy.model, store.problems(spec, copy)) == ("model.safetensors", [])
    (copy.folder / "2_Dense" / "config.json").unlink()
    assert store.problems(spec, copy) == ["2_Dense/config.json is missing"]
    with pytest.raises(ModelNotCachedError, match="load it there once"):
        TextEmbedding(NAME)


def test_a_graph_goes_first_with_its_external_data(hub, tmp_path):
    graph = onnx.load_from_string(tiny_models.tiny_encoder())
    (tmp_path / "onnx").mkdir()
    onnx.save_model(
        graph,
        tmp_path / "onnx" / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=500,
    )
    external = {f"onnx/{path.name}": path.read_bytes() for path in (tmp_path / "onnx").iterdir()}
    assert sorted(external) == ["onnx/model.onnx", "onnx/model.onnx_data"]
    plain = tiny_models.model_files(tiny_models.tiny_encoder(seed=9), model_path="model.safetensors")
    hub.add_repo(NAME, {**plain, **external, "onnx/model_quantized.onnx": b"", "onnx/model_quantized.onnx_data": b""})
    add(pooling=PoolingType.MEAN, normalization=True)
    with TextEmbedding(NAME) as model:
        assert fetched(model) == {"config.json", "tokenizer.json", *external}
        found = rows(model.embed(["hello world", "cat"]))
    tiny = tiny_models.write_model(
        tmp_path / "inline", onnx.load_from_string(tiny_models.tiny_encoder()).SerializeToString()
    )
    with TextEmbedding(NAME, specific_model_path=tiny) as model:
        np.testing.assert_allclose(rows(model.embed(["hello world", "cat"])), found, atol=1e-6)


def test_what_is_told_is_taken(hub):
    files = tiny_models.model_files(model_path="own/graph.onnx")
    hub.add_repo("other/repo", {**files, "onnx/model.onnx": b"damaged", "extra.bin": b"extra"})
    settings = (NAME, PoolingType.CLS, False, ModelSource(hf="other/repo"), 16)  # FastEmbed's arguments, by position
    TextEmbedding.add_custom_model(
        *settings, "own/graph.onnx", "ours", "mit", 0.1, ["extra.bin"], query_prefix="search "
    )
    with TextEmbedding(NAME) as model:
        assert fetched(model) == {*files, "extra.bin"}
        assert model.embedding_size == TextEmbedding.get_embedding_size(NAME) == 16
        np.testing.assert_array_equal(next(model.query_embed("cat")), next(model.embed("search cat")))
        np.testing.assert_array_equal(next(model.passage_embed("cat")), next(model.embed("cat")))
        assert np.linalg.norm(next(model.embed("cat"))) != pytest.approx(1, abs=1e-3)


def test_another_choice_is_another_folder(hub):
    hub.add_repo(NAME, {**tiny_models.model_files(), "b.onnx": tiny_models.tiny_encoder(seed=1)})
    found = []
    for model_file in (None, "b.onnx", "onnx/model.onnx"):
        registry._custom.clear()
        add(pooling=PoolingType.MEAN, model_file=model_file)
        with TextEmbedding(NAME) as model:
            found.append((Path(model.info()["folder"]), next(model.embed("cat"))))
    assert len({folder for folder, _ in found}) == 3
    np.testing.assert_array_equal(found[0][1], found[2][1])
    assert not np.allclose(found[0][1], found[1][1])


@pytest.mark.parametrize(
    ("files", "options", "says"),
    [
        (
            {"pytorch_model.bin": b"\x80"},
            {},
            "has no ONNX graph and no safetensors checkpoint.* is a pickle, which runs code",
        ),
        ({"model.gguf": b""}, {}, "Name what to use with model_file"),
        (
            {"model.onnx": b"", "tokenizer.json": None},
            {},
            r"it has no tokenizer\.json\. It has config\.json, model\.onnx",
        ),
        (
            {"model.onnx": b""},
            {"model_file": "onnx/m.onnx"},
            r"it has no onnx/m\.onnx\. It has config\.json, model\.onnx",
        ),
        ({"model.onnx": b""}, {"additional_files": ["x.bin"]}, r"it has no x\.bin"),
    ],
)
def test_repositories_that_lack_something(hub, files, options, says):
    known = {"tokenizer.json": tiny_models.tiny_tokenizer(), "config.json": b"{}", **files}
    hub.add_repo(NAME, {path: content for path, content in known.items() if content is not None})
    add(pooling=PoolingType.MEAN, **options)
    with pytest.raises(DownloadError, match=says):
        TextEmbedding(NAME)
    assert hub.count("GET", "/resolve/") == 0


def test_a_repository_that_does_not_say_its_pooling(hub):
    hub.add_repo(NAME, tiny_models.model_files())
    add()
    with pytest.raises(ModelLoadError, match=r"has no modules\.json.*pooling=PoolingType\.MEAN"):
        TextEmbedding(NAME)
    with TextEmbedding(NAME, pooling=PoolingType.MEAN, local_files_only=True) as model:
        assert model.embedding_size == 16


def test_there_is_no_such_repository(hub):
    add()
    with pytest.raises(DownloadError, match=r"HTTP 401\. The name is wrong, or the model is private"):
        TextEmbedding(NAME)


def test_what_the_hub_states_is_checked(hub):
    hub.add_repo(NAME, SAVED)
    hub.fault("GET", r"/cdn/.*/model\.safetensors", Fault(flip=5000))
    add()
    with pytest.raises(DownloadError, match=r"SHA-256") as error:
        TextEmbedding(NAME)
    assert not isinstance(error.value, IntegrityError)  # all sources failed, the message says how
    hub.clear()
    TextEmbedding(NAME).close()


@pytest.mark.parametrize(
    "fault",
    [Fault(status=404), Fault(status=500), Fault(body=b"<html>"), Fault(body=b"[]"), Fault(body=b'{"siblings": 7}')],
)
def test_a_mirror_that_gives_no_list(hub, fault):
    """What is named is fetched, onnx/model.onnx if nothing is; with the settings that most repositories have."""
    hub.add_repo(NAME, {**SAVED, **tiny_models.model_files(tiny_models.tiny_encoder(32, segments=False))})
    hub.fault("GET", "/api/", fault)
    add()
    with pytest.raises(ModelLoadError, match="2_Dense"):
        TextEmbedding(NAME)
    with TextEmbedding(NAME, pooling=PoolingType.MEAN, local_files_only=True) as model:
        assert "onnx/model.onnx" in fetched(model)
        assert "1_Pooling/config.json" in fetched(model)
        assert len(next(model.embed("cat"))) == 32


def test_names_that_a_hub_makes_up_are_not_used():
    listed = [
        *(FileSpec(path, None, None) for path in ("../evil/config.json", "/etc/model.safetensors", "a\\b.onnx")),
        *(FileSpec(path, None, None) for path in ("C:/model.onnx", "1_Pooling/../../config.json", "1_X/model.py")),
        *(FileSpec(path, 1, None) for path in ("tokenizer.json", "model.safetensors", "1_Dense/model.safetensors")),
    ]
    add()
    (variant,) = registry.find(NAME, TEXT_EMBEDDING).variants
    chosen = choose.choose(variant, listed)
    assert chosen.model == "model.safetensors"
    assert [file.path for file in chosen.files] == ["model.safetensors", "tokenizer.json", "1_Dense/model.safetensors"]


@pytest.mark.parametrize(
    ("paths", "model"),
    [
        (["model.onnx", "onnx/model.onnx", "model.safetensors"], "onnx/model.onnx"),
        (["model.onnx", "model.safetensors", "onnx/model_quantized.onnx"], "model.onnx"),
        (["onnx/model_quantized.onnx", "model.safetensors"], "model.safetensors"),
        (["onnx/model_quantized.onnx", "onnx/model_fp16.onnx"], "onnx/model_quantized.onnx"),
    ],
)
def test_the_first_choice_has_full_precision(paths, model, tmp_path):
    add()
    (variant,) = registry.find(NAME, TEXT_EMBEDDING).variants
    chosen = choose.choose(variant, [FileSpec(path, 1, None) for path in (*paths, "tokenizer.json")])
    assert chosen.model == model
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert store.locate(registry.find(NAME, TEXT_EMBEDDING), Lookup(path=tmp_path)).model == model


def test_checkpoints_in_shards():
    paths = ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    others = ["tokenizer.json", "other-00001-of-00002.safetensors", "model-00001-of-00002.safetensors.bak"]
    add()
    (variant,) = registry.find(NAME, TEXT_EMBEDDING).variants
    chosen = choose.choose(variant, [FileSpec(path, 1, None) for path in (*others, *paths)])
    assert chosen.model == paths[0]
    assert {file.path for file in chosen.files} == {*paths, "tokenizer.json"}


def test_static_models_in_a_folder_of_their_own():
    paths = ["0_StaticEmbedding/model.safetensors", "0_StaticEmbedding/tokenizer.json", "modules.json"]
    add()
    (variant,) = registry.find(NAME, TEXT_EMBEDDING).variants
    chosen = choose.choose(variant, [FileSpec(path, 1, None) for path in paths])
    assert [file.path for file in chosen.files] == paths


def test_a_static_model_of_the_hub_is_used(hub):
    fixture = support.FIXTURES / "static" / "sentence_transformers"
    modules = json.loads((fixture / "modules.json").read_text())
    modules[0] |= {"path": "0_StaticEmbedding"}
    files = {
        f"0_StaticEmbedding/{name}": (fixture / name).read_bytes() for name in ("model.safetensors", "tokenizer.json")
    }
    hub.add_repo(NAME, {**files, "modules.json": json.dumps(modules).encode()})
    expected = json.loads((fixture / "expected.json").read_text())
    add()
    with TextEmbedding(NAME) as model:
        np.testing.assert_allclose(list(model.embed(expected["texts"])), expected["vectors"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "task"), [("old", TextEmbedding), ("router", TextEmbedding)])
def test_transformers_in_folders_of_their_own_are_fetched_from_the_hub(hub, kind, task):
    fixture = support.FIXTURES / "folders" / kind
    paths = [path for path in fixture.rglob("*") if path.is_file() and path.name != "cases.json"]
    hub.add_repo(NAME, {path.relative_to(fixture).as_posix(): path.read_bytes() for path in paths})
    answers = json.loads((fixture / "cases.json").read_text())
    add()
    with task(NAME) as model:
        found = list(model.query_embed(answers["texts"]))
    np.testing.assert_allclose(found, answers["cases"][0]["query_embed"], rtol=0, atol=1e-5)


def test_pickles_in_a_given_folder(tmp_path):
    folder = tiny_models.write_model(tmp_path / "own")
    (folder / "onnx" / "model.onnx").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="is a pickle, which runs code when it is read: fastrank does not open it"):
        TextEmbedding(NAME, specific_model_path=folder)
