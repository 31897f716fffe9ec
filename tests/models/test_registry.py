"""The registry: what ships, what is refused, and how a model is found."""

import json

import jsonschema
import pytest
from support import PACKAGE, REGISTRY
from support.scripts import script

import fastrank
from fastrank.errors import ModelNotFoundError, RegistryError
from fastrank.models import registry
from fastrank.models.reading import model_spec
from fastrank.models.spec import (
    CLASSES,
    PRECISIONS,
    TEXT_EMBEDDING,
    CrossEncoderTask,
    FileSpec,
    HubSource,
    Variant,
    WheelSource,
)

SCHEMA = json.loads((PACKAGE / "models" / "model_registry.schema.json").read_text(encoding="utf-8"))
DENSE = "text-embedding"


@pytest.fixture
def document():
    return json.loads(REGISTRY.read_text(encoding="utf-8"))


def test_what_ships_is_valid_and_read(document):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)
    script("registry").validate(document)
    assert [model_spec(row).name for row in document["models"]] == [row["name"] for row in document["models"]]


def fields(kind):
    """The fields of an object that the schema describes."""
    return set(SCHEMA["$defs"][kind]["properties"])


def test_schema_and_types_have_the_same_fields():
    """The annotations in `spec` say how a field is read: a field in one place only would be lost or never set."""
    from fastrank.models import spec

    assert fields("model") == set(spec.ModelSpec._fields)
    assert fields("variant") == set(Variant._fields) - {"name", "open"}
    assert fields("hub") == set(HubSource._fields)
    assert fields("wheel") == set(WheelSource._fields)
    for task, kind in spec.SETTINGS.items():
        assert fields(task) == set(kind._fields), task
    assert SCHEMA["$defs"]["variant"]["properties"]["precision"]["enum"] == list(PRECISIONS)


def test_values_become_what_the_types_say(document):
    by_name = {row["name"]: model_spec(row) for row in document["models"]}
    dense = by_name["BAAI/bge-small-en-v1.5"].tasks[TEXT_EMBEDDING]
    assert dense.prefixes == ("Represent this sentence for searching relevant passages: ", "", "")
    assert isinstance(dense.answers[0].values, tuple)
    hub, wheel = by_name["sentence-transformers/all-MiniLM-L6-v2"].variant("safetensors")[0].sources
    assert (type(hub), type(wheel)) == (HubSource, WheelSource)
    late = by_name["colbert-ir/colbertv2.0"].tasks["late-interaction"]
    assert "!" in late.skiplist
    assert len(late.skiplist) == 32
    pair = by_name["Xenova/ms-marco-MiniLM-L-6-v2"].tasks["cross-encoder"].answers[0].input
    assert isinstance(pair, tuple)
    assert dict(by_name["jinaai/jina-embeddings-v3"].tasks[TEXT_EMBEDDING].task_input.tasks)["text-matching"] == 4


def test_there_is_a_model_for_every_task():
    assert {task for spec in registry.builtin() for task in spec.tasks} == set(CLASSES)


def test_a_size_comes_with_a_hash():
    """A size alone checks nothing. A hash alone does: some were published without the size."""
    for spec in registry.builtin():
        for variant in spec.variants:
            for file in variant.files:
                assert file.size is None or file.sha256 is not None, (spec.name, file.path)


@pytest.mark.parametrize("name", ["BAAI/bge-small-en-v1.5", "baai/BGE-SMALL-EN-V1.5"])
def test_names_are_found_without_regard_to_case(name):
    assert registry.find(name, DENSE).name == "BAAI/bge-small-en-v1.5"


def test_aliases_are_names(document, monkeypatch):
    document["models"][0]["aliases"] = ["qdrant/bge-small-en-v1.5-onnx-q"]
    rows = registry._Lazy(document["models"])
    monkeypatch.setattr(registry, "_shipped", lambda: rows)
    assert registry.find("Qdrant/bge-small-en-v1.5-onnx-Q", DENSE) is registry.builtin()[0]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("BAAI/bge-smal-en-v1.5", "Did you mean BAAI/bge-small-en-v1.5, "),
        ("other/all-MiniLM-L6-v2", "Did you mean sentence-transformers/all-MiniLM-L6-v2?"),
        ("colbert-ir/colbertv2.0", "It is a model for LateInteractionTextEmbedding."),
        ("no-such-thing-at-all", "TextEmbedding.list_supported_models()"),
    ],
)
def test_an_unknown_name_says_the_nearest(name, hint):
    with pytest.raises(ModelNotFoundError) as error:
        registry.find(name, DENSE)
    assert hint in str(error.value)
    assert isinstance(error.value, ValueError)  # what FastEmbed raises


def test_a_name_that_is_no_string():
    with pytest.raises(TypeError, match="model_name must be a string, not NoneType"):
        registry.find(None, DENSE)


def test_unknown_variants_are_named():
    with pytest.raises(ValueError, match=r"has no variant 'int3'\. It has: onnx, safetensors"):
        registry.find("sentence-transformers/all-MiniLM-L6-v2", DENSE).variant("int3")


def test_specs_cannot_be_changed():
    spec = registry.builtin()[0]
    with pytest.raises(AttributeError):
        spec.name = "x"
    with pytest.raises(TypeError):
        spec.tasks["x"] = None


def test_one_entry_is_read_without_the_others(document):
    document["models"][0]["dim"] = "wrong"
    rows = registry._Lazy(document["models"])
    assert rows.get("sentence-transformers/all-minilm-l6-v2").max_length == 256
    with pytest.raises(RegistryError, match=r"^BAAI/bge-small-en-v1\.5: the entry does not fit .*'dim'"):
        rows.get("baai/bge-small-en-v1.5")
    with pytest.raises(RegistryError, match="'dim'"):
        rows.all()


# -- the last part of a name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "ALL-minilm-l6-V2"])
def test_a_unique_last_part_is_understood(name):
    assert registry.find(name).name == "sentence-transformers/all-MiniLM-L6-v2"
    assert registry.find(name, "late-interaction").name == "sentence-transformers/all-MiniLM-L6-v2"
    assert fastrank.TextEmbedding(name, lazy_load=True).model_name == "sentence-transformers/all-MiniLM-L6-v2"


def test_the_last_part_of_an_alias_is_understood():
    assert registry.find("ms-marco-MiniLM-L6-v2").name == "Xenova/ms-marco-MiniLM-L-6-v2"


def test_a_name_and_its_alias_may_end_alike():
    assert registry.find("ms-marco-MiniLM-L-6-v2").name == "Xenova/ms-marco-MiniLM-L-6-v2"


def test_an_ambiguous_last_part_lists_the_candidates(document, monkeypatch):
    document["models"].append({**document["models"][0], "name": "acme/bge-small-en-v1.5"})
    rows = registry._Lazy(document["models"])
    monkeypatch.setattr(registry, "_shipped", lambda: rows)
    with pytest.raises(
        ModelNotFoundError, match=r"is ambiguous: it may be BAAI/bge-small-en-v1\.5 or acme/bge-small-en-v1\.5"
    ):
        registry.find("bge-small-en-v1.5", DENSE)


def test_the_task_decides_between_candidates(document, monkeypatch):
    other = {**document["models"][0], "name": "acme/bge-small-en-v1.5", "tasks": {"cross-encoder": {}}}
    rows = registry._Lazy([*document["models"], other])
    monkeypatch.setattr(registry, "_shipped", lambda: rows)
    assert registry.find("bge-small-en-v1.5", DENSE).name == "BAAI/bge-small-en-v1.5"
    assert registry.find("bge-small-en-v1.5", "cross-encoder").name == "acme/bge-small-en-v1.5"


def test_the_last_part_of_a_model_for_another_task_says_so():
    with pytest.raises(ModelNotFoundError, match="It is a model for LateInteractionTextEmbedding"):
        registry.find("colbertv2.0", DENSE)


def test_a_folder_called_like_a_model_keeps_its_own_settings():
    settings = CrossEncoderTask(activation="sigmoid")
    spec = registry.find_or_own("all-MiniLM-L6-v2", DENSE, settings)
    assert (spec.name, spec.tasks[DENSE]) == ("all-MiniLM-L6-v2", settings)


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_every_entry_states_a_size():
    for spec in registry.builtin():
        for variant in spec.variants:
            assert (variant.size is None) != (variant.size_approx is None), (spec.name, variant.name)
            assert (variant.size or variant.size_approx) > 1_000_000, (spec.name, variant.name)


def test_a_size_is_exact_or_marked_as_approximate():
    files = (FileSpec("model.onnx", 1_234_000_000, "0" * 64), FileSpec("config.json", 1000, "0" * 64))
    variant = Variant("onnx", "fp32", "model.onnx", files, ())
    assert (variant.size, variant.size_label) == (1_234_001_000, "1.2 GB")
    variant = variant._replace(files=(*files, FileSpec("tokenizer.json", None, None)), size_approx=999_600_000)
    assert (variant.size, variant.size_label) == (None, "~1.0 GB")
    assert variant._replace(size_approx=91_400_000).size_label == "~91 MB"
    assert variant._replace(size_approx=None).size_label == "?"


ROW_KEYS = {
    "TextEmbedding": {"dim", "tasks"},
    "SparseTextEmbedding": {"requires_idf", "vocab_size"},
    "LateInteractionTextEmbedding": {"dim", "tasks"},
    "TextCrossEncoder": set(),
}
SHARED_KEYS = ["model", "sources", "model_file", "description", "license", "size_in_GB", "additional_files"]


@pytest.mark.parametrize("name", ROW_KEYS)
def test_supported_models_have_fastembeds_keys_a_source_and_a_size(name):
    for row in getattr(fastrank, name).list_supported_models():
        assert list(row)[:7] == SHARED_KEYS
        assert set(row) == {*SHARED_KEYS, *ROW_KEYS[name]}
        assert row["sources"]["hf"], row["model"]
        assert row["size_in_GB"] > 0 or row["model"] == "Qdrant/bm25"  # needs no files


def test_a_row_can_describe_another_variant():
    spec = registry.find("BAAI/bge-small-en-v1.5")
    row = registry.describe(spec, DENSE, "fp16")
    assert row["sources"]["hf"] == "Qdrant/bge-small-en-v1.5-onnx-Q"
    assert (row["model_file"], row["size_in_GB"]) == ("model_optimized.onnx", 0.067)
