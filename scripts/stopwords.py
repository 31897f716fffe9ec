"""Write the stop-word lists of fastrank/bm25/stopwords, and the golden vectors of tests/bm25.

    python scripts/stopwords.py lists tsearch_data stopwords-iso.json fastembed_files
    python scripts/stopwords.py golden fastembed_files

`tsearch_data` is PostgreSQL's folder of that name (Debian: usr/share/postgresql/15/tsearch_data in the package
postgresql-15; in the sources: src/backend/snowball/stopwords). `stopwords-iso.json` is in the wheel stopwordsiso,
0.7.1. `fastembed_files` is a folder of FastEmbed's own lists, <language>.txt (the files of the model Qdrant/bm25): they
say how ours must differ from their source, and FastEmbed needs them to compute golden vectors.

`golden` needs `pip install fastembed==0.9.1`. Run both from the repository's root.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LISTS = ROOT / "fastrank" / "bm25" / "stopwords"
GOLDEN = ROOT / "tests" / "bm25" / "golden.json"
POSTGRESQL = "PostgreSQL 15, tsearch_data/{}.stop"
ISO = "stopwords-iso 0.7.1, those words of {!r} that FastEmbed has too"
ISO_CODES = {"arabic": "ar", "greek": "el", "romanian": "ro"}  # languages that PostgreSQL has no list for


def write_lists(postgresql: Path, iso: Path, fastembed: Path) -> None:
    """One file a language: the source's words as they are, then what differs in FastEmbed's list."""
    for wanted in sorted(fastembed.glob("*.txt")):
        language = wanted.stem
        listed = set(wanted.read_text(encoding="utf-8").splitlines())
        # A word with an apostrophe or a mark is no word of FastEmbed's tokenizer: such entries have no effect there.
        target = {word for word in listed if re.fullmatch(r"\w+", word)}
        if language in ISO_CODES:
            code = ISO_CODES[language]
            origin = ISO.format(code)
            words = sorted(target.intersection(json.loads(iso.read_text(encoding="utf-8"))[code]))
        else:
            origin = POSTGRESQL.format(language)
            words = (postgresql / f"{language}.stop").read_text(encoding="utf-8").split()
        words = list(dict.fromkeys(words))
        lines = [
            f"# {language}: {origin}. See README.md.",
            *words,
            *(f"+{word}" for word in sorted(target.difference(words))),
            *(f"-{word}" for word in sorted(set(words) - listed)),
        ]
        (LISTS / wanted.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(
            f"{language}: {len(words)} words, {len(target.difference(words))} added, {len(set(words) - listed)} removed"
        )
    (LISTS / "tamil.txt").write_text("# tamil: FastEmbed has no list.\n", encoding="utf-8")


def write_golden(fastembed: Path) -> None:
    """What FastEmbed computes from the texts that are in the golden file: add texts there by hand."""
    peer = importlib.import_module("fastembed.sparse.bm25")
    cases: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
    for case in cases:
        options = dict(case["options"])
        if "stopwords" in options:
            options["stopwords"] = set(options["stopwords"])
        model = peer.Bm25("Qdrant/bm25", specific_model_path=str(fastembed), **options)
        texts = [result["text"] for result in case["results"]]
        case["results"] = [
            {
                "text": text,
                "ids": document.indices.tolist(),
                "values": document.values.tolist(),
                "query": sorted(query.indices.tolist()),
                "tokens": model.token_count(text),
            }
            for text, document, query in zip(texts, model.embed(texts), model.query_embed(texts), strict=True)
        ]
    rows = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    version = metadata.version("fastembed")
    GOLDEN.write_text(f'{{"fastembed":"{version}","cases":[\n{rows}\n]}}\n', encoding="utf-8")
    print(f"{sum(len(case['results']) for case in cases)} texts in {len(cases)} cases")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Write stop-word lists and golden vectors of BM25.")
    commands = parser.add_subparsers(dest="command", required=True)
    lists = commands.add_parser("lists", help="write fastrank/bm25/stopwords")
    golden = commands.add_parser("golden", help="write tests/bm25/golden.json")
    lists.add_argument("postgresql", type=Path, help="PostgreSQL's folder tsearch_data")
    lists.add_argument("iso", type=Path, help="stopwords-iso.json")
    for command in (lists, golden):
        command.add_argument("fastembed", type=Path, help="a folder of FastEmbed's <language>.txt")
    given = parser.parse_args(arguments)
    if given.command == "lists":
        write_lists(given.postgresql, given.iso, given.fastembed)
    else:
        write_golden(given.fastembed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
