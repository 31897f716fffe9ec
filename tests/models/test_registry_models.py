"""Every entry of the registry, run: a tiny random model with the entry's own file and output names, from a hub.

This proves that an entry's data fit each other and the engine: paths, external data, pooling, output names, prefixes,
tables. It says nothing of the weights: `fastrank verify` does, where there is a hub.
"""

import functools
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import support
from onnx import TensorProto, helper
from support import tiny_models

import fastrank
from fastrank.compat import classes
from fastrank.models import registry
from fastrank.models.spec import (
    CLASSES,
    CROSS_ENCODER,
    LATE_INTERACTION,
    SPARSE_EMBEDDING,
    TEXT_EMBEDDING,
    CrossEncoderTask,
    DenseTask,
    HubSource,
    LateInteractionTask,
)

FIXTURES = support.FIXTURES
FASTEMBED = json.loads((FIXTURES / "fastembed_models.json").read_text(encoding="utf-8"))["classes"]
NOT_SERVED = {
    "google/siglip2-base-patch16-224": "its graph has no mask and wants each text padded to 64 tokens",
}
STATIC = [f"minishlab/potion-{name}" for name in ("base-8M", "retrieval-32M", "multilingual-128M")]
TEXT, OTHER = "the cat is red", "paris is the capital of france"

MODELS = [(class_name, name, row) for class_name, rows in FASTEMBED.items() for name, row in rows.items()]
CASES = [
    pytest.param(spec, task, variant, id=f"{spec.name}-{variant.name}")
    for spec in registry.builtin()
    for task in spec.tasks
    for variant in spec.variants
    if variant.model.endswith(".onnx") or spec.name in STATIC
]


# -- the models of FastEmbed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("class_name", "name", "row"), [pytest.param(*model, id=model[1]) for model in MODELS])
def test_models_of_fastembed_are_known(class_name, name, row):
    task = next(task for task, own in CLASSES.items() if own == class_name)
    if name in NOT_SERVED:
        pytest.skip(NOT_SERVED[name])
    spec = registry.find(name.upper(), task)
    assert name in (spec.name, *spec.aliases)
    assert spec.license == row["license"]
    assert getattr(spec.tasks[task], "dim", None) == row.get("dim")
    for variant in spec.variants:  # where ours are FastEmbed's files, they are all of them
        if row["hub"] in [source.hub for source in variant.sources if isinstance(source, HubSource)]:
            paths = {file.path for file in variant.files}
            if variant.model == row["model_file"]:
                assert paths >= {*row.get("additional_files", ())} - {"stopwords.txt"}  # ours come with the package


def test_the_list_is_that_of_an_installed_fastembed():
    pytest.importorskip("fastembed")
    from fastembed import LateInteractionTextEmbedding, SparseTextEmbedding, TextEmbedding
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    def facts(row):
        return row.get("dim"), row["license"], row["model_file"]

    for own in (TextEmbedding, SparseTextEmbedding, LateInteractionTextEmbedding, TextCrossEncoder):
        listed = {row["model"]: facts(row) for row in own.list_supported_models()}
        assert listed == {name: facts(row) for name, row in FASTEMBED[own.__name__].items()}


RUNS_ANOTHER_FILE = {
    "sentence-transformers/all-MiniLM-L6-v2": "the sentence-transformers repository's graph, which equals Qdrant's",
    "Qdrant/bm25": "no file: the stop words come with the package",
}


@pytest.mark.parametrize(("class_name", "name", "row"), [pytest.param(*model, id=model[1]) for model in MODELS])
def test_the_drop_in_lists_the_file_that_it_runs(class_name, name, row):
    if name in NOT_SERVED:
        pytest.skip(NOT_SERVED[name])
    (listed,) = (each for each in getattr(classes, class_name).list_supported_models() if each["model"] == name)
    assert listed["size_in_GB"] > 0 or name == "Qdrant/bm25"
    if name not in RUNS_ANOTHER_FILE:
        assert (listed["sources"]["hf"], listed["model_file"]) == (row["hub"], row["model_file"])


# -- every entry runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "task", "variant"), CASES)
def test_every_entry_runs(spec, task, variant, hub, tmp_path, monkeypatch):
    open_files = tuple(file._replace(size=None, sha256=None) for file in variant.files)
    (source,) = variant.sources
    variant = variant._replace(files=open_files, sources=(HubSource(source.hub, None),))
    settings = in_tiny_vocabulary(spec.tasks[task])
    tiny = spec._replace(variants=(variant,), tasks={task: settings})
    monkeypatch.setattr(registry, "_custom", {(spec.name.casefold(), task): tiny})
    hub.add_repo(source.hub, repository(settings, variant, tmp_path))

    with getattr(fastrank, CLASSES[task])(spec.name, threads=1) as model:
        CHECKS[task](model, settings)
    assert {request.path.rpartition(source.hub)[2].split("/", 3)[-1] for request in hub.requests} >= {
        file.path for file in variant.files
    }


def check_dense(model, task):
    (vector,) = model.embed(TEXT)
    assert vector.shape == (task.dim,)
    assert (np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)) == task.normalize
    ids = {
        method: task.task_input.tasks[getattr(task.task_input, method)] if task.task_input else None
        for method in ("query", "passage")
    }
    for method in ("query", "passage"):
        found = next(getattr(model, f"{method}_embed")(TEXT))
        same = next(model.embed(getattr(task.prefixes, method) + TEXT, task_id=ids[method]))
        np.testing.assert_allclose(found, same, atol=1e-6)
    assert not np.allclose(vector, next(model.embed(OTHER)))


def check_sparse(model, task):
    (document,) = model.embed(TEXT)
    (query,) = model.query_embed(TEXT)
    assert len(document) > 0
    assert len(query) > 0
    assert task.vocab_size is None or document != next(model.embed(OTHER))


def check_scores(model, _task):
    first, second = model.rerank(TEXT, [TEXT, OTHER])
    assert first != second


def check_token_vectors(model, task):
    marks = (task.document_prefix_token is not None) - bool(task.linear)  # whose first token has no vector
    texts = [TEXT, TEXT + ",!"]
    plain, punctuated = model.embed(texts)
    assert plain.shape == (model.token_count(TEXT) + marks, task.dim)
    assert len(punctuated) == len(plain) + (model.token_count(texts[1]) - model.token_count(TEXT)) * (not task.skiplist)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-5)
    (query,) = model.query_embed(TEXT)
    assert len(query) == max(task.query_length or 0, model.token_count(TEXT) + marks)
    if task.normalize == "both":
        np.testing.assert_allclose(np.linalg.norm(query, axis=1), 1, atol=1e-5)
    first, second = model.rerank(TEXT, [TEXT, OTHER])
    assert first != second


CHECKS = {
    TEXT_EMBEDDING: check_dense,
    SPARSE_EMBEDDING: check_sparse,
    CROSS_ENCODER: check_scores,
    LATE_INTERACTION: check_token_vectors,
}


def test_tasks_of_jina_embeddings_v3(tmp_path):
    """As fastembed 0.9.1, text/multitask_embedding.py: passages by default, others by number."""
    name = "jinaai/jina-embeddings-v3"
    task = registry.find(name).tasks[TEXT_EMBEDDING]
    folder = tiny_models.write_model(tmp_path / "jina", graph_for(task))
    with fastrank.TextEmbedding(name, specific_model_path=folder) as model:
        by_task = [next(model.embed(TEXT, task_id=number)) for number in range(5)]
        assert all(not np.allclose(by_task[n], by_task[n - 1], atol=1e-3) for n in range(5))
        np.testing.assert_array_equal(next(model.embed(TEXT)), by_task[1])
        np.testing.assert_array_equal(next(model.query_embed(TEXT, prefixes=False)), by_task[0])
        np.testing.assert_array_equal(next(model.passage_embed(TEXT, prefixes=False)), by_task[1])
        with pytest.raises(ValueError, match=r"0 \(retrieval\.query\), 1 .*, not 5"):
            model.embed(TEXT, task_id=5)
    with fastrank.TextEmbedding(name, specific_model_path=folder, task_id=4) as model:
        np.testing.assert_array_equal(next(model.embed(TEXT)), by_task[4])
    with pytest.raises(ValueError, match="has no tasks; task_id is for models that have them"):
        fastrank.TextEmbedding("BAAI/bge-small-en-v1.5", lazy_load=True, task_id=1)
    (row,) = (row for row in fastrank.TextEmbedding.list_supported_models() if row["model"] == name)
    assert row["tasks"]["text-matching"] == 4


# -- a repository with what an entry names ----------------------------------------------------------------------------


def repository(task, variant, scratch):
    """Path -> content for each of the variant's files, and nothing else."""
    if variant.model.endswith(".onnx"):
        contents = tiny_models.model_files(graph_for(task), tokenizer=tokenizer_for(task), model_path=variant.model)
    else:
        contents = tiny_models.model_files(table(task.dim), model_path=variant.model, model_type="model2vec")
    contents["tokenizer_config.json"] = b'{"pad_token": "[PAD]"}'
    for file in variant.files:
        if (FIXTURES / "modules" / file.path).is_file():
            contents.setdefault(file.path, (FIXTURES / "modules" / file.path).read_bytes())
    data = [file.path for file in variant.files if file.path.startswith(variant.model + "_")]
    if data:
        contents |= split(contents[variant.model], variant.model, data[0], scratch)
    if getattr(task, "query_weights", None):
        contents[task.query_weights] = json.dumps({"cat": 2.5, "red": 1.5}).encode()
    if getattr(task, "kind", None) == "minicoil":
        contents["minicoil.triplet.model.vocab"] = json.dumps(
            {"vocab": ["cat"], "stem_mapping": {"cat": "cat"}}
        ).encode()
        contents["minicoil.triplet.model.npy"] = npy(np.random.default_rng(0).normal(size=(2, 16, 4)))
    contents |= {"sparse_linear.pt": torch_linear(1), "colbert_linear.pt": torch_linear(getattr(task, "dim", 1))}
    contents.setdefault("onnx/Constant_7_attr__value", b"a constant of the real graph")
    return {file.path: contents[file.path] for file in variant.files}


def in_tiny_vocabulary(task):
    """The settings with markers that a tiny vocabulary has."""
    marked = isinstance(task, LateInteractionTask) and task.document_prefix_token is not None
    return task._replace(query_prefix_token=1, document_prefix_token=2) if marked else task


def table(dim):
    """A checkpoint of model2vec: a row for each token."""
    rows = np.random.default_rng(0).normal(size=(len(tiny_models.vocabulary()), dim)).astype("<f4")
    header = {"embeddings": {"dtype": "F32", "shape": rows.shape, "data_offsets": [0, rows.nbytes]}}
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + rows.tobytes()


def torch_linear(outputs, hidden=32):
    """A linear layer as torch.save writes it: the description of two tensors as a pickle, and their numbers."""

    def tensor(name, key, shape):
        sizes = b"".join(b"M" + size.to_bytes(2, "little") for size in shape)
        strides = b"M" + hidden.to_bytes(2, "little") + b"K\x01" if len(shape) == 2 else b"K\x01"
        end = b"\x86" if len(shape) == 2 else b"\x85"
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
        count = b"J" + int(np.prod(shape)).to_bytes(4, "little")
        called = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + count + b"tQK\x00" + sizes + end + strides + end
        return text(name) + called + b"\x89ccollections\nOrderedDict\n)RtR"

    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    shapes = {"weight": (outputs, hidden), "bias": (outputs,)}
    parts = [tensor(name, str(n), shape) for n, (name, shape) in enumerate(shapes.items())]
    stream, random = io.BytesIO(), np.random.default_rng(0)
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("linear/data.pkl", b"\x80\x02}(" + b"".join(parts) + b"u.")
        for n, shape in enumerate(shapes.values()):
            values = random.normal(3 * n, 0.1, size=shape)  # a bias that leaves most weights of tokens above 0
            archive.writestr(f"linear/data/{n}", values.astype("<f4").tobytes())
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array.astype(np.float32))
    return stream.getvalue()


def split(model, path, data, scratch):
    """A graph whose weights lie in a second file, as those of more than 2 GB do."""
    assert Path(path).parent == Path(data).parent, "a graph names its data relative to itself"
    graph = onnx.load_from_string(model)
    options = {"save_as_external_data": True, "location": Path(data).name, "size_threshold": 1024}
    onnx.save_model(graph, scratch / "model.onnx", **options)
    return {path: (scratch / "model.onnx").read_bytes(), data: (scratch / Path(data).name).read_bytes()}


def graph_for(task):
    """A graph whose outputs are what the task says; an output called by its name is the second."""
    if isinstance(task, CrossEncoderTask):
        return encoder(32) if task.modules else tiny_models.tiny_cross_encoder()
    if isinstance(task, DenseTask):
        made = encoder(task.dim) if task.pooling != "none" else tiny_models.tiny_pooled(task.dim)
        if task.task_input:
            return with_number(made, task.task_input.name)
        return second(made, task.output) if task.output else made
    if isinstance(task, LateInteractionTask):
        return encoder(32 if task.linear else task.dim)
    if task.kind == "bm42":
        return attentions(task.output)
    return encoder({"token-weights": 32, "splade": len(tiny_models.vocabulary())}.get(task.kind, 16))


def tokenizer_for(task):
    """A tokenizer with the mask token that the task names."""
    return tiny_models.tiny_tokenizer("bpe" if getattr(task, "mask_token", "") == "<mask>" else "wordpiece")


@functools.cache
def encoder(dim):
    return tiny_models.tiny_encoder(dim)


def with_number(model, name):
    """The graph with one more input, a number that turns the states."""
    proto = onnx.load_from_string(model)
    proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
    proto.graph.output[0].name = "turned"
    proto.graph.node.append(helper.make_node("Cast", [name], ["number"], to=TensorProto.FLOAT))
    proto.graph.node.append(helper.make_node("Add", ["states", "number"], ["sum"]))
    proto.graph.node.append(helper.make_node("Sin", ["sum"], ["turned"]))
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def second(model, name):
    """The graph with its output under this name, after the states of the tokens."""
    proto = onnx.load_from_string(model)
    (only,) = proto.graph.output
    if only.name != name:
        proto.graph.node.append(helper.make_node("Identity", [only.name], [name]))
        only.name = name
    proto.graph.output.insert(0, helper.make_tensor_value_info("states", TensorProto.FLOAT, ["texts", "length", "dim"]))
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def attentions(name):
    """The encoder, and second what looks like the attention of one head: (texts, 1, length, length)."""
    proto = onnx.load_from_string(encoder(16))
    proto.graph.node.extend(
        [
            helper.make_node("Transpose", ["states"], ["turned"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["states", "turned"], ["likeness"]),
            helper.make_node("Softmax", ["likeness"], ["attention"], axis=2),
            helper.make_node("Unsqueeze", ["attention", "axis_1"], [name]),
        ]
    )
    shape = ["texts", 1, "length", "width"]
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()
