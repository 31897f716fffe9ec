"""Draw docs/pictures/engine.svg, how a text goes through the engine, and maxsim.svg, a heat map.

python scripts/pictures.py            # after a change of this file
python scripts/pictures.py --check    # exit status 1 if the engine's picture differs

The heat map is what `explain` makes with all-MiniLM-L6-v2's token vectors; its last digits may differ by CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from common.charts import picture  # noqa: E402 - where the benchmarks have their ground and colours

from fastrank import LateInteractionTextEmbedding  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "engine.svg"
MAXSIM = PICTURE.with_name("maxsim.svg")
QUERY, DOCUMENT = "how do I quieten brakes", "Squealing brakes want new pads."
WIDE, HIGH, GAP, LEFT = 168, 64, 22, 12  # pixels: a box, the arrow between two, the margin
STYLE = """
.box { fill: #f6f8fa; stroke: #8c959f }
.main { fill: #ddf4ff; stroke: #0969da }
.line { stroke: #59636e; stroke-width: 1.5; fill: none }
.head { fill: #59636e }
.tokens { fill: #0969da }
.padding { fill: #d0d7de }
@media (prefers-color-scheme: dark) {
  .box { fill: #151b23; stroke: #6e7681 }
  .main { fill: #0c2d6b; stroke: #58a6ff }
  .line { stroke: #9198a1 }
  .head { fill: #9198a1 }
  .tokens { fill: #58a6ff }
  .padding { fill: #3d444d }
}"""
FIRST = (
    ("texts", "any iterable"),
    ("the gate", "types, empty texts"),
    ("tokenizer", "ids, cut at the limit"),
    ("batches", "similar length, 512 tokens"),
)
SECOND = (
    ("session", "one set of weights, all cores"),
    ("head", "mean, CLS, SPLADE, score"),
    ("order", "as the texts came"),
    ("results", "as they are ready"),
)
LENGTHS = (9, 2, 5, 3, 8, 2, 4, 9)  # of some texts


def boxes(titles: Sequence[tuple[str, str]], top: int, main: str) -> Iterator[str]:
    """A row of boxes, with arrows between them."""
    for number, (title, about) in enumerate(titles):
        left = LEFT + number * (WIDE + GAP)
        kind = "main" if title == main else "box"
        yield f'<rect class="{kind}" x="{left}" y="{top}" width="{WIDE}" height="{HIGH}" rx="6"/>'
        yield f'<text class="title" x="{left + WIDE // 2}" y="{top + 28}" text-anchor="middle">{escape(title)}</text>'
        yield f'<text class="note" x="{left + WIDE // 2}" y="{top + 47}" text-anchor="middle">{escape(about)}</text>'
        if number:
            yield from arrow(left - GAP, top + HIGH // 2, left - 1, top + HIGH // 2)


def arrow(x: int, y: int, to_x: int, to_y: int) -> Iterator[str]:
    """A straight arrow to the right, or down."""
    yield f'<path class="line" d="M{x} {y} L{to_x} {to_y}"/>'
    tip = (to_x - 7, to_y - 4, to_x - 7, to_y + 4) if y == to_y else (to_x - 4, to_y - 7, to_x + 4, to_y - 7)
    yield f'<path class="head" d="M{to_x} {to_y} L{tip[0]} {tip[1]} L{tip[2]} {tip[3]} Z"/>'


def batches(left: int, top: int, lengths: Sequence[int], count: int, title: str) -> Iterator[str]:
    """Texts as bars of tokens, in batches of so many; what is padded in grey."""
    padded = sum(max(each) * len(each) - sum(each) for each in _cut(lengths, count))
    yield f'<text class="note" x="{left}" y="{top}">{escape(title)}: {padded} of padding</text>'
    y = top + 10
    for batch in _cut(lengths, count):
        for length in batch:
            yield f'<rect class="padding" x="{left}" y="{y}" width="{max(batch) * 14}" height="9"/>'
            yield f'<rect class="tokens" x="{left}" y="{y}" width="{length * 14}" height="9"/>'
            y += 12
        y += 6


def _cut(lengths: Sequence[int], count: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(lengths), count):
        yield lengths[start : start + count]


def drawn() -> str:
    """The picture."""
    width, second = 2 * LEFT + 4 * WIDE + 3 * GAP, 130
    right, middle = LEFT + 3 * (WIDE + GAP) + WIDE // 2, 104
    down = f'<path class="line" d="M{right} {12 + HIGH} V{middle} H{LEFT + WIDE // 2} V{second - 6}"/>'
    end = LEFT + WIDE // 2
    parts = [
        *boxes(FIRST, 12, "batches"),
        down,
        *arrow(end, second - 8, end, second - 1),
        *boxes(SECOND, second, "session"),
        *batches(LEFT, 228, LENGTHS, 4, "batches in the order of the texts"),
        *batches(LEFT + width // 2, 228, sorted(LENGTHS, reverse=True), 4, "sorted by length first"),
    ]
    return picture(parts, width, 356, STYLE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.check:
        same = PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == drawn()
        print(
            "" if same else "docs/pictures/engine.svg is out of date: run python scripts/pictures.py", file=sys.stderr
        )
        return 0 if same else 1
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(), encoding="utf-8", newline="\n")
    model = LateInteractionTextEmbedding("sentence-transformers/all-MiniLM-L6-v2")
    MAXSIM.write_text(model.explain(QUERY, DOCUMENT).svg() + "\n", encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
