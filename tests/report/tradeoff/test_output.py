"""What a sweep leaves beside its tables, whole or interrupted."""

import pandas as pd
import pytest

from exmem.report.tradeoff import sheets
from exmem.report.tradeoff.output import findings_of, write_output
from tests.report.tradeoff.conftest import Here

OWN = {"scorer": {"broken": "tests.report.tradeoff.parts.broken"}}
BROKEN = {"of": "masked", "name": "broken", "scorer": "broken"}
HIDDEN = ["half_jpeg", {"of": "hidden", "name": "hidden", "codec": "int8"}, "features"]
NAMES = ["half_jpeg", "hidden", "features"]


def run(made, *, most=None):
    made.run(Here(made.out, most=most))
    return made


def test_a_sweep_leaves_images_comparisons_and_a_page_with_exemplars(sweep, tmp_path):
    made = run(sweep(recipes=HIDDEN, budgets=["20kB", "30kB"], seeds=[0, 1]))
    known = findings_of(made, configuration="data: own", command="exmem tradeoff x.yaml --out out")
    assert [(one.data, one.recipe) for one in known.sheets] == [("own", recipe) for recipe in NAMES]
    assert known.notes == []
    assert known.levels == {"half_jpeg": "pixels", "hidden": "hidden", "features": "features"}
    assert known.left == 0
    assert known.machines[0].endswith("(12 cells)")
    paths = write_output(known, made.out)
    names = {path.name for path in paths}
    assert names == {"frontier-probe-own.png", "frontier-probe-own.svg", "comparisons.csv", "page.html"}
    assert names <= {path.name for path in made.out.iterdir()}
    page = (made.out / "page.html").read_text()
    assert page.count("<img ") == 3 + 3  # originals, and half_jpeg; what is hidden has no image
    assert set(pd.read_csv(made.out / "comparisons.csv")["baseline"]) == {"half_jpeg"}
    (folder,) = {cell.split("/")[0] for cell in known.table["cell"]}
    assert f'href="{folder}/' in page


def test_sheets_are_kept_and_made_anew_only_where_they_are_not_there(sweep, monkeypatch):
    made = run(sweep())
    first = findings_of(made).sheets
    monkeypatch.setattr(sheets, "load_run_backbone", lambda *_: pytest.fail("it was there"))
    again = findings_of(made).sheets
    assert [one.recipe for one in again] == [one.recipe for one in first]
    for one, other in zip(first, again, strict=True):
        for card, same in zip(one.sheet.cards, other.sheet.cards, strict=True):
            assert (card.title, dict(card.facts), card.passages) == (same.title, dict(same.facts), same.passages)
            for panel, same_panel in zip(card.panels, same.panels, strict=True):
                assert panel.caption == same_panel.caption
                assert (panel.image is None) == (same_panel.image is None)
                assert panel.image is None or (panel.image == same_panel.image).all()


def test_a_sweep_that_is_not_finished_and_one_with_failures_are_shown_as_they_are(sweep):
    made = run(sweep(recipes=["half_jpeg", BROKEN, "features"], own=OWN), most=2)
    known = findings_of(made, baseline="features")
    assert (known.left, len(known.failures), known.baseline) == (1, 1, "features")
    write_output(known, made.out)
    page = (made.out / "page.html").read_text()
    assert "KeyError" in page
    assert "1 are left" in page


def test_where_nothing_was_done_nothing_is_written(sweep):
    made = sweep()
    assert write_output(findings_of(made), made.out) == []
    assert not (made.out / "page.html").exists()


def test_exemplars_that_cannot_be_made_are_told_and_the_page_is_made_all_the_same(sweep, monkeypatch):
    made = run(sweep())

    def fails(*_):
        raise KeyError("colour")

    monkeypatch.setattr(sheets, "load_run_data", fails)
    known = findings_of(made)
    assert known.sheets == []
    assert known.notes[0] == "No exemplars of half_jpeg on own: KeyError: 'colour'"
    assert len(write_output(known, made.out)) == 4
