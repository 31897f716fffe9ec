"""Modules, names and signatures are those of an installed FastEmbed, but for those that are listed here."""

import importlib
import inspect
from pathlib import Path

import pytest

from fastrank.compat import fake_modules

# What is behind the public classes: one class an architecture, its workers, tokenizers, downloads, image processing.
NOT_SERVED = {
    "fastembed": "parallel_processor",
    "fastembed.common": "model_management onnx_external_data onnx_model preprocessor_utils safetensors_utils",
    "fastembed.image": "image_embedding_base normalized_embedding onnx_embedding onnx_image_model siglip_embedding "
    "transform transform.functional transform.operators",
    "fastembed.late_interaction": "colbert jina_colbert late_interaction_embedding_base lateon token_embeddings",
    "fastembed.late_interaction_multimodal": "colmodernvbert colpali onnx_multimodal_model "
    "late_interaction_multimodal_embedding_base",
    "fastembed.rerank.cross_encoder": "custom_text_cross_encoder onnx_text_cross_encoder onnx_text_model "
    "text_cross_encoder_base",
    "fastembed.sparse": "bm42 if_splade minicoil splade_pp utils.minicoil_encoder utils.sparse_vectors_converter "
    "utils.vocab_resolver",
    "fastembed.text": "builtin_sentence_embedding clip_embedding custom_text_embedding last_token_normalized_embedding "
    "onnx_embedding onnx_text_model pooled_embedding pooled_normalized_embedding siglip_embedding static_embedding "
    "text_embedding_base",
}
NAMES_NOT_SERVED = {
    *("Bm25Worker", "JinaEmbeddingV3", "JinaEmbeddingV3Worker", "SparseTextEmbeddingBase"),
    *("SimHashProjection", "WordTokenizer", "hamming_distance_matrix"),
}
OPTIONAL = {  # with us
    ("Bm25", "model_name"),
    *(("TextEmbedding", name) for name in ("pooling", "normalization", "sources", "dim")),
    *(("JinaEmbedding", name) for name in ("pooling", "normalization", "sources", "dim")),
    ("TextCrossEncoder", "sources"),
}
# FastEmbed has no custom models here (NotImplementedError).
NOT_THERE = {(name, "add_custom_model") for name in ("SparseTextEmbedding", "LateInteractionTextEmbedding", "Bm25")}


@pytest.fixture(scope="module")
def fastembed():
    return pytest.importorskip("fastembed", reason="fastembed is not installed")


def public(module):
    """The names that a module of FastEmbed defines or exports."""
    exported = getattr(module, "__all__", [])
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return {name for name in [*exported, *own] if not name.startswith("_") and len(name) > 1} - NAMES_NOT_SERVED


def test_every_module_is_served_or_listed(fastembed):
    folder = Path(fastembed.__path__[0])
    paths = [path.relative_to(folder.parent).with_suffix("").as_posix() for path in folder.rglob("*.py")]
    there = {path.removesuffix("/__init__").replace("/", ".") for path in paths}
    left_out = {f"{parent}.{name}" for parent, names in NOT_SERVED.items() for name in names.split()}
    served = set(fake_modules._MODULES)
    assert there - served - left_out == set()
    assert served & left_out == set()
    assert all((folder.parent / name.replace(".", "/")).is_dir() for name in served - there)  # without __init__.py


@pytest.mark.parametrize("name", fake_modules._MODULES)
def test_names(fastembed, name):
    real, ours = importlib.import_module(name), fake_modules._MODULES[name]
    assert fastembed.__version__ == fake_modules.VERSION
    assert public(real) - ours.keys() == set()
    assert not [each for each in ours if not hasattr(real, each)]
    assert sorted(ours.get("__all__", [])) == sorted(getattr(real, "__all__", []))


CLASSES = {
    name: module
    for module, content in fake_modules._MODULES.items()
    for name in content
    if name.endswith(("Embedding", "Encoder", "Description")) or name in ("Bm25", "ModelSource", "Muvera")
    if not name.startswith(("Image", "LateInteractionMultimodal", "Default", "Flag"))
}
# How FastEmbed fetches files, and its tables of implementations.
BEHIND = (
    "deprecated_tar_struct",
    "download",
    "decompress",
    "retrieve",
    "METADATA_FILE",
    "EMBEDDINGS_REGISTRY",
    "CROSS_ENCODER_REGISTRY",
)


@pytest.fixture(params=CLASSES)
def pair(fastembed, request):
    """A class of ours and FastEmbed's."""
    module = CLASSES[request.param]
    return fake_modules._MODULES[module][request.param], getattr(importlib.import_module(module), request.param)


def members(kind):
    return {name for name in dir(kind) if not name.startswith(("_", *BEHIND))}


def test_members(pair):
    ours, theirs = pair
    assert members(theirs) - members(ours) == set()


def test_signatures(pair):
    """FastEmbed's arguments are taken by position and by name, with its defaults; what it ignores is taken too."""
    theirs = pair[1]
    for method in ["__init__", *filter(lambda name: callable(getattr(theirs, name)), members(theirs))]:
        own, real = (inspect.signature(getattr(kind, method)).parameters.values() for kind in pair)
        takes_any = any(each.kind is each.VAR_KEYWORD for each in own)
        by_position = [each for each in own if each.kind is each.POSITIONAL_OR_KEYWORD]
        if (theirs.__name__, method) in NOT_THERE:
            continue
        for position, parameter in enumerate(real):
            where = f"{theirs.__name__}.{method}({parameter.name})"
            if parameter.kind is parameter.VAR_KEYWORD:
                assert takes_any, where
            elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                assert [each.name for each in by_position[position : position + 1]] == [parameter.name], where
                if (theirs.__name__, parameter.name) not in OPTIONAL:
                    assert by_position[position].default == parameter.default, where
