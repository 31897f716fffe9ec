"""Which module may import which. Arrows point one way; outside packages have one home each."""

import ast
import graphlib
from pathlib import Path

import fastrank

PACKAGE = Path(fastrank.__file__).parent

# A package counts as one module: fastrank/store/* is "store".
ALLOWED = {
    "errors": set(),
    "environment": set(),
    "inputs": set(),
    "processors": set(),
    "options": set(),
    "fusion": set(),
    "parallel": set(),
    "schedule": set(),
    "installed": set(),
    "log": set(),
    "registry": {"errors", "installed", "log"},
    "graph": {"errors"},
    "heads": {"schedule"},
    "bm25": {"errors", "inputs"},
    "tokenizer": {"errors", "schedule"},
    "store": {"errors", "environment", "installed", "log", "registry"},
    "binding": set(),
    "session": {"binding", "errors", "environment", "options", "processors", "schedule"},
    "closeable": set(),
    "quantize": {"errors", "graph", "heads", "options", "schedule", "session", "tokenizer"},
    "precision": {
        *(
            "errors",
            "graph",
            "options",
            "processors",
            "quantize",
            "registry",
            "schedule",
            "session",
            "store",
            "tokenizer",
        ),
    },
    "pipeline": {
        *(
            "errors",
            "heads",
            "inputs",
            "options",
            "precision",
            "processors",
            "registry",
            "schedule",
            "session",
            "store",
            "tokenizer",
        ),
    },
    "dense": {"errors", "heads", "log", "modules", "pipeline", "registry", "schedule"},
    "text_embedding": {"closeable", "dense", "inputs", "options", "pipeline", "registry", "store", "tokenizer"},
    "text_cross_encoder": {
        *(
            "closeable",
            "errors",
            "heads",
            "inputs",
            "modules",
            "options",
            "pipeline",
            "ranking",
            "registry",
            "schedule",
        ),
        *("store", "tokenizer"),
    },
    "rerank": {"ranking", "text_cross_encoder"},
    "ranking": {"inputs"},
    "maxsim": set(),
    "postprocess": {"inputs"},
    "late_interaction": {
        *("closeable", "errors", "graph", "heads", "inputs", "log", "maxsim", "options", "pipeline", "ranking"),
        *("registry", "schedule", "store", "tokenizer"),
    },
    "modules": {"errors", "graph", "heads", "registry", "schedule"},
    "sparse_embedding": set(),
    "sparse_heads": {"bm25", "errors", "heads", "registry", "schedule", "sparse_embedding", "tokenizer"},
    "minicoil": {"bm25", "errors", "heads", "schedule", "sparse_embedding", "tokenizer"},
    "sparse_bm25": {"bm25", "parallel", "processors", "schedule", "sparse_embedding"},
    "sparse_model": {
        *("minicoil", "modules", "options", "pipeline", "registry", "sparse_embedding", "sparse_heads", "store"),
        "tokenizer",
    },
    "sparse_text_embedding": {
        *("bm25", "closeable", "inputs", "options", "registry", "sparse_bm25", "sparse_embedding", "sparse_model"),
    },
    "pack": {"errors", "fastrank", "installed", "registry", "store"},
    "cli": {
        *("bm25", "errors", "environment", "fastrank", "fusion", "inputs", "installed", "pack", "registry", "store"),
        *("options", "precision", "processors", "session"),
        "text_embedding",
    },
    "compat": {
        *("bm25", "environment", "errors", "options", "postprocess", "registry"),
        *("sparse_embedding", "sparse_text_embedding", "store"),
    },
    "integrations": {
        *("compat", "environment", "errors", "fusion", "inputs", "late_interaction", "options", "registry"),
        *("sparse_embedding", "sparse_text_embedding", "text_cross_encoder", "text_embedding"),
    },
    "__main__": {"cli"},
    "fastrank": {
        *("errors", "late_interaction", "options", "ranking", "registry", "sparse_embedding", "sparse_text_embedding"),
        *("text_cross_encoder", "text_embedding"),
    },  # __init__.py; for type checkers only
}
HOMES = {
    "onnxruntime": {"session"},
    "tokenizers": {"tokenizer"},
    "huggingface_hub": {"store"},
    "subprocess": {"store"},
    "socket": set(),
    "tqdm": {"store", "cli", "integrations"},
    "numpy": {
        *("binding", "precision", "quantize"),
        *("schedule", "heads", "tokenizer", "session", "pipeline", "dense", "cli", "bm25"),
        *("compat", "integrations"),
        *(
            "late_interaction",
            "maxsim",
            "postprocess",
            "minicoil",
            "modules",
            "sparse_bm25",
            "sparse_embedding",
            "sparse_heads",
            "text_cross_encoder",
        ),
    },
    "multiprocessing": {"parallel"},
    "mmh3": {"bm25"},
    "py_rust_stemmers": {"bm25"},
    "hatchling": {"pack"},
    "packaging": {"pack"},
    "zipfile": {"pack"},  # a wheel that it has just built itself becomes a layer; no archive from elsewhere is opened
}
NEVER = {"onnx", "torch", "transformers", "pickle", "tarfile", "requests", "httpx", "urllib.request"}


def imports():
    """(module, what it imports) for every import statement of the package."""
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        module = "fastrank" if parts == ("__init__",) else parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield module, node.module
                yield from ((module, f"{node.module}.{alias.name}") for alias in node.names)


def test_modules_import_only_what_they_may():
    graph = {}
    for module, name in imports():
        top, *rest = name.split(".")
        if top == "fastrank" and rest:
            target = rest[0] if rest[0] in ALLOWED else "fastrank"
            assert target == module or target in ALLOWED[module], f"{module} imports {name}"
            if module not in (target, "fastrank"):
                graph.setdefault(module, set()).add(target)
    graph.get("cli", set()).discard("fastrank")
    graphlib.TopologicalSorter(graph).prepare()  # raises on a cycle


def test_outside_packages_have_one_home():
    for module, name in imports():
        top = name.split(".")[0]
        assert top not in HOMES or module in HOMES[top], f"{module} imports {name}"
        assert top not in NEVER, f"{module} imports {name}"
        assert name not in NEVER, f"{module} imports {name}"


def test_one_module_reads_the_environment():
    for path in PACKAGE.rglob("*.py"):
        found = "os.environ" in path.read_text(encoding="utf-8") or "getenv" in path.read_text(encoding="utf-8")
        assert not found or path.name == "environment.py", path
