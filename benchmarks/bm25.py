"""BM25 side by side with FastEmbed and bm25s, where they are installed.

    pip install fastembed==0.9.1 bm25s PyStemmer
    python benchmarks/bm25.py                       # generated texts
    python benchmarks/bm25.py path/to/scifact --documents 4000 --json result.json

All arms of a row run in turn in this process, round after round; the figures are medians. "warm" has seen the texts
before, "cold" starts with an empty vocabulary (FastEmbed and bm25s keep none, so they have one speed). FastEmbed's
output is compared with ours before anything is timed: ids and values must be equal to the last bit. "start" is a fresh
process until the first document's vector, import of numpy included.

FastEmbed reads the stop words that are packaged here, so it needs no download either.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import beir, engines, interleaved, machine

from fastrank import SparseTextEmbedding
from fastrank.bm25 import BM25Index, analysis
from fastrank.bm25.languages import stopwords

VERSIONS = ("mmh3", "py-rust-stemmers", "fastembed", "bm25s", "PyStemmer")
QUERY_WORDS = 10
MANY = 25  # times the documents, for a row on worker processes
STARTS = {
    "fastrank": "from fastrank import SparseTextEmbedding as S; list(S('Qdrant/bm25').embed(['hello world']))",
    "fastembed": "from fastembed import SparseTextEmbedding as S; "
    "list(S('Qdrant/bm25', specific_model_path={folder!r}, cache_dir={folder!r}).embed(['hello world']))",
}

Arms = dict[str, Callable[[], Any]]


def generated(documents: int) -> list[str]:
    """Texts of mixed length with words as frequent as in English.

    Four words in ten are stop words; one text in ten has letters or punctuation beyond ASCII.
    """
    dice = random.Random(0)  # noqa: S311 - dice that make texts, no secrets
    syllables = [first + last for first in "bcdfghlmnprstvw" for last in ("a", "e", "i", "o", "u", "an", "er", "is")]
    stems = ["".join(dice.choices(syllables, k=dice.choice((1, 2, 2, 3, 4)))) for _ in range(12_000)]
    words = [stem + ending for stem in stems for ending in ("", dice.choice(("s", "ed", "ing", "ly", "ation", "ness")))]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    common = sorted(word for word in stopwords("english") if len(word) > 1)
    texts = []
    for _ in range(documents):
        length = max(3, min(1200, int(dice.lognormvariate(4.1, 0.9))))
        rare = iter(dice.choices(words, weights, k=length))
        text = " ".join(dice.choice(common) if dice.random() < 0.4 else next(rare) for _ in range(length))
        text = text.capitalize().replace(" the ", ", the ").replace(" and ", ". And ") + "."
        texts.append(text.replace(", ", " \u2013 ").replace("ation", "ati\u00f3n") if dice.random() < 0.1 else text)
    return texts


def measure(arms: interleaved.Arms, rounds: int) -> dict[str, float]:
    """The median seconds of each arm, all of them in turn."""
    return {name: statistics.median(values) for name, values in interleaved.seconds(arms, rounds).items()}


def cold() -> SparseTextEmbedding:
    """A model that has seen no word."""
    analysis.forget()
    return SparseTextEmbedding("Qdrant/bm25")


def indexed(texts: list[str]) -> BM25Index:
    """An index, made by an engine that has seen no word."""
    analysis.forget()
    return BM25Index.build(texts)


def fastembed(folder: Path) -> Any | None:
    """FastEmbed's Bm25, if it is installed."""
    try:
        peer = importlib.import_module("fastembed.sparse.bm25")
    except ImportError:
        return None
    (folder / "english.txt").write_text("\n".join(sorted(stopwords("english"))), encoding="utf-8")
    return peer.Bm25("Qdrant/bm25", cache_dir=str(folder), specific_model_path=str(folder))


def bm25s_index() -> Callable[[list[str]], Any] | None:
    """A function that tokenizes and indexes with bm25s, if it is installed."""
    try:
        peer, stemmers = importlib.import_module("bm25s"), importlib.import_module("Stemmer")
    except ImportError:
        return None
    stemmer = stemmers.Stemmer("english")

    def build(texts: list[str]) -> Any:
        tokens = peer.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
        retriever = peer.BM25(k1=1.2)
        retriever.index(tokens, show_progress=False)
        return retriever

    return build


def check_equal(peer: Any, texts: list[str], queries: list[str]) -> None:
    """Fails if one id or value differs."""
    own = SparseTextEmbedding("Qdrant/bm25")
    for ours, theirs in zip(own.embed(texts), peer.embed(texts), strict=True):
        if ours.indices.tolist() != theirs.indices.tolist() or ours.values.tolist() != theirs.values.tolist():
            raise SystemExit("FastEmbed's document vectors differ: no figures")
    for ours, theirs in zip(own.query_embed(queries), peer.query_embed(queries), strict=True):
        if ours.as_dict() != theirs.as_dict():
            raise SystemExit("FastEmbed's query vectors differ: no figures")


def run(texts: list[str], queries: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds by measure and engine."""
    with tempfile.TemporaryDirectory() as folder:
        peer, build, warm = fastembed(Path(folder)), bm25s_index(), SparseTextEmbedding("Qdrant/bm25")
        documents: Arms = {
            "fastrank warm": lambda: list(warm.embed(texts)),
            "fastrank cold": lambda: list(cold().embed(texts)),
        }
        asked: Arms = {"fastrank warm": lambda: list(warm.query_embed(queries))}
        index: Arms = {"fastrank cold": lambda: indexed(texts)}
        start: Arms = {"fastrank": lambda: _start("fastrank", folder)}
        if peer is None:
            print("fastembed is not installed: not compared")
        else:
            check_equal(peer, texts, queries)
            print(f"fastembed: {len(texts)} documents and {len(queries)} queries have equal ids and values")
            documents["fastembed"] = lambda: list(peer.embed(texts))
            asked["fastembed"] = lambda: list(peer.query_embed(queries))
            start["fastembed"] = lambda: _start("fastembed", folder)
        if build is None:
            print("bm25s with PyStemmer is not installed: not compared")
        else:
            index["bm25s"] = lambda: build(texts)
        list(warm.embed(texts))
        many = texts * MANY
        workers: Arms = {
            "one process": lambda: list(warm.embed(many)),
            "parallel=0": lambda: list(warm.embed(many, parallel=0)),
        }
        return {
            "documents": measure(documents, rounds),
            "queries": measure(asked, rounds),
            "tokenize and index": measure(index, rounds),
            "start": measure(start, rounds),
            f"{MANY} times as many documents": measure(workers, 3),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Speed of BM25 side by side with its peers.")
    parser.add_argument("folder", nargs="?", type=Path, help="a collection in BEIR's layout (default: generated texts)")
    parser.add_argument("--documents", type=int, default=4000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    given = parser.parse_args(arguments)
    try:
        texts = (
            [document.text for document in beir.load(given.folder, given.documents).documents()]
            if given.folder
            else generated(given.documents)
        )
    except beir.DataError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts]
    about = {**machine.describe(), **{name: interleaved.version(name) for name in VERSIONS}}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    size = sum(map(len, texts)) / len(texts)
    print(f"{len(texts)} documents of {size:.0f} characters on average from {given.folder or 'a generator'}")
    results = run(texts, queries, given.rounds)
    for name, seconds in results.items():
        print(f"\n{name}")
        slowest = max(seconds.values())
        for engine, value in seconds.items():
            count = len(texts) * (MANY if name.startswith(str(MANY)) else 1)
            speed = "" if name == "start" else f"{count / value:10,.0f} a second"
            print(f"  {engine:15} {value * 1000:8.1f} ms {speed} {slowest / value:6.2f}x")
    if given.json:
        report = {"machine": about, "documents": len(texts), "characters": size, "seconds": results}
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _start(engine: str, folder: str) -> None:
    code = STARTS[engine].format(folder=folder)
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, capture_output=True, env=engines.surroundings())  # noqa: S603 - our own code


if __name__ == "__main__":
    sys.exit(main())
