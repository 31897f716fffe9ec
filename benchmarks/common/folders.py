"""Folders that every engine can load: the same weights as an ONNX file, and what engines read beside a tokenizer."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from common import engines
from fastrank import graph, store
from fastrank.engine import precision
from fastrank.engine.options import Options
from fastrank.errors import FastrankError
from fastrank.models import registry
from fastrank.models.spec import TEXT_EMBEDDING
from fastrank.store.lookup import Lookup

CHECKPOINT, GRAPH = "model.safetensors", "model.onnx"
_MODULES = ("Transformer", "Pooling", "Normalize")


def prepare(folder: Path, model: str, max_length: int) -> None:
    """A sentence-transformers folder with the checkpoint of `model`; in onnx/ and int8/ the same for FastEmbed.

    The graphs are ours, with the weights inside; they need the package onnx, without which they are left out.

    Raises:
        FastrankError: the model is not to be had.
    """
    spec = registry.find(model, TEXT_EMBEDDING)
    files = store.locate(spec, Lookup(variant="safetensors"))
    for name in (CHECKPOINT, "config.json", "tokenizer.json"):
        shutil.copy(files.folder / name, folder)
    complete_tokenizer(folder, max_length)
    dim = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    written = {
        "modules.json": [
            {
                "idx": number,
                "name": str(number),
                "path": f"{number}_{name}" if number else "",
                "type": f"sentence_transformers.models.{name}",
            }
            for number, name in enumerate(_MODULES)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": dim, "pooling_mode_mean_tokens": True},
        "2_Normalize/config.json": {},
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
    }
    settings = list(folder.glob("*.json"))
    for name, content in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    if importlib.util.find_spec("onnx") is None:
        return
    made = precision.plan(spec, files, "encoder", Options(precision="int8"), None)
    # Ours has no mask, as it never pads.
    padded = graph.build(folder, weights=made.model.path)
    graphs = {"onnx": (graph.build(folder), folder), "int8": (padded, made.model.path.parent)}
    for name, (built, weights) in graphs.items():
        (folder / name).mkdir()
        export(built, weights, folder / name / GRAPH)
        for file in settings:
            shutil.copy(file, folder / name)


@contextmanager
def prepared(parser: argparse.ArgumentParser, threads: int, max_length: int) -> Iterator[engines.Setup]:
    """A folder of `prepare` that goes in the end; without the model's files the command ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        setup = engines.Setup(Path(folder), threads, max_length)
        try:
            prepare(setup.folder, engines.MODEL, max_length)
        except FastrankError as error:
            parser.exit(2, f"{parser.prog}: error: {error}\n")
        yield setup


def complete_tokenizer(folder: Path, max_length: int) -> None:
    """Write what engines read beside tokenizer.json, and take out its own padding and truncation."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer.update(padding=None, truncation=None)
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.setdefault("pad_token_id", 0)
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    usual = ["input_ids", *["token_type_ids"] * (config.get("type_vocab_size", 0) > 1), "attention_mask"]
    settings: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8"))
        if path.exists()
        else {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": usual}
    )
    pad = Tokenizer.from_file(str(folder / "tokenizer.json")).id_to_token(config["pad_token_id"])
    settings.setdefault("pad_token", pad)
    settings["model_max_length"] = min(settings.get("model_max_length", max_length), max_length)
    path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    path = folder / "special_tokens_map.json"
    if not path.exists():
        path.write_text(json.dumps({"pad_token": pad}), encoding="utf-8")


def export(built: bytes, weights: Path, target: Path) -> None:
    """One ONNX file with the weights inside, of a graph of `graph.build` and the folder with its weights."""
    try:
        onnx, external = importlib.import_module("onnx"), importlib.import_module("onnx.external_data_helper")
    except ImportError:
        raise SystemExit("The engines need an ONNX file, and making one needs: pip install onnx") from None
    model = onnx.load_model_from_string(built)
    external.load_external_data_for_model(model, str(weights))
    target.parent.mkdir(exist_ok=True)
    onnx.save_model(model, str(target))
