"""Bars as SVG that can be read on light and dark ground."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

MOST = 8  # bars of a panel
NOTE = 116  # characters of a line of notes
WIDTH, LEFT, BAR, ROW, TITLE = 760, 210, 440, 22, 44  # pixels: the picture, where bars begin, how long; heights
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.note { font-size: 11px; fill: #59636e }
.ground { fill: #ffffff }
.ours { fill: #0969da }
.peer { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #9198a1 }
  .ground { fill: #0d1117 }
  .ours { fill: #58a6ff }
  .peer { fill: #6e7681 }
}"""


class Panel(NamedTuple):
    """One message: a bar for each name, sorted, the best first.

    Attributes:
        title: what is measured, in which unit.
        bars: name -> value; those whose name begins with "fastrank" are ours.
        more: whether more is better.
        digits: after the point.
    """

    title: str
    bars: Mapping[str, float]
    more: bool
    digits: int = 0


def chart(panels: Iterable[Panel], notes: Sequence[str] = (), ours: str = "fastrank") -> str:
    """The panels below each other, and beneath them what they were measured on.

    Raises:
        ValueError: a panel has more than eight bars.
    """
    drawn, top = [], 0
    for panel in panels:
        if len(panel.bars) > MOST:
            raise ValueError(f"{panel.title}: {len(panel.bars)} bars are more than a reader compares")
        top += TITLE
        better = f'<tspan class="note">{"more" if panel.more else "less"} is better</tspan>'
        drawn.append(f'<text class="title" x="12" y="{top - 12}">{escape(panel.title)} {better}</text>')
        longest = max(panel.bars.values())
        for name, value in sorted(panel.bars.items(), key=lambda bar: bar[1], reverse=panel.more):
            wide = max(1, round(BAR * value / longest))
            kind = "ours" if name.startswith(ours) else "peer"
            drawn += [
                f'<text x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{kind}" x="{LEFT}" y="{top + 3}" width="{wide}" height="{ROW - 5}" rx="2"/>',
                f'<text x="{LEFT + wide + 6}" y="{top + 15}">{value:,.{panel.digits}f}</text>',
            ]
            top += ROW
    for note in (line for each in notes for line in textwrap.wrap(each, NOTE)):
        top += 18
        drawn.append(f'<text class="note" x="12" y="{top + 6}">{escape(note)}</text>')
    return picture(drawn, WIDTH, top + 18)


def picture(drawn: Iterable[str], width: int, height: int, style: str = "") -> str:
    """An SVG of these elements on a ground of its own."""
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    body = "\n".join(['<rect class="ground" width="100%" height="100%" rx="6"/>', *drawn])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}{style}\n</style>\n{body}\n</svg>\n'
