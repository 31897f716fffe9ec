"""Run the Python blocks of a page, one after the other, in one namespace: python run_page.py PAGE SERVER

Blocks whose packages are not installed are left out, and with them later ones that miss their names. Folders that a
block names as `specific_model_path=` are made, of tiny models; models of the registry other than those that are really
here are tiny ones of the hub at HF_ENDPOINT. SERVER stands in for the server that the pages talk to.
"""

import ast
import contextlib
import importlib.util
import inspect
import io
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import FIXTURES
from support.documents import blocks, read

REAL = {"sentence-transformers/all-MiniLM-L6-v2", "Qdrant/bm25"}
FOLDERS = {
    "TextEmbedding": "sentence_encoder",
    "TextCrossEncoder": "pair_classifier",
    "SparseTextEmbedding": "sparse_encoder",
    "LateInteractionTextEmbedding": "late_interaction/pylate_bert",
}
ADDRESS = "127.0.0.1:8321"
HOSTS = {
    "llama_index": "llama_index.core",
    "langchain": "langchain_core",
    "chroma": "chromadb",
    "milvus": "pymilvus",
    "qdrant": "qdrant_client",
    "sqlite": "sqlite_vec",
}


def packages(tree):
    """Modules that a block imports, and the libraries that fastrank's integrations among them need."""
    for node in ast.walk(tree):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
            if node.module == "fastrank.integrations":
                names += [f"fastrank.integrations.{each.name}" for each in node.names]
        for module in names:
            yield module
            if module.startswith("fastrank.integrations."):
                host = module.rpartition(".")[2]
                yield HOSTS.get(host, host)


def missing(names):
    """The first of these modules that is not installed."""
    for module in names:
        top = module.partition(".")[0]
        try:
            if importlib.util.find_spec(top) is None:
                return top
            if top in ("llama_index", "langchain", "pymilvus") and importlib.util.find_spec(module) is None:
                return module
        except ModuleNotFoundError as error:
            return error.name
        except ValueError:  # a module without a spec: it is there
            continue
    return None


def stand_ins(tree):
    """Register a tiny model for each model of the registry that the block names and nobody has here."""
    import fastrank
    from fastrank.models import registry
    from fastrank.models.spec import CLASSES

    known = {spec.name: spec for spec in registry.builtin()}
    for node in ast.walk(tree):
        spec = known.get(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
        if spec is not None and spec.name not in REAL:
            with registry.replacing_shipped([]):
                for task in spec.tasks:
                    if not registry.custom(spec.name):
                        getattr(fastrank, CLASSES[task]).add_custom_model(spec.name)


def folders(tree):
    """Make the folders that the block's models are in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            kind = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = {each.arg: each.value for each in node.keywords}
            path = given.get("specific_model_path")
            if kind in FOLDERS and isinstance(path, ast.Constant) and not Path(path.value).exists():
                plain = (
                    shutil.ignore_patterns("modules.json", "config_sentence*", "[0-9]_*")
                    if "pooling" in given
                    else None
                )
                shutil.copytree(FIXTURES / FOLDERS[kind], path.value, ignore=plain)


def main(page, server):
    """Run the page; what was left out goes to standard error."""
    names, left_out, printed = {"__name__": "__main__"}, False, ""
    for block in blocks(read(page), "python"):
        if "output" in block.marks:
            if not left_out and block.language in ("", "text") and printed is not None:
                assert printed == block.text, f"{page}:{block.line}: it prints\n{printed}and not\n{block.text}"
            continue
        if "not run" in block.marks:
            printed = None
            continue
        source = block.text.replace(ADDRESS, server)
        tree = ast.parse(source)
        absent = missing([*filter(None, block.marks.get("needs", "").split(", ")), *packages(tree)])
        if absent:
            print(f"line {block.line}: {absent} is not installed", file=sys.stderr)
            left_out = True
            continue
        stand_ins(tree)
        folders(tree)
        code = compile("\n" * (block.line - 1) + source, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert not code.co_flags & inspect.CO_COROUTINE, f"{page}:{block.line}: a program has no await at its top level"
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(code, names)  # noqa: S102 - our own page
        except NameError as error:
            if not left_out:
                raise
            print(f"line {block.line}: {error}, of a block that was left out", file=sys.stderr)
        printed = out.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:])
