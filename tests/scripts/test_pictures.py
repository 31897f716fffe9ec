"""Pictures in docs/ are what their scripts draw."""

from xml.etree import ElementTree as ET

import pytest
from support.documents import DOCS
from support.scripts import script

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")


def test_the_picture_of_the_engine_is_that_of_today():
    assert script("pictures").main(["--check"]) == 0


@pytest.mark.parametrize("path", sorted((DOCS / "pictures").glob("*.svg")), ids=lambda path: path.name)
def test_pictures_can_be_read_on_light_and_dark_ground(path):
    text = path.read_text(encoding="utf-8")
    ET.fromstring(text)  # noqa: S314 - drawn by our scripts
    if path.name != "maxsim.svg":  # of `explain`, on white
        assert "prefers-color-scheme: dark" in text
        assert 'class="ground"' in text


def test_the_heat_map_is_of_the_texts_in_the_script():
    tool = script("pictures")
    text = tool.MAXSIM.read_text(encoding="utf-8")
    assert tool.QUERY in text
    for word in ("brakes", "want", "new", "pads"):
        assert word.casefold() in text.casefold()
