"""The languages that have a Snowball stemmer here, and their stop words."""

from __future__ import annotations

from functools import cache

from fastrank.environment import packaged_text

LANGUAGES = (
    "arabic",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
)


@cache
def stopwords(language: str) -> frozenset[str]:
    """The words that FastEmbed leaves out in one of LANGUAGES; Tamil has none.

    Lines of the files (stopwords/README.md says where they come from): `word` is of the source, `+word` was added to
    it, `-word` was taken out of it, `# ...` is a remark.
    """
    lines = packaged_text("fastrank.bm25", f"stopwords/{language}.txt").splitlines()
    removed = {line[1:] for line in lines if line.startswith("-")}
    words = {line.removeprefix("+") for line in lines if line and line[0] not in "#-"}
    return frozenset(words - removed)
