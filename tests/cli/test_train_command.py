"""`exmem train` as a user runs it: what its words say; killed at any moment, it ends with the same numbers."""

import _thread
import itertools
import json
import os
import random
import re
import signal
import sys
import time

import numpy as np
import pytest
import yaml

from exmem import ExemplarMemory
from exmem.cli.main import main
from exmem.recipes import RECIPES, Recipe
from exmem.registry import Part
from exmem.train.config import TrainConfig
from tests.cli.running import fork_command
from tests.tiny import SIDE, write_imagefolder, write_models
from tests.train.test_config import NOT_DEFAULT

OPTIONS = f"""
--recipe masked --recipe.codec patch_jpeg:quality=75 --recipe.text lost_patches --max-bytes 40kB
--data.first-classes 2 --data.increments 1 --backbone.image-size {SIDE} --backbone.max-text 8
--tuner.blocks 1 --tuner.adapter lora:rank=2 --loop.epochs 2 --loop.batch 8 --loop.replay-batch 8
--loop.augment text_exchange
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The words of a command that runs in a folder; data and models are written once."""
    data = write_imagefolder(tmp_path_factory.mktemp("data") / "own")
    vision, text = write_models(tmp_path_factory.mktemp("models"))

    def of(out, *more, folder=data):
        models = ["--backbone.vision", str(vision), "--backbone.text", str(text)]
        return ["train", str(folder), "--out", str(out), *OPTIONS.split(), *models, *more]

    return of


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {"EXMEM_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def numbers(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def wait_for(path, process):
    while not path.exists():
        assert process.is_alive()
        time.sleep(0.01)


@pytest.mark.kills
@pytest.mark.slow
def test_a_run_killed_and_interrupted_at_random_moments_ends_with_the_same_numbers(
    tmp_path, words, environment, request
):
    said = tmp_path / "said"
    whole = fork_command(words(tmp_path / "whole"), environment, said)
    whole.join()
    told = said.read_text()
    assert whole.exitcode == 0, told
    assert "phase 3 of 3" in told
    for name in ("metrics.jsonl", "accuracy.png", "exemplars.png", "exemplars.html"):
        assert str(tmp_path / "whole" / name) in told
    begun, ended = ((tmp_path / "whole" / name).stat().st_mtime for name in ("run.json", "metrics.jsonl"))
    lasted = ended - begun  # without the images, which are drawn at the end
    out, rng, codes = tmp_path / "cut", random.Random(0), []
    for kill in range(max(3, int(request.config.getoption("--kills")) // 3)):
        process = fork_command(words(out), environment, said)
        wait_for(out / "run.json", process)
        time.sleep(rng.uniform(0, lasted))
        os.kill(process.pid, signal.SIGINT if kill == 0 else signal.SIGKILL)
        process.join()
        codes.append(process.exitcode)
        if process.exitcode == -signal.SIGINT:  # the interpreter was already on its way out
            assert len(numbers(out)) == 3, said.read_text()
        if process.exitcode == 130:
            assert "run the same command again to continue" in said.read_text()
            assert "Traceback" not in said.read_text()
    assert set(codes) <= {130, -signal.SIGKILL, -signal.SIGINT, 0}
    assert -signal.SIGKILL in codes
    last = fork_command(words(out), environment, said)
    last.join()
    assert last.exitcode == 0, said.read_text()
    assert numbers(out) == numbers(tmp_path / "whole")
    one, two = (ExemplarMemory.open(folder / "memory") for folder in (tmp_path / "whole", out))
    np.testing.assert_array_equal(one.slots, two.slots)
    stored = [memory.read(memory.slots).tokens["image"].values for memory in (one, two)]
    np.testing.assert_array_equal(*stored)


@pytest.fixture
def told(monkeypatch, capsys):
    """What a command that is refused, or helps, ends with and prints."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["exmem", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    return run


def test_wrong_input_is_one_line(tmp_path, words, environment, monkeypatch, told):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "out"
    (tmp_path / "file").write_text("mine")
    for wrong, expected, message in (
        (words(out, folder=tmp_path / "nothing"), 1, str(tmp_path / "nothing")),
        (words(out, "--backbone.vision", str(tmp_path / "no-model")), 1, "no-model"),
        (words(out, "--data.first-classes", "5"), 2, "first_classes must be in 1..4"),
        (words(tmp_path / "file"), 1, "cannot make the run folder"),
    ):
        code, said = told(*wrong)
        assert code == expected
        assert message in said.err
        assert said.err.startswith("exmem: ")
        assert said.err.count("\n") == 1
        assert not out.exists()
    assert (tmp_path / "file").read_text() == "mine"


AUTO = f"""
--max-bytes 24kB --data.first-classes 2 --data.increments 2 --backbone.image-size {SIDE}
--backbone.max-text 8 --tuner.blocks 1 --tuner.adapter lora:rank=2 --loop.epochs 1
"""


@pytest.fixture
def auto(words, environment, monkeypatch, capsys):
    """What a run with AUTO options prints, and the recipe in its folder; few recipes are measured."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    recipes = [Recipe.of("half_jpeg"), Recipe.of("features")]
    monkeypatch.setattr("exmem.train.advice.candidates", lambda _: recipes)

    def run(out, *more, begun_with="auto"):
        given = words(out)
        models = [*given[given.index("--backbone.vision") :], "--recipe", str(begun_with)]
        monkeypatch.setattr(sys, "argv", ["exmem", *given[:4], *AUTO.split(), *models, *more])
        main()
        recorded = json.loads((out / "run.json").read_text())["config"]["recipe"]
        return capsys.readouterr().out, Recipe.from_json(recorded)

    return run


def test_auto_stores_what_the_first_phase_says_is_best(tmp_path, auto):
    said, recipe = auto(tmp_path / "run")
    (line,) = [line for line in said.splitlines() if line.startswith("auto: ")]
    assert re.fullmatch(
        rf"auto: {recipe.name} is best in 24kB by the first phase's data, [\d.]+%, \d+ bytes each", line
    )
    assert recipe.name in {"half_jpeg", "features"}
    assert numbers(tmp_path / "run")[-1]["exemplars"] > 0
    again, same = auto(tmp_path / "run")
    assert "auto: " not in again
    assert same == recipe


@pytest.mark.parametrize("begun_with", ["auto", "text"])
def test_auto_goes_on_with_the_recipe_of_a_run_that_was_interrupted_and_measures_nothing_again(
    tmp_path, auto, monkeypatch, begun_with
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("exmem.train.trainer.Trainer._measure", lambda *_: _thread.interrupt_main() or time.sleep(5))
        with pytest.raises(SystemExit) as ended:
            auto(out, begun_with=begun_with)
    assert ended.value.code == 130
    assert not (out / "metrics.jsonl").exists()
    with monkeypatch.context() as patch:
        patch.setattr("exmem.train.advice.choose_recipe", lambda *_: pytest.fail("measured again"))
        said, recipe = auto(out)
    assert "begun anew" not in said
    assert recipe.name == begun_with or begun_with == "auto"
    assert len(numbers(out)) == 2
    whole = tmp_path / "whole"
    recipe.save(tmp_path / "same.yaml")
    auto(whole, begun_with=tmp_path / "same.yaml")
    assert numbers(whole) == numbers(out)


def test_auto_chooses_anew_where_a_run_has_finished_no_phase_and_other_options_are_given(tmp_path, auto, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("exmem.train.trainer.Trainer._measure", lambda *_: _thread.interrupt_main() or time.sleep(5))
        with pytest.raises(SystemExit):
            auto(out, begun_with="text")
    said, recipe = auto(out, "--seed", "1")
    assert f"auto: {recipe.name} is best" in said
    assert "begun anew with other settings" in said


@pytest.fixture
def train(monkeypatch):
    """The configuration that a command line stands for."""

    def parse(*words):
        parsed = []
        monkeypatch.setattr("exmem.cli.train._run", lambda *given, **_: parsed.append(given))
        monkeypatch.setattr(sys, "argv", ["exmem", "train", "DATA", "--out", "RUN", *map(str, words)])
        main()
        ((data, config, out),) = parsed
        assert (str(data), str(out)) == ("DATA", "RUN")
        return config

    return parse


def test_without_options_all_are_left_at_their_defaults(train):
    assert train() == TrainConfig.from_json({"recipe": "half_jpeg"})


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_by_name_is_that_recipe(train, name):
    assert train("--recipe", name) == TrainConfig(recipe=RECIPES[name])
    assert train(f"--recipe={name}").recipe == RECIPES[name]


def test_a_recipe_is_refined_by_its_parts(train):
    words = "--recipe masked --recipe.scorer cls_attention:layers=[-3] --recipe.keep top_k:k=7 --recipe.extras logits"
    expected = Recipe.of("masked").refined(
        scorer={"name": "cls_attention", "layers": [-3]}, keep="top_k:k=7", extras=["logits"]
    )
    assert train(*words.split()) == TrainConfig(recipe=expected)
    words = ["--recipe", "foveated", "--recipe.image", "scales:factors=[1,4],shares=[0.5]"]
    assert train(*words).recipe.image == Part("scales", (("factors", (1, 4)), ("shares", (0.5,))))


def test_every_option_can_be_given_by_its_dotted_name(train):
    words = []
    for key, value in NOT_DEFAULT.to_json().items():
        group = value if isinstance(value, dict) else {"": value}
        for name, option in group.items():
            flag = "--" + f"{key}.{name}".strip(".").replace("_", "-")
            if isinstance(option, bool):
                words.append(flag if option else flag.replace(".", ".no-"))
            elif option is not None:
                values = option if isinstance(option, list | tuple) else [option]
                words += [flag, *(str(Part.of(one)) if isinstance(one, dict) else str(one) for one in values)]
    assert train(*words) == NOT_DEFAULT


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_a_file_gives_options_and_a_recipe(train, tmp_path, suffix):
    file, recipe = tmp_path / f"options.{suffix}", tmp_path / f"mine.{suffix}"
    document = json.loads(json.dumps(NOT_DEFAULT.to_json()))
    file.write_text(json.dumps(document) if suffix == "json" else yaml.safe_dump(document))
    assert train("--config", file) == NOT_DEFAULT
    NOT_DEFAULT.recipe.save(recipe)
    assert train("--recipe", recipe) == TrainConfig(recipe=NOT_DEFAULT.recipe)


def test_the_file_gives_way_to_the_recipe_this_to_its_parts_and_all_to_options(train, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("recipe: {name: foveated, image: scales, fill: zero}\nloop: {epochs: 2, batch: 3}\nseed: 4\n")
    from_file = train("--config", file)
    assert (from_file.recipe.name, from_file.recipe.fill, from_file.loop.epochs) == ("foveated", Part("zero"), 2)
    named = train("--config", file, "--recipe", "masked")
    assert named.recipe == Recipe.of("masked")
    assert (named.loop.epochs, named.seed) == (2, 4)
    words = ["--recipe.fill", "mean", "--config", file, "--loop.epochs", "7", "--recipe", "masked"]
    refined = train(*words)
    assert refined.recipe == Recipe.of("masked").refined(fill="mean")
    assert (refined.loop.epochs, refined.loop.batch, refined.seed) == (7, 3, 4)
    assert train("--config", file, "--recipe.scorer", "random").recipe == from_file.recipe.refined(scorer="random")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--recipe half_jpeg --recipe.scorer cls_attention",
            "scorer 'cls_attention' has no effect with image 'scaled:",
        ),
        ("--recipe masked --recipe.image scaled --recipe.keep=mean_threshold", "keep 'mean_threshold' has no effect"),
        ("--recipe best", "unknown recipe 'best'; choose one of"),
        ("--recipe.scorer cls", "unknown scorer 'cls'; choose one of"),
        ("--recipe.keep top_k:n=3", "keep rule 'top_k' has no option ['n']; it has ['k']"),
        ("--recipe.keep top_k:3", "expected NAME, NAME:OPTION=VALUE"),
        ("--recipe auto --recipe.scorer random", "--recipe auto is chosen whole; leave out ['--recipe.scorer'], or"),
        (
            "--recipe=auto --recipe.codec=raw --recipe.keep top_k:k=3",
            "leave out ['--recipe.codec', '--recipe.keep'], or",
        ),
        ("--loop.epochs 0", "loop.epochs"),
        ("--loop.augment flop", "unknown augmentation 'flop'"),
        ("--max-bytes much", "much"),
        ("--config {folder}/none.yaml", "none.yaml: expected a file of YAML or JSON"),
        (
            "--config cifar",
            "--config: unknown configuration 'cifar'; choose a file, or one of ['cifar100_b0_inc10_derpp',",
        ),
        ("--config {folder}/list.yaml", "list.yaml: expected a mapping of options"),
        ("--config {folder}/strange.yaml", "strange.yaml: loop: unknown keys ['epoch']; known are ['epochs',"),
        ("--recipe {folder}/strange.yaml", "recipe: unknown keys ['loop']"),
    ],
)
def test_wrong_words_are_told_in_one_line(told, tmp_path, words, message):
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "strange.yaml").write_text("loop: {epoch: 3}")
    code, said = told("train", "DATA", "--out", "RUN", *words.format(folder=tmp_path).split())
    assert code in {1, 2}
    assert message in " ".join(said.err.split())
    assert "Traceback" not in said.err


@pytest.mark.parametrize("word", ["--recipe", "--config", "--loop.epoch=3"])
def test_a_word_that_lacks_or_is_unknown_is_told_by_the_command_itself(told, word):
    code, said = told("train", "DATA", "--out", "RUN", word)
    assert code == 2
    assert word.partition("=")[0] in said.err
    assert "exmem train" in said.err


@pytest.fixture
def options(monkeypatch, told):
    """The help: what values each option takes, and its default."""
    monkeypatch.setenv("COLUMNS", "100")

    def read(*words):
        code, said = told("train", *words, "--help")
        assert code == 0
        lines = [line.strip("│ ") for line in said.out.splitlines()]
        starts = [at for at, line in enumerate(lines) if re.match("--[a-z]", line)]
        entries = {}
        for at, until in zip(starts, [*starts[1:], len(lines)], strict=True):
            name, _, values = lines[at].partition(",")[0].removeprefix("--").partition(" ")
            text = itertools.takewhile(lambda line: not re.match("[╰╭+]", line), lines[at + 1 : until])
            entries[name] = lines[at][len(name) + 3 :] if values else "", " ".join(text)
        return entries

    return read


def test_the_help_lists_every_option_with_what_it_takes(options):
    listed = options()
    flat = {
        f"{key}.{name}".strip(".").replace("_", "-")
        for key, value in TrainConfig().to_json().items()
        for name in (value if isinstance(value, dict) and "divisor" not in value else {"": 0})
    }
    assert flat <= {*listed}
    values = {name: takes for name, (takes, _) in listed.items()}
    assert values["out"] == "RUN"
    assert values["recipe"] == "NAME|FILE"
    assert values["config"] == "NAME|FILE"
    assert values["max-bytes"] == "BYTES"
    assert values["data.first-classes"] == "INT"
    assert values["data.text-column"] == "COLUMN"
    assert values["backbone.vision"] == "NAME|FOLDER"
    assert values["recipe.scorer"] == "NAME[:OPTION=VALUE,...]"
    assert values["quota"] == "{bytes,counts,frequency}"
    assert not [name for name, takes in values.items() if re.search(r"\b(STR|PATH|None)\b", takes)]
    for name, (_, text) in listed.items():
        assert re.search(r"^[A-Z].{10,} \((default: .*|required)\)", text), name


def test_the_help_shows_the_defaults_of_the_recipe_and_the_file_that_are_named(options, tmp_path):
    (tmp_path / "options.yaml").write_text("loop: {epochs: 3}")
    assert options()["recipe.image"][1].endswith("(default: scaled:divisor=2)")
    listed = options("--recipe", "masked", "--config", tmp_path / "options.yaml")
    assert listed["recipe.image"][1].endswith("(default: patches)")
    assert listed["recipe"][1].endswith("(default: masked)")
    assert listed["loop.epochs"][1].endswith("(default: 3)")


def test_a_missing_package_is_named_with_the_remedy(tmp_path, monkeypatch, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, said = told("train", "data", "--out", "run")
    assert code == 1
    told = r"exmem: this needs the package transformers; install it .*pip install 'exmem\[train,demo\]'\)\n"
    assert re.fullmatch(told, said.err)
    assert [*tmp_path.iterdir()] == []
