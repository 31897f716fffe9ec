"""Build the site in build/site: README.md, docs/ and an API reference from the docstrings.

    pip install '.[docs]'
    python scripts/site.py                          # with Zensical; warnings are errors
    python scripts/site.py --with mkdocs            # with MkDocs and the Material theme, if they are installed

The pages are those that GitHub shows. Here the README becomes the first page, links to files outside docs/ become code,
and the order of docs/contents.md becomes the navigation.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import fastrank  # noqa: E402 - its names; nothing else of it is loaded, and nothing it depends on is needed

DOCS, BUILD = ROOT / "docs", ROOT / "build"
COMMANDS = {
    "zensical": [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f"],
    "mkdocs": [sys.executable, "-m", "mkdocs", "build", "--clean", "--strict", "-f"],
}
CSS = """.md-typeset table:not([class]) { font-size: .68rem }
.md-typeset img { max-width: 100% }
.md-typeset h1 { margin-bottom: .8em }
.md-typeset code { overflow-wrap: anywhere }
.md-typeset table code { overflow-wrap: normal }
"""
FIRST = ["TextEmbedding", "SparseTextEmbedding", "LateInteractionTextEmbedding", "TextCrossEncoder"]  # of fastrank
ERRORS = [name for name in fastrank.__all__ if name.endswith("Error")]
API = {
    "Models": [f"fastrank.{name}" for name in [*FIRST, *sorted(set(fastrank.__all__) - {*FIRST, *ERRORS})]],
    "BM25": ["fastrank.bm25.BM25Index", "fastrank.bm25.BM25"],
    "Bulk": ["fastrank.bulk.Embedder"],
    "Functions": [
        "fastrank.fusion.reciprocal_rank_fusion",
        "fastrank.fusion.explain_fusion",
        "fastrank.maxsim.maxsim",
        "fastrank.postprocess.Muvera",
        "fastrank.postprocess.pool_tokens",
    ],
    "Errors": [f"fastrank.{name}" for name in ERRORS],
}
LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)\s]+)\)")


def moved(text: str, folder: Path) -> str:
    """A page of this folder of the repository, with links as they are inside docs/."""

    def link(found: re.Match[str]) -> str:
        mark, title, target = found.groups()
        where, hash_, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not where:
            return found[0]
        path = (folder / where).resolve()
        if path == ROOT / "README.md":
            path = DOCS / "index.md"
        if not path.is_relative_to(DOCS):
            return title if title.startswith("`") else f"{title} (`{path.relative_to(ROOT).as_posix()}`)"
        base = DOCS if folder == ROOT else folder
        return f"{mark}[{title}]({_relative(path, base)}{hash_}{anchor})"

    return LINK.sub(link, text)


def _relative(path: Path, base: Path) -> str:
    up = 0
    while not path.is_relative_to(base):
        base, up = base.parent, up + 1
    return "../" * up + path.relative_to(base).as_posix()


def navigation() -> Iterator[dict[str, object]]:
    """Sections and pages as docs/contents.md has them, between the first page and the API."""
    yield {"fastrank": "index.md"}
    for part in re.split(r"^## ", (DOCS / "contents.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, lines = part.partition("\n")
        yield {title: [{name: page} for name, page in re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\)", lines, re.MULTILINE)]}
    yield {"API": [{title: f"api/{_slug(title)}.md"} for title in API]}


def _slug(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def prepare() -> Path:
    """Put the pages into build/docs and return the configuration that goes with them."""
    pages = BUILD / "docs"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages)
    (pages / "contents.md").unlink()
    for page in DOCS.rglob("*.md"):
        text = moved(page.read_text(encoding="utf-8"), page.parent)
        if page.name != "contents.md":
            (pages / page.relative_to(DOCS)).write_text(text, encoding="utf-8")
    readme = moved((ROOT / "README.md").read_text(encoding="utf-8"), ROOT)
    (pages / "index.md").write_text(re.sub(r"\[Contents\]\(contents\.md\)", "Contents", readme), encoding="utf-8")
    (pages / "site.css").write_text(CSS, encoding="utf-8")
    (pages / "api").mkdir()
    for title, names in API.items():
        blocks = "".join(f"::: {name}\n\n" for name in names)
        (pages / "api" / f"{_slug(title)}.md").write_text(f"# {title}\n\n{blocks}", encoding="utf-8")
    configuration = ROOT / "build.mkdocs.yml"
    nav = json.dumps(list(navigation()), indent=1)  # JSON is YAML
    configuration.write_text(f"{(ROOT / 'mkdocs.yml').read_text(encoding='utf-8')}nav: {nav}\n", encoding="utf-8")
    return configuration


def main(arguments: Sequence[str] | None = None) -> int:
    """Build."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--with", dest="generator", choices=COMMANDS, default="zensical", help="default: zensical")
    options = parser.parse_args(arguments)
    configuration = prepare()
    try:
        done = subprocess.run([*COMMANDS[options.generator], configuration], cwd=ROOT, check=False)  # noqa: S603
    finally:
        configuration.unlink()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
