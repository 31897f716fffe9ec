"""Which room may import which. Arrows point one way; outside packages have one home each."""

import ast
import graphlib
from pathlib import Path

import fastrank

PACKAGE = Path(fastrank.__file__).parent

# A folder is one room: fastrank/store/* is "store". Rooms that import no other are not listed.
ALLOWED = {
    "bm25": "environment errors inputs",
    "postprocess": "inputs",
    "models": "environment errors log",
    "store": "environment errors graph log models",
    "graph": "errors models",
    "engine": "environment errors graph inputs log models postprocess store",
    "dense": "engine errors inputs log models postprocess store",
    "sparse": "bm25 engine errors inputs models store",
    "rerank": "engine errors inputs models store",
    "late_interaction": "engine errors inputs maxsim models postprocess rerank store",
    "hybrid": "dense engine errors inputs late_interaction maxsim models sparse store",
    "compat": "bm25 dense engine environment errors inputs models postprocess sparse store",
    "evaluation": "bm25 dense errors fusion late_interaction maxsim rerank sparse",
    "integrations": "bulk compat dense engine environment errors evaluation fusion inputs late_interaction maxsim "
    "models rerank sparse",
    "bulk": "engine environment errors fastrank inputs log models store",
    "cli": "bm25 bulk dense engine environment errors evaluation fastrank fusion inputs models server store",
    "server": "bm25 dense engine environment errors fastrank inputs late_interaction maxsim models postprocess rerank",
    "fastrank": "dense engine errors hybrid late_interaction models rerank sparse",  # for type checkers only
    "__main__": "cli",
}
HOMES = {
    "onnxruntime": "engine.session engine.providers",
    # compat counts the tokens of static models as FastEmbed does
    "tokenizers": "engine.tokenizer engine.tokenizer_classes compat.classes",
    "huggingface_hub": "store",
    "subprocess": "store.pip",
    "socket": "server.process",
    "tqdm": "store cli engine.progress integrations",
    "multiprocessing": "engine.processes",
    "starlette": "server",
    "uvicorn": "server",
    "orjson": "server",
    "prometheus_client": "server",
    "tiktoken": "server.cl100k",
    "mmh3": "bm25",
    "py_rust_stemmers": "bm25",
    **dict.fromkeys(("jieba", "fugashi", "pythainlp", "kiwipiepy"), "bm25.segmenters"),
    "hatchling": "cli.wheels",
    "packaging": "cli.wheels",
    "pyarrow": "bulk integrations",
    "jinja2": "models.chat_template",
    # wheels that it has just built, and tensors of torch, stored uncompressed and read by an own reader
    "zipfile": "cli.wheels models.torch_file",
}
NO_NUMPY = {"models", "store"}
NEVER = {"onnx", "torch", "transformers", "pickle", "tarfile", "requests", "httpx", "urllib.request"}


def imports():
    """(module, what it imports) for every import statement of the package."""
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__").replace("__init__", "fastrank")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((module, f"{node.module}.{alias.name}") for alias in node.names)


def test_rooms_import_only_what_they_may():
    for module, name in imports():
        if name.startswith("fastrank."):
            room, target = module.split(".")[0], name.split(".")[1]
            target = target if (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").is_file() else "fastrank"
            assert target == room or target in ALLOWED.get(room, "").split(), f"{module} imports {name}"


def test_no_modules_import_each_other():
    modules = {module for module, _ in imports()}
    graph = {}
    for module, name in imports():
        target = name.removeprefix("fastrank.")
        target = target if target in modules else target.rpartition(".")[0]
        if name.startswith("fastrank.") and target in modules - {module}:
            graph.setdefault(module, set()).add(target)
    graphlib.TopologicalSorter(graph).prepare()  # raises on a cycle


def test_outside_packages_have_one_home():
    for module, name in imports():
        top, room = name.split(".")[0], module.split(".")[0]
        assert top not in HOMES or {module, room} & set(HOMES[top].split()), f"{module} imports {name}"
        assert top != "numpy" or room not in NO_NUMPY, f"{module} imports {name}"
        assert not {top, name, name.rpartition(".")[0]} & NEVER, f"{module} imports {name}"


def test_one_module_reads_the_environment():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name == "environment.py" or not ("os.environ" in text or "getenv" in text), path
