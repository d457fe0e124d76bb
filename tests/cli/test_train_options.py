"""What the words of `exmem train` say, without running it; and what its help tells."""

import itertools
import json
import re
import sys

import pytest
import yaml

from exmem.cli.main import main
from exmem.recipes import RECIPES, Recipe
from exmem.registry import Part
from exmem.train.config import TrainConfig
from tests.train.test_config import NOT_DEFAULT


@pytest.fixture
def train(monkeypatch):
    """The configuration that a command line stands for."""

    def parse(*words):
        parsed = []
        monkeypatch.setattr("exmem.cli.train._run", lambda *given: parsed.append(given))
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


def told(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["exmem", "train", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--recipe best", "unknown recipe 'best'; choose one of"),
        ("--recipe.scorer cls", "unknown scorer 'cls'; choose one of"),
        ("--recipe.keep top_k:n=3", "keep rule 'top_k' has no option ['n']; it has ['k']"),
        ("--recipe.keep top_k:3", "expected NAME, NAME:OPTION=VALUE"),
        ("--loop.epochs 0", "loop.epochs"),
        ("--loop.augment flop", "unknown augmentation 'flop'"),
        ("--max-bytes much", "much"),
        ("--config {folder}/none.yaml", "none.yaml: expected a file of YAML or JSON"),
        ("--config {folder}/list.yaml", "list.yaml: expected a mapping of options"),
        ("--config {folder}/strange.yaml", "strange.yaml: loop: unknown keys ['epoch']; known are ['epochs',"),
        ("--recipe {folder}/strange.yaml", "recipe: unknown keys ['loop']"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(monkeypatch, capsys, tmp_path, words, message):
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "strange.yaml").write_text("loop: {epoch: 3}")
    code, said = told(monkeypatch, capsys, "DATA", "--out", "RUN", *words.format(folder=tmp_path).split())
    assert code in {1, 2}
    assert message in " ".join(said.err.split())
    assert "Traceback" not in said.err


@pytest.mark.parametrize("word", ["--recipe", "--config", "--loop.epoch=3"])
def test_a_word_that_lacks_or_is_unknown_is_told_by_the_command_itself(monkeypatch, capsys, word):
    code, said = told(monkeypatch, capsys, "DATA", "--out", "RUN", word)
    assert code == 2
    assert word.partition("=")[0] in said.err
    assert "exmem train" in said.err


@pytest.fixture
def options(monkeypatch, capsys):
    """The help: what values each option takes, and its default."""
    monkeypatch.setenv("COLUMNS", "100")

    def read(*words):
        code, said = told(monkeypatch, capsys, *words, "--help")
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
    assert values["config"] == "FILE"
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
