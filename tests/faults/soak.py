"""Use models for minutes from eight threads, with forks and model changes, and watch memory, descriptors and threads.

    python tests/faults/soak.py                  # five minutes
    python tests/faults/soak.py --seconds 60

Exit status 1 if anything failed, or if memory, descriptors or threads grew. Linux only, as it reads /proc.
"""

import argparse
import collections
import itertools
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from support import FIXTURES, tiny_models

from fastrank import LateInteractionTextEmbedding, PoolingType, SparseTextEmbedding, TextCrossEncoder, TextEmbedding

THREADS = 8
WORDS = ["cat", "hello", "red", "fast", "dog", "paris", "rank", "😀", "é", "中"]
GROWTH_MB = 40  # that allocators may take: several threads, several arenas
SETTLED = 0.4  # of the time, after which nothing should grow


def texts(dice, most=60):
    return [" ".join(dice.choices(WORDS, k=dice.choice((0, 3, 30, 300)))) for _ in range(dice.randrange(1, most))]


def dense(folder, **options):
    return TextEmbedding("any/tiny", specific_model_path=folder, pooling=PoolingType.MEAN, **options)


class Soak:
    """What runs in the threads: each picks one use after the other at random."""

    def __init__(self, folder):
        self.tiny = tiny_models.write_model(folder / "tiny")
        self.folder = folder
        self.model = dense(self.tiny, threads=2)
        self.checkpoint = TextEmbedding("any/dense", specific_model_path=FIXTURES / "sentence_encoder")
        self.int8 = TextEmbedding("any/dense", specific_model_path=FIXTURES / "sentence_encoder", precision="int8")
        self.sparse = SparseTextEmbedding("any/sparse", specific_model_path=FIXTURES / "sparse_encoder")
        late = FIXTURES / "late_interaction" / "pylate_bert"
        self.late = LateInteractionTextEmbedding("any/late", specific_model_path=late)
        self.pairs = TextCrossEncoder("any/pairs", specific_model_path=FIXTURES / "pair_classifier")
        self.bm25 = SparseTextEmbedding("Qdrant/bm25")
        self.expected = np.stack(list(self.model.embed(WORDS)))
        self.counts, self.errors = collections.Counter(), []
        self.uses = [
            self.embed, self.query, self.abandon, self.fail, self.rerank, self.sparse_vectors, self.token_vectors,
            self.new_model, self.changed_model, self.fork,
        ]  # fmt: skip

    def embed(self, dice):
        for model in (self.model, self.checkpoint, self.int8):
            assert all(np.isfinite(vector).all() for vector in model.embed(texts(dice)))

    def query(self, _dice):
        np.testing.assert_allclose(np.stack(list(self.model.embed(WORDS))), self.expected, atol=1e-5)

    def abandon(self, dice):
        vectors = self.model.embed(itertools.cycle(texts(dice)))
        for _ in range(dice.randrange(1, 300)):
            next(vectors)

    def fail(self, dice):
        delivered = 0
        try:
            for _ in self.model.embed([*texts(dice, 20), None]):
                delivered += 1
        except TypeError:
            return
        raise AssertionError(f"no error after {delivered} texts")

    def rerank(self, dice):
        assert self.pairs.rank("red cat", texts(dice))

    def sparse_vectors(self, dice):
        list(self.sparse.embed(texts(dice, 8)))
        list(self.bm25.embed(texts(dice)))

    def token_vectors(self, dice):
        assert list(self.late.rerank("red cat", texts(dice)))

    def new_model(self, dice):
        model = dense(self.tiny, threads=2)
        list(model.embed(texts(dice, 300)))
        if dice.random() < 0.5:
            model.close()

    def changed_model(self, dice):
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        model = dense(tiny_models.write_model(folder, tiny_models.tiny_encoder(seed=dice.randrange(9))))
        list(model.embed(texts(dice, 10)))
        shutil.rmtree(folder)

    def fork(self, dice):
        child = os.fork()
        if child == 0:
            right = np.allclose(np.stack(list(self.model.embed(WORDS))), self.expected, atol=1e-5)
            if dice.random() < 0.5:
                os._exit(0 if right else 7)
            sys.exit(0 if right else 7)
        deadline = time.monotonic() + 120
        while not (found := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, 9)
                os.waitpid(child, 0)
                raise AssertionError("a forked child hangs")
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(found[1]) == 0, found[1]

    def work(self, seed, until):
        dice = random.Random(seed)
        while time.monotonic() < until:
            use = dice.choice(self.uses)
            try:
                use(dice)
                self.counts[use.__name__] += 1
            except SystemExit:  # in a forked child
                os._exit(0)
            except BaseException as error:  # noqa: BLE001 - reported at the end
                self.errors.append(f"{use.__name__}: {error!r}")


def state():
    """Resident megabytes, descriptors, threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6),
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FASTRANK_CACHE"] = str(Path(folder) / "cache")
        soak = Soak(Path(folder))
        begin = time.monotonic()
        threads = [
            threading.Thread(target=soak.work, args=(seed, begin + seconds), name=f"soak {seed}")
            for seed in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        seen = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(10, seconds / 30))
            seen.append((time.monotonic() - begin, *state()))
        for after, *facts in seen[:: max(1, len(seen) // 20)]:
            print(f"{after:6.0f} s  {facts[0]:5} MB  {facts[1]:3} descriptors  {facts[2]:3} threads")
        time.sleep(1)
        last = state()
        print(f"at the end {last[0]} MB, {last[1]} descriptors, {last[2]} threads; {dict(soak.counts)}")
        settled = [memory for after, memory, *_ in seen if after > SETTLED * seconds]
        half = len(settled) // 2
        growth = np.median(settled[half:]) - np.median(settled[:half])
        problems = soak.errors[:10] + [f"memory grew by {growth:.0f} MB"] * bool(growth > GROWTH_MB)
        problems += ["threads stay"] * (last[2] > 1) + ["descriptors stay"] * (last[1] > seen[0][2] + 2)
        print("\n".join(problems) or "nothing grew, nothing failed")
        return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
