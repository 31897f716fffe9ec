"""What scripts/site.py makes of the pages before a generator reads them."""

import pytest
from support import ROOT
from support.documents import DOCS
from support.scripts import script

pytestmark = pytest.mark.skipif(not (ROOT / "fastrank").is_dir(), reason="only a checkout has the site")


@pytest.fixture(scope="module")
def tool():
    return script("site")


def test_links_of_the_readme_are_those_of_the_first_page(tool):
    assert tool.moved("[a](docs/models.md#all-models)", ROOT) == "[a](models.md#all-models)"
    assert tool.moved("![a](docs/pictures/speed.svg)", ROOT) == "![a](pictures/speed.svg)"
    assert tool.moved("[a](CHANGELOG.md) [b](https://x.y/z.md)", ROOT) == "a (`CHANGELOG.md`) [b](https://x.y/z.md)"


def test_links_of_a_page_below_docs_stay(tool):
    assert tool.moved("[a](../offline.md#variables)", DOCS / "deployment") == "[a](../offline.md#variables)"
    assert tool.moved("[a](../../README.md)", DOCS / "deployment") == "[a](../index.md)"
    assert tool.moved("[`b.sh`](../../scripts/strip.sh)", DOCS / "deployment") == "`b.sh`"


def test_every_page_is_in_the_navigation(tool):
    pages = {
        page
        for part in tool.navigation()
        for pages in part.values()
        if isinstance(pages, list)
        for each in pages
        for page in each.values()
    }
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"contents.md"}
    assert written <= pages


def test_the_api_reference_names_what_is_there(tool):
    import importlib

    for name in (name for names in tool.API.values() for name in names):
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name
