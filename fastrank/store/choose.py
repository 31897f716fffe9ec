"""Which files of a repository run its model, where nobody has written that down."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from fastrank.errors import DownloadError
from fastrank.models.spec import CHECKPOINTS, PATH, FileSpec, Variant

_STATIC = "0_StaticEmbedding/"  # where sentence-transformers kept a static model, tokenizer and all
# Where models commonly are, in order of preference: graphs, checkpoints whole or in shards, graphs that lost precision.
USUAL_MODELS = (
    "onnx/model.onnx",
    "model.onnx",
    "model_optimized.onnx",
    *CHECKPOINTS,
    f"{_STATIC}model.safetensors",
    "onnx/model_quantized.onnx",
    "model_quantized.onnx",
)
# Where sentence-transformers before 2.0 kept the transformer ("0_Transformer"), and where its routers keep theirs.
NESTED = r"(?:[A-Za-z]\w*_)?0_\w+/(?:model\.safetensors|model\.safetensors\.index\.json)"
PICKLES = (
    "pytorch_model.bin is a pickle, which runs code when it is read: fastrank does not open it. Save the model as "
    "safetensors (save_pretrained does, in transformers 4.35 and later) or export it to ONNX"
)

_SETTINGS = (
    *("config.json", "tokenizer_config.json"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "artifact.metadata"),
    "router_config.json",
)
_SOMETIMES = ("chat_template.jinja", "sparse_linear.pt", "colbert_linear.pt")  # of rerankers and of BGE-M3
_SHARD = r"model-\d{5}-of-\d{5}\.safetensors"
_MODULE_FILES = (
    *(r"config\.json", r"model\.safetensors", r"model\.safetensors\.index\.json", _SHARD, r"router_config\.json"),
    *(r"tokenizer\.json", r"tokenizer_config\.json", r"sentence_[a-z-]+_config\.json"),
)
_OF_MODULES = rf"(?:[A-Za-z]\w*_)?\d+_[A-Za-z]+/(?:\w+/)?(?:{'|'.join(_MODULE_FILES)})"  # of sentence-transformers
_ASSUMED_GRAPH = "onnx/model.onnx"  # FastEmbed's default


def choose(variant: Variant, listed: Sequence[FileSpec] | None) -> Variant:
    """A variant with its files written down, from the list of a repository's files.

    A model that was not named is the first usual one. Where a mirror gives no list, what has been named is taken, with
    the settings that most repositories have.

    Raises:
        DownloadError: the repository lacks a file; the message says what it has.
    """
    if listed is None:
        model = variant.model or _ASSUMED_GRAPH
        helpful = [*_SETTINGS, "1_Pooling/config.json"]
        known = {file.path: file for file in (*variant.files, FileSpec(model, None, None))}
        known |= {path: FileSpec(path, None, None, optional=True) for path in helpful if path not in known}
        return variant._replace(model=model, files=tuple(known.values()), open=False)
    found = {file.path: file for file in listed if re.fullmatch(PATH, file.path)}
    nested = sorted(path for path in found if re.fullmatch(NESTED, path))
    model = variant.model or next((path for path in (*USUAL_MODELS, *nested) if path in found), "")
    named = [_at_home(file.path, model, found) for file in variant.files]
    needed = dict.fromkeys([model, *named] if model else named)
    missing = [path for path in needed if path not in found]
    if missing or not model:
        raise DownloadError(_lack(missing, found))
    helpful = [path for path in found if path in (*_SETTINGS, *_SOMETIMES) or re.fullmatch(_OF_MODULES, path)]
    weights = [path for path in found if _belongs(path, model)]
    files = tuple(found[path] for path in dict.fromkeys([*needed, *weights, *helpful]))
    return variant._replace(model=model, files=files, open=False)


def _at_home(path: str, model: str, found: Collection[str]) -> str:
    """Where a file is that lies beside the model."""
    beside = f"{model.rpartition('/')[0]}/{path}"
    return beside if path in ("tokenizer.json", "config.json") and path not in found and beside in found else path


def _belongs(path: str, model: str) -> bool:
    """Whether a file has weights of a graph, or of a checkpoint in shards."""
    if model.endswith(".onnx"):
        return path.startswith((f"{model}_data", f"{model}.data"))
    return model.endswith(".index.json") and re.fullmatch(_SHARD, path) is not None


def _lack(missing: Sequence[str], found: Sequence[str] | dict[str, FileSpec]) -> str:
    message = (
        f"it has no {' and no '.join(missing)}" if missing else "it has no ONNX graph and no safetensors checkpoint"
    )
    likely = [path for path in found if path.endswith((".onnx", ".safetensors", ".bin", ".json"))]
    message += f". It has {', '.join(likely[:12]) or 'no such files'}{' ...' if len(likely) > 12 else ''}"
    if not missing and any(path.endswith("pytorch_model.bin") for path in found):
        return f"{message}. {PICKLES}"
    if "tokenizer.json" in missing:
        return f"{message}. AutoTokenizer.from_pretrained(...).save_pretrained(folder) of transformers writes it"
    return f"{message}. Name what to use with model_file and additional_files in add_custom_model"
