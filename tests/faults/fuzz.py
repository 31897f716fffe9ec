"""Fuzz what is read of a model: safetensors, every JSON file of a folder, tokenizer.json, ONNX.

    python tests/faults/fuzz.py --seconds 60                     all four, a quarter of the time each
    python tests/faults/fuzz.py --seconds 36000 --seed 7 --keep found
    python tests/faults/fuzz.py --target onnx --seed 7 --case 123        one case again, in this process

A case is made from target, seed and number alone, so that it can be made again. Cases run in child processes, below
4 GB of memory and 30 seconds each. A case must end with an answer or with an error of fastrank's own; every other
error, a crash, a hang or MemoryError is a finding. They are printed, and with --keep their files are kept.
Exit status: 0 nothing found, 1 something was.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import json
import queue
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
FIXTURES = TESTS / "fixtures"
MEMORY = 4 << 30  # bytes of address space per child
PATIENCE = 30.0  # seconds per case
TARGETS = ("safetensors", "json", "tokenizer", "onnx")

# What breaks parsers: limits of integer types, floats that are none, empty and huge things, other types.
NUMBERS = (0, 1, -1, 2, 127, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63, 2**70, 0.5, 1e308, -0.0, 1e-320)
VALUES = (
    None,
    True,
    False,
    *NUMBERS,
    float("nan"),
    float("inf"),
    "",
    "a",
    "\0",
    "../x",
    "[PAD]",
    "é" * 99,
    [],
    {},
    [[]],
)


# Folders with JSON files of every kind, and the class that loads them.
FOLDERS = {
    "sentence_encoder": "TextEmbedding",
    "modules": "TextEmbedding",
    "static/sentence_transformers": "TextEmbedding",
    "static/model2vec": "TextEmbedding",
    "pair_classifier": "TextCrossEncoder",
    "sparse_encoder": "SparseTextEmbedding",
    "late_interaction/colbert": "LateInteractionTextEmbedding",
    "late_interaction/pylate_modernbert": "LateInteractionTextEmbedding",
}


# -- mutations ---------------------------------------------------------------------------------------------------------


def mutated_bytes(data: bytes, dice: random.Random) -> bytes:
    """A few bytes flipped, set, inserted, repeated or cut out."""
    found = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        at, length = dice.randrange(len(found) + 1), dice.choice((1, 1, 2, 4, 8, 100))
        kind = dice.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            found[at : at + length] = dice.randbytes(length)
        elif kind == 2:
            found[at:at] = dice.randbytes(length)
        elif kind == 3:
            found[at:at] = found[at : at + length] * dice.choice((1, 2, 50))
        elif kind == 4:
            del found[at : at + length]
        else:
            size = dice.choice((1, 2, 4, 8))
            found[at : at + size] = dice.choice((0, 1, 0x7F, 0x80, 0xFF)).to_bytes(size, "little")
    if dice.randrange(20) == 0:
        del found[dice.randrange(len(found) + 1) :]
    return bytes(found)


def mutated_json(value: object, dice: random.Random) -> object:
    """One or a few nodes replaced, removed, moved or added."""
    value = copy.deepcopy(value)
    with contextlib.suppress(RecursionError, OverflowError):  # a node put into itself; more than a float can be
        return _mutated_json(value, dice)
    return value


def _mutated_json(value: object, dice: random.Random) -> object:
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        holders = [holder for holder in _holders(value) if holder]
        if not holders:
            return copy.deepcopy(dice.choice(VALUES))
        holder = dice.choice(holders)
        key = dice.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        kind = dice.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = copy.deepcopy(dice.choice([*holders[:200], *VALUES]))  # a node from elsewhere
        elif kind == 2 and isinstance(holder, dict):
            holder[dice.choice((*map(str, VALUES), "model_type", "pad_token_id"))] = holder.pop(key)
        elif kind == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] += dice.choice((-1, 1, 7, 2**16))
        elif kind == 4:
            nested: object = holder[key]
            for _ in range(dice.choice((1, 50, 3000))):
                nested = [nested]
            holder[key] = nested
        else:
            holder[key] = copy.deepcopy(dice.choice(VALUES))
    return value


def _holders(value: object) -> list[dict | list]:
    """All objects and lists in a value; of long ones only the first and last items."""
    found, waiting = [], [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            found.append(node)
            items = list(node.values()) if isinstance(node, dict) else node
            waiting += items if len(items) < 40 else [*items[:20], *items[-20:]]
    return found


def text_of(value: object, dice: random.Random) -> bytes:
    try:
        data = json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # a node within itself, or too deep
        data = b"[" * 100_000
    return mutated_bytes(data, dice) if dice.randrange(10) == 0 else data


# -- targets: prepare(folder, dice) writes a case, check(folder) reads it ----------------------------------------------


class Safetensors:
    """A checkpoint's header is read, and if it can be, a graph is built on it."""

    source = FIXTURES / "graph" / "bert"

    def prepare(self, folder: Path, dice: random.Random) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        end = 8 + struct.unpack("<Q", data[:8])[0]
        if dice.randrange(2):
            header = text_of(mutated_json(json.loads(data[8:end]), dice), dice)
            length = len(header) if dice.randrange(10) else dice.choice((0, 7, 10**7, 2**31, 2**63, 2**64 - 1))
            path.write_bytes(struct.pack("<Q", length) + header + data[end:])
        else:
            path.write_bytes(mutated_bytes(data[: end + 100], dice) + data[end + 100 :])

    def check(self, folder: Path) -> None:
        from fastrank import graph
        from fastrank.graph.safetensors import read_header

        read_header(folder / "model.safetensors")
        graph.build(folder, "encoder")


class Json:
    """A folder of each kind of model, one of its JSON files changed, is loaded and asked."""

    def prepare(self, folder: Path, dice: random.Random) -> None:
        name = dice.choice(sorted(FOLDERS))
        shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)
        (folder / "which").write_text(FOLDERS[name])
        files = [*folder.rglob("*.json"), *folder.rglob("artifact.metadata")]
        path = dice.choice(sorted(path for path in files if path.name not in ("expected.json", "tokenizer.json")))
        path.write_bytes(text_of(mutated_json(json.loads(path.read_bytes()), dice), dice))

    def check(self, folder: Path) -> None:
        ask(folder, (folder / "which").read_text())


class Tokenizer:
    """A tokenizer.json is loaded and used."""

    def prepare(self, folder: Path, dice: random.Random) -> None:
        from support import tiny_models

        kind = dice.choice(("wordpiece", "bpe"))
        content = json.loads(tiny_models.tiny_tokenizer(kind, padding=dice.choice((None, 8))))
        data = text_of(mutated_json(content, dice), dice)
        tiny_models.write_model(folder)
        (folder / "tokenizer.json").write_bytes(data)

    def check(self, folder: Path) -> None:
        ask(folder, "TextEmbedding")


class Onnx:
    """An ONNX graph is loaded and run."""

    def prepare(self, folder: Path, dice: random.Random) -> None:
        from support import tiny_models

        graph = tiny_models.tiny_encoder(seed=dice.randrange(3))
        tiny_models.write_model(folder, mutated_bytes(graph, dice))

    def check(self, folder: Path) -> None:
        ask(folder, "TextEmbedding")


def ask(folder: Path, kind: str) -> None:
    """Load the model and have it answer two texts."""
    import fastrank

    texts = ["hello world", "where is the capital of France, and who lives there?"]
    options = {"pooling": "mean"} if kind == "TextEmbedding" and not (folder / "modules.json").exists() else {}
    with getattr(fastrank, kind)("acme/own", specific_model_path=folder, threads=1, **options) as model:
        list(model.rerank("hello", texts) if kind == "TextCrossEncoder" else model.embed(texts))


KINDS = {"safetensors": Safetensors, "json": Json, "tokenizer": Tokenizer, "onnx": Onnx}


# -- one case ----------------------------------------------------------------------------------------------------------


def prepare_case(target: str, seed: int, number: int, folder: Path) -> None:
    """Write the files of a case."""
    kind = KINDS[target]()
    folder.mkdir(parents=True, exist_ok=True)
    if (source := getattr(kind, "source", None)) is not None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    kind.prepare(folder, random.Random(f"{target} {seed} {number}"))


def run_case(target: str, seed: int, number: int, folder: Path) -> str:
    """Make a case in an empty folder and check it; the outcome in a word or two, "!" before what must not be."""
    from fastrank.errors import FastrankError

    prepare_case(target, seed, number, folder)
    kind = KINDS[target]()
    try:
        kind.check(folder)
    except FastrankError as error:
        return type(error).__name__
    except BaseException as error:  # noqa: BLE001 - panics of Rust are no Exception
        import traceback

        where = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in where if "fastrank" in frame.filename and "fuzz" not in frame.filename]
        at = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
        return f"! {type(error).__name__} at {at}: {str(error)[:100]}".replace("\n", " ")
    return "answered"


def work(target: str, seed: int, first: int) -> None:
    """A child: cases from `first` on, one after the other; each is said before and after on standard output."""
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import logging

    logging.disable()
    number = first
    while True:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            print(f"begin {number}", flush=True)
            print(f"end {run_case(target, seed, number, Path(folder))}", flush=True)
        number += 1


# -- the parent --------------------------------------------------------------------------------------------------------


class Child:
    """A child process whose lines are read with a limit of time."""

    def __init__(self, target: str, seed: int, first: int) -> None:
        command = [sys.executable, __file__, "--target", target, "--seed", str(seed), "--work", str(first)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.put(line.rstrip("\n"))
        self.lines.put("")

    def line(self, patience: float) -> str | None:
        """The next line; empty when the child has ended, None when nothing came in time."""
        try:
            return self.lines.get(timeout=patience)
        except queue.Empty:
            return None

    def end(self) -> int:
        self.process.kill()
        return self.process.wait()


def fuzz(target: str, seed: int, seconds: float) -> tuple[collections.Counter[str], dict[int, str]]:
    """Run cases for some seconds: how often each outcome was, and what was found by the number of its case."""
    counts: collections.Counter[str] = collections.Counter()
    findings: dict[int, str] = {}
    deadline, number = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        child = Child(target, seed, number)
        try:
            while time.monotonic() < deadline:
                line = child.line(PATIENCE)
                if line and line.startswith("begin "):
                    number = int(line.removeprefix("begin "))
                    continue
                if line is None:
                    outcome = f"! no end within {PATIENCE:.0f} s"
                elif not line:
                    outcome = f"! the process ended with status {child.process.wait()}"
                else:
                    outcome = line.removeprefix("end ")
                counts[outcome] += 1
                if outcome.startswith("!"):
                    findings[number] = outcome
                number += 1
                if not line:
                    break
        finally:
            child.end()
    return counts, findings


def main() -> int:
    """Fuzz, or do what a parent asks of its child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append", help="default: all, the time shared among them")
    parser.add_argument("--case", type=int, help="run one case of one target in this process")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files of what was found here")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    targets = options.target or TARGETS
    if options.work is not None:
        work(targets[0], options.seed, options.work)
    if options.case is not None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        print(f"{run_case(targets[0], options.seed, options.case, folder)}\n{folder}")
        return 0
    found = 0
    for target in targets:
        counts, findings = fuzz(target, options.seed, options.seconds / len(targets))
        print(f"{target}: {counts.total()} cases")
        for outcome, count in counts.most_common():
            print(f"  {count:7} {outcome}")
        for number, outcome in list(findings.items())[:20]:
            print(f"  python {__file__} --target {target} --seed {options.seed} --case {number}  # {outcome}")
            if options.keep:
                folder = options.keep / f"{target}-{options.seed}-{number}"
                prepare_case(target, options.seed, number, folder)
        found += len(findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
