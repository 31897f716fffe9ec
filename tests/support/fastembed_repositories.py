"""The repositories that FastEmbed's own tests and README fetch, with tiny models in place of the real ones.

    for repo, files in repositories().items():
        hub.add_repo(repo, files)

Files have the names and outputs the shapes that FastEmbed 0.9.1 expects; weights are random, the same every time.
"""

import io
import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastrank.bm25 import LANGUAGES
from fastrank.bm25.languages import stopwords
from support import tiny_models

LIMIT = 512  # of texts in tokens, as of the real ones; FastEmbed's copies of some say 128
TASKS = 5  # of jina-embeddings-v3


def repositories():
    """Repository -> path -> content."""
    dense = tiny_models.tiny_encoder(384)
    masked_lm = tiny_models.tiny_encoder(len(tiny_models.vocabulary()))
    minilm = {"Qdrant/all-MiniLM-L6-v2-onnx": "model.onnx", "sentence-transformers/all-MiniLM-L6-v2": "onnx/model.onnx"}
    return {
        "Qdrant/bge-small-en-v1.5-onnx-Q": files(dense, "model_optimized.onnx"),
        **{repo: files(dense, path, limit=128) for repo, path in minilm.items()},  # FastEmbed's copy, and ours
        "intfloat/multilingual-e5-small": files(dense, "onnx/model.onnx"),
        "nomic-ai/nomic-embed-text-v1.5": files(tiny_models.tiny_encoder(768), "onnx/model.onnx"),
        "jinaai/jina-embeddings-v3": {
            **files(with_tasks(1024), "onnx/model.onnx"),
            "onnx/model.onnx_data": b"all weights are in the graph",
        },
        "minishlab/potion-base-8M": static(256),
        "Qdrant/Splade_PP_en_v1": files(masked_lm, "model.onnx", limit=128),
        "Qdrant/opensearch-neural-sparse-encoding-doc-v3-gte": {
            **files(masked_lm, "model.onnx"),
            "idf.json": json.dumps({"hello": 2.5, "world": 1.5, "flag": 1.0, "text": 0.5}).encode(),
        },
        "Qdrant/all_miniLM_L6_v2_with_attentions": {
            **files(attention(), "model.onnx", limit=128),
            **words("stopwords.txt"),
        },
        "Qdrant/minicoil-v1": {**files(tiny_models.tiny_encoder(8), "onnx/model.onnx"), **minicoil(8)},
        "Qdrant/bm25": bm25(),
        "colbert-ir/colbertv2.0": files(tiny_models.tiny_encoder(128, segments=False), "model.onnx"),
        "answerdotai/answerai-colbert-small-v1": files(
            tiny_models.tiny_encoder(96, segments=False), "vespa_colbert.onnx"
        ),
        "Xenova/ms-marco-MiniLM-L-6-v2": files(tiny_models.tiny_cross_encoder(), "onnx/model.onnx"),
        "Xenova/ms-marco-MiniLM-L-4-v2": files(tiny_models.tiny_cross_encoder(seed=1), "onnx/model.onnx"),
    }


def files(model, model_path, *, limit=LIMIT):
    """A model with the settings files that FastEmbed wants beside it."""
    tokenizer = {"model_max_length": limit, "max_length": limit, "pad_token": "[PAD]"}
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]"}
    return {
        **tiny_models.model_files(model, model_path=model_path),
        "tokenizer_config.json": json.dumps(tokenizer).encode(),
        "special_tokens_map.json": json.dumps(special).encode(),
    }


def with_tasks(dim):
    """An encoder with a scalar input `task_id`, whose states are moved by a vector of the task."""
    model = onnx.load_model_from_string(tiny_models.tiny_encoder(dim))
    graph, tasks = model.graph, np.random.default_rng(1).normal(size=(TASKS, dim)).astype(np.float32)
    graph.input.append(helper.make_tensor_value_info("task_id", TensorProto.INT64, []))
    graph.initializer.append(numpy_helper.from_array(tasks, "tasks"))
    del graph.node[-1]  # Identity of the states
    graph.node.append(helper.make_node("Gather", ["tasks", "task_id"], ["task"]))
    graph.node.append(helper.make_node("Add", ["states", "task"], ["last_hidden_state"]))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def attention():
    """An encoder that returns how much each token attends to each, of one head: `attention_6`."""
    model = onnx.load_model_from_string(tiny_models.tiny_encoder(8))
    graph = model.graph
    del graph.node[-1]
    del graph.output[:]
    for name, value in (("masked", -1e4), ("whole", 1.0)):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    for kind, given, made, attributes in (
        ("Transpose", ["states"], "across", {"perm": [0, 2, 1]}),
        ("MatMul", ["states", "across"], "scores", {}),
        ("Sub", ["whole", "flat_mask"], "absent", {}),
        ("Mul", ["absent", "masked"], "bias", {}),
        ("Unsqueeze", ["bias", "axis_1"], "bias_of_all", {}),
        ("Add", ["scores", "bias_of_all"], "biased", {}),
        ("Softmax", ["biased"], "weights", {"axis": -1}),
        ("Unsqueeze", ["weights", "axis_1"], "attention_6", {}),
    ):
        graph.node.append(helper.make_node(kind, given, [made], **attributes))
    shape = ["texts", 1, "length", "length"]
    graph.output.append(helper.make_tensor_value_info("attention_6", TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def static(dim):
    """A model2vec model: a vector for each token of the vocabulary."""
    table = np.random.default_rng(2).normal(size=(len(tiny_models.vocabulary()), dim)).astype(np.float32)
    header = {"embeddings": {"dtype": "F32", "shape": list(table.shape), "data_offsets": [0, table.nbytes]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return {
        "config.json": json.dumps({"model_type": "model2vec", "normalize": True}).encode(),
        "tokenizer.json": tiny_models.tiny_tokenizer(),
        "model.safetensors": len(text).to_bytes(8, "little") + text + table.tobytes(),
    }


def minicoil(dim):
    """MiniCOIL's vocabulary and matrices beside an encoder of this width."""
    vocabulary = ["cat", "rank", "red", "hello"]
    matrices = io.BytesIO()
    np.save(matrices, np.random.default_rng(0).normal(size=(len(vocabulary) + 1, dim, 4)).astype(np.float32))
    content = {"vocab": vocabulary, "stem_mapping": {word: word for word in vocabulary}}
    return {
        "minicoil.triplet.model.npy": matrices.getvalue(),
        "minicoil.triplet.model.vocab": json.dumps(content).encode(),
        **words("stopwords.txt"),
    }


def bm25():
    """Stop words of all languages that have some."""
    lists = [words(f"{language}.txt", language) for language in LANGUAGES if language != "tamil"]
    return {"config.json": b"{}", **{path: content for each in lists for path, content in each.items()}}


def words(path, language="english"):
    """A file of stop words."""
    return {path: "\n".join(sorted(stopwords(language))).encode()}
