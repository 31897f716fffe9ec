"""Links between pages, and to parts of them, lead somewhere; no page is left where nobody finds it."""

import re
from pathlib import Path

import pytest
from support import ROOT
from support.documents import DOCS, PAGES, name, read, without_blocks

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")


def anchors(path):
    """The ids that GitHub gives the headings of a page."""
    found, seen = set(), {}
    for title in re.findall(r"^#{1,6} (.+?)#*$", without_blocks(read(path)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip()
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def links(path):
    """(target, anchor) of each link that stays in the repository."""
    for target in LINK.findall(without_blocks(read(path))):
        if not re.match(r"[a-z]+:", target):
            where, _, anchor = target.partition("#")
            yield (path.parent / where).resolve() if where else path, anchor


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target, anchor in links(page):
        if not (ROOT / "fastrank").is_dir() and not target.is_relative_to(DOCS):
            continue  # tests of an installed package have not all of the checkout
        assert target.exists(), f"{name(page)}: {target}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name(page)}: {target.name} has no #{anchor}"


def test_every_page_is_found_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [target for target, _ in links(page) if target.suffix == ".md" and target.is_relative_to(DOCS)]
    assert {path for path in PAGES if path.is_relative_to(DOCS)} <= reached


def test_the_contents_have_each_page_once():
    pages = re.findall(r"^- \[[^\]]+\]\(([^)#]+)\)", read(DOCS / "contents.md"), re.MULTILINE)
    assert sorted(pages) == sorted(set(pages))
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"contents.md"} == set(pages)


def test_what_is_looked_for_is_two_clicks_away():
    """From the README, by links alone: at most two."""
    near = {target for target, _ in links(ROOT / "README.md")}
    near |= {target for page in list(near) if page.suffix == ".md" and page.exists() for target, _ in links(page)}
    for wanted in ("precision.md", "models.md", "offline.md", "server.md", "integrations.md", "deployment/README.md"):
        assert DOCS / wanted in near, wanted


def test_headings_of_one_level_at_the_top():
    for page in PAGES:
        assert len(re.findall(r"^# ", without_blocks(read(page)), re.MULTILINE)) == 1, name(page)


def test_the_checks_find_what_is_wrong(tmp_path):
    page = Path(tmp_path, "page.md")
    page.write_text(
        "# One [two](x.md)\n\n## A `b` c!\n\n## A `b` c!\n\n[x](gone.md#y) [z](#a-b-c-1)\n", encoding="utf-8"
    )
    assert anchors(page) == {"one-two", "a-b-c", "a-b-c-1"}
    assert [(target.name, anchor) for target, anchor in links(page)] == [
        ("x.md", ""),
        ("gone.md", "y"),
        ("page.md", "a-b-c-1"),
    ]
