"""Tables and a chart of the results that the benchmarks have written.

    python benchmarks/embed.py --json benchmarks/results/embed.json            # and so on
    python benchmarks/report.py

Reads what there is of embed*.json, rerank.json, colbert.json, cold_start.json, memory.json, roofline.json and
precision.json in benchmarks/results (or the folder that is given), and writes report.md and speed.svg into it.
Without a folder it also writes the table of figures in the README.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

Result: TypeAlias = Mapping[str, Any]

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: written by benchmarks/report.py -->\n", "<!-- figures: end -->\n"
PEERS = (
    "onnxruntime",
    "numpy",
    "tokenizers",
    "fastembed",
    "flashrank",
    "sentence-transformers",
    "transformers",
    "torch",
)
PEER, OURS = "FastEmbed", "fastrank fp32"

WIDTH, LEFT, BAR, ROW, TITLE = 760, 270, 380, 20, 40  # pixels: the picture, where bars begin and how long, and heights
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.ground { fill: #ffffff }
.ours { fill: #0969da }
.peer { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ground { fill: #0d1117 }
  .ours { fill: #58a6ff }
  .peer { fill: #6e7681 }
}"""


class Panel(NamedTuple):
    """A part of the chart: a bar for each name."""

    title: str
    bars: Mapping[str, float]
    digits: int = 0


class Section(NamedTuple):
    """What one result gives: a table, and perhaps panels."""

    text: str
    panels: Sequence[Panel] = ()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}x"


def embed(result: Result) -> Section:
    """Texts a second and single queries, at each number of threads."""
    tokens, parts, panels = result["tokens"], [], []
    kind = {"mixed": "texts of mixed length", "uniform": "texts of 90 to 110 tokens"}.get(
        result["texts"], f"texts of {result['texts']}"
    )
    about = (
        f"{result['documents']} {kind}, {tokens['sum'] / max(1, result['documents']):.0f} tokens on average "
        f"(median {tokens['median']}, longest {tokens['longest']})"
    )
    for run in result["runs"]:
        threads, latency = run["threads"], run["latency"]
        if latency:
            rows = [[name, *(f"{asked[each] * 1e3:.2f}" for each in ("p50", "p95"))] for name, asked in latency.items()]
            head = [f"single queries of 10 tokens; {threads} threads", "p50 ms", "p95 ms"]
            parts.append(table(head, rows))
            queries = {name: asked["p50"] * 1e3 for name, asked in latency.items()}
            panels.append(Panel(f"one query of 10 tokens, milliseconds (p50), {threads} threads", queries, 2))
        if not run["seconds"]:
            continue
        speed = {name: result["documents"] / statistics.median(values) for name, values in run["seconds"].items()}
        base, rows = speed.get(PEER, speed[OURS]), []
        for name, value in speed.items():
            near = run["differences"][name]
            rows.append([name, f"{value:.1f}", times(value / base), f"{near['cosine mean']:.5f}"])
        head = ["", "texts a second", f"to {PEER if PEER in speed else OURS}", "cosine to fp32"]
        parts.append(f"{about}; {threads} threads.\n\n{table(head, rows)}")
        panels.append(Panel(f"{kind}, a second, {threads} threads", speed))
    # Of several numbers of threads the table is enough.
    return Section("\n\n".join(parts), panels if len(result["runs"]) == 1 else ())


def rerank(result: Result) -> Section:
    """One query and its documents."""
    count = result["candidates"]
    middle = {name: statistics.median(values) for name, values in result["seconds"].items()}
    base = middle.get("fastembed", middle["fastrank"])
    rows = [
        [name, f"{value:.3f}", f"{count / value:.0f}", times(base / value), f"{result['differences'][name]:.1e}"]
        for name, value in middle.items()
    ]
    head = ["", "p50 s", "pairs a second", f"to {'fastembed' if 'fastembed' in middle else 'ours'}", "difference"]
    about = f"{count} documents a query ({result['texts']}), {result['model']}, {result['threads']} threads."
    speeds = {name: count / value for name, value in middle.items()}
    return Section(f"{about}\n\n{table(head, rows)}", [Panel("reranking, pairs a second", speeds)])


def colbert(result: Result) -> Section:
    """Token vectors of documents, and of queries one by one."""
    parts = []
    for what, count in (("documents", result["documents"]), ("queries, one by one", result["queries"])):
        middle = {name: statistics.median(values) for name, values in result["seconds"][what].items()}
        base = next((value for name, value in middle.items() if name.startswith("fastembed")), middle["fastrank"])
        rows = [[name, f"{count / value:.1f}", times(base / value)] for name, value in middle.items()]
        parts.append(f"{count} {what}:\n\n{table(['', 'a second', 'ratio'], rows)}")
    return Section("\n\n".join(parts))


def cold_start(result: Result) -> Section:
    """New processes."""
    middle = {
        name: tuple(statistics.median(mark[key] for mark in marks) for key in ("seconds", "peak"))
        for name, marks in result["marks"].items()
    }
    base = middle.get(PEER, middle[OURS])[0]
    rows = [
        [name, f"{seconds * 1e3:.0f}", f"{peak:.0f}", "" if name.startswith("import ") else times(base / seconds)]
        for name, (seconds, peak) in middle.items()
    ]
    head = ["new process to first vector", "ms", "MB", f"to {PEER if PEER in middle else OURS}"]
    shown = {name: seconds * 1e3 for name, (seconds, _) in middle.items()}
    return Section(table(head, rows), [Panel("new process to first vector, milliseconds", shown)])


def memory(result: Result) -> Section:
    """The most a process held, and growth."""
    peaks = {name: marks[-1]["peak"] for name, marks in result["peak"].items()}
    base = peaks.get(PEER, peaks[OURS])
    parts = [
        table(
            ["process that embeds the corpus", "peak MB", "less by"],
            [[name, f"{value:.0f}", times(base / value)] for name, value in peaks.items()],
        )
    ]
    rows = []
    for name, marks in result["growth"].items():
        for before, mark in pairwise(marks):
            speed = (mark["documents"] - before["documents"]) / (mark["seconds"] - before["seconds"])
            rows.append([name, f"{mark['documents']:,}", f"{speed:.0f}", f"{mark['resident']:.0f}"])
    if rows:
        parts.append(table(["growth, short texts", "texts", "texts a second", "MB"], rows))
    return Section("\n\n".join(parts), [Panel("peak memory, MB", peaks)])


def roofline(result: Result) -> Section:
    """What the matrix product allows, what is reached of it, and where the time goes."""
    speeds, bounds = result["speeds"], {"fp32": "product in fp32"}
    rows = []
    for name, speed in speeds.items():
        bound = speeds.get(bounds.get(name, "product in int8"))
        rows.append([name, f"{speed:.0f}", "" if name.startswith("product") else f"{speed / bound:.0%}"])
    about = f"{result['documents']} texts, {result['tokens']} tokens, {result['threads']} threads."
    parts = [about, table(["", "GOP/s", "share of the product"], rows)]
    for of, shares in result["profile"].items():
        lines = [
            [purpose, *(f"{shares[name][purpose]:.0%}" for name in shares)] for purpose in next(iter(shares.values()))
        ]
        parts.append(table([f"share of the time of operators, {of}", *shares], lines))
    return Section("\n\n".join(parts))


def precision(result: Result) -> Section:
    """The columns as they are."""
    columns = list(result["rows"]["fp32"])
    rows = [
        [name, *(f"{row[each]:.0f}" if each.endswith((" ms", " MB", "/s")) else f"{row[each]:.4f}" for each in columns)]
        for name, row in result["rows"].items()
    ]
    return Section(f"{result['texts']} texts, {result['threads']} threads.\n\n{table(['', *columns], rows)}")


SECTIONS: dict[str, tuple[str, Callable[[Result], Section]]] = {
    "embed": ("Dense vectors", embed),
    "precision": ("Precision", precision),
    "rerank": ("Reranking", rerank),
    "colbert": ("Token vectors", colbert),
    "cold_start": ("Cold start", cold_start),
    "memory": ("Memory and growth", memory),
    "roofline": ("Roofline and profile", roofline),
}


def chart(panels: Iterable[Panel]) -> str:
    """Horizontal bars, as SVG that can be read on light and dark ground."""
    drawn, top = [], 0
    for panel in panels:
        top += TITLE
        drawn.append(f'<text class="title" x="8" y="{top - 10}">{escape(panel.title)}</text>')
        longest = max(panel.bars.values())
        for name, value in panel.bars.items():
            kind = "ours" if name.startswith("fastrank") else "peer"
            wide = max(1, round(BAR * value / longest))
            drawn += [
                f'<text x="{LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{kind}" x="{LEFT}" y="{top + 3}" width="{wide}" height="{ROW - 5}" rx="2"/>',
                f'<text x="{LEFT + wide + 6}" y="{top + 14}">{value:,.{panel.digits}f}</text>',
            ]
            top += ROW
    size = f'width="{WIDTH}" height="{top + 12}" viewBox="0 0 {WIDTH} {top + 12}"'
    ground = '<rect class="ground" width="100%" height="100%"/>'
    body = "\n".join([ground, *drawn])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}\n</style>\n{body}\n</svg>\n'


def written(folder: Path) -> tuple[str, str]:
    """The Markdown and the chart of all results in a folder."""
    parts: list[str] = ["# Results"]
    panels: list[Panel] = []
    for name, (title, section) in SECTIONS.items():
        for path in sorted(folder.glob(f"{name}*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            made, on = section(result), result["machine"]
            versions = ", ".join(f"{each} {on[each]}" for each in PEERS if on.get(each, "not installed")[0].isdigit())
            where = f"{on['cores']} cores of {on['cpu']}, {on['system']}, Python {on['python']}, {versions}."
            parts += [f"## {title} (`{path.name}`)", made.text, where]
            panels += made.panels
    return "\n\n".join(parts) + "\n", chart(panels)


def readme_table(folder: Path) -> str:
    """Five rows: what people ask first, side by side; beneath them, where that was measured."""
    results = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("embed", "embed_queries", "cold_start", "memory", "rerank")
    }
    columns = ("fastrank fp32", "fastrank int8", "FastEmbed", "FastEmbed, batch 1", "sentence-transformers")
    in_rerank = ("fastrank", "fastrank int8", "fastembed", "fastembed batch 1", "sentence-transformers")
    middle = statistics.median
    texts, candidates = results["embed"]["documents"], results["rerank"]["candidates"]
    speed = {name: texts / middle(values) for name, values in results["embed"]["runs"][0]["seconds"].items()}
    query = {name: row["p50"] * 1e3 for name, row in results["embed_queries"]["runs"][0]["latency"].items()}
    start = {
        name: middle(mark["seconds"] for mark in marks) * 1e3 for name, marks in results["cold_start"]["marks"].items()
    }
    peak = {name: marks[-1]["peak"] for name, marks in results["memory"]["peak"].items()}
    pairs = {
        name: candidates / middle(results["rerank"]["seconds"][key])
        for name, key in zip(columns, in_rerank, strict=True)
    }
    rows = [
        [title, *(f"{values[name]:,.{digits}f}" if name in values else "" for name in columns)]
        for title, values, digits in (
            ("texts of mixed length, a second", speed, 0),
            ("a query, ms (p50)", query, 1),
            ("start of a process to first vector, ms", start, 0),
            ("peak memory, 1,000 texts, MB", peak, 0),
            ("reranking, pairs a second", pairs, 0),
        )
    ]
    on = results["embed"]["machine"]
    versions = ", ".join(f"{each} {on[each]}" for each in ("onnxruntime", "fastembed", "sentence-transformers"))
    instructions = on.get("instructions", "instruction set not recorded")
    return (
        f"{table(['all-MiniLM-L6-v2', *columns], rows)}\n\n"
        f"{on['cores']} cores of {on['cpu']} ({instructions}), {on['system']}, {versions}.\n"
        "Much of the lead over FastEmbed as it comes is padding that is not computed; batch 1 is its best.\n"
    )


def inserted(page: str, made: str) -> str:
    """The page with this between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} ... {END.strip()}")
    return f"{before}{begin}{made}{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Tables and a chart of results.")
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS, help="with .json files (default: results)")
    given = parser.parse_args(arguments)
    if not any(given.folder.glob("*.json")):
        parser.error(f"{given.folder} has no results")
    text, picture = written(given.folder)
    (given.folder / "report.md").write_text(text, encoding="utf-8")
    (given.folder / "speed.svg").write_text(picture, encoding="utf-8")
    if given.folder == RESULTS:
        page = inserted(README.read_text(encoding="utf-8"), readme_table(RESULTS))
        README.write_text(page, encoding="utf-8", newline="\n")
    print(f"{given.folder / 'report.md'}, {given.folder / 'speed.svg'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
