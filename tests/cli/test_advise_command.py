"""`exmem advise` as a user runs it: what it prints and writes, and what it refuses before it works."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from exmem.cli import advise as advise_module
from exmem.cli import train as train_module
from exmem.cli.main import main
from exmem.recipes import Recipe
from exmem.train.stored_sample import Measured
from tests.tiny import SIDE, write_imagefolder, write_models

OPTIONS = f"--backbone.image-size {SIDE} --backbone.max-text 8 --tuner.blocks 1".split()


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    return write_imagefolder(tmp_path_factory.mktemp("data") / "own")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    vision, text = write_models(tmp_path_factory.mktemp("models"))
    return ["--backbone.vision", str(vision), "--backbone.text", str(text)]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, data_folder, models):
    """What a command of tiny models ends with and prints; few recipes, for speed."""
    monkeypatch.setenv("EXMEM_CACHE", str(tmp_path / "cache"))
    recipes = [Recipe.of("half_jpeg"), Recipe.of("features").refined(name="features_2_bits")]
    monkeypatch.setattr("exmem.train.advice.candidates", lambda _: recipes)

    def command(*words, name="advise", folder=data_folder, code=0):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["exmem", name, str(folder), *OPTIONS, *models, *map(str, words)])
        if code:
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == code
        else:
            main()
        return capsys.readouterr()

    return command


def test_it_prints_a_table_best_first_and_writes_the_recipe_and_the_picture(tmp_path, run):
    out = tmp_path / "a folder" / "advice"
    lines = run("--max-bytes", "16kB", "--out", out).out.splitlines()
    (head,) = [line for line in lines if "bytes each" in line]
    assert [cell.strip() for cell in head.strip("┃│ ").replace("│", "┃").split("┃")] == [
        "recipe",
        "bytes each",
        "in 8,000 B",
        "in 16.0 kB",
        "in 32.0 kB",
        "step of 64",
    ]
    rows = [line for line in lines if line.startswith("│")]
    assert len(rows) == 2
    (best,) = [line for line in lines if line.startswith("Best at 16kB: ")]
    name = best.split()[3].rstrip(",")
    assert f" {name} " in rows[0]
    assert best.endswith(f"%: {out / 'recipe.yaml'}")
    assert lines[-2] == f"Accuracy over bytes: {out / 'accuracy.png'}"
    assert lines[-1] == f"The same as a trade-off, to go on from: {out / 'tradeoff.yaml'}"
    assert Recipe.of(out / "recipe.yaml").name == name
    with Image.open(out / "accuracy.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("best", "other", "level"),
    [
        ((0.5, 0.6, 0.7), (0.4, 0.5, 0.6), False),
        ((0.5, 0.6, 0.7), (0.4, 0.62, 0.6), True),
        ((0.5, 0.6, 0.7), (0.5, 0.6, 0.7), True),
        ((0.5, 0.6, 0.7), (), False),  # it does not fit
    ],
)
def test_a_recipe_is_level_with_the_best_where_the_interval_of_the_difference_holds_0(best, other, level):
    ones = [Measured(Recipe.of("features"), 1000, 9, 100.0, accuracies, 1.0) for accuracies in (best, other)]
    assert advise_module._is_level(*ones) is level


def test_what_is_not_told_apart_from_the_best_is_named(tmp_path, run, monkeypatch):
    names = ["features", "hidden_8", "half_jpeg"]
    monkeypatch.setattr(
        "exmem.train.advice.candidates", lambda _: [Recipe.of("features").refined(name=n) for n in names]
    )
    words = ["--max-bytes", "16kB", "--out", tmp_path / "out"]
    said = run(*words).out.splitlines()
    (line,) = [line for line in said if line.startswith("Not told apart from it ")]
    (best,) = [line.split()[3].rstrip(",") for line in said if line.startswith("Best at ")]
    assert line.endswith(f"holds 0): {', '.join(name for name in names if name != best)}")
    assert json.loads(run(*words, "--json").out)["not_told_apart"] == [name for name in names if name != best]


def test_what_does_not_fit_is_ranked_last_and_where_nothing_fits_nothing_is_written(tmp_path, run, monkeypatch):
    recipes = [Recipe.of("raw"), Recipe.of("features")]
    monkeypatch.setattr("exmem.train.advice.candidates", lambda _: recipes)
    said = run("--max-bytes", "7kB", "--out", tmp_path / "out").out
    rows = [line for line in said.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == ["features", "raw"]
    assert [row.count("none fits") for row in rows] == [1, 2]
    said = run("--max-bytes", "1kB", "--out", tmp_path / "none", code=1)
    assert said.out.count("none fits") == 6
    assert said.err.count("\n") == 1
    assert said.err.startswith("exmem: 1,000 B: no exemplar of any recipe fits")
    assert not (tmp_path / "none").exists()


def test_train_takes_the_recipe_with_the_same_options(tmp_path, run):
    run("--max-bytes", "16kB", "--out", tmp_path / "advice")
    words = ["--data.first-classes", 2, "--data.increments", 2, "--tuner.adapter", "lora:rank=2", "--loop.epochs", 1]
    out = tmp_path / "run"
    run(*words, "--max-bytes", "16kB", "--recipe", tmp_path / "advice" / "recipe.yaml", "--out", out, name="train")
    recorded = json.loads((out / "run.json").read_text())["config"]["recipe"]
    assert Recipe.from_json(recorded) == Recipe.of(tmp_path / "advice" / "recipe.yaml")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["exemplars"] > 0
    assert lines[-1]["disk_bytes"] <= 16_000


def test_json_is_all_of_stdout_and_holds_every_number(tmp_path, run):
    said = run("--max-bytes", "16kB", "--out", tmp_path / "out", "--json")
    document = json.loads(said.out)
    assert document["recipe"] == str(tmp_path / "out" / "recipe.yaml")
    assert document["image"] == str(tmp_path / "out" / "accuracy.png")
    assert [one["max_bytes"] for one in document["measured"]] == 2 * [8_000, 16_000, 32_000]
    for one in document["measured"]:
        numbers = {"exemplars", "exemplar_bytes", "accuracies", "step_ms", "held", "disk_bytes", "sample", "certainty"}
        assert one.keys() == {"recipe", "max_bytes", "head_bytes", "as_stored", *numbers}
        assert Recipe.from_json(one["recipe"]).name in {"half_jpeg", "features_2_bits"}
        assert len(one["accuracies"]) == (10 if one["exemplars"] else 0)
    assert document["best"] == document["measured"][0]["recipe"]["name"] == Recipe.of(document["recipe"]).name


def test_the_trade_off_that_it_writes_measures_the_same(tmp_path, run, monkeypatch, capsys):
    document = json.loads(run("--max-bytes", "16kB", "--out", tmp_path / "advice", "--seed", "3", "--json").out)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["exmem", "tradeoff", document["tradeoff"], "--out", str(out)])
    main()
    table = pd.read_csv(out / "table.csv")
    found = {(one.recipe, one.budget_bytes): (one.exemplars, one.average) for one in table.itertuples()}
    assert len(table) == len(document["measured"]) == 6
    for one in document["measured"]:
        exemplars, accuracy = found[one["recipe"]["name"], one["max_bytes"]]
        assert exemplars == one["held"]
        if one["accuracies"]:
            assert accuracy == pytest.approx(np.mean(one["accuracies"]))
        else:
            assert np.isnan(accuracy)


def test_the_files_of_before_are_replaced_and_others_stay(tmp_path, run):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("recipe.yaml", "accuracy.png", "mine"):
        (out / name).write_text("before")
    run("--max-bytes", "16kB", "--out", out)
    assert Recipe.of(out / "recipe.yaml").name
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "mine").read_text() == "before"


def test_what_is_wrong_is_told_in_one_line_before_any_work(tmp_path, run, monkeypatch, data_folder):
    monkeypatch.setattr("exmem.train.parts.load_run_backbone", lambda *_: pytest.fail("worked"))
    (tmp_path / "file").write_text("mine")
    budget = ("--max-bytes", "16kB")
    for words, folder, code, message in (
        ((*budget, "--out", tmp_path / "file"), data_folder, 1, f"{tmp_path / 'file'} is a file; choose a folder"),
        ((*budget, "--out", tmp_path / "file" / "in"), data_folder, 1, f"{tmp_path / 'file'} is a file"),
        ((*budget, "--out", tmp_path / "out"), tmp_path / "nowhere", 1, str(tmp_path / "nowhere")),
        ((*budget, "--data.label-column", "kind"), data_folder, 1, "kind"),
        (("--max-bytes", "much"), data_folder, 2, "much"),
        ((), data_folder, 2, "--max-bytes"),
        ((*budget, "--recipe", "masked"), data_folder, 2, "unknown option --recipe"),
    ):
        said = run(*words, folder=folder, code=code)
        assert message in said.err
        assert said.err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_a_narrow_terminal_shows_the_columns_that_fit(monkeypatch, tmp_path, run):
    from rich.console import Console

    for columns in (60, 100):
        console = Console(markup=False, emoji=False, highlight=False, width=columns)
        monkeypatch.setattr(advise_module, "make_console", lambda stderr, console=console: console)
        lines = run("--max-bytes", "16kB", "--out", tmp_path / "out").out.splitlines()
        table = [line for line in lines if line.startswith(("┃", "│", "┏", "└"))]
        assert table
        assert all(len(line) <= columns for line in table)
        assert any("Left out, for want of columns" in line for line in lines) == (columns == 60)


def test_the_bar_shows_the_stage_alone(monkeypatch):
    from rich.console import Console
    from rich.progress import Progress

    console, bars = Console(width=80, force_terminal=True, quiet=True), []
    monkeypatch.setattr(train_module, "make_progress", lambda of: bars.append(Progress(console=of)) or bars[0])
    with train_module.show_stages(console) as (stage, tell):
        advance = stage("features_2_bits", 32)
        advance(8)
        tell("one is left out")
        (task,) = bars[0].tasks
        assert (task.description, task.completed, task.total) == ("features_2_bits", 8, 32)
        stage("text", 16)
        (task,) = bars[0].tasks
        assert (task.description, task.completed, task.total) == ("text", 0, 16)


def test_the_help_names_the_options_as_those_of_train(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    shown = []
    for name in ("advise", "train"):
        monkeypatch.setattr(sys, "argv", ["exmem", name, "--help"])
        with pytest.raises(SystemExit):
            main()
        shown.append(capsys.readouterr().out)
    options = {word for word in shown[0].split() if word.startswith("--")} - {"--json,", "--no-json", "--help"}
    assert {"--data.modalities", "--data.label-column", "--tuner.blocks", "--backbone.family", "--seed"} <= options
    assert not [option for option in options if option not in shown[1]]
