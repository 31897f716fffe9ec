"""Programs written for FastEmbed give the same results on fastrank, both ways, as on FastEmbed where that is there."""

import copy
import importlib
import importlib.metadata
import importlib.util
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from support import tiny_models
from support.processes import run_python

import fastrank
from fastrank import ModelSource, PoolingType
from fastrank.bm25.languages import stopwords
from fastrank.compat import classes, descriptions, facade, fake_modules
from fastrank.errors import ModelNotFoundError
from fastrank.graph import build
from fastrank.models import registry
from fastrank.models.spec import CROSS_ENCODER, TEXT_EMBEDDING

PROGRAMS = Path(__file__).with_name("programs")
SETTINGS = {"pad_token": "[PAD]"}  # of tokenizer_config.json


def for_fastembed(folder, **settings):
    """The files that FastEmbed wants beside a model."""
    (folder / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, **settings}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"sep_token": "[SEP]", "mask_token": "[MASK]"}))
    return folder


@pytest.fixture
def folders(tmp_path, real_model_folder):
    """The real all-MiniLM-L6-v2 as FastEmbed has it, BM25's stop words, and a tiny encoder or cross-encoder."""
    minilm = tmp_path / "minilm"
    minilm.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        shutil.copyfile(real_model_folder / name, minilm / name)
    (minilm / "model.onnx").write_bytes(build(real_model_folder))
    bm25 = tmp_path / "bm25"
    bm25.mkdir()
    (bm25 / "english.txt").write_text("\n".join(sorted(stopwords("english"))))
    (bm25 / "config.json").write_text("{}")
    return for_fastembed(minilm, model_max_length=512, max_length=128), bm25


@pytest.fixture
def run(folders, tmp_path, monkeypatch):
    """Runs a program unchanged on FastEmbed ("real"), with our line before it ("line"), or through us ("-m")."""
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def start(name, how, third):
        program = PROGRAMS / name
        if how == "line":
            changed = "import fastrank.compat.fastembed\n" + program.read_text()
            (program := tmp_path / name).write_text(changed)
        command = [*(["-m", "fastrank.compat.fastembed"] if how == "-m" else []), program]
        done = run_python(*command, *folders, third)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return start


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        if name in ("dense", "late", "muvera", "scores", "pairs", "sparse"):
            flat = [np.concatenate([np.ravel(row) for row in each]) for each in (found[name], value)] if value else []
            np.testing.assert_allclose(*flat, atol=1e-5)
        else:
            assert found[name] == value, name


@pytest.mark.real_model
@pytest.mark.parametrize("name", ["search.py", "rerank.py", "own_model.py"])
def test_a_program_gives_what_it_gives_on_fastembed(run, tmp_path, name):
    graph = {  # weights drawn at random: this is about the way, not the ranking
        "search.py": tiny_models.tiny_encoder(128, segments=False),
        "rerank.py": tiny_models.tiny_cross_encoder(),
        "own_model.py": tiny_models.tiny_encoder(),
    }[name]
    model_path = "model.onnx" if name == "search.py" else "onnx/model.onnx"  # where FastEmbed looks for it
    third = tiny_models.write_model(tmp_path / "third", graph, model_path=model_path)
    for_fastembed(third, model_max_length=100, max_length=48)
    line, through = run(name, "line", third), run(name, "-m", third)
    assert line == through
    if name == "search.py":
        assert line["best"] == 0
        assert line["size"] == [384, 384]
    elif name == "rerank.py":
        assert line["found"][0] == 2
    else:
        assert line["tokens"] == 48
        assert line["lengths"] == [8, 9, 16]
    if importlib.util.find_spec("fastembed"):
        assert_same(line, run(name, "real", third))


@pytest.fixture
def not_imported(monkeypatch):
    """Nothing of FastEmbed has been imported. What was is put back."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "fastembed"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def shimmed(not_imported):
    """`import fastembed` gives ours until the test ends."""
    fake_modules.install()
    yield importlib.import_module("fastembed")
    fake_modules.uninstall()


def test_every_module_people_import_is_there(shimmed):
    for name in fake_modules._MODULES:
        assert importlib.import_module(name).__spec__.name == name
        assert importlib.util.find_spec(name)
    import fastembed.rerank.cross_encoder

    assert fastembed.rerank.cross_encoder.TextCrossEncoder is classes.TextCrossEncoder
    assert fastembed.TextEmbedding.list_supported_models()
    with pytest.raises(ModuleNotFoundError, match=r"fastembed\.text\.onnx_embedding"):
        importlib.import_module("fastembed.text.onnx_embedding")


@pytest.fixture
def no_fastembed(not_imported, monkeypatch):
    """FastEmbed is not installed."""

    def find(context):
        return iter(()) if (context.name or "").lower() == "fastembed" else real(context)

    real = importlib.metadata.MetadataPathFinder.find_distributions
    monkeypatch.setattr(importlib.metadata.MetadataPathFinder, "find_distributions", find)


def test_the_version_is_known_where_fastembed_is_absent(no_fastembed):
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("fastembed")
    fake_modules.install()
    for name in ("fastembed", "FastEmbed"):
        assert importlib.metadata.version(name) == fake_modules.VERSION
    assert importlib.metadata.distribution("fastembed").metadata["Name"] == "fastembed"
    assert "fastembed" in [each.metadata["Name"] for each in importlib.metadata.distributions()]
    assert "fastembed" in importlib.metadata.packages_distributions()["fastembed"]
    assert list(importlib.metadata.distributions(path=["/nowhere"])) == []
    fake_modules.uninstall()
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("fastembed")


def test_the_version_of_an_installed_fastembed_is_its_own(shimmed):
    pytest.importorskip("fastembed")
    installed = [each for each in importlib.metadata.distributions() if each.metadata["Name"] == "fastembed"]
    assert len(installed) == 1


def test_shipped_names_are_fastembeds():
    real = pytest.importorskip("fastembed", reason="fastembed is not installed")
    rerank = importlib.import_module("fastembed.rerank.cross_encoder")
    for task, kind in ((TEXT_EMBEDDING, real.TextEmbedding), (CROSS_ENCODER, rerank.TextCrossEncoder)):
        assert descriptions.SHIPPED[task] == {row["model"].casefold() for row in kind.list_supported_models()}
    for name in ("ImageEmbedding", "LateInteractionMultimodalEmbedding"):
        assert getattr(classes, name).list_supported_models() == getattr(real, name).list_supported_models()


def test_rows_have_fastembeds_keys():
    real = pytest.importorskip("fastembed", reason="fastembed is not installed")
    for name in ("TextEmbedding", "SparseTextEmbedding", "LateInteractionTextEmbedding"):
        keys = list(getattr(real, name).list_supported_models()[0])
        assert all(list(row) == keys for row in getattr(classes, name).list_supported_models()), name


def test_a_replaced_name_is_replaced_everywhere_but_only_by_the_drop_in():
    name = "intfloat/multilingual-e5-small"
    with pytest.raises(ValueError, match="already registered"):
        fastrank.TextEmbedding.add_custom_model(name, PoolingType.CLS, False, ModelSource(hf="acme/own"), 7)
    classes.TextEmbedding.add_custom_model(name, PoolingType.CLS, False, ModelSource(hf="acme/own"), 7)
    with pytest.raises(ValueError, match="already registered"):
        fastrank.TextEmbedding.add_custom_model(name, PoolingType.CLS, False, ModelSource(hf="acme/own"), 7)
    for kind in (classes.TextEmbedding, fastrank.TextEmbedding):
        assert kind.get_embedding_size(name) == 7
        assert [row["sources"]["hf"] for row in kind.list_supported_models() if row["model"] == name] == ["acme/own"]
    assert registry.find(name, TEXT_EMBEDDING).name == name


def test_models_are_pickled_as_their_configuration():
    bm25 = classes.SparseTextEmbedding("Qdrant/bm25", language="german")
    bm25.model.stopwords = {"katzen"}
    alone = classes.Bm25(k=2.0, stopwords={"a"})
    dense = classes.TextEmbedding("jinaai/jina-embeddings-v3", lazy_load=True, task_id=2)
    for copy_of in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):  # noqa: S301
        again = copy_of(alone)
        assert (type(again), again.k, again.stopwords) == (classes.Bm25, 2.0, {"a"})
        assert copy_of(bm25).model.language == "german"
        assert repr(copy_of(dense)) == repr(dense)


def test_texts_go_through_the_gate():
    dense, sparse = classes.TextEmbedding(lazy_load=True), classes.Bm25()
    late = classes.LateInteractionTextEmbedding("colbert-ir/colbertv2.0", lazy_load=True)
    cross = classes.TextCrossEncoder("Xenova/ms-marco-MiniLM-L-6-v2", lazy_load=True)
    calls = [each for model in (dense, sparse, late) for each in (model.embed, model.query_embed, model.passage_embed)]
    for ask in (*calls, sparse.token_count, sparse.raw_embed, lambda documents: cross.rerank("query", documents)):
        with pytest.raises(TypeError, match="must be a string or an iterable of strings, not dict"):
            ask({"text": "a"})


def test_what_is_not_there_says_so(tmp_path):
    folder = tiny_models.write_model(tmp_path / "large", tiny_models.tiny_encoder(1024))
    model = classes.TextEmbedding("thenlper/gte-large", specific_model_path=folder, lazy_load=True)
    with pytest.raises(AttributeError, match=r"tokenizer of FastEmbed's model objects is not there"):
        _ = model.model.tokenizer
    assert model.model.model_name == model.model_name
    assert model.model._model_dir == folder
    assert next(model.model.embed("cat")).shape == (1024,)
    with pytest.raises(ModelNotFoundError, match="is not supported in Bm25"):
        classes.Bm25("prithivida/Splade_PP_en_v1", lazy_load=True)
    assert not hasattr(classes.Bm25(), "model")


def test_the_shim_wins_over_an_installed_fastembed_and_can_be_undone(tmp_path, not_imported, monkeypatch):
    (tmp_path / "fastembed").mkdir()
    (tmp_path / "fastembed" / "__init__.py").write_text("TextEmbedding = 'theirs'")
    (tmp_path / "fastembed" / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    theirs = importlib.import_module("fastembed")
    with pytest.warns(UserWarning, match="imported before"):
        fake_modules.install()
    fake_modules.install()
    assert importlib.import_module("fastembed").TextEmbedding is classes.TextEmbedding
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("fastembed.other")
    fake_modules.uninstall()
    fake_modules.uninstall()
    assert importlib.import_module("fastembed") is theirs
    importlib.import_module("fastembed.other")
    del sys.modules["fastembed"], sys.modules["fastembed.other"]


@pytest.mark.parametrize(
    ("model", "limit", "variant"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", 128, None),
        ("BAAI/bge-small-en-v1.5", None, "fp16"),
        ("thenlper/gte-large", 128, None),
        ("BAAI/bge-large-en-v1.5", None, None),
        ("prithvida/Splade_PP_en_v1", 128, None),
    ],
)
def test_limits_and_files_are_fastembeds(model, limit, variant):
    assert facade.like_fastembed(registry.find(model), None, {}) == {"max_length": limit, "variant": variant}


def test_fastembeds_file_is_named_where_it_must_be_fetched(monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    with pytest.raises(fastrank.ModelNotCachedError, match=r"fastrank download BAAI/bge-small-en-v1.5 --variant fp16$"):
        classes.TextEmbedding()


def test_every_limit_belongs_to_a_model():
    assert {registry.find(name).name for name in facade.LIMITS} == set(facade.LIMITS)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"model_max_length": 512, "max_length": 128}, 128),
        ({"model_max_length": 40, "max_length": 128}, 40),
        ({"model_max_length": 10**30, "max_length": 0}, None),
        ({"model_max_length": 8192}, None),  # more than the model has positions: as fastrank finds it
        ({}, None),
    ],
)
def test_the_limit_of_a_folder_is_fastembeds(tiny, settings, limit):
    for_fastembed(tiny, **settings)
    assert facade._limit(tiny) == limit
    with classes.TextEmbedding("thenlper/gte-large", specific_model_path=tiny, lazy_load=True) as model:
        assert model.token_count("cat " * 1000) == limit or 512


def test_a_custom_model_of_the_hub_is_cut_where_its_files_say(hub, monkeypatch):
    files = tiny_models.model_files()
    files["tokenizer_config.json"] = json.dumps({"model_max_length": 512, "max_length": 24}).encode()
    hub.add_repo("acme/own", files)
    source = ModelSource(hf="acme/own")
    classes.TextEmbedding.add_custom_model("acme/own", PoolingType.MEAN, normalization=True, sources=source, dim=16)
    assert classes.TextEmbedding("acme/own", lazy_load=True).token_count("cat " * 100) == 24


def test_no_prefixes_are_added(tmp_path):
    tiny = tiny_models.write_model(tmp_path, tiny_models.tiny_encoder(384))
    model = classes.TextEmbedding("intfloat/multilingual-e5-small", specific_model_path=tiny)
    ours = fastrank.TextEmbedding("intfloat/multilingual-e5-small", specific_model_path=tiny)
    plain, prefixed = next(model.query_embed("red cats")), next(ours.query_embed("red cats"))
    np.testing.assert_array_equal(plain, next(ours.embed("red cats")))
    assert np.abs(plain - prefixed).max() > 0.01


def test_options_that_fastembed_ignores_are_ignored_with_a_warning(tiny):
    with pytest.warns(UserWarning, match="ignores max_length, nonsense, as FastEmbed does"):
        model = classes.TextEmbedding(
            "thenlper/gte-large", specific_model_path=tiny, max_length=3, nonsense=1, lazy_load=True
        )
    assert model.token_count("cat cat cat cat") == 6
    with pytest.warns(UserWarning, match="ignores alpha"):
        classes.SparseTextEmbedding("Qdrant/bm25", alpha=2.0)


def test_image_models_are_refused_in_one_clear_line(shimmed):
    with pytest.raises(
        ModelNotFoundError, match=r"^Qdrant/clip-ViT-B-32-vision reads images, .*Use FastEmbed"
    ) as error:
        shimmed.ImageEmbedding("Qdrant/clip-ViT-B-32-vision")
    assert isinstance(error.value, ValueError)
    assert "\n" not in str(error.value)


def test_fastembeds_cache_variable_counts_unless_fastrank_has_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path / "theirs"))
    assert classes.SparseTextEmbedding("Qdrant/bm25").cache_dir is None  # FASTRANK_CACHE is set in tests
    monkeypatch.delenv("FASTRANK_CACHE")
    assert classes.SparseTextEmbedding("Qdrant/bm25").cache_dir == str(tmp_path / "theirs")
    assert classes.SparseTextEmbedding("Qdrant/bm25", "own").cache_dir == "own"


def test_without_a_program_the_command_says_how_it_is_used():
    done = run_python("-m", "fastrank.compat.fastembed")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("usage: python -m fastrank.compat.fastembed program.py")
