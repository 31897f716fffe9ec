"""Token vectors of many documents, side by side with FastEmbed, where it is installed.

    pip install onnx fastembed==0.9.1
    python benchmarks/colbert.py
    python benchmarks/colbert.py --documents 100 --queries 20 --json result.json     # some minutes less

The model is of ColBERTv2's size (BERT-base and a projection to 128 numbers, 110 million parameters) with random
weights: its speed is the real one's, ITS VECTORS MEAN NOTHING. It needs tokenizer.json of all-MiniLM-L6-v2, which is
that of BERT. Documents are those of embed.py, of mixed length. FastEmbed runs at its default batch size of 256 and at
smaller ones; the smallest ones suit a CPU best. All arms have the same weights, texts, limit of 512 tokens and threads,
and run in turn in this process; every vector, timed ones included, is compared with ours in fp32. Our int8 may differ:
random weights say nothing of how well it does (precision.py does), so its difference is only shown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from common import interleaved, machine, texts
from numpy.typing import NDArray

from fastrank import LateInteractionTextEmbedding, graph, store
from fastrank.engine import cpu
from fastrank.models import registry

Vectors: TypeAlias = list[NDArray[np.float32]]

KNOWN, TOKENIZER = "colbert-ir/colbertv2.0", "sentence-transformers/all-MiniLM-L6-v2"
GRAPH, CHECKPOINT = "model.onnx", "model.safetensors"
DIM, MAX_LENGTH, TOLERANCE, PAUSE = 128, 512, 1e-4, 0.2
QUERY_WORDS = (3, 15)
CONFIG = {
    "model_type": "bert",
    "architectures": ["HF_ColBERT"],
    "vocab_size": 30522,
    "hidden_act": "gelu",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
PRECISIONS = {"fastrank int8": "int8", "fastrank int8-fast": "int8-fast"}  # arms, which may differ
VERSIONS = ("tokenizers", "fastembed")


def make(folder: Path) -> None:
    """The checkpoint and, of the same weights, the ONNX file that FastEmbed needs."""
    source = store.locate(registry.find(TOKENIZER)).folder / "tokenizer.json"
    tokenizer = json.loads(source.read_text(encoding="utf-8"))
    tokenizer.update(padding=None, truncation=None)
    files = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"model_max_length": MAX_LENGTH, "pad_token": "[PAD]"},
        "config.json": CONFIG,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    _write_weights(folder / CHECKPOINT)
    (folder / "onnx").mkdir()
    for name in files:
        (folder / "onnx" / name).write_bytes((folder / name).read_bytes())


def _write_weights(path: Path) -> None:
    """As ColBERT saves them, drawn from a normal distribution."""
    wide, inner = 768, 3072
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (30522, wide),
        "bert.embeddings.position_embeddings.weight": (512, wide),
        "bert.embeddings.token_type_embeddings.weight": (2, wide),
        "bert.embeddings.LayerNorm.weight": (wide,),
        "bert.embeddings.LayerNorm.bias": (wide,),
        "linear.weight": (DIM, wide),
    }
    parts = {"attention.self.query": (wide, wide), "attention.self.key": (wide, wide)}
    parts |= {"attention.self.value": (wide, wide), "attention.output.dense": (wide, wide)}
    parts |= {"intermediate.dense": (inner, wide), "output.dense": (wide, inner)}
    for layer in range(12):
        name = f"bert.encoder.layer.{layer}"
        for part, (rows, columns) in parts.items():
            shapes |= {f"{name}.{part}.weight": (rows, columns), f"{name}.{part}.bias": (rows,)}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{name}.{part}.weight": (wide,), f"{name}.{part}.bias": (wide,)}
    header, offset = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * math.prod(shape)]}
        offset += 4 * math.prod(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = 0.05 * generator.standard_normal(shape, dtype=np.float32)
            file.write((values + 1 if name.endswith("LayerNorm.weight") else values).astype("<f4").tobytes())


def export(folder: Path) -> None:
    """One ONNX file with the weights inside and without segments, as FastEmbed gives none of the right length."""
    onnx, external = importlib.import_module("onnx"), importlib.import_module("onnx.external_data_helper")
    model = onnx.load_model_from_string(graph.build(folder, "colbert"))
    external.load_external_data_for_model(model, str(folder))
    nodes, given = model.graph.node, [each for each in model.graph.input if each.name != "token_type_ids"]
    zeros = [
        onnx.helper.make_node("Shape", ["input_ids"], ["shape_of_ids"]),
        onnx.helper.make_node(
            "ConstantOfShape", ["shape_of_ids"], ["token_type_ids"], value=onnx.helper.make_tensor("zero", 7, [1], [0])
        ),
    ]
    all_nodes = [*zeros, *nodes]
    del nodes[:], model.graph.input[:]
    nodes.extend(all_nodes)
    model.graph.input.extend(given)
    onnx.save_model(model, str(folder / "onnx" / GRAPH))


def fastembed(folder: Path, threads: int, sizes: Sequence[int]) -> dict[str, tuple[Any, int]]:
    """FastEmbed's model by arm, and the batch size.

    Raises:
        ImportError: it is not installed.
    """
    peer = importlib.import_module("fastembed")
    export(folder)
    model = peer.LateInteractionTextEmbedding(
        KNOWN, cache_dir=str(folder), threads=threads, cuda=False, specific_model_path=str(folder / "onnx")
    )
    list(model.embed(["warm up"]))
    return {f"fastembed {size}": (model, size) for size in sizes}


def measure(calls: dict[str, Callable[[], Vectors]], rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The seconds of each arm, and its largest difference from the first, which is ours."""
    expected = next(iter(calls.values()))()
    differences = dict.fromkeys(calls, 0.0)

    def check(name: str, found: Vectors) -> None:
        for ours, theirs in zip(expected, found, strict=True):
            if ours.shape != theirs.shape:
                raise SystemExit(f"{name} gives {theirs.shape}, not {ours.shape}: no figures")
            differences[name] = max(differences[name], float(np.abs(ours - theirs).max()))
        if name not in PRECISIONS and not differences[name] <= TOLERANCE:
            raise SystemExit(f"{name} differs from fastrank by {differences[name]:.2g}: no figures")

    return interleaved.seconds(calls, rounds, pause=PAUSE, check=check), differences


def table(seconds: dict[str, list[float]], differences: dict[str, float], count: int) -> str:
    """One line an arm."""
    ours = float(np.median(next(iter(seconds.values()))))
    lines = [f"{'':18} {'p50 s':>9} {'texts/s':>9} {'ratio':>7} {'difference':>11}"]
    for name, values in seconds.items():
        median = float(np.median(values))
        lines.append(f"{name:18} {median:9.3f} {count / median:9.1f} {median / ours:6.2f}x {differences[name]:11.1e}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        make(folder)
        ours = LateInteractionTextEmbedding(KNOWN, threads=given.threads, cuda=False, specific_model_path=folder)
        tokenizer = folder / "tokenizer.json"
        documents = list(islice(texts.generated(tokenizer, texts.mixed), given.documents))
        asked = texts.generated(tokenizer, lambda dice: dice.randint(*QUERY_WORDS), seed=1)
        queries = list(islice(asked, given.queries))
        calls: dict[str, Callable[[], Vectors]] = {"fastrank": lambda: list(ours.embed(documents))}
        asking: dict[str, Callable[[], Vectors]] = {"fastrank": lambda: [next(ours.query_embed(q)) for q in queries]}
        for arm, precision in PRECISIONS.items():
            model = LateInteractionTextEmbedding(
                KNOWN, folder, given.threads, cuda=False, specific_model_path=folder, precision=precision
            )
            calls[arm] = partial(lambda model: list(model.embed(documents)), model)
            asking[arm] = partial(lambda model: [next(model.query_embed(q)) for q in queries], model)
        try:
            for arm, (peer, size) in fastembed(folder, given.threads, given.batch_sizes).items():
                calls[arm] = partial(lambda model, size: list(model.embed(documents, batch_size=size)), peer, size)
                asking["fastembed"] = partial(lambda model: list(model.query_embed(queries)), peer)
        except ImportError as error:
            print(f"{error.name} is not installed: not compared")
        about = {**machine.describe(), **{each: interleaved.version(each) for each in VERSIONS}}
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        tokens = ours.token_count(documents)
        print(f"{len(documents)} documents, {tokens} tokens, {given.threads} threads, {given.rounds} rounds")
        found = {"documents": measure(calls, given.rounds), "queries, one by one": measure(asking, given.rounds)}
    for what, (seconds, differences) in found.items():
        print(f"\n{what}\n{table(seconds, differences, len(documents if what == 'documents' else queries))}")
    if given.json:
        report: dict[str, Any] = {"machine": about, "documents": len(documents), "queries": len(queries)}
        report |= {"tokens": tokens, "threads": given.threads, "rounds": given.rounds}
        report["seconds"] = {what: seconds for what, (seconds, _) in found.items()}
        report["differences"] = {what: differences for what, (_, differences) in found.items()}
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Speed of token vectors side by side with FastEmbed.")
    parser.add_argument("--documents", type=int, default=4000, help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=100, help="default: %(default)s")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[256, 8, 1], help="FastEmbed's; its default is 256 (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="of all arms (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=cpu.available(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
