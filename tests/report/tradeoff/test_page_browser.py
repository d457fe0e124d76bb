"""The page of a trade-off as a reader uses it: in a browser without a screen, without a network.

It needs Chromium (`apt-get install chromium`, or its path in EXMEM_CHROMIUM) and playwright. Where one of them is
missing these tests are left out, and pytest says so at its end; where CI is set, they fail instead.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from exmem.report.tradeoff.page import write_tradeoff
from exmem.report.tradeoff.sheets import RecipeSheet
from exmem.report.view.sheet import Card, Panel, Sheet
from tests.report.tradeoff.sample import NASTY, RECIPES, findings, sampled

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (420, 1_400)


def left_out(reason):
    """Leave a test out, or fail where nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(f"browser: {reason}")


@pytest.fixture(scope="module")
def browser():
    found = os.environ.get("EXMEM_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        left_out("no Chromium is installed: apt-get install chromium, or give its path in EXMEM_CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        left_out("playwright is not installed: pip install playwright")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of probes and runs on two data sets, with recipes whose names are markup or long."""
    recipes = [*RECIPES, NASTY, "x" * 200]
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    panels = (Panel("original", image), Panel("3 of 9 patches", image))
    sheets = [
        RecipeSheet("image", name, Sheet("", {}, (), (Card("cat", {"bytes": "12 = image 12"}, panels),)))
        for name in ("raw", "jpeg")
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_tradeoff(
        findings(sampled(recipes=recipes, budgets={"60 kB": 60_000, "1 MB": 1_000_000}), sheets=sheets), path
    )
    return path


class Opened:
    """A page in a tab; what it asks for and what goes wrong is kept."""

    def __init__(self, browser, file, width=1_400):
        self.tab = browser.new_page(viewport={"width": width, "height": 900})
        self.tab.set_default_timeout(20_000)
        self.wrong, self.asked = [], []
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(file.as_uri())
        self.tab.wait_for_selector("#charts svg .mark")

    def count(self, selector):
        return self.tab.locator(f"{selector}:visible").count()

    def tick(self, axis, place):
        self.tab.locator(f"input[name={axis}][value='{place}']").click()


@pytest.fixture
def opened(browser, file):
    """What opens the page; at the end nothing may have gone wrong, and nothing been asked for but the page itself."""
    pages = []

    def make(width=1_400):
        pages.append(Opened(browser, file, width))
        return pages[-1]

    yield make
    for page in pages:
        asked = [url for url in page.asked if not url.startswith("data:")]
        page.tab.close()
        assert page.wrong == []
        assert asked == [file.as_uri()]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_its_window_and_a_screenshot_shows_it(opened, width, tmp_path):
    page = opened(width)
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    for mark in page.tab.locator("main > section").all():
        box = mark.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    folder = Path(os.environ.get("EXMEM_SCREENSHOTS", tmp_path))
    shot = page.tab.screenshot(path=folder / f"page-{width}.png", full_page=True)
    assert len(shot) > 50_000
    charts = [chart.bounding_box() for chart in page.tab.locator("#charts svg").all()]
    across = len({round(box["x"]) for box in charts})
    assert (len(charts), across) == (4, 1 if width == 420 else 2)
    assert page.tab.locator("#filters").get_attribute("open") == (None if width == 420 else "")


def test_a_filter_takes_recipes_budgets_and_kinds_out_of_charts_and_tables_alike(opened):
    page = opened()
    rows, marks = page.count("#table tbody tr"), page.count("#charts .mark")
    recipes = len(RECIPES) + 2
    assert rows == recipes * 2 * 3  # probes at two budgets and runs at one, on two data sets
    assert marks == rows
    page.tick("recipe", 0)
    assert page.count("#table tbody tr") == rows - 6
    assert page.count("#charts .mark") == marks - 6
    assert page.count("#equal tr[data-recipe='0']") == 0
    assert page.count(".gallery [data-recipe='0']") == 0
    assert page.count(".gallery [data-recipe='1']") == 1
    page.tick("budget", 1)
    page.tick("kind", 1)
    assert page.count("#table tbody tr") == page.count("#charts .mark") == (recipes - 1) * 2
    assert page.count("#equal th[data-budget='1']") == 0
    assert f"{(recipes - 1) * 2} of {rows} rows" in page.tab.locator("#count").inner_text()
    assert page.tab.locator("#left").inner_text() == f": {recipes - 1} of {recipes} recipes"


def test_all_none_and_front_choose_recipes(opened):
    page = opened()
    page.tab.locator("[data-none=recipe]").click()
    assert page.count("#table tbody tr") == page.count("#charts svg") == 0
    assert "Nothing is chosen" in page.tab.locator("#charts").inner_text()
    page.tab.locator("[data-front=recipe]").click()
    shown = page.tab.locator("#charts .mark").count()
    assert 0 < page.tab.locator("input[name=recipe]:checked").count() < len(RECIPES)
    page.tab.locator("[data-all=recipe]").click()
    assert page.tab.locator("#charts .mark").count() > shown
    rings = page.count("#charts .ring")
    assert rings > 0
    page.tab.locator("#front").click()
    assert page.tab.locator("#charts .ring").count() == 0


def test_the_measure_of_runs_changes_their_charts_and_comparisons_and_not_those_of_probes(opened):
    page = opened()
    before = [chart.inner_html() for chart in page.tab.locator("#charts svg").all()]
    page.tab.locator("input[name=measure][value=last]").click()
    after = [chart.inner_html() for chart in page.tab.locator("#charts svg").all()]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False, False]
    assert page.count("#equal .group[data-measure=last]") > 0
    assert page.count("#equal .group[data-kind='1'][data-measure=average]") == 0


def column(page, at):
    return page.tab.locator(f"#table tbody tr > :nth-child({at})").all_inner_texts()


def test_a_header_sorts_by_click_and_by_key_and_says_so(opened):
    page = opened()
    header = page.tab.locator("#table th:has-text('average')")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    means = [float(text.split(" ")[0]) for text in column(page, 3)]
    assert means == sorted(means)
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    means = [float(text.split(" ")[0]) for text in column(page, 3)]
    assert means == sorted(means, reverse=True)
    budget = page.tab.locator("#table th:has-text('budget')")
    budget.locator("button").press("Space")
    assert header.get_attribute("aria-sort") is None
    budgets = column(page, 2)
    assert budgets == sorted(budgets, key=["60 kB", "1 MB"].index), "by bytes, not by letters"


def test_what_is_not_known_sorts_last_both_ways(opened):
    page = opened()
    button = page.tab.locator("#table th:has-text('forgetting') button")
    for _ in range(2):
        button.click()
        assert column(page, 9)[-1] == "-"
        assert column(page, 9)[0] != "-"


def test_pointing_at_a_mark_tells_its_numbers_and_leaving_hides_them(opened):
    page = opened()
    tip = page.tab.locator("#tip")
    assert not tip.is_visible()
    mark = page.tab.locator("#charts svg").first.locator(".series").first.locator(".mark").first
    box = mark.bounding_box()
    page.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip.wait_for(state="visible")
    lines = tip.inner_text().splitlines()
    assert lines[0] == "raw"
    assert "%" in lines[1]
    assert "[" in lines[1]
    assert lines[2].endswith("on the disk of 60 kB")
    assert lines[3].startswith("3 seeds")
    series = page.tab.locator("#charts svg").first.locator(".series")
    assert page.tab.locator("#charts svg").first.locator(".dimmed").count() == series.count() - 1
    page.tab.mouse.move(5, 5)
    tip.wait_for(state="hidden")
    assert page.tab.locator(".dimmed").count() == 0


def test_the_arrow_keys_go_from_mark_to_mark_and_are_told_to_who_cannot_see(opened):
    page = opened(420)
    chart = page.tab.locator("#charts svg").first
    chart.focus()
    chart.press("ArrowRight")
    assert "of 1 MB" in page.tab.locator("#tip").inner_text()
    chart.press("ArrowLeft")
    first = page.tab.locator("#spoken").inner_text()
    assert first.startswith("raw, ")
    assert "of 60 kB" in first
    chart.press("ArrowUp")
    assert page.tab.locator("#spoken").inner_text() != first
    box = page.tab.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 420
    chart.press("Escape")
    assert not page.tab.locator("#tip").is_visible()


def test_pointing_at_a_recipe_in_the_list_shows_it_in_every_chart(opened):
    page = opened()
    page.tab.locator("label[data-recipe='2']").hover()
    for chart in page.tab.locator("#charts svg").all():
        assert chart.locator(".series:not(.dimmed)").count() == 1


def test_names_that_are_markup_are_shown_and_never_run(opened):
    page = opened()
    assert NASTY in page.tab.locator("label[data-recipe='8'] span").text_content()
    assert page.tab.evaluate("document.scripts.length") == 2
    page.tab.locator("[data-none=recipe]").click()
    page.tick("recipe", 8)
    chart = page.tab.locator("#charts svg").first
    chart.focus()
    chart.press("ArrowRight")
    assert page.tab.locator("#tip b").text_content() == NASTY


def test_the_page_is_drawn_anew_where_the_window_changes(opened):
    page = opened()
    wide = page.tab.locator("#charts svg").first.get_attribute("viewBox")
    page.tab.set_viewport_size({"width": 420, "height": 900})
    page.tab.wait_for_function(
        "before => document.querySelector('#charts svg').getAttribute('viewBox') !== before", arg=wide
    )
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 420
