"""The registry: what ships, what is refused, and how a model is found."""

import json

import jsonschema
import pytest
from support import PACKAGE, REGISTRY

from fastrank.errors import ModelNotFoundError, RegistryError
from fastrank.models import registry
from fastrank.models.reading import parse
from fastrank.models.spec import CLASSES, FileSpec, Variant

SCHEMA = json.loads((PACKAGE / "models" / "model_registry.schema.json").read_text(encoding="utf-8"))
DENSE = "text-embedding"


@pytest.fixture
def document():
    return json.loads(REGISTRY.read_text(encoding="utf-8"))


def test_what_ships_fits_schema_and_loader(document):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)
    specs = parse(json.dumps(document))
    assert [spec.name for spec in specs] == [row["name"] for row in document["models"]]


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
        ("all-MiniLM-L6-v2", "Did you mean sentence-transformers/all-MiniLM-L6-v2?"),
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
    with pytest.raises(RegistryError, match="unknown field dim"):
        rows.get("baai/bge-small-en-v1.5")
    with pytest.raises(RegistryError, match="unknown field dim"):
        rows.all()


def test_a_rough_size_leaves_out_small_files_only():
    files = [FileSpec("model.onnx", 100, None), FileSpec("config.json", None, None)]
    variant = Variant("onnx", "fp32", "model.onnx", tuple(files), ())
    assert (variant.size, variant.rough_size) == (None, 100)
    variant = variant._replace(files=(*files, FileSpec("model.onnx_data", None, None)))
    assert variant.rough_size is None
