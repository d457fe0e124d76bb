"""`--json`: each command answers with one JSON object on stdout, of keys that stay, and nothing else."""

import dataclasses
import json
import math

import pytest

from exmem import ExemplarMemory
from exmem.cli.commands import COMMANDS, load_command
from exmem.cli.demo.command import demo_configs
from exmem.cli.helps import options_of
from exmem.cli.output import write_json
from exmem.recipes import Recipe
from exmem.train.config import DataConfig
from tests.cli.captioners import write_captioner
from tests.cli.running import outcome
from tests.exemplars import exemplar, schema
from tests.tiny import SIDE, load_joint, write_imagefolder, write_models

RUN = {"path", "recipe", "classes", "average", "last", "forgetting", "exemplars", "kept_bytes", "seconds", "phases"}
RUN |= {"config"}
PHASE = {"classes", "head", "nearest_mean", "exemplars", "kept_bytes", "seconds"}
MEMORY = {"location", "exemplars", "used_bytes", "max_bytes", "max_exemplars", "part_bytes", "charges", "eviction"}
MEMORY |= {"quota", "recipe", "modalities", "extras", "attrs", "class_names", "classes"}
DATA = {"folder", "image_bytes", "splits", "classes", "single_example_classes", "untested_classes", "texts", "images"}
DATA |= {"problems", "warnings", "notes"}
KEYS = {
    "data": DATA,
    "caption": {"folders", "broken"},
    "advise": {"best", "not_told_apart", "recipe", "image", "tradeoff", "measured"},
    "train": {"run", "files"},
    "eval": {"examples", "classes", "all", "by_phase"},
    "predict": {"predictions", "broken"},
    "tradeoff": {"cells", "table", "failures", "files"},
    "compare": {"image", "groups"},
    "demo": {"runs", "files"},
    "info": MEMORY,
    "show": {"exemplars", "notes", "files"},
    "score": {"image", "text", "backbone", "weights", "scorers", "files"},
    "check": {"damage"},
    "repair": {"damage", "dropped", "left", "lost"},
    "compact": {"before_bytes", "after_bytes"},
    "export": {"exemplars", "folder"},
    "import": {"exemplars", "used_bytes", "max_bytes"},
}
OPTIONS = (
    "--recipe half_jpeg --max-bytes 40kB --data.first-classes 2 --data.increments 1 --loop.epochs 1 --tuner.blocks 1 "
)
OPTIONS += f"--backbone.image-size {SIDE} --backbone.max-text 8 --loop.batch 8 --loop.replay-batch 8"


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Data, models, and a memory."""
    folder = tmp_path_factory.mktemp("json")
    write_imagefolder(folder / "data")
    write_models(folder / "models")
    with ExemplarMemory.create(folder / "memory", schema=schema(), max_bytes="100kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 2) for seed in range(4)])
    return folder


@pytest.fixture
def answer(monkeypatch, capsys, things):
    """Run a command with --json in the folder of these things; return its code and the object that it wrote."""
    monkeypatch.chdir(things)
    monkeypatch.setenv("EXMEM_CACHE", str(things / "cache"))

    def ask(*words):
        code, out, err = outcome([*words, "--json"], monkeypatch, capsys)
        assert out.startswith("{"), err
        document = json.loads(out, parse_constant=pytest.fail)  # NaN and infinities are no JSON
        assert document.keys() == KEYS[words[0]] or words[0] in {"info", "tradeoff"}
        return code, document

    return ask


def models_of(things):
    return ["--backbone.vision", str(things / "models/vision"), "--backbone.text", str(things / "models/text")]


def test_every_command_that_answers_has_json():
    assert {*COMMANDS} - KEYS.keys() == {"completion"}
    for name in KEYS:
        assert any("--json" in option.names for option in options_of(load_command(name))), name


def test_of_a_memory_and_its_upkeep(things, answer):
    code, told = answer("info", "memory")
    assert (code, told.keys(), told["exemplars"]) == (0, MEMORY, 4)
    assert sum(told["part_bytes"].values()) == told["used_bytes"]
    assert answer("check", "memory") == (0, {"damage": []})
    assert answer("repair", "memory") == (0, {"damage": [], "dropped": [], "left": [], "lost": 0})
    assert answer("compact", "memory")[0] == 0
    assert answer("export", "memory", "exported") == (0, {"exemplars": 4, "folder": "exported"})
    code, told = answer("import", "exported", "imported")
    assert (code, told["exemplars"], told["max_bytes"]) == (0, 4, 100_000)
    code, told = answer("show", "memory", "--out", "sheet.html")
    assert (code, told["files"], told["notes"] != []) == (0, ["sheet.html"], True)
    assert sorted(one["slot"] for one in told["exemplars"]) == [0, 1, 2, 3]
    assert {one["damaged"] for one in told["exemplars"]} == {None}
    assert all(one["stored_bytes"] == sum(one["part_bytes"].values()) for one in told["exemplars"])


def test_of_a_run_by_every_command_that_reads_it(things, answer):
    code, told = answer("train", "data", "--out", "run", *OPTIONS.split(), *models_of(things))
    assert (code, told["run"].keys()) == (0, RUN)
    assert [phase.keys() for phase in told["run"]["phases"]] == [PHASE] * 3
    assert "run/metrics.jsonl" in told["files"]
    measured = [json.loads(line) for line in (things / "run/metrics.jsonl").read_text().splitlines()]
    assert [phase["head"] for phase in told["run"]["phases"]] == [entry["head"]["all"] for entry in measured]
    assert told["run"]["kept_bytes"] == measured[-1]["disk_bytes"] + measured[-1].get("head_bytes", 0)

    code, of_info = answer("info", "run")
    assert (code, of_info.keys(), of_info["run"]) == (0, {"run", *MEMORY}, told["run"])
    assert of_info["class_names"] == {str(label): f"class{label}" for label in range(4)}
    image = sorted((things / "data/test").glob("*.png"))[0]
    code, told = answer("predict", "run", str(image), "--text", "temple")
    assert (code, [one.keys() for one in told["predictions"]]) == (0, [{"image", "text", "class"}])
    code, told = answer("eval", "run", "data")
    assert (code, told["all"], told["classes"]) == (0, measured[-1]["head"]["all"], 4)
    code, told = answer("compare", "run", "--out", "runs.png")
    (group,) = told["groups"]
    assert group.keys() == {"name", "runs", "average", "last", "forgetting", "exemplars", "kept_bytes", "seconds"}
    assert group["average"] == {"mean": of_info["run"]["average"], "deviation": None}, "one run has no spread"
    code, told = answer("show", "run", "--out", ".", "--data", "data", "--most", "2")
    assert (code, told["files"], len(told["exemplars"])) == (0, ["exemplars.png", "exemplars.html"], 2)
    assert {one["class"] for one in told["exemplars"]} <= {f"class{label}" for label in range(4)}


def test_of_a_trade_off(things, answer):
    backbone = {"vision": str(things / "models/vision"), "text": str(things / "models/text"), "image_size": SIDE}
    document = {
        "data": {"own": "data"},
        "recipes": ["half_jpeg"],
        "budgets": ["20kB"],
        "kinds": ["probe"],
        "base": {
            "backbone": backbone | {"max_text": 8},
            "tuner": {"blocks": 1},
        },
    }
    (things / "config.json").write_text(json.dumps(document))
    words = ["tradeoff", "config.json", "--out", "tradeoff"]
    state = {"cells": {"done": 0, "failed": 0, "left": 1}, "to_run": 1, "estimate_s": None}
    assert answer(*words, "--dry-run") == (0, state)
    code, told = answer(*words)
    assert (code, told.keys(), told["cells"]) == (0, KEYS["tradeoff"], {"done": 1, "failed": 0, "left": 0})
    (row,) = told["table"]
    assert (row["recipe"], row["budget_bytes"], told["failures"]) == ("half_jpeg", 20_000, [])
    assert "kept_bytes" in row
    assert all((things / file).is_file() for file in told["files"])


def test_of_data_and_texts(things, answer):
    code, told = answer("data", "data")
    assert (code, told["problems"]) == (0, [])
    sizes = {
        role: sum(path.stat().st_size for path in (things / "data" / role).glob("*.png")) for role in told["splits"]
    }
    assert {role: split["image_bytes"] for role, split in told["splits"].items()} == sizes
    (things / "images").mkdir()
    for path in sorted((things / "data/train").glob("*.png"))[:2]:
        (things / "images" / path.name).write_bytes(path.read_bytes())
    (things / "images/broken.png").write_bytes(b"no image")
    model = str(write_captioner("blip", things / "captioner"))
    code, told = answer("caption", "images", "--model", model, "--max-new-tokens", "3")
    (folder,) = told["folders"]
    assert (code, len(told["broken"])) == (1, 1), "with what was done, though not all of it could be"
    assert folder.keys() == {"metadata", "written", "before", "warnings"}
    assert (folder["written"], folder["before"]) == (2, 0)


def test_of_scorers(things, answer):
    image = sorted((things / "data/test").glob("*.png"))[0]
    words = ["--vision", str(things / "models/vision"), "--text-model", str(things / "models/text")]
    words += ["--image-size", str(SIDE), "--tuned-blocks", "1", "--max-text", "8", "--out", "scores.html"]
    code, told = answer("score", str(image), "temple", *words)
    assert (code, told["image"], told["files"]) == (0, str(image), ["scores.html"])
    for scorer in told["scorers"].values():
        assert scorer.keys() == {"patches", "kept_patches", "border_ratio", "stored_bytes"}
        assert 0 < scorer["kept_patches"] <= scorer["patches"] == (SIDE // 8) ** 2


def test_of_advice(things, answer, monkeypatch):
    monkeypatch.setattr("exmem.train.advice.candidates", lambda _: [Recipe.of("half_jpeg")])
    words = ["--backbone.image-size", SIDE, "--backbone.max-text", 8, "--tuner.blocks", 1, *models_of(things)]
    code, told = answer("advise", "data", "--max-bytes", "16kB", "--out", "advice", *map(str, words))
    assert (code, told["best"], told["recipe"]) == (0, "half_jpeg", "advice/recipe.yaml")
    assert [one["max_bytes"] for one in told["measured"]] == [8000, 16000, 32000]


@pytest.mark.slow
def test_of_the_demo(things, answer, monkeypatch):
    models = things / "models/vision", things / "models/text"
    monkeypatch.setattr("exmem.cli.demo.stickers.build_stickers", lambda config, progress: things / "data")
    monkeypatch.setattr("exmem.cli.demo.stickers.notice", lambda folder: "where the images are from")
    monkeypatch.setattr("exmem.train.parts.load_run_backbone", lambda config, progress: load_joint(models))
    monkeypatch.setattr("exmem.cli.demo.command._RECIPES", ("none", "raw"))
    few = DataConfig(first_classes=2, increments=(1,))
    configs = [dataclasses.replace(config, data=few) for config in demo_configs(max_bytes="200kB", epochs=1)]
    monkeypatch.setattr("exmem.cli.demo.command.demo_configs", lambda **options: configs)
    monkeypatch.setattr("exmem.train.advice.candidates", lambda _: [Recipe.of("raw")])
    code, told = answer("demo", "--out", "demo")
    assert (code, [*told["runs"]], told["files"]) == (0, ["none", "raw", "auto: raw"], ["demo/accuracy.png"])
    assert all(run.keys() == RUN for run in told["runs"].values())


def test_numbers_that_are_none_are_null(capsys):
    write_json({"a": [math.nan, 1.5, (math.inf,)], "b": {2: -math.inf}, "c": True})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5, [None]], "b": {"2": None}, "c": True}
