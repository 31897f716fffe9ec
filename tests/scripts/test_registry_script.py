"""scripts/registry.py against the stand-in for the hub."""

import hashlib
import json

import pytest
from support import ROOT, tiny_models
from support.scripts import script

from fastrank.models import registry
from fastrank.models.reading import model_spec

NAME = "acme/model"
README = b"---\nlicense: mit\nlanguage: en\n---\n# A model\n"


@pytest.fixture(scope="module")
def tool():
    return script("registry")


@pytest.fixture
def run(tool, tmp_path, capsys, hub):
    """Run a command on a registry of its own; returns (status, output, errors). `run.path` is the file."""
    path = tmp_path / "registry.json"
    path.write_text(json.dumps({"version": 1, "models": [row()]}))

    def command(*arguments):
        return (tool.main(["--registry", str(path), *arguments]), *capsys.readouterr())

    command.path = path
    command.model = lambda position=0: json.loads(path.read_text())["models"][position]
    return command


def row(name=NAME, **changes):
    paths = ["onnx/model.onnx", "config.json", "tokenizer.json"]
    return {
        "name": name,
        "description": "A model for tests.",
        "license": "mit",
        "languages": ["en"],
        "max_length": 64,
        "tasks": {"text-embedding": {"dim": 16, "pooling": "mean", "normalize": True}},
        "variants": {
            "onnx": {
                "precision": "fp32",
                "model": paths[0],
                "files": [{"path": path, "size": None, "sha256": None} for path in paths],
                "sources": [{"hub": name, "revision": None}],
                "size_approx": 2_000_000,
            }
        },
        **changes,
    }


def files(**changes):
    return {**tiny_models.model_files(), "README.md": README, **changes}


# -- lock -------------------------------------------------------------------------------------------------------------


def test_lock_pins_commit_sizes_and_hashes(run, hub):
    commit = hub.add_repo(NAME, files())
    status, out, _ = run("lock", NAME)
    assert (status, out) == (0, f"{NAME} onnx: 3 files at {commit}\n")
    variant = run.model()["variants"]["onnx"]
    assert variant["sources"] == [{"hub": NAME, "revision": commit}]
    for file in variant["files"]:
        content = files()[file["path"]]
        assert (file["size"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert hub.count("GET", r"model\.onnx") == 0, "the hub states the hash of a large file"
    assert "size_approx" not in variant, "the exact size is known"
    assert model_spec(run.model()).variants[0].pinned


def test_what_is_locked_can_be_fetched(run, hub, monkeypatch):
    from fastrank import store

    hub.add_repo(NAME, files())
    run("lock", "--all")
    spec = model_spec(run.model())
    found = store.locate(spec)
    assert store.problems(spec, found) == []


def test_lock_keeps_the_commit_it_has(run, hub):
    first = hub.add_repo(NAME, files())
    run("lock", NAME)
    second = hub.add_repo(NAME, files(**{"config.json": b"{}"}))
    assert run("lock", NAME)[0] == 0
    assert run.model()["variants"]["onnx"]["sources"][0]["revision"] == first
    assert run("lock", NAME, "--update")[0] == 0
    variant = run.model()["variants"]["onnx"]
    assert variant["sources"][0]["revision"] == second
    assert variant["files"][1]["size"] == 2


def test_lock_does_not_overwrite_a_hash(run, hub):
    hub.add_repo(NAME, files())
    document = {"version": 1, "models": [row()]}
    document["models"][0]["variants"]["onnx"]["files"][1]["sha256"] = "0" * 64
    run.path.write_text(json.dumps(document))
    status, _, err = run("lock", NAME)
    assert status == 1
    assert "config.json: sha256 is " in err
    assert run.model() == document["models"][0]


def test_lock_goes_on_after_a_model_that_fails(run, hub):
    hub.add_repo("acme/other", {path: data for path, data in files().items() if path != "config.json"})
    hub.add_repo("acme/third", files())
    run.path.write_text(json.dumps({"version": 1, "models": [row(), row("acme/other"), row("acme/third")]}))
    status, out, err = run("lock", "--all")
    assert status == 1
    assert err.splitlines()[0].startswith("acme/model: acme/model: 401 Client Error")
    assert "acme/other has no config.json at " in err
    assert out.startswith("acme/third onnx: 3 files at ")
    assert run.model(2)["variants"]["onnx"]["sources"][0]["revision"]


@pytest.mark.parametrize("arguments", [("lock",), ("lock", "--all", NAME), ("check", "acme/unknown")])
def test_models_are_named_or_all(run, arguments):
    assert run(*arguments)[0] == 1


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_says_what_is_not_pinned(run, hub):
    commit = hub.add_repo(NAME, files())
    assert run("check", "--all")[:2] == (
        0,
        f"{NAME}: ok\n  onnx: {NAME} is not pinned; main is at {commit}\n1 of 1 are as the hub has them\n",
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda v: v["files"][0].update(size=7), "onnx/model.onnx has "),
        (lambda v: v["files"][0].update(sha256="0" * 64), "onnx/model.onnx has SHA-256 "),
        (lambda v: v["files"][1].update(sha256="0" * 64), "config.json has SHA-256 "),
        (lambda v: v["files"].append({"path": "more.json", "size": None, "sha256": None}), "has no more.json"),
        (lambda v: v["sources"][0].update(revision="0" * 40), "404 Client Error"),
        (lambda v: v["sources"][0].update(hub="acme/gone"), "401 Client Error"),
    ],
)
def test_check_finds_what_differs(run, hub, change, problem):
    hub.add_repo(NAME, files())
    run("lock", NAME)
    model = run.model()
    change(model["variants"]["onnx"])
    run.path.write_text(json.dumps({"version": 1, "models": [model]}))
    status, out, _ = run("check", NAME)
    assert status == 1
    assert out.startswith(f"{NAME}: differs\n  onnx: acme/")
    assert problem in out.splitlines()[1]


def test_check_compares_the_licence_and_says_that_main_went_on(run, hub):
    hub.add_repo(NAME, files())
    run("lock", NAME)
    later = hub.add_repo(NAME, files(**{"README.md": README.replace(b"mit", b"CC-BY-NC-4.0")}))
    status, out, _ = run("check", NAME)
    assert status == 1
    assert out.splitlines() == [
        f"{NAME}: differs",
        "  license is cc-by-nc-4.0 on the hub, not mit",
        f"  onnx: {NAME} went on to {later}",
        "0 of 1 are as the hub has them",
    ]


def test_no_hub(run, hub):
    hub.stop()
    status, out, err = run("check", NAME)
    assert status == 1
    assert "Traceback" not in out + err


# -- add --------------------------------------------------------------------------------------------------------------

POOLING = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
FOLDER = {
    "modules.json": [{"type": "sentence_transformers.models.Transformer"}, {"type": "x.models.Normalize"}],
    "1_Pooling/config.json": POOLING,
    "sentence_bert_config.json": {"max_seq_length": 96},
    "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}},
}


def folder(**changes):
    return files(**{path: json.dumps(content).encode() for path, content in {**FOLDER, **changes}.items()})


def add(run, *more, task="text-embedding"):
    return run("add", "acme/new", "--task", task, "--description", "A new model for tests.", *more)


def test_add_reads_what_the_repository_says(run, hub):
    commit = hub.add_repo("acme/new", {**folder(), "model.safetensors": b"x", "onnx/model.onnx_data": b"y"})
    assert add(run)[0] == 0
    entry = run.model(1)
    assert entry["license"] == "mit"
    assert entry["languages"] == ["en"]
    assert entry["max_length"] == 96
    assert entry["tasks"] == {
        "text-embedding": {
            "dim": 16,
            "pooling": "cls",
            "normalize": True,
            "prefixes": {"query": "query: ", "passage": "passage: "},
        }
    }
    assert list(entry["variants"]) == ["onnx", "safetensors"]
    onnx = entry["variants"]["onnx"]
    paths = ["onnx/model.onnx", "onnx/model.onnx_data", "config.json", "tokenizer.json"]
    assert [file["path"] for file in onnx["files"]] == paths
    assert onnx["sources"] == [{"hub": "acme/new", "revision": commit}]
    assert all(file["sha256"] for variant in entry["variants"].values() for file in variant["files"])


def test_add_a_cross_encoder_and_a_splade_model(run, hub):
    hub.add_repo("acme/new", files(**{"config.json": b'{"vocab_size": 99}'}))
    assert add(run, task="cross-encoder")[0] == 0
    assert run.model(1)["tasks"] == {"cross-encoder": {}}
    run.path.write_text(json.dumps({"version": 1, "models": [row()]}))
    assert add(run, task="sparse-embedding")[0] == 0
    assert run.model(1)["tasks"] == {"sparse-embedding": {"kind": "splade", "vocab_size": 99}}


@pytest.mark.parametrize(
    ("content", "task", "message"),
    [
        (files(), "text-embedding", "say --pooling"),
        ({"tokenizer.json": files()["tokenizer.json"], "README.md": README}, "cross-encoder", "say --model"),
        ({**folder(), "README.md": b""}, "text-embedding", "say --license"),
        (folder(**{"config.json": {"id2label": {"0": "no", "1": "yes"}}}), "cross-encoder", "--label"),
        ({path: data for path, data in folder().items() if path != "tokenizer.json"}, "text-embedding", "no tokenizer"),
    ],
)
def test_add_says_what_it_must_be_told(run, hub, content, task, message):
    hub.add_repo("acme/new", content)
    before = run.path.read_bytes()
    status, _, err = add(run, task=task)
    assert status == 1
    assert message in err
    assert run.path.read_bytes() == before


def test_add_refuses_a_name_that_is_there(run, hub):
    hub.add_repo(NAME, folder())
    before = run.path.read_bytes()
    status, _, err = run("add", NAME, "--task", "text-embedding", "--description", "The same name again.")
    assert status == 1
    assert "already belongs to" in err
    assert run.path.read_bytes() == before


# -- validate and size ------------------------------------------------------------------------------------------------


def test_validate_names_entry_and_field(run):
    assert run("validate")[:2] == (0, "1 models are valid\n")
    run.path.write_text(json.dumps({"version": 1, "models": [row(license=7)]}))
    status, _, err = run("validate")
    assert status == 1
    assert err.startswith(f"RegistryError: {NAME}: license: 7 is not of type 'string'")


BERT = {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512}
CONFIGS = {  # of models whose checkpoints have a known exact size
    "sentence-transformers/all-MiniLM-L6-v2": {
        **BERT,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "intermediate_size": 1536,
    },
    "BAAI/bge-base-en-v1.5": {**BERT, "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072},
    "Alibaba-NLP/gte-modernbert-base": {
        "model_type": "modernbert",
        "vocab_size": 50368,
        "max_position_embeddings": 8192,
        "hidden_size": 768,
        "num_hidden_layers": 22,
        "intermediate_size": 1152,
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_size_computed_from_the_configuration_is_within_one_percent(tool, name):
    (variant,) = registry.find(name).variant("onnx")
    assert 4 * tool.parameters(CONFIGS[name]) == pytest.approx(variant.size, rel=0.01)


def test_size_is_computed_where_it_is_not_pinned(run, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIGS["sentence-transformers/all-MiniLM-L6-v2"]))
    status, _, err = run("size", NAME)
    assert (status, "pass --config" in err) == (1, True)
    assert run("size", NAME, "--config", str(config))[0] == 0
    assert run.model()["variants"]["onnx"]["size_approx"] == 90_100_000


def test_size_is_the_sum_where_only_small_files_lack_one(run):
    model = row()
    model["variants"]["onnx"]["files"][0].update(size=123_456_789, sha256="0" * 64)
    run.path.write_text(json.dumps({"version": 1, "models": [model]}))
    assert run("size", "--all")[:2] == (0, f"{NAME} onnx: about 123000000 bytes\n")


@pytest.mark.parametrize(("size", "status"), [(130_000_000, 0), (130_000, 1), (1_300_000_000, 1)])
def test_an_approximate_size_must_agree_with_the_parameters(run, size, status):
    model = row(description="A model for tests, 33 million parameters.")
    model["variants"]["onnx"]["size_approx"] = size
    run.path.write_text(json.dumps({"version": 1, "models": [model]}))
    assert run("validate")[0] == status


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_as_the_script_writes_it(tool):
    content = (ROOT / "model_registry.json").read_text(encoding="utf-8")
    assert tool.dumps(json.loads(content)) + "\n" == content, "run python scripts/registry.py format"


def test_format_changes_the_form_and_nothing_else(run, tool):
    before = json.loads(run.path.read_text())
    assert run("format")[0] == 0
    content = run.path.read_text()
    assert json.loads(content) == before
    assert '\n      {"path": "config.json", "size": null, "sha256": null},\n' in content
    run.path.write_text('{"version": 1, "models": [{"name": "a/b"}]}')
    status, _, err = run("format")
    assert status == 1
    assert "RegistryError: a/b: '" in err
    assert "is a required property" in err
