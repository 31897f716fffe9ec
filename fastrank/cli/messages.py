"""Messages of the library in the words of the command line: options instead of arguments."""

from __future__ import annotations

import re

_OPTIONS = {
    "specific_model_path": "--path",
    "local_files_only": "--offline",
    "cache_dir": "--cache-dir",
    "max_length": "--max-length",
    "batch_size": "--batch-size",
    "model_name": "--model",
    "threads": "--threads",
    "precision": "--precision",
    "cuda": "--cuda",
    "language": "--language",
    "analyzer": "--analyzer",
    "lists": "--lists",
}
_ALWAYS = [name for name in _OPTIONS if "_" in name]  # the others are also words
_VALUE = re.compile(rf"\b({'|'.join(_OPTIONS)})=(?P<quote>['\"]?)(\S+?)(?P=quote)(?=[\s,;:.)]|$)")
_NAME = re.compile(rf"(?<![-\w])({'|'.join(_ALWAYS)})\b")
_ADVICE = re.compile(r" Please check the supported models using .*?(?= The command)", re.DOTALL)
_CLASSES = {
    "SparseTextEmbedding": "sparse embeddings",
    "LateInteractionTextEmbedding": "late interaction",
    "TextEmbedding": "dense embeddings",
    "TextCrossEncoder": "cross-encoders",
}
_CLASS = re.compile(rf"\b({'|'.join(_CLASSES)})\b(?!\.\w|\()")


def with_options(message: str) -> str:
    """`specific_model_path='x' is empty` becomes `--path x is empty`, and so on."""
    message = _ADVICE.sub(" A model in a folder is used with --path FOLDER.", message)
    message = _CLASS.sub(lambda match: _CLASSES[match[1]], message).replace(
        " is not supported in ", " is not known for "
    )
    message = _VALUE.sub(lambda match: f"{_OPTIONS[match[1]]} {match[3]}", message)
    message = message.replace("Pass a folder, or None to use the cache", "Name a folder, or leave the option out")
    return _NAME.sub(lambda match: _OPTIONS[match[1]], message)
