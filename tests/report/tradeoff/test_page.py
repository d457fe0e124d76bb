"""The page of a trade-off as a file; `test_page_browser.py` uses it as a reader does."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from exmem.report.tradeoff.page import render_tradeoff, write_tradeoff
from exmem.report.tradeoff.rows import DEFINITIONS, MEASURES, best_of, matrices, measured
from exmem.report.tradeoff.sheets import RecipeSheet, bounded
from exmem.report.tradeoff.table import FAILURE_COLUMNS
from exmem.report.view.sheet import Card, Panel, Passage, Piece, Sheet
from tests.report.tradeoff.sample import NASTY, RECIPES, findings, row, sampled, table_of


class Read(HTMLParser):
    """What a page is made of."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.scripts = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        (self.scripts if self.tags and self.tags[-1] == "script" else self.text).append(data)


def sheet(name="own", image=None):
    """A sheet of one exemplar."""
    image = np.full((4, 6, 3), 200, np.uint8) if image is None else image
    panels = (Panel("original", image), Panel("3 of 9 patches", image))
    passage = Passage("text: 2 tokens", (Piece(name, "kept"), Piece(" b", "lost")))
    return Sheet("", {}, (), (Card(name, {"bytes": "12 = image 12"}, panels, (passage,)),))


def test_the_page_asks_for_nothing_and_holds_all_it_needs():
    page = render_tradeoff(findings(sheets=[RecipeSheet("image", "raw", sheet())]))
    read = Read(page)
    links = [value for name, value in read.attributes if name in {"src", "href", "action", "data", "poster", "srcset"}]
    assert all(link.startswith(("#", "data:", "cells/")) for link in links)
    assert "link" in read.tags  # an icon that is there, so that none is asked for
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("name", [NASTY, "</script><script>alert(1)</script>", "<!--", "a" * 400, "", "名"])
def test_a_name_never_becomes_markup(tmp_path, name):
    table = table_of(row(recipe=name, data=name, method=name, kind="trainer"), row(recipe="half_jpeg", data=name))
    failures = pd.DataFrame(
        [["probe", name, name, "probe", name, 5, 0, name, f"cells/{name}"]], columns=FAILURE_COLUMNS
    )
    known = findings(table, failures=failures, configuration=name, command=name, title=name, notes=[name])
    known = dataclasses.replace(known, sheets=[RecipeSheet(name, name, sheet(name))], machines=[name])
    write_tradeoff(known, tmp_path / "page.html")
    read = Read((tmp_path / "page.html").read_text("utf-8"))
    plain = Read(render_tradeoff(findings(table.assign(recipe="r", data="d"))))
    assert read.tags.count("script") == plain.tags.count("script") == 2
    assert not set(read.tags) - {
        *plain.tags,
        "article",
        "img",
        "h3",
        "h4",
        "h2",
        "pre",
        "dl",
        "dd",
        "dt",
        "br",
        "b",
    }
    document = json.loads(read.scripts[0])
    assert name in document["axes"]["recipe"]
    assert name in "".join(read.text)


def test_half_a_letter_in_the_command_is_shown_as_a_replacement(tmp_path):
    write_tradeoff(findings(command="exmem tradeoff \udcff.yaml"), tmp_path / "page.html")
    assert "exmem tradeoff &#56575;.yaml" in (tmp_path / "page.html").read_text("utf-8")


def test_what_the_script_draws_is_json_without_nan_by_places_on_the_axes():
    known = findings(sampled(seeds=1))
    document = json.loads(Read(render_tradeoff(known)).scripts[0], parse_constant=pytest.fail)
    assert len(document["points"]) == len(known.curves)
    assert len(document["looks"]) == len(document["axes"]["recipe"]) == len(RECIPES)
    first, point = known.curves.iloc[0], document["points"][0]
    assert document["axes"]["recipe"][point["recipe"]] == first["recipe"]
    assert point["accuracy"] == pytest.approx(first["accuracy"])
    assert (point["low"], point["high"], point["n"]) == (None, None, 1)


def test_rows_have_means_deviations_and_seeds_with_their_folders():
    rows = [row(seed=seed, average=value, bytes=1_000 + seed) for seed, value in enumerate([0.4, 0.5, 0.6])]
    (one,) = measured(findings(table_of(*rows)), ["average", "bytes", "peak_ram_bytes"])
    assert [cell.text for cell in one.cells] == ["50.0 ± 10.0", "1,001 ± 1", "1.07 GB ± 0 B"]
    assert one.cells[0].value == pytest.approx(50)
    assert [seed for seed, _ in one.seeds] == [0, 1, 2]
    assert one.seeds[0][1] == "cells/probe_own_half_jpeg_default_60%20kB_0/"
    assert one.front


def test_the_best_of_a_budget_is_told_with_its_difference_to_the_baseline():
    rows = [row(seed=seed, average=0.4 + 0.01 * seed) for seed in range(3)]
    rows += [row(recipe="masked", seed=seed, average=0.45 + 0.02 * seed) for seed in range(3)]
    rows += [row(budget="1 MB", seed=seed, average=0.9) for seed in range(3)]
    (table,) = best_of(findings(table_of(*rows)))
    (budget, recipe, accuracy, difference), second = table.rows
    assert (budget, recipe, accuracy) == ("60 kB", "masked", "47.0 %")
    assert difference.text == "+6.0 [+3.5, +8.5]"
    assert difference.tone == "good"
    assert (second[1], second[3].text) == ("half_jpeg", "baseline")


def test_cells_of_comparisons_say_bounds_and_which_side_an_interval_is_on():
    rows = []
    for seed in range(2):
        wobble = 0.001 * seed
        for budget, size, accuracy in (("60 kB", 60, 0.4), ("125 kB", 125, 0.5)):
            rows.append(row(budget=budget, bytes=size, average=accuracy, seed=seed))
            rows.append(row(recipe="worse", budget=budget, bytes=size, average=accuracy - 0.2 - wobble, seed=seed))
            rows.append(row(recipe="better", budget=budget, bytes=size / 2, average=accuracy + 0.2, seed=seed))
    known = findings(table_of(*rows))
    (differences,) = matrices(known, "accuracy at equal bytes")
    assert differences.columns == ["60 kB", "125 kB"]
    texts = {recipe: (cells[0].text, cells[0].tone) for recipe, cells in differences.rows}
    assert texts["better"] == ("+20.0 [+20.0, +20.0]", "good")
    assert texts["worse"][1] == "bad"
    (ratios,) = matrices(known, "bytes at equal accuracy")
    texts = {recipe: [(cell.text, cell.tone) for cell in cells] for recipe, cells in ratios.rows}
    assert texts["better"] == [("< 0.50 ×", "good"), ("< 0.24 ×", "good")]
    assert texts["worse"] == [("> 2.08 ×", "bad"), ("> 1.00 ×", "bad")]
    (areas,) = matrices(known, "area")
    assert areas.about == "from 60.0 kB to 125 kB"
    assert dict(areas.rows)["half_jpeg"][1].text == "baseline"


def test_the_page_says_what_failed_what_is_left_and_that_one_seed_is_one():
    text = "".join(Read(render_tradeoff(findings(sampled(seeds=1)))).text)
    assert "a learner of images sees no text" in text
    assert "1 failed" in text
    assert "2 are left" in text
    assert "One seed alone" in text
    assert "One seed alone" not in "".join(Read(render_tradeoff(findings())).text)


def test_every_column_is_explained_and_how_it_was_made_is_told():
    words = {name.partition(",")[0] for name in MEASURES.values()}
    assert words <= DEFINITIONS.keys()
    text = "".join(Read(render_tradeoff(findings(machines=["Linux, 2 cores"]))).text)
    for told in (*DEFINITIONS.values(), "exmem tradeoff sweep.yaml --out results", "image: ~/images", "Linux, 2 cores"):
        assert told in text


def test_where_all_failed_there_is_a_page_without_numbers():
    text = "".join(Read(render_tradeoff(findings(table_of(), recipes=["text"], baseline="text"))).text)
    assert "a learner of images sees no text" in text


def test_columns_that_are_empty_are_left_out():
    probes = Read(render_tradeoff(findings(table_of(row(), row(recipe="raw")))))
    assert "forgetting, %" not in probes.text
    assert "last, %" not in probes.text
    assert {"forgetting, %", "last, %"} <= set(Read(render_tradeoff(findings())).text)


def test_sheets_beyond_a_size_are_left_out_and_named():
    rng = np.random.default_rng(0)
    sheets = [RecipeSheet("own", name, sheet(image=rng.integers(0, 255, (64, 64, 3), np.uint8))) for name in "abc"]
    kept, notes = bounded(sheets, 70_000)
    assert [one.recipe for one in kept] == ["a", "b"]
    assert notes == ["Left out, for the page would be too large: exemplars of c on own."]
    assert bounded(sheets) == (sheets, [])
