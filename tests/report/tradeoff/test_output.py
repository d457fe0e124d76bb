"""What a sweep leaves beside its tables, whole or interrupted."""

import pandas as pd
import pytest

from exmem.report.tradeoff import Processes, sheets
from exmem.report.tradeoff.output import findings_of, write_output
from tests.cli.running import outcome
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


def test_a_codec_that_is_trained_is_trained_on_more_examples_than_are_shown(sweep):
    few = {"of": "hidden", "keep": "top_k:k=1", "codec": "pq:parts=4,centres=16"}  # 2 tokens each, 16 to train on
    made = run(sweep(recipes=[few]))
    known = findings_of(made)
    assert known.notes == []
    assert len(known.sheets) == 1


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
    assert "1 is left" in page


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


@pytest.fixture
def command(config_file, tmp_path, monkeypatch, capsys):
    """Run `exmem tradeoff` here on the base with other sections; return its exit code and what it printed."""

    def go(*words, **sections):
        words = ["tradeoff", str(config_file(**sections)), "--out", str(tmp_path / "out"), *words]
        return outcome(words, monkeypatch, capsys)

    return go


def test_the_command_says_what_it_wrote_and_the_page_how_it_was_called(command, tmp_path):
    code, out, err = command("--baseline", "features")
    assert code == 0, err
    assert f"Page: {tmp_path / 'out' / 'page.html'}" in out
    assert f"Frontier: {tmp_path / 'out' / 'frontier-probe-own.png'}" in out
    assert f"Comparisons: {tmp_path / 'out' / 'comparisons.csv'}" in out
    page = (tmp_path / "out" / "page.html").read_text()
    assert f"exmem tradeoff {tmp_path / 'config.json'} --out {tmp_path / 'out'} --baseline features" in page
    assert "half_jpeg&#34;" in page, "its configuration"
    assert set(pd.read_csv(tmp_path / "out" / "comparisons.csv")["baseline"]) == {"features"}


def test_a_baseline_that_is_no_recipe_is_refused_before_anything_runs(command, tmp_path):
    code, _, err = command("--baseline", "jpeg")
    assert code == 2
    assert "unknown recipe 'jpeg'; choose of ['half_jpeg', 'features']" in err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_leaves_a_page_of_what_is_there(command, tmp_path, monkeypatch):
    def interrupted(self, jobs, tell):
        yield from Here(self._setup.out, most=1).run(jobs, lambda *_: None)
        raise KeyboardInterrupt

    monkeypatch.setattr(Processes, "run", interrupted)
    code, out, err = command()
    assert code == 130
    assert "interrupted" in err
    assert "1 is left" in (tmp_path / "out" / "page.html").read_text()
    assert "Page: " in out
