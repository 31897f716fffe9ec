"""The public face: what is exported, what importing costs, and that it is FastEmbed's where FastEmbed has one."""

import importlib
import inspect

import pytest
from support import hosts
from support.processes import run_python

import fastrank

# FastEmbed 0.9.1: parameter names in order, and defaults. Ours may have more, by keyword, and ask for less.
FASTEMBED = {
    "__init__": [
        ("model_name", "BAAI/bge-small-en-v1.5"),
        ("cache_dir", None),
        ("threads", None),
        ("providers", None),
        ("cuda", "auto"),
        ("device_ids", None),
        ("lazy_load", False),
    ],
    "embed": [("documents", ...), ("batch_size", 256), ("parallel", None)],
    "query_embed": [("query", ...)],
    "passage_embed": [("texts", ...)],
    "token_count": [("texts", ...), ("batch_size", 1024)],
    "get_embedding_size": [("model_name", ...)],
    "list_supported_models": [],
    "add_custom_model": [
        ("model", ...),
        ("pooling", ...),
        ("normalization", ...),
        ("sources", ...),
        ("dim", ...),
        ("model_file", None),  # "onnx/model.onnx" there, which is what None looks for first
        ("description", ""),
        ("license", ""),
        ("size_in_gb", 0.0),
        ("additional_files", None),
        ("output_name", None),
    ],
}


def test_all_is_sorted_and_there():
    assert fastrank.__all__ == sorted(fastrank.__all__)
    assert all(getattr(fastrank, name) is not None for name in fastrank.__all__)
    assert set(fastrank.__all__) <= set(dir(fastrank))
    with pytest.raises(AttributeError, match="has no attribute 'TextEmbeding'"):
        _ = fastrank.TextEmbeding


# Where users import from. What stands beside these may move.
PUBLIC = {
    "fastrank.bm25": ["BM25", "BM25Explanation", "BM25Index", "LANGUAGES", "Stemmer"],
    "fastrank.bulk": ["BulkError", "Done", "Embedder", "Plan", "Unit", "plan"],
    "fastrank.compat.fastembed": ["install", "uninstall"],
    "fastrank.dense": ["TextEmbedding"],
    "fastrank.errors": [
        "BulkError",
        "DownloadError",
        "FastrankError",
        "IntegrityError",
        "ModelLoadError",
        "ModelNotCachedError",
        "ModelNotFoundError",
        "OutputError",
        "ProviderError",
        "RegistryError",
    ],
    "fastrank.evaluation": [
        "Comparison",
        "DataError",
        "Dataset",
        "Outcome",
        "bm25",
        "compare",
        "dense",
        "evaluate",
        "hybrid",
        "load",
        "per_query",
        "read_run",
        "reranked",
        "sparse",
        "write_run",
    ],
    "fastrank.fusion": ["explain_fusion", "reciprocal_rank_fusion"],
    "fastrank.late_interaction": ["LateInteractionTextEmbedding"],
    "fastrank.maxsim": ["maxsim"],
    "fastrank.postprocess": ["Muvera", "pool_tokens"],
    "fastrank.rerank": ["RankedDocument", "TextCrossEncoder"],
    "fastrank.rerank.cross_encoder": ["TextCrossEncoder"],
    "fastrank.sparse": ["SparseEmbedding", "SparseTextEmbedding"],
}
INTEGRATIONS = {
    "duckdb": ("duckdb", ["register"]),
    "langchain_qdrant": ("langchain_qdrant", ["FastrankSparse"]),
    "mteb": (
        "mteb",
        ["FastrankCrossEncoder", "FastrankEncoder", "FastrankLateInteraction", "FastrankSparse"],
    ),
    "pgvector": ("pgvector", ["FastrankPgvector", "Hit", "register", "sparse", "vector"]),
    "pydantic_ai": ("pydantic_ai", ["FastrankEmbeddingModel"]),
    "sqlite": ("sqlite_vec", ["FastrankSQLite", "Hit"]),
    "txtai": ("txtai", ["METHOD", "FastrankSimilarity", "FastrankVectors"]),
    "chroma": ("chromadb", ["FastrankEmbeddingFunction", "FastrankSparseEmbeddingFunction"]),
    "haystack": (
        "haystack",
        [
            "FastrankDocumentEmbedder",
            "FastrankLateInteractionRanker",
            "FastrankRanker",
            "FastrankSparseDocumentEmbedder",
            "FastrankSparseTextEmbedder",
            "FastrankTextEmbedder",
        ],
    ),
    "lancedb": (
        "lancedb",
        ["ColbertReranker", "CrossEncoderReranker", "FastrankEmbeddings", "FastrankLateEmbeddings"],
    ),
    "langchain": ("langchain_core", ["FastrankCrossEncoder", "FastrankEmbeddings", "FastrankRerank"]),
    "llama_index": ("llama_index.core", ["FastrankEmbedding", "FastrankRerank"]),
    "milvus": (
        "pymilvus",
        [
            "BGERerankFunction",
            "BM25EmbeddingFunction",
            "ColbertRerankFunction",
            "CrossEncoderRerankFunction",
            "DenseEmbeddingFunction",
            "SparseEmbeddingFunction",
        ],
    ),
    "qdrant": ("qdrant_client", ["install", "uninstall"]),
    "rerankers": ("rerankers", ["FastrankColBERTRanker", "FastrankRanker"]),
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_paths(module):
    """In a process of its own: an entrance may not depend on what was imported before."""
    if module == "fastrank.bulk":
        pytest.importorskip("pyarrow")
    run_python("-c", f"from {module} import {', '.join(PUBLIC[module])}", check=True)


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_public_paths_of_integrations(name):
    library, names = INTEGRATIONS[name]
    torch = name in ("mteb", "txtai")
    hosts.host(library, torch=torch)
    module = hosts.host(f"fastrank.integrations.{name}", torch=torch)
    assert all(hasattr(module, public) for public in names)


def test_every_public_name_has_one_home():
    """The class is the same object, by whichever path it is imported."""
    for module, names in PUBLIC.items():
        if module.startswith("fastrank.compat"):
            continue
        for name in set(names) & set(fastrank.__all__):
            assert getattr(importlib.import_module(module), name) is getattr(fastrank, name)


@pytest.mark.parametrize("method", FASTEMBED)
def test_signatures_begin_as_fastembeds(method):
    parameters = [
        (p.name, ... if p.default is p.empty else p.default)
        for p in inspect.signature(getattr(fastrank.TextEmbedding, method)).parameters.values()
        if p.name not in ("self", "cls") and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    for ours, theirs in zip(parameters, FASTEMBED[method], strict=False):
        assert ours == theirs or (ours[0], theirs[1]) == (theirs[0], ...)
    assert len(parameters) >= len(FASTEMBED[method])


def test_signatures_are_those_of_an_installed_fastembed():
    fastembed = pytest.importorskip("fastembed", reason="fastembed is not installed")
    for method in FASTEMBED:
        theirs = inspect.signature(getattr(fastembed.TextEmbedding, method)).parameters.values()
        names = [p.name for p in theirs if p.name not in ("self", "cls") and p.kind is p.POSITIONAL_OR_KEYWORD]
        ours = list(inspect.signature(getattr(fastrank.TextEmbedding, method)).parameters)
        assert [name for name in ours if name not in ("self", "cls")][: len(names)] == names


def test_every_public_name_is_documented():
    for name in fastrank.__all__:
        value = getattr(fastrank, name)
        assert value.__doc__, name
        if inspect.isclass(value):
            for member in vars(value).values():
                function = getattr(member, "__func__", member)
                if inspect.isfunction(function) and not function.__name__.startswith("_"):
                    assert function.__doc__, f"{name}.{function.__name__}"


def test_telemetry_is_off_before_onnxruntime_is_imported_unless_the_user_decided(tiny):
    code = f"""
import os, fastrank
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
{{setting}}
m = fastrank.TextEmbedding(specific_model_path={str(tiny)!r}, lazy_load=True)
import builtins
real = builtins.__import__
def watch(name, *args, **kw):
    if name == "onnxruntime":
        print(os.environ.get("ORT_DISABLE_TELEMETRY"))
        os._exit(0)
    return real(name, *args, **kw)
builtins.__import__ = watch
m.token_count("x")
"""
    for setting, seen in [("", "1"), ("os.environ['ORT_DISABLE_TELEMETRY'] = '0'", "0")]:
        script = code.format(setting=setting).replace("os._exit", "import sys; sys.stdout.flush(); os._exit")
        assert run_python("-c", script, check=True).stdout.strip() == seen
