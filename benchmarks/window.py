"""How busy a window of texts keeps many threads, by the real planner: simulated, as it needs no large machine.

    python benchmarks/window.py

Texts have the lengths of texts.mixed (median 80 tokens) or about 33 or 240 tokens. A window is sorted by length and cut
into batches by fastrank's own `plan` and `spans`; each thread takes the next batch when it is free; at the end of a
window all wait for the last batch. A batch takes as long as it has tokens, padding included, and a fixed cost of 20.
What is left out: the time that tokenizing a window takes, memory bandwidth, caches, other processes. So these are upper
bounds of use, good for comparing windows and not for forecasting rates.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections.abc import Sequence

from common import texts

from fastrank.engine.batching import WINDOW, plan, spans
from fastrank.engine.providers import CPU_LIMITS

FIXED = 20  # tokens' worth of time that a run of the model costs beside its tokens
TEXTS_A_THREAD = 64  # as in engine.session
WINDOWS = (256, 1024, 4096)


def costs(lengths: Sequence[int], window: int) -> list[list[int]]:
    """The costs of the batches that run together, between two waits for the last."""
    found = []
    for start in range(0, len(lengths), window):
        part = lengths[start : start + window]
        for span in spans(part):
            own = part[span]
            batches = plan(own, CPU_LIMITS.tokens, window)
            found.append([len(batch) * own[batch[0]] + FIXED for batch in batches])  # the longest comes first
    return found


def used(together: Sequence[Sequence[int]], threads: int) -> float:
    """The share of the threads' time in which they work."""
    busy = passed = 0
    for each in together:
        free = [0] * threads
        for cost in each:
            heapq.heapreplace(free, free[0] + cost)
        busy, passed = busy + sum(each), passed + max(free)
    return busy / (passed * threads)


def table(count: int) -> str:
    """The use of threads, by length of texts and window."""
    dice = random.Random(0)  # noqa: S311 - no secret
    lengths = {
        "33": [dice.randint(25, 41) for _ in range(count)],
        "mixed, median 80": [min(256, texts.mixed(dice) + texts.SPECIAL) for _ in range(count)],
        "240": [dice.randint(224, 256) for _ in range(count)],
    }
    threads = (2, 4, 8, 16, 32, 64)
    lines = ["| tokens of a text | texts of a window | " + " | ".join(f"{n} threads" for n in threads) + " |"]
    lines.append("|---|---|" + "---:|" * len(threads))
    for name, each in lengths.items():
        for window in WINDOWS:
            together = costs(each, window)
            shares = " | ".join(f"{used(together, n):.0%}" for n in threads)
            lines.append(f"| {name} | {window:,} | {shares} |")
        own = " | ".join(f"{used(costs(each, max(WINDOW, TEXTS_A_THREAD * n)), n):.0%}" for n in threads)
        lines.append(f"| {name} | 64 a thread, 256 at least | {own} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="How busy a window of texts keeps threads (simulated).")
    parser.add_argument("--texts", type=int, default=16_384, help="default: %(default)s")
    print(table(parser.parse_args(arguments).texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
