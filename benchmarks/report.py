"""Write the figures of the documentation from the results that the benchmarks have left.

    python benchmarks/embed.py --json benchmarks/results/embed.json            # and so on
    python benchmarks/report.py            # docs/performance.md, pictures, and tables in README and other pages
    python benchmarks/report.py --check    # exit status 1 if one of them would change
    python benchmarks/report.py FOLDER     # tables of your own results, to the standard output

docs/performance.md is benchmarks/performance.md with figures in the place of `{...}`, as `str.format` fills them in.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from common.charts import Panel, chart

Result: TypeAlias = Mapping[str, Any]
Figures: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
TEMPLATE = Path(__file__).parent / "performance.md"
DOCS = ROOT / "docs"
TABLES = {"readme": ROOT / "README.md", "precision": DOCS / "precision.md"}  # name of a table -> where it is
PEERS = (
    "onnxruntime",
    "numpy",
    "tokenizers",
    "fastembed",
    "flashrank",
    "bm25s",
    "tantivy",
    "sentence-transformers",
    "transformers",
    "torch",
)
PEER, BEST, OURS = "FastEmbed", "FastEmbed, batch 1", "fastrank fp32"
NAMES = {  # as the results call an engine -> as readers do
    "fastrank": OURS,
    "fastembed": PEER,
    "fastembed 256": PEER,
    "fastembed batch 1": BEST,
    "fastembed 1": BEST,
    "fastembed 8": "FastEmbed, batch 8",
    "flashrank": "FlashRank",
    "fastrank warm": "fastrank, words seen before",
    "fastrank cold": "fastrank, new words",
    "FTS5": "SQLite FTS5",
    "before": "BM25Index before segments",
    "import numpy, onnxruntime, tokenizers": "only imports: numpy, onnxruntime, tokenizers",
    "import fastrank": "only imports: these and fastrank",
    "import fastembed": "only imports: FastEmbed",
    "import sentence_transformers": "only imports: sentence-transformers",
}
CHARTED = (OURS, "fastrank int8", "fastrank int8-fast", PEER, BEST, "FlashRank", "sentence-transformers")


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the names of readers."""
    return {NAMES.get(name, name): value for name, value in values.items()}


def medians(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Of each engine, by the names of readers."""
    return {name: statistics.median(each) for name, each in named(values).items()}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}x"


def machine(result: Result) -> str:
    """What it was measured on: processor and instruction set, system, versions."""
    on = result["machine"]
    versions = [f"{each} {on[each]}" for each in PEERS if on.get(each, "not installed")[0].isdigit()]
    cpu = on["cpu"] if "AVX" in on["cpu"] else f"{on['cpu']} ({on.get('instructions', 'instruction set not recorded')})"
    return f"{on['cores']} cores of {cpu}, {on['system']}, Python {on['python']}, {', '.join(versions)}"


def embed(result: Result) -> Figures:
    """Texts a second and single queries, at each number of threads."""
    found: Figures = {"tokens": result["tokens"], "documents": result["documents"], "threads": {}}
    parts = []
    for run in result["runs"]:
        if run["latency"]:
            found["p50"] = {name: asked["p50"] * 1e3 for name, asked in named(run["latency"]).items()}
            base = found["p50"].get(PEER, found["p50"][OURS])
            rows = [
                [name, f"{asked['p50'] * 1e3:.2f} ms", f"{asked['p95'] * 1e3:.2f} ms", times(base / asked["p50"] / 1e3)]
                for name, asked in named(run["latency"]).items()
            ]
            parts.append(table(["", "p50", "p95", f"to {PEER}"], rows))
        if not run["seconds"]:
            continue
        speed = {name: result["documents"] / value for name, value in medians(run["seconds"]).items()}
        fp32 = [speed[name] for name in (PEER, BEST, "sentence-transformers") if name in speed]
        base, best = speed.get(PEER, speed[OURS]), max(fp32, default=speed[OURS])
        rows = [
            [
                name,
                f"{value:.0f}",
                times(value / base),
                times(value / best),
                f"{run['differences'][name]['cosine mean']:.4f}",
            ]
            for name, value in speed.items()
        ]
        head = ["", "texts a second", f"to {PEER if PEER in speed else OURS}", "to the best peer in fp32"]
        parts.append(table([*head, "cosine to fp32"], rows))
        found["speed"], found["ratio"] = speed, {name: value / base for name, value in speed.items()}
        found["to best"] = {name: value / best for name, value in speed.items()}
        found["threads"][run["threads"]] = speed
    if len(found["threads"]) > 1:
        few, many = min(found["threads"]), max(found["threads"])
        rows = [
            [name, f"{one:.0f}", f"{(other := found['threads'][many][name]):.0f}", times(other / one)]
            for name, one in found["threads"][few].items()
        ]
        parts = [table(["texts a second", f"{few} thread", f"{many} threads", ""], rows)]
    return {**found, "table": "\n\n".join(parts)}


def rerank(result: Result) -> Figures:
    """One query and its documents."""
    count, middle = result["candidates"], medians(result["seconds"])
    base = middle.get(PEER, middle[OURS])
    best = middle.get(BEST, base)
    seconds = {name: sorted(values) for name, values in named(result["seconds"]).items()}
    rows = [
        [
            name,
            f"{value:.2f} s",
            f"{seconds[name][-1]:.2f} s",
            f"{count / value:.0f}",
            times(base / value),
            times(best / value),
        ]
        for name, value in middle.items()
    ]
    head = ["", "median", "longest", "pairs a second", f"to {PEER if PEER in middle else OURS}", "to its best"]
    return {
        "speed": {name: count / value for name, value in middle.items()},
        "ratio": {name: base / value for name, value in middle.items()},
        "candidates": count,
        "table": table(head, rows),
    }


def colbert(result: Result) -> Figures:
    """Token vectors of documents, and of queries one by one."""
    documents = medians(result["seconds"]["documents"])
    queries = medians(result["seconds"]["queries, one by one"])
    base = documents.get(PEER, documents[OURS])
    rows = [
        [
            name,
            f"{value:.1f} s",
            times(base / value),
            f"{queries[name] / result['queries'] * 1e3:.0f} ms" if name in queries else "",
        ]
        for name, value in documents.items()
    ]
    head = ["", "all documents", f"to {PEER if PEER in documents else OURS}", "a query"]
    return {"documents": result["documents"], "tokens": result["tokens"], "table": table(head, rows)}


def cold_start(result: Result) -> Figures:
    """New processes."""
    middle = {
        name: tuple(statistics.median(mark[key] for mark in marks) for key in ("seconds", "peak"))
        for name, marks in named(result["marks"]).items()
    }
    base = middle.get(PEER, middle[OURS])[0]
    rows = [
        [name, f"{seconds * 1e3:,.0f}", f"{peak:.0f} MB", "" if name.startswith("only ") else times(base / seconds)]
        for name, (seconds, peak) in sorted(middle.items(), key=lambda each: (each[0].startswith("only "), each[1]))
    ]
    head = ["", "ms", "peak memory", f"to {PEER if PEER in middle else OURS}"]
    return {"ms": {name: seconds * 1e3 for name, (seconds, _) in middle.items()}, "table": table(head, rows)}


def memory(result: Result) -> Figures:
    """The most a process held, and growth."""
    peaks = {name: marks[-1]["peak"] for name, marks in named(result["peak"]).items()}
    base = peaks.get(PEER, peaks[OURS])
    rows = [
        [name, f"{value:,.0f} MB", times(base / value)]
        for name, value in sorted(peaks.items(), key=lambda each: each[1])
    ]
    parts = [table(["", "peak", f"less than {PEER if PEER in peaks else OURS}"], rows)]
    rows = []
    for name, marks in result["growth"].items():
        for before, mark in pairwise(marks):
            speed = (mark["documents"] - before["documents"]) / (mark["seconds"] - before["seconds"])
            rows.append([name, f"{mark['documents']:,}", f"{speed:,.0f}", f"{mark['resident']:.0f} MB"])
    growth = table(["", "short texts", "texts a second", "held"], rows) if rows else ""
    return {"peak": peaks, "growth": growth, "table": "\n\n".join([*parts, growth])}


def roofline(result: Result) -> Figures:
    """What the matrix product allows, what is reached of it, and where the time goes."""
    speeds, bounds = result["speeds"], {"fp32": "product in fp32"}
    share = {
        name: speed / speeds[bounds.get(name, "product in int8")]
        for name, speed in speeds.items()
        if not name.startswith("product")
    }
    rows = [[name, f"{speed:.0f}", f"{share[name]:.0%}" if name in share else ""] for name, speed in speeds.items()]
    profiles = []
    for of, shares in result["profile"].items():
        lines = [
            [purpose, *(f"{shares[name][purpose]:.0%}" for name in shares)] for purpose in next(iter(shares.values()))
        ]
        profiles.append(table([f"share of the time, {of}", *shares], lines))
    return {
        "gops": speeds,
        "share": share,
        "profile": "\n\n".join(profiles),
        "table": "\n\n".join([table(["", "GOP/s", "of the product"], rows), *profiles]),
    }


def precision(result: Result) -> Figures:
    """What int8 costs and gives."""
    columns = {
        "cosine": ("cosine to fp32", "{:.4f}"),
        "least": ("least", "{:.4f}"),
        "top-10": ("top-10 kept", "{:.0%}"),
        "ratio": ("speed", "{:.1f}x"),
        "scifact": ("SciFact", "{:.4f}"),
        "cranfield": ("Cranfield", "{:.4f}"),
        "STS-B": ("STS-B", "{:.4f}"),
        "peak MB": ("peak memory", "{:.0f} MB"),
    }
    shown = {name: column for name, column in columns.items() if name in result["rows"]["fp32"]}
    rows = [
        [name, *(pattern.format(row[each]) for each, (_, pattern) in shown.items())]
        for name, row in result["rows"].items()
    ]
    fp32 = result["rows"]["fp32"]
    return {
        "texts": result["texts"],
        "ndcg": {name: fp32[name] for name in ("scifact", "cranfield") if name in fp32},
        "spearman": fp32.get("STS-B"),
        "table": table(["", *(title for title, _ in shown.values())], rows),
    }


def quality(result: Result) -> Figures:
    """nDCG@10 of each collection, and Spearman's correlation."""
    ndcg = {row["dataset"]: row["ndcg@10"] for row in result["retrieval"]}
    return {
        "ndcg": ndcg,
        "table": table(["", "nDCG@10"], [[name, f"{value:.4f}"] for name, value in ndcg.items()]),
    }


def maxsim(result: Result) -> Figures:
    """Against the bare matrix product."""
    middle = medians(result["seconds"])
    rows = [[name, f"{value * 1e3:.0f} ms", times(value / middle["product"])] for name, value in middle.items()]
    return {**{key: result[key] for key in ("documents", "tokens", "dim")}, "table": table(["", "", "to it"], rows)}


def bm25(result: Result) -> Figures:
    """Documents and queries a second; `seconds` of a thing by engine."""
    seconds = {what: named(by) for what, by in result["seconds"].items()}
    count = result["documents"]
    rows = []
    for what, by in seconds.items():
        if what == "25 times as many documents":
            continue
        base = list(by.values())[-1]  # the peer
        for name, value in by.items():
            figure = f"{value * 1e3:.0f} ms" if what == "start" else f"{count / value:,.0f} a second"
            rows.append([what, name, figure, times(base / value)])
    many = seconds["25 times as many documents"]
    return {
        "documents": count,
        "characters": result["characters"],
        "gain": many["one process"] / many["parallel=0"],
        "table": table(["", "", "", "ratio"], rows),
    }


def bm25_index(result: Result) -> Figures:
    """A table for each number of passages."""
    columns = {
        "p50 ms": ("query p50", "{:.3g} ms"),
        "p99 ms": ("p99", "{:.3g} ms"),
        "build s": ("build", "{:.3g} s"),
        "CPU s": ("CPU", "{:.3g} s"),
        "peak MB": ("peak memory", "{:,.0f} MB"),
        "file MB": ("file", "{:.3g} MB"),
        "first s": ("first search of a process", "{:.3g} s"),
        "add s": ("add one and search", "{:.2g} s"),
    }
    parts = []
    for passages, engines in result["results"].items():
        rows = [
            [
                "BM25Index" if name == "fastrank" else NAMES.get(name, name),
                *("" if row[each] is None else pattern.format(row[each]) for each, (_, pattern) in columns.items()),
            ]
            for name, row in engines.items()
        ]
        parts += [f"{int(passages):,} passages:", table(["", *(title for title, _ in columns.values())], rows)]
    return {"table": "\n\n".join(parts)}


def serve(result: Result) -> Figures:
    """A query beside a job of 10,000 texts, and requests a second."""
    engines, rows, rates = result["result"], [], []
    for name, runs in engines.items():
        middle = {key: statistics.median(run[key] for run in runs["bulk"]) for key in runs["bulk"][0]}
        waits = (f"{middle[key] / 1e3:.2g} s" for key in ("p50", "p99", "longest"))
        rows.append([name, *waits, f"{middle['bulk_seconds']:.0f} s"])
        at = [
            f"{statistics.median(run['per_second'] for run in runs[f'/embeddings {many}']):.0f}" for many in (1, 16, 64)
        ]
        rates.append([name, *at])
    return {
        "table": table(["server", "a query waits: p50", "p99", "longest", "the 10,000 texts take"], rows),
        "rates": table(["requests a second of one text", "1 connection", "16", "64"], rates),
    }


KINDS: dict[str, Callable[[Result], Figures]] = {
    "embed": embed,
    "precision": precision,
    "quality": quality,
    "rerank": rerank,
    "colbert": colbert,
    "cold_start": cold_start,
    "memory": memory,
    "roofline": roofline,
    "maxsim": maxsim,
    "bm25_index": bm25_index,
    "bm25": bm25,
    "serve": serve,
}


def figures(folder: Path) -> dict[str, Figures]:
    """By the names of the files: what one can say of each result, and `on`, its machine."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        kind = next((kind for kind in KINDS if path.stem == kind or path.stem.startswith(f"{kind}_")), None)
        if kind:
            result = json.loads(path.read_text(encoding="utf-8"))
            found[path.stem] = {"on": machine(result), **KINDS[kind](result)}
    return found


def readme_table(found: Mapping[str, Figures]) -> str:
    """Five rows: what people ask first, side by side; beneath them, where that was measured."""
    columns = (OURS, "fastrank int8", PEER, BEST, "sentence-transformers")
    rows = [
        [title, *(f"{values[name]:,.{digits}f}" if name in values else "" for name in columns)]
        for title, values, digits in (
            ("texts of mixed length, a second", found["embed"]["speed"], 0),
            ("a query, ms (p50)", found["embed_queries"]["p50"], 1),
            ("start of a process to first vector, ms", found["cold_start"]["ms"], 0),
            ("peak memory, 1,000 texts, MB", found["memory"]["peak"], 0),
            ("reranking, pairs a second", found["rerank"]["speed"], 0),
        )
    ]
    on = found["embed"]["on"].replace(", Python", ",\nPython")
    return (
        f"{table(['all-MiniLM-L6-v2', *columns], rows)}\n\n{on}.\n"
        "Much of the lead over FastEmbed as it comes is padding that is not computed; batch 1 is its best.\n"
    )


def precision_table(found: Mapping[str, Figures]) -> str:
    """The table of precision.json and its machine."""
    return f"{found['precision']['table']}\n\n{found['precision']['on']}.\n"


def quality_table(found: Mapping[str, Figures]) -> str:
    """Methods by collections."""
    methods = {
        "dense, all-MiniLM-L6-v2": ["precision"],
        "BM25": ["quality_bm25", "quality_bm25_german", "quality_bm25_russian"],
        "BM25 without stemmer": ["quality_bm25_german_no_stemmer", "quality_bm25_russian_no_stemmer"],
        "dense and BM25, fused by rank": ["quality_hybrid"],
        "BM25's best 100, reranked by MaxSim": ["quality_colbert"],
    }
    columns = {"scifact": "SciFact", "cranfield": "Cranfield", "xquad-r-de": "XQuAD-R German", "xquad-r-ru": "Russian"}
    rows = []
    for title, files in methods.items():
        ndcg = {name: value for file in files if file in found for name, value in found[file]["ndcg"].items()}
        if ndcg:
            rows.append([title, *(f"{ndcg[name]:.4f}" if name in ndcg else "" for name in columns)])
    return table(["nDCG@10", *columns.values()], rows)


def quality_bars(found: Mapping[str, Figures], collection: str) -> dict[str, float]:
    """nDCG@10 of four ways to search."""
    ways = {
        "BM25": "quality_bm25",
        "dense": "precision",
        "BM25 + MaxSim rerank": "quality_colbert",
        "BM25 + dense, fused": "quality_hybrid",
    }
    return {way: found[file]["ndcg"][collection] for way, file in ways.items() if file in found}


def charted(values: Mapping[str, float]) -> dict[str, float]:
    """The engines that a picture shows."""
    return {name: values[name] for name in CHARTED if name in values}


def pictures(found: Mapping[str, Figures]) -> dict[str, str]:
    """File name -> SVG."""
    notes = ["all-MiniLM-L6-v2, the same weights for all", found["rerank"]["on"]]
    ours = (OURS, "fastrank int8", "fastrank int8-fast")
    return {
        "speed.svg": chart(
            [
                Panel("Texts of mixed length, a second", charted(found["embed"]["speed"]), more=True),
                Panel("Start of a process to its first vector, ms", charted(found["cold_start"]["ms"]), more=False),
                Panel("Reranking, pairs a second", charted(found["rerank"]["speed"]), more=True),
            ],
            notes,
        ),
        "speed_more.svg": chart(
            [
                Panel("Texts of equal length, a second", charted(found["embed_uniform"]["speed"]), more=True),
                Panel("One query of 10 tokens, ms", charted(found["embed_queries"]["p50"]), more=False, digits=2),
                Panel("Peak memory of a process, 1,000 texts, MB", charted(found["memory"]["peak"]), more=False),
                Panel(
                    "Of the bare matrix product, %",
                    {name: 100 * found["roofline"]["share"][name.removeprefix("fastrank ")] for name in ours},
                    more=True,
                ),
            ],
            notes,
        ),
        "quality.svg": chart(
            [
                Panel(f"{title}, nDCG@10", quality_bars(found, name), more=True, digits=3)
                for name, title in (("scifact", "SciFact"), ("cranfield", "Cranfield"))
            ],
            ["dense and MaxSim: all-MiniLM-L6-v2, texts cut at 256 tokens", found["quality_bm25"]["on"]],
            ours="BM25 + dense",
        ),
    }


def inserted(page: str, name: str, made: str) -> str:
    """The page with this between the two marks of this name."""
    begin, end = f"<!-- figures: {name}, written by benchmarks/report.py -->\n", "<!-- figures: end -->\n"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no {begin.strip()} ... {end.strip()}")
    return f"{before}{begin}{made}{end}{after}"


def written(folder: Path) -> dict[Path, str]:
    """Every file that the results make, with its text."""
    found = figures(folder)
    tables = {"readme": readme_table(found), "precision": precision_table(found)}
    template = re.sub(r"\A<!--.*?-->\n", "", TEMPLATE.read_text(encoding="utf-8"), flags=re.DOTALL)
    page = template.format_map({**found, "quality_table": quality_table(found)})
    files = {DOCS / "performance.md": page}
    files |= {path: inserted(path.read_text(encoding="utf-8"), name, tables[name]) for name, path in TABLES.items()}
    return {**files, **{DOCS / "pictures" / name: svg for name, svg in pictures(found).items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Tables and pictures of results.")
    parser.add_argument("folder", nargs="?", type=Path, help="with results of your own: print their tables")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something would change")
    given = parser.parse_args(arguments)
    if given.folder:
        if not (found := figures(given.folder)):
            parser.error(f"{given.folder} has no results")
        print("\n\n".join(f"## {name}\n\n{each['table']}\n\n{each['on']}." for name, each in found.items()))
        return 0
    stale = [path for path, text in written(RESULTS).items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale if not given.check else ():
        path.parent.mkdir(exist_ok=True)
        path.write_text(written(RESULTS)[path], encoding="utf-8", newline="\n")
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date' if given.check else 'written'}")
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
