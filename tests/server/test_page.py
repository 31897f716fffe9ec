"""The page in a real browser: headless Chromium, where there is one."""

import base64
import json
import os
import shutil

import pytest
from server.live import Model, running

selenium = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)
MODELS = [
    Model("cross/toy-rerank", "rerank"),
    Model("late/toy-colbert", "late"),
    Model("dense/toy-embed", "dense"),
]
LINES = "BM25 ranks documents\nParis is the capital of France\ndogs bark at night, cut"


@pytest.fixture(scope="module")
def server():
    with running(models=MODELS, aliases={}) as live:
        yield live


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no Chromium with its driver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, server):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1280, 900)
    browser.get(server.url)
    wait(browser, lambda: browser.find_element(By.TAG_NAME, "html").get_attribute("data-ready") == "true")
    return browser


def wait(browser, condition):
    WebDriverWait(browser, 30).until(lambda _driver: condition())


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def every(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def choose(browser, name, index):
    browser.execute_script("document.getElementById(arguments[0]).selectedIndex = arguments[1]", name, index)


def rank(browser, columns=1, lines=LINES):
    browser.execute_script(
        "for (const [id, value] of Object.entries(arguments[0])) {"
        "  document.getElementById(id).value = value;"
        "  document.getElementById(id).dispatchEvent(new Event('input'));"
        "}",
        {"query": "the capital", "documents": lines},
    )
    one(browser, "#rank-form .go").click()
    wait(browser, lambda: len(every(browser, ".ranking")) == columns)


def keep(browser, name):
    """A screenshot, for people, where FASTRANK_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PAGE_SCREENSHOTS"):
        size = browser.execute_script("return [document.body.scrollWidth, document.body.scrollHeight]")
        shot = browser.execute_cdp_cmd(
            "Page.captureScreenshot",
            {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}},
        )
        with open(f"{folder}/{name}.png", "wb") as file:  # noqa: PTH123
            file.write(base64.b64decode(shot["data"]))


def colour_scheme(browser, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_documents_are_ranked_with_scores_tokens_and_what_was_cut(page):
    rank(page)
    texts = [each.text for each in every(page, ".hit .text")]
    assert texts == ["Paris is the capital of France", "dogs bark at night, cut", "BM25 ranks documents"]
    assert one(page, ".hit .score").text == "0.8808"
    widths = [float(bar.get_attribute("style").split("width: ")[1].split("%")[0]) for bar in every(page, ".bar span")]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == 100
    assert len(every(page, ".cut")) == 1
    assert "3 documents" in one(page, ".figures").text
    assert "ms in the server" in one(page, ".figures").text
    keep(page, "rank")


def test_two_methods_stand_side_by_side(page):
    choose(page, "first", 0)
    choose(page, "second", 2)
    rank(page, columns=2)
    left, right = every(page, ".ranking")
    assert "cross-encoder" in left.text
    assert "late interaction" in right.text
    assert left.location["y"] == right.location["y"]
    keep(page, "beside")


def test_late_interaction_shows_which_tokens_meet(page):
    choose(page, "first", 1)
    choose(page, "second", 0)
    rank(page)
    button = one(page, ".meta button")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    wait(page, lambda: every(page, "table.heat"))
    assert [cell.text for cell in every(page, ".heat tbody th")] == ["the", "capital"]
    assert len(every(page, ".heat td.best")) == 2
    assert button.get_attribute("aria-expanded") == "true"
    keep(page, "heat")
    button.click()
    assert not every(page, "table.heat")


def test_similarity_of_texts_is_a_matrix(page):
    one(page, "#tab-similar").click()
    page.execute_script("document.getElementById('texts').value = arguments[0]", "one\ntwo words\nthree")
    one(page, "#similar-form .go").click()
    wait(page, lambda: every(page, "#matrix td.cell"))
    cells = [each.text for each in every(page, "#matrix td.cell")]
    assert len(cells) == 9
    assert [cells[0], cells[4], cells[8]] == ["1.00"] * 3
    keep(page, "matrix")


def test_the_call_can_be_copied_and_runs(page, server):
    rank(page, lines='it\'s "one" \\ line\nzwei Wörter')
    page.execute_script("document.querySelector('details').open = true")
    curl, python = (each.text for each in every(page, ".snippet pre"))
    assert curl.startswith(f"curl {server.url}/v1/rerank")
    sent = curl.split(" -d '", 1)[1].removesuffix("'").replace("'\\''", "'")
    assert json.loads(sent)["documents"] == ['it\'s "one" \\ line', "zwei Wörter"]
    printed = []
    exec(python, {"print": printed.append})  # noqa: S102 - the page's own words
    assert len(printed[0]["results"]) == 2


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.txt", "one\n\ntwo\r\n", ["one", "two"]),
        ("a.jsonl", '{"id": 1, "text": "one"}\n{"id": 2, "text": "two\\nlines"}\n', ["one", "two lines"]),
        ("a.json", '["one", {"body": "two"}]', ["one", "two"]),
        ("a.csv", 'id,text\n1,"one, with ""quotes"""\n2,two\n', ['one, with "quotes"', "two"]),
        ("a.tsv", "one\tx\ntwo\ty\n", ["one", "two"]),
    ],
)
def test_files_are_opened(page, tmp_path, name, content, lines):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    one(page, "#file").send_keys(str(path))
    wait(page, lambda: one(page, "#count").text == "2 documents")
    assert one(page, "#documents").get_property("value").split("\n") == lines


def test_errors_of_the_server_are_shown(page, server):
    server.runner.error = RuntimeError("no")
    try:
        rank(page)
        assert "Internal Server Error" in one(page, ".problem").text
    finally:
        server.runner.error = None


def test_texts_are_never_read_as_markup(page):
    rank(page, lines="<img src=x onerror=\"document.title='broken'\">\n<b>bold</b>")
    assert not every(page, ".hit b, .hit img")
    assert page.title == "fastrank"


def test_the_keyboard_is_enough(page):
    one(page, "#query").send_keys(Keys.CONTROL, Keys.ENTER)
    wait(page, lambda: every(page, ".ranking"))
    tab = one(page, "#tab-rank")
    tab.send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.get_attribute("id") == "tab-similar"
    assert not one(page, "#rank").is_displayed()
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert one(page, "#rank").is_displayed()
    reached = set()
    for _ in range(12):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.add(page.switch_to.active_element.get_attribute("id") or page.switch_to.active_element.text)
    assert {"query", "documents", "file", "first", "second", "top", "Rank"} <= reached


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_a_phone(page, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    choose(page, "first", 1)
    choose(page, "second", 1)
    rank(page, columns=2)
    one(page, ".meta button").click()
    wait(page, lambda: every(page, "table.heat"))
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    keep(page, f"width-{width}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page, scheme):
    colour_scheme(page, scheme)
    choose(page, "second", 2)
    rank(page, columns=2)
    for selector in (".text", ".figures", ".hint", ".cut", ".go", "h1", "a"):
        text, back = page.execute_script(
            """
            let element = document.querySelector(arguments[0]);
            const text = getComputedStyle(element).color;
            while (getComputedStyle(element).backgroundColor === 'rgba(0, 0, 0, 0)') element = element.parentElement;
            return [text, getComputedStyle(element).backgroundColor];
            """,
            selector,
        )
        assert contrast(text, back) >= 4.5, (selector, text, back)
    keep(page, scheme)
    colour_scheme(page, "light")


def test_nothing_is_asked_of_anybody_else(page, server):
    for kind in ("performance", "browser"):
        page.get_log(kind)
    page.get(server.url)
    wait(page, lambda: one(page, "html").get_attribute("data-ready") == "true")
    rank(page)
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(url.startswith(server.url) for url in asked), asked
    assert [
        entry for entry in page.get_log("browser") if entry["level"] == "SEVERE" and "500" not in entry["message"]
    ] == []


def contrast(one_colour, other):
    """The ratio of WCAG."""
    lighter, darker = sorted((luminance(one_colour), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour):
    parts = [float(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
