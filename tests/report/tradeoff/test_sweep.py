"""A trade-off as a whole: which cells run, what becomes of them, and the table of all."""

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from exmem.errors import SchemaError
from exmem.report.tradeoff import Slice, Watcher, work
from exmem.report.tradeoff.cells import Cells
from exmem.report.tradeoff.run import Estimate, duration
from exmem.report.tradeoff.table import COLUMNS
from exmem.report.tradeoff.work import jobs_of
from exmem.train.folder import RunFolder
from tests.report.tradeoff.cells import cell
from tests.report.tradeoff.conftest import Here

OWN = {"scorer": {"broken": "tests.report.tradeoff.parts.broken"}}
WHOLE = Slice()
BROKEN = {"of": "masked", "name": "broken", "scorer": "broken"}


class Heard(Watcher):
    def __init__(self):
        self.ended = []

    def finished(self, cell, outcome, left):
        self.ended.append((cell.recipe, outcome.state, outcome.reason))


@pytest.fixture
def run(sweep, tmp_path):
    """What runs a configuration here; returns the table and the names of the cells that ran."""

    def go(out=None, *, retry=False, part=WHOLE, most=None, watcher=None, **sections):
        made = sweep(out, **sections)
        here = Here(made.out, most=most)
        table = made.run(here, part, retry=retry, watcher=watcher)
        return table, [(cell.kind, cell.recipe, cell.budget, cell.seed) for cell in here.cells]

    return go


def test_the_table_has_a_row_a_cell_and_phase_with_all_columns_in_both_files(run, tmp_path):
    table, ran = run(kinds=["probe", "trainer"], budgets=["20kB", "30 kB"])
    assert len(ran) == 8
    assert list(table.columns) == COLUMNS == list(pd.read_csv(tmp_path / "out" / "table.csv").columns)
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "out" / "table.parquet"))
    assert table.groupby("kind")["phase"].max().to_dict() == {"probe": 0, "trainer": 2}
    assert len(table) == 4 + 4 * 3
    assert (table["bytes"] <= table["budget_bytes"]).all()
    assert (table["bytes"] > 0).all()
    assert (table["exemplars"] > 0).all()
    assert table["average"].between(0, 1).all()
    assert table["forgetting"].isna().equals(table["kind"] == "probe")
    assert table["step_ms"].isna().equals((table["kind"] == "trainer") & (table["phase"] < 2))
    assert table["versions"].str.contains("exmem .*torch .*zarr ").all()
    assert (table["peak_ram_bytes"] > 2**20).all()
    for place, rows in table.groupby("cell"):
        result = json.loads((tmp_path / "out" / place / "result.json").read_text())
        assert len(result["phases"]) == len(rows)
        assert result["machine"]["cores"] >= 1


def test_a_run_as_a_cell_says_what_the_trainer_measured(run, tmp_path):
    table, _ = run(
        kinds=["trainer"], recipes=["half_jpeg"], budgets=["40kB"], methods={"ridge": {"method": {"head": "ridge"}}}
    )
    (cell,) = table["cell"].unique()
    entries = RunFolder(tmp_path / "out" / cell / "run").metrics()
    overall = [entry["head"]["all"] for entry in entries]
    assert table["last"].tolist() == overall
    assert table["average"].iloc[-1] == pytest.approx(np.mean(overall))
    assert entries[0]["head_bytes"] > 0, "ridge carries sums"
    assert table["bytes"].tolist() == [entry["disk_bytes"] + entry["head_bytes"] for entry in entries]


def test_adding_a_recipe_a_budget_or_a_name_runs_only_what_is_new(run):
    sections = {"budgets": ["20kB"], "seeds": [0, 1]}
    assert len(run(**sections)[1]) == 4
    assert run(**sections)[1] == []
    text = run(**sections, recipes=["half_jpeg", "text", "features"])[1]
    assert text == [("probe", "text", "20.0 kB", 0), ("probe", "text", "20.0 kB", 1)]
    more = run(budgets=["20000", "30kB"], seeds=[0, 1], recipes=[{"of": "half_jpeg", "name": "other"}])
    assert more[1] == [("probe", "other", "30.0 kB", 0), ("probe", "other", "30.0 kB", 1)]
    assert more[0]["recipe"].tolist() == ["other"] * 4, "what is done has its name of today"
    trained = run(**sections, kinds=["probe", "trainer"], recipes=["half_jpeg"])[1]
    assert [kind for kind, *_ in trained] == ["trainer", "trainer"]


def test_what_changes_no_number_runs_nothing_and_what_does_runs_again(run, base):
    options = {"recipes": ["half_jpeg"], "kinds": ["trainer"]}
    assert len(run(**options)[1]) == 1
    loop = base["base"]["loop"]
    assert run(**options, base={**base["base"], "loop": {**loop, "num_workers": 0, "keep_hidden": True}})[1] == []
    assert len(run(**options, base={**base["base"], "loop": {**loop, "lr": 0.01}})[1]) == 1


def test_a_probe_does_not_depend_on_how_runs_are_trained(run, base):
    assert len(run()[1]) == 2
    assert run(base={**base["base"], "loop": {"epochs": 9}, "data": {"first_classes": 3}})[1] == []


def test_two_names_of_the_same_cell_are_run_once_and_both_are_in_the_table(run):
    table, ran = run(recipes=["half_jpeg", {"of": "half_jpeg", "name": "again"}])
    assert len(ran) == 1
    assert table["recipe"].tolist() == ["half_jpeg", "again"]
    assert table["cell"].nunique() == 1


def test_a_cell_that_fails_is_told_with_its_reason_and_stops_nothing(run, tmp_path):
    heard = Heard()
    sections = {"recipes": [BROKEN, "half_jpeg"], "own": OWN, "budgets": ["20kB", "30kB"]}
    table, _ = run(**sections, watcher=heard)
    assert table["recipe"].unique().tolist() == ["half_jpeg"]
    assert heard.ended[0] == ("broken", "failed", "KeyError: 'colour'")
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert failures["recipe"].tolist() == ["broken", "broken"]
    assert failures["reason"].tolist() == ["KeyError: 'colour'"] * 2
    trace = json.loads((tmp_path / "out" / failures["cell"][0] / "failure.json").read_text())["traceback"]
    assert "parts.py" in trace
    assert run(**sections)[1] == [], "what failed is not run again"
    assert [recipe for _, recipe, *_ in run(**sections, retry=True)[1]] == ["broken", "broken"]


def test_a_cell_whose_options_do_not_go_together_fails_without_being_run(run, tmp_path):
    heard = Heard()
    tuned = {"tuned": {"tuner": {"phases": "all"}}}
    _, ran = run(kinds=["trainer"], methods=tuned, watcher=heard)
    assert ran == [("trainer", "half_jpeg", "20.0 kB", 0)]
    assert "tuning makes stale" in pd.read_csv(tmp_path / "out" / "failures.csv")["reason"][0]


def test_an_option_that_goes_with_no_recipe_is_refused_before_anything_runs(sweep):
    with pytest.raises(SchemaError, match=r"data 'own' with method 'm': loop\.epochs must be an integer of 1"):
        sweep(kinds=["trainer"], methods={"m": {"loop": {"epochs": 0}}})


def test_a_budget_that_holds_nothing_is_a_row_without_accuracy(run):
    table, _ = run(recipes=["raw"], budgets=["8kB"])
    assert table["exemplars"].tolist() == [0]
    assert table["average"].isna().all()


def test_a_scenario_by_name_goes_with_probes_and_runs(run, base):
    table, ran = run(base={**base["base"], "data": {"scenario": "B0-Inc2"}}, kinds=["probe", "trainer"])
    assert len(ran) == 4
    assert table.groupby("kind")["phase"].nunique().to_dict() == {"probe": 1, "trainer": 2}, "two classes a phase"


def test_a_probe_stores_a_recipe_once_for_all_budgets_seeds_and_methods(run, sweep):
    sections = {"seeds": [0, 1], "budgets": ["20kB", "30kB"]}
    methods = {"usual": {}, "counts": {"quota": "counts"}, "sums": {"method": {"head": "nearest_mean"}}}
    assert [len(job.cells) for job in sweep(**sections, methods=methods).left()] == [12, 12]
    table, _ = run(**sections, methods=methods)
    assert len(table) == 24
    alone, ran = run(seeds=[1], budgets=["30kB"], methods={"other": methods["counts"]})
    assert ran == []
    of = table.set_index(["recipe", "method", "budget", "seed"])["average"]
    assert [of[one.recipe, "counts", one.budget, 1] for one in alone.itertuples()] == alone["average"].tolist()


def test_whole_examples_as_many_as_a_recipe_holds_are_over_the_budget_and_no_worse(run):
    recipes = ["half_jpeg", "raw", {"of": "raw", "name": "whole", "as_many_as": "half_jpeg"}]
    table, ran = run(recipes=recipes, budgets=["12kB"], seeds=[0, 1])
    by = table.groupby("recipe")
    assert by["exemplars"].apply(list)["whole"] == by["exemplars"].apply(list)["half_jpeg"]
    assert (by.get_group("whole")["bytes"] > 12_000).all()
    assert (by.get_group("half_jpeg")["bytes"] <= 12_000).all()
    assert len(ran) == 6
    assert run(recipes=recipes, budgets=["12kB"], seeds=[0, 1])[1] == []


def test_as_many_as_nothing_is_nothing(run):
    recipes = ["half_jpeg", {"of": "raw", "name": "whole", "as_many_as": "half_jpeg"}]
    table, _ = run(recipes=recipes, budgets=["1kB"])
    assert table["exemplars"].tolist() == [0, 0]
    assert table["average"].isna().all()


def test_heads_that_need_no_memory_are_measured_without_one_and_others_fail_with_a_reason(run):
    methods = {"usual": {}, "sums": {"method": {"head": "nearest_mean"}}}
    table, _ = run(recipes=["none"], methods=methods, budgets=["1kB", "20kB"])
    assert table["method"].tolist() == ["sums", "sums"]
    assert table["average"].isna().tolist() == [True, False]
    assert table["bytes"].iloc[1] > 4 * 4 * 32


def test_budgets_in_raw_examples_are_measured_and_kept(run, tmp_path):
    budgets = ["2 per class", "model = 60", "model = 6000, whole"]
    table, _ = run(budgets=budgets, recipes=["raw"], kinds=["probe", "trainer"])
    of = table.groupby(["kind", "budget"])["budget_bytes"].first()
    facts = [json.loads(file.read_text()) for file in (tmp_path / "out" / "facts").glob("sizes-*")]
    raw, tuned = facts[0]["raw_bytes"], {one["model_bytes"]["tuned"] for one in facts}
    assert 32 * 32 * 3 < raw < 32 * 32 * 3 + 200
    assert of["probe", "2 per class"] == of["trainer", "2 per class"] == round(2 * 4 * raw)
    assert of["probe", "model = 60"] == of["trainer", "model = 60"] == round(60 * raw)
    assert min(tuned) == 0, "a probe saves nothing of its model"
    assert max(tuned) > 2 * 4 * 32, "a run saves adapters and a head"
    last = table[table["phase"] == table.groupby("kind")["phase"].transform("max")].set_index(["kind", "budget"])
    saved = last["bytes"]["trainer", "model = 60"] - last["bytes"]["trainer", "2 per class"]
    assert saved >= max(tuned), "the model is part of the bytes"
    assert (table["bytes"] <= table["budget_bytes"]).all()


def test_seeds_choose_other_examples(run):
    table, _ = run(seeds=[0, 1, 2, 3], recipes=["half_jpeg"])
    assert table["exemplars"].unique().tolist() == [24], "three quarters of 32"
    assert table["bytes"].nunique() > 1


def test_slices_cover_each_cell_once(sweep):
    whole = sweep(seeds=[0, 1, 2], kinds=["probe", "trainer"], budgets=["20kB", "30kB"])
    cells = sorted(cell.key for job in jobs_of(whole.cells) for cell in job.cells)
    assert len(cells) == 24
    for number in (1, 2, 5, 7, 30):
        parts = [whole.left(Slice(at, number)) for at in range(1, number + 1)]
        found = sorted(cell.key for job in itertools.chain(*parts) for cell in job.cells)
        assert found == cells


def test_how_the_data_lies_is_no_part_of_what_a_cell_is(sweep, base):
    def keys(**options):
        data = {"own": {"folder": base["data"]["own"], **options}}
        return {cell.key for cell in sweep(data=data, kinds=["probe", "trainer"]).cells}

    assert keys() == keys(layout="imagefolder", skip_bad=True, image_column="file_name", split_column="x")
    assert keys() != keys(modalities="image")


def test_slices_stay_the_same_while_cells_are_done(run, sweep):
    sections = {"seeds": [0, 1], "recipes": ["half_jpeg", "text", "features"]}
    before = [cell.key for job in sweep(**sections).left(Slice(2, 3)) for cell in job.cells]
    run(**sections, part=Slice(1, 3))
    assert [cell.key for job in sweep(**sections).left(Slice(2, 3)) for cell in job.cells] == before
    run(**sections, part=Slice(2, 3))
    table, _ = run(**sections, part=Slice(3, 3))
    assert len(table) == 6


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_wrong_slice_is_refused(text):
    with pytest.raises(SchemaError, match="slice: expected I/N"):
        Slice.read(text)


def test_a_cell_that_another_process_has_is_left_to_it(run, sweep):
    made, heard = sweep(), Heard()
    with Cells(made.out).held(made.cells[0]) as held:
        assert held
        table, _ = run(watcher=heard)
    assert [(recipe, state) for recipe, state, _ in heard.ended] == [("half_jpeg", "busy"), ("features", "done")]
    assert table["recipe"].tolist() == ["features"]
    assert run()[0]["recipe"].tolist() == ["half_jpeg", "features"]


def test_what_another_process_finished_meanwhile_is_not_run_again(run, sweep, tmp_path):
    late = sweep()
    jobs = late.left()
    run()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/cells/*/result.json")}
    outcomes = [outcome for _, outcomes in Here(late.out).run(jobs, lambda *_: None) for outcome in outcomes]
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/cells/*/result.json")} == before


def test_data_that_changed_is_measured_again(run, base, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(base["data"]["own"], folder)
    assert len(run(data={"own": str(folder)})[1]) == 2
    assert run(data={"other": base["data"]["own"]})[1] == [], "it is the content that counts"
    (folder / "test" / "metadata.jsonl").write_text((folder / "test" / "metadata.jsonl").read_text()[:-1])
    text = (folder / "test" / "metadata.jsonl").read_text()
    (folder / "test" / "metadata.jsonl").write_text(text.replace("stone", "leaf"))
    assert len(run(data={"own": str(folder)})[1]) == 2


def test_an_estimate_is_of_the_cells_most_alike():
    estimate = Estimate()
    cells = [cell(recipe="a"), cell(recipe="a"), cell(recipe="b"), cell(kind="trainer", recipe="a")]
    assert estimate.of(cells) == (0.0, 4)
    assert estimate.of(cells).text(1) == ""
    estimate.learn(cells[0], 10.0)
    estimate.learn(cells[2], 20.0)
    assert estimate.of(cells) == (10 + 10 + 20, 1)
    assert estimate.of([cell(recipe="c")]) == (15.0, 0)
    assert estimate.of(cells).text(2) == "about 20 s left, and 1 cells of a kind that was not measured yet"
    assert [duration(seconds) for seconds in (5, 150, 7200)] == ["5 s", "2 min", "2.0 h"]


@pytest.mark.parametrize("damage", ["", "[1", "{}", "[]", '{"phases": []}'])
def test_a_result_that_is_damaged_is_told_and_measured_again(run, sweep, tmp_path, damage):
    before, ran = run(recipes=["half_jpeg"], budgets=["20kB"])
    (tmp_path / "out" / before["cell"].iloc[0] / "result.json").write_text(damage)
    told = []
    made = sweep(recipes=["half_jpeg"], budgets=["20kB"], tell=told.append)
    assert made.counts()["left"] == 1
    assert [line.rpartition("/")[2] for line in told if "damaged" in line] == [
        "result.json is damaged; its cell counts as left"
    ]
    after, again = run(recipes=["half_jpeg"], budgets=["20kB"])
    assert (len(ran), len(again)) == (1, 1)
    assert after["average"].tolist() == before["average"].tolist()


def test_a_failure_that_is_damaged_lets_the_cell_be_run_again(run, tmp_path):
    run(recipes=[BROKEN], own=OWN, budgets=["20kB"], seeds=[0])
    (place,) = (tmp_path / "out" / "cells").glob("*/failure.json")
    place.write_text("{}")
    _, again = run(recipes=[BROKEN], own=OWN, budgets=["20kB"], seeds=[0])
    assert len(again) == 1


def test_what_a_recipe_is_called_changes_no_number(run, tmp_path):
    long = {"of": "half_jpeg", "name": "x" * 400}
    (one, _), (other, _) = (
        run(tmp_path / name, recipes=[recipe], budgets=["9kB"]) for name, recipe in (("a", "half_jpeg"), ("b", long))
    )
    same = ["bytes", "exemplars", "average"]
    assert one[same].values.tolist() == other[same].values.tolist()


def test_weights_that_changed_in_their_folder_are_measured_anew(run, base, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(base["base"]["backbone"]["vision"], folder)
    backbone = {**base["base"]["backbone"], "vision": str(folder)}
    sections = {"base": {**base["base"], "backbone": backbone}, "kinds": ["probe", "trainer"], "recipes": ["half_jpeg"]}
    assert len(run(**sections)[1]) == 2
    assert run(**sections)[1] == []
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    assert len(run(**sections)[1]) == 2


def test_a_cell_that_is_refused_is_told_by_its_own_names_and_budget(run, tmp_path):
    stored = {"loop": {"test_stored_form": True}}
    _, ran = run(methods={"usual": {}, "stored": stored}, recipes=["features", "half_jpeg"], budgets=["20kB", "30kB"])
    assert len(ran) == 6
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert failures["budget_bytes"].tolist() == [20_000, 30_000]
    assert failures["cell"].nunique() == 2
    for one in failures.itertuples():
        told = json.loads((tmp_path / "out" / one.cell / "cell.json").read_text())
        assert (told["method"], told["budget"]) == (one.method, one.budget)


def test_methods_that_are_one_to_a_probe_are_told(sweep):
    told = []
    sweep(methods={"a": {}, "b": {"loop": {"epochs": 9}}}, tell=told.append)
    assert "a probe cannot tell method 'b' from 'a': it is measured once, as 'a'" in told
    told.clear()
    sweep(methods={"a": {}, "b": {"loop": {"epochs": 9}}}, kinds=["trainer"], tell=told.append)
    assert not [line for line in told if "cannot tell" in line]


def test_a_seed_measures_the_same_alone_and_beside_others(run, tmp_path, monkeypatch):
    seeds, load = [], work.load_run_backbone
    monkeypatch.setattr(work, "_kept", {})
    monkeypatch.setattr(work, "load_run_backbone", lambda config: seeds.append(config.seed) or load(config))
    alone, _ = run(tmp_path / "alone", seeds=[1], budgets=["9kB", "20kB"])
    beside, _ = run(tmp_path / "beside", seeds=[0, 1], budgets=["9kB", "20kB"])
    assert set(seeds) == {0}  # whatever a backbone draws, all seeds have the same
    same = ["recipe", "budget", "bytes", "exemplars", "average"]
    assert alone[same].values.tolist() == beside.loc[beside["seed"] == 1, same].values.tolist()
