"""Reranking 100 candidates side by side with FastEmbed, FlashRank and sentence-transformers, where they are installed.

    pip install onnx fastembed==0.9.1 flashrank sentence-transformers
    python benchmarks/rerank.py                       # made weights, generated texts
    python benchmarks/rerank.py path/to/scifact --model path/to/a/cross-encoder --json result.json

Without --model, the weights are those of all-MiniLM-L6-v2 under a random head: the architecture of
ms-marco-MiniLM-L-6-v2 and so its speed. THE SCORES OF SUCH A MODEL MEAN NOTHING.

All arms have the same weights (in fp32, but for ours in int8), texts, limit of 512 tokens and threads, and run in turn
in this process, query by query. Every answer, timed ones included, is compared with fastrank's: scores within 1e-4 as
logits (FlashRank gives their sigmoid), and the order, but for documents whose scores are that close. A difference ends
the run without figures; that of int8 is only shown (precision.py is about quality). The candidates of a collection in
BEIR's layout are the best by BM25.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from common import beir, folders, interleaved, machine, texts
from numpy.typing import NDArray

from fastrank import TextCrossEncoder, graph, store
from fastrank.bm25 import BM25Index
from fastrank.engine import cpu
from fastrank.errors import FastrankError
from fastrank.graph.safetensors import read_header
from fastrank.models import registry
from fastrank.models.spec import CROSS_ENCODER
from fastrank.store.lookup import Lookup

BASE = "sentence-transformers/all-MiniLM-L6-v2"
# What fastrank, FastEmbed and FlashRank take our folder for: one logit, not changed; the last is only a file's name.
KNOWN, FLASHRANK = "Xenova/ms-marco-MiniLM-L-6-v2", ("ms-marco-MiniLM-L-12-v2", "flashrank-MiniLM-L-12-v2_Q.onnx")
VERSIONS = ("tokenizers", "fastembed", "flashrank", "sentence-transformers", "transformers", "torch")
GRAPH, CHECKPOINT = "onnx/model.onnx", "model.safetensors"
MAX_LENGTH = 512
TOLERANCE = 1e-4  # of logits
HEAD = 5.0  # standard deviation of the random head: scores spread over some units, as those of trained models
QUERY_WORDS = (8, 12)
PAUSE = 0.2  # seconds; threads of the arm before have stopped spinning by then

Floats: TypeAlias = NDArray[np.float64]
Score: TypeAlias = Callable[[str, list[str]], Sequence[float]]


class Query(NamedTuple):
    """A query and the documents to rank for it."""

    text: str
    documents: list[str]


class Arm(NamedTuple):
    """An engine at one setting: from a query and documents to scores in the documents' order."""

    name: str
    score: Score
    sigmoid: bool = False
    exact: bool = True  # in fp32


class DifferenceError(Exception):
    """An engine's answer is not ours."""


class SkipError(Exception):
    """An engine cannot run this model; the message says why."""


# -- the model ---------------------------------------------------------------------------------------------------------


def prepare(folder: Path, model: str | None) -> str:
    """Make a folder that every engine can load, and say what is in it.

    Raises:
        FastrankError: the model is not known, not to be had or not one that can be built.
        DataError: the folder has no file that an engine needs.
    """
    if model is None:
        _made(folder)
        about = f"{BASE} under a random head (scores mean nothing)"
    elif Path(model).is_dir():
        _copied(Path(model), folder)
        about = Path(model).resolve().name
    else:
        spec = registry.find(model, CROSS_ENCODER)
        exact = [each for each in spec.variants if each.precision == "fp32"]
        if not exact:
            raise beir.DataError(f"{spec.name} has no fp32 weights")
        chosen = max(exact, key=lambda each: each.model == CHECKPOINT)  # all engines can use a checkpoint
        files = store.locate(spec, Lookup(variant=chosen.name))
        _copied(files.folder, folder, files.model)
        about = f"{spec.name} ({files.variant})"
    folders.complete_tokenizer(folder, MAX_LENGTH)
    if not (folder / GRAPH).exists():
        folders.export(graph.build(folder, "sequence-classification"), folder, folder / GRAPH)
    return about


def _made(folder: Path) -> None:
    """A sequence classification checkpoint: the encoder of `BASE` and a head of seeded noise."""
    source = store.locate(registry.find(BASE), Lookup(variant="safetensors")).folder
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "num_labels": 1}
    config.update(labels, architectures=["BertForSequenceClassification"])
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    shutil.copy(source / "tokenizer.json", folder)
    content = memoryview((source / CHECKPOINT).read_bytes())
    tensors: dict[str, tuple[str, tuple[int, ...], bytes | memoryview]] = {
        f"bert.{name}": (tensor.dtype, tensor.shape, content[tensor.offset : tensor.offset + tensor.length])
        for name, tensor in read_header(source / CHECKPOINT).items()
        if not name.endswith("position_ids")  # numbers 0, 1, 2 ..., which no one reads
    }
    head = np.random.default_rng(0).normal(0, HEAD, (1, config["hidden_size"])).astype("<f4")
    tensors["classifier.weight"] = "F32", head.shape, head.tobytes()
    tensors["classifier.bias"] = "F32", (1,), bytes(4)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / CHECKPOINT).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(data for _, _, data in tensors.values())


def _copied(source: Path, folder: Path, model: str | None = None) -> None:
    """The files of a model; `model` is its graph or checkpoint, None: whichever are there."""
    usual = {GRAPH: GRAPH, "model.onnx": GRAPH, CHECKPOINT: CHECKPOINT}
    found = [name for name in usual if (source / name).is_file()] if model is None else [model]
    if not found:
        raise beir.DataError(f"{source} has none of {', '.join(usual)}")
    for name in found:
        target = folder / usual.get(name, GRAPH)
        if not target.exists():
            _copy_graph(source / name, target)
    for name in ("config.json", "tokenizer.json"):
        if not (source / name).is_file():
            raise beir.DataError(f"{source} has no {name}")
    for file in source.glob("*.json"):
        shutil.copy(file, folder)


def _copy_graph(source: Path, target: Path) -> None:
    """A model file under another name, and its external data, if any, under its own."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in source.parent.glob(f"{source.name}*"):
        shutil.copy(file, target if file == source else target.with_name(file.name))


# -- the engines -------------------------------------------------------------------------------------------------------


def fastrank(folder: Path, threads: int, precision: str = "auto") -> list[Arm]:
    """Ours, as its defaults are, or in a precision that is made of the checkpoint."""
    if precision != "auto" and not (folder / CHECKPOINT).exists():
        raise SkipError(f"the model has no {CHECKPOINT}")
    model = TextCrossEncoder(
        KNOWN,
        cache_dir=folder / "cache",
        threads=threads,
        cuda=False,
        specific_model_path=folder,
        max_length=MAX_LENGTH,
        activation="none",
        precision=precision,
    )
    name = "fastrank" if precision == "auto" else f"fastrank {precision}"
    return [Arm(name, lambda query, documents: list(model.rerank(query, documents)), exact=precision == "auto")]


def fastembed(folder: Path, threads: int) -> list[Arm]:
    """At its default batch size, and at the one that is best on a CPU."""
    peer = importlib.import_module("fastembed.rerank.cross_encoder")
    model = peer.TextCrossEncoder(
        KNOWN, cache_dir=str(folder), threads=threads, cuda=False, specific_model_path=str(folder)
    )
    return [
        Arm("fastembed", lambda query, documents: list(model.rerank(query, documents))),
        Arm("fastembed batch 1", lambda query, documents: list(model.rerank(query, documents, batch_size=1))),
    ]


def flashrank(folder: Path, threads: int) -> list[Arm]:
    """All documents in one batch; one class gives the sigmoid of its logit."""
    peer, onnxruntime = importlib.import_module("flashrank"), importlib.import_module("onnxruntime")
    name, model = FLASHRANK
    own = folder / "flashrank" / name
    _copy_graph(folder / GRAPH, own / model)
    for file in folder.glob("*.json"):
        shutil.copy(file, own)
    ranker = peer.Ranker(name, cache_dir=str(own.parent), max_length=MAX_LENGTH, log_level="ERROR")
    options = onnxruntime.SessionOptions()  # it has no setting for threads and would take those of the host
    options.intra_op_num_threads = threads
    ranker.session = onnxruntime.InferenceSession(str(own / model), options, providers=["CPUExecutionProvider"])

    def score(query: str, documents: list[str]) -> list[float]:
        passages = [{"id": number, "text": text} for number, text in enumerate(documents)]
        ranked = ranker.rerank(peer.RerankRequest(query, passages))
        return [each["score"] for each in sorted(ranked, key=lambda each: int(each["id"]))]

    return [Arm("flashrank", score, sigmoid=True)]


def sentence_transformers(folder: Path, threads: int) -> list[Arm]:
    """Torch in fp32, at its default batch size, without its sigmoid."""
    if not (folder / CHECKPOINT).exists():
        raise SkipError(f"the model has no {CHECKPOINT}")
    torch, peer = importlib.import_module("torch"), importlib.import_module("sentence_transformers")
    torch.set_num_threads(threads)
    model = peer.CrossEncoder(
        str(folder),
        device="cpu",
        max_length=MAX_LENGTH,
        num_labels=1,
        activation_fn=torch.nn.Identity(),
        local_files_only=True,
    ).float()

    def score(query: str, documents: list[str]) -> list[float]:
        scores: list[float] = model.predict([(query, text) for text in documents], show_progress_bar=False).tolist()
        return scores

    return [Arm("sentence-transformers", score)]


OTHERS: dict[str, Callable[[Path, int], list[Arm]]] = {
    "int8": partial(fastrank, precision="int8"),
    "int8-fast": partial(fastrank, precision="int8-fast"),
    "fastembed": fastembed,
    "flashrank": flashrank,
    "sentence-transformers": sentence_transformers,
}


def installed(folder: Path, threads: int) -> list[Arm]:
    """The arms that can run, ours first."""
    arms = fastrank(folder, threads)
    for name, make in OTHERS.items():
        try:
            arms += make(folder, threads)
        except ImportError:
            print(f"{name} is not installed: not compared")
        except SkipError as reason:
            print(f"{name}: {reason}: not compared")
    return arms


# -- the texts ---------------------------------------------------------------------------------------------------------


def generated(folder: Path, queries: int, candidates: int) -> list[Query]:
    """Texts of mixed length, as those of embed.py: most are short, some have more tokens than the limit."""
    tokenizer = folder / "tokenizer.json"
    asked = texts.generated(tokenizer, lambda dice: dice.randint(*QUERY_WORDS), seed=1)
    documents = texts.generated(tokenizer, texts.mixed)
    return [Query(query, list(islice(documents, candidates))) for query in islice(asked, queries)]


def collected(folder: Path, limit: int, queries: int, candidates: int) -> list[Query]:
    """Queries of a BEIR folder, each with its best documents by BM25, filled up with the first of the others.

    Raises:
        DataError: the folder is no BEIR folder, or has too few documents.
    """
    dataset = beir.load(folder, limit)
    documents = [document.text for document in dataset.documents()]
    if len(documents) < candidates:
        raise beir.DataError(f"{folder}: {len(documents)} documents are fewer than {candidates} candidates")
    index = BM25Index.build(documents)
    found = []
    for query in islice(dataset.queries.values(), queries):
        best = index.search(query, candidates)[0].tolist()
        places = islice(dict.fromkeys([*best, *range(len(documents))]), candidates)
        found.append(Query(query, [documents[place] for place in places]))
    return found


# -- measuring ---------------------------------------------------------------------------------------------------------


def compare(arm: Arm, logits: Floats, given: Sequence[float]) -> float:
    """The largest difference of a score from ours.

    Raises:
        DifferenceError: it is too large, or the order is another.
    """
    theirs = np.asarray(given, np.float64)
    ours = 1 / (1 + np.exp(-logits)) if arm.sigmoid else logits
    allowed = TOLERANCE / 4 if arm.sigmoid else TOLERANCE  # a sigmoid's slope is 1/4 at most
    if theirs.shape != ours.shape:
        raise DifferenceError(f"{arm.name} gives scores of shape {theirs.shape}, not {ours.shape}")
    difference = float(np.abs(theirs - ours).max())
    if not arm.exact and np.isfinite(theirs).all():
        return difference
    if not difference <= allowed:  # NaN is not
        raise DifferenceError(f"{arm.name} differs from fastrank by {difference:.2g}")
    if (np.abs(ours[(-ours).argsort(kind="stable")] - ours[(-theirs).argsort(kind="stable")]) > allowed).any():
        raise DifferenceError(f"{arm.name} ranks in another order than fastrank")
    return difference


def measure(
    arms: Sequence[Arm], queries: Sequence[Query], rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The seconds of each arm's calls, and its largest difference from the first arm, which is ours.

    Raises:
        DifferenceError: two engines disagree.
    """
    logits = [np.asarray(arms[0].score(*query), np.float64) for query in queries]
    named = {arm.name: arm for arm in arms}
    seconds: dict[str, list[float]] = {name: [] for name in named}
    differences = {arm.name: compare(arm, logits[0], arm.score(*queries[0])) for arm in arms}  # and warms up
    for query, expected in zip(queries, logits, strict=True):

        def check(name: str, given: Sequence[float], expected: Floats = expected) -> None:
            differences[name] = max(differences[name], compare(named[name], expected, given))

        calls = {name: partial(arm.score, *query) for name, arm in named.items()}
        for name, values in interleaved.seconds(calls, rounds, pause=PAUSE, check=check).items():
            seconds[name] += values
    return seconds, differences


def table(seconds: dict[str, list[float]], differences: dict[str, float], candidates: int) -> str:
    """One line an arm."""
    lines = [f"{'':22} {'p50 s':>8} {'p95 s':>8} {'pairs/s':>8} {'ratio':>7} {'difference':>11}"]
    ours = float(np.median(seconds["fastrank"]))
    for name, values in seconds.items():
        median, slow = np.percentile(values, [50, 95])
        figures = f"{median:8.3f} {slow:8.3f} {candidates / median:8.1f} {median / ours:6.2f}x"
        lines.append(f"{name:22} {figures} {differences[name]:11.1e}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = _parser()
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            about = prepare(folder, given.model)
            queries = (
                collected(given.folder, given.documents, given.queries, given.candidates)
                if given.folder
                else generated(folder, given.queries, given.candidates)
            )
            os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")  # before peers are imported
            versions = {**machine.describe(), **{each: interleaved.version(each) for each in VERSIONS}}
            print(", ".join(f"{key} {value}" for key, value in versions.items()))
            print(f"model: {about}, {given.threads} threads")
            kind = given.folder.resolve().name if given.folder else "mixed"
            print(f"{len(queries)} queries of {given.candidates} documents ({kind}), {given.rounds} rounds")
            arms = installed(folder, given.threads)
            seconds, differences = measure(arms, queries, given.rounds)
        except (beir.DataError, FastrankError) as error:
            parser.exit(2, f"{parser.prog}: error: {error}\n")
        except DifferenceError as error:
            parser.exit(1, f"{error}: no figures\n")
    if len(arms) > 1:
        print(f"all answers of {', '.join(arm.name for arm in arms[1:] if arm.exact)} equal fastrank's")
    print()
    print(table(seconds, differences, given.candidates))
    if given.json:
        report = {
            "machine": versions,
            "model": about,
            "threads": given.threads,
            "texts": kind,
            "queries": len(queries),
            "candidates": given.candidates,
            "rounds": given.rounds,
            "differences": differences,
            "seconds": seconds,
        }
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Speed of reranking side by side with its peers.")
    parser.add_argument("folder", nargs="?", type=Path, help="a collection in BEIR's layout (default: generated texts)")
    parser.add_argument("--model", metavar="NAME|FOLDER", help="a real cross-encoder (default: made, see above)")
    parser.add_argument("--documents", type=_positive, default=4000, help="of the collection (default: %(default)s)")
    parser.add_argument("--queries", type=_positive, default=10, help="default: %(default)s")
    parser.add_argument("--candidates", type=_positive, default=100, help="documents a query (default: %(default)s)")
    parser.add_argument("--rounds", type=_positive, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=_positive, default=cpu.available(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
