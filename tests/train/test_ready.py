"""Ready configurations: each reads as it is, says what it is, and runs end to end on a small replica of its data."""

import json
import re

import pytest
import yaml

from exmem.backbones import load_backbone
from exmem.errors import SchemaError
from exmem.recipes.recipe import read_document
from exmem.store import parse_bytes
from exmem.train.config import TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.methods.fitting import head_bytes
from exmem.train.parts import load_run_data
from exmem.train.ready import configuration_file, ready_configurations
from exmem.train.trainer import Trainer
from tests.cli.running import outcome
from tests.tiny import SIDE, write_vilt
from tests.train.data.writing import write_cifar100, write_cub, write_food101, write_imagenet_r
from tests.train.test_trainer import QUIET

READY = ready_configurations()
PAPER = [f"masking_{data}_{phases}" for data in ("mm_imagenet_r", "food101") for phases in (5, 10, 20)]
SETS = {"cifar100_b0_inc10": 100, "imagenet_r_b0_inc20": 200, "cub_b0_inc10": 200}
METHODS = ["simplecil", "ranpac", "icarl", "er", "derpp", "wa"]


def read(name):
    return TrainConfig.from_json(read_document(READY[name]))


def test_the_papers_protocol_and_pilots_are_ready():
    assert {*READY} == {*PAPER, *(f"{data}_{method}" for data in SETS for method in METHODS)}


@pytest.mark.parametrize("name", READY)
def test_a_ready_configuration_reads_as_it_is_and_says_what_it_is(name):
    config, text = read(name), READY[name].read_text(encoding="utf-8")
    assert config.data.scenario is not None
    assert config.data.order_seed == 1993
    comment, _, options = text.partition("\nrecipe: ")
    assert all(line.startswith("#") for line in comment.splitlines())
    assert f"--config {name}\n" in comment
    assert re.search(r"^# Ours[,:] ", comment, re.MULTILINE)
    assert "arXiv:" in comment
    assert f"  layout: {config.data.layout}\n" in options
    assert config.data.layout.name != "auto"
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", PAPER)
def test_the_budget_of_the_paper_is_what_its_comment_computes(name):
    config, text = read(name), READY[name].read_text(encoding="utf-8")
    phases = int(name.rpartition("_")[2])
    classes = 101 if "food101" in name else 200
    base, increment = map(int, re.fullmatch(r"B(\d+)-Inc(\d+)", config.data.scenario).groups())
    assert (base or increment) + (phases - 1) * increment == classes
    sample = 3 * config.backbone.image_size**2 + 4 * config.backbone.max_text
    assert sample == 442_528
    table = dict(re.findall(r"^# +(\d+)   (\d+)$", text, re.MULTILINE))
    assert {int(number): int(nbytes) for number, nbytes in table.items()} == {
        number: number * classes * sample for number in (1, 3, 5, 7, 10)
    }
    assert parse_bytes(config.max_bytes) == 5 * classes * sample


@pytest.mark.parametrize("data", SETS)
def test_sums_and_twenty_exemplars_a_class_fit_the_budgets_of_pilots_protocols(data):
    classes = SETS[data]
    simple, projected = (read(f"{data}_{method}") for method in ("simplecil", "ranpac"))
    assert head_bytes(simple.method.head, width=1536, classes=classes) < parse_bytes(simple.max_bytes)
    width = projected.method.head.kwargs["projection"]
    sums = 4 * (width * (width + 1) // 2 + classes * width)  # of which a small file with a header is made
    assert sums + 100_000 < parse_bytes(projected.max_bytes) < 1.01 * sums
    pixels = 3 * (32 if "cifar" in data else 224) ** 2
    for method in ("icarl", "er", "derpp", "wa"):
        each = parse_bytes(read(f"{data}_{method}").max_bytes) / (20 * classes)
        logits = 4 * classes if method == "derpp" else 0
        assert 50 <= each - pixels - logits <= 200


@pytest.fixture(scope="session")
def replica(tmp_path_factory, models):
    """Weights of a tiny model of each family that is used."""
    return {"vit": models[0], "vilt": write_vilt(tmp_path_factory.mktemp("replica") / "vilt")}


def shrunk(name, weights):
    """A configuration as its file has it, but for what makes it large."""
    document = yaml.safe_load(READY[name].read_text(encoding="utf-8"))
    document["backbone"] |= {"vision": str(weights[document["backbone"]["family"]]), "image_size": SIDE, "max_text": 8}
    document["data"]["scenario"] = "B0-Inc2" if document["data"]["scenario"].startswith("B0-") else "B3-Inc1"
    document["tuner"]["blocks"] = min(document["tuner"].get("blocks", 1), 2)
    document.setdefault("loop", {})
    document["loop"] |= {"epochs": 1} | {key: 8 for key in ("batch", "replay_batch") if key in document["loop"]}
    if document.get("method", {}).get("head", "").startswith("ranpac"):
        document["method"]["head"] = "ranpac:projection=16"
    return document | {"max_bytes": "100kB"}


WRITERS = {"cifar100": write_cifar100, "cub": write_cub, "food101": write_food101, "imagenet_r": write_imagenet_r}


@pytest.mark.parametrize("name", sorted(name for name in READY if name.endswith(("simplecil", "_5"))))
def test_a_ready_configuration_reads_a_replica_of_its_data(tmp_path, name):
    config = read(name)
    layout = config.data.layout.name
    root = WRITERS[layout.removeprefix("mm_")](tmp_path)
    if layout == "mm_imagenet_r":
        images = sorted(path.relative_to(root) for path in root.rglob("*.jpg"))
        rows = [json.dumps({"file_name": str(path), "text": "a drawing"}) + "\n" for path in images]
        (root / "metadata.jsonl").write_text("".join(rows))
    train, test = load_run_data(config, root)
    assert len(train) > 0 < len(test)
    assert train.class_names == test.class_names
    assert all(train.texts) or config.data.modalities == "image"


@pytest.mark.parametrize("name", READY)
def test_a_ready_configuration_runs_to_the_end_on_a_replica(tmp_path, data, replica, name):
    document = shrunk(name, replica)
    config = TrainConfig.from_json(document)
    seen = () if config.data.modalities == "both" else (config.data.modalities,)
    backbone = load_backbone(
        config.backbone.family,
        *config.backbone.names,
        modalities=seen,
        image_size=SIDE,
        trainable_blocks=config.tuner.blocks,
        max_text=8,
    )
    entries = Trainer(RunFolder(tmp_path / "run"), config, backbone, train=data[0], test=data[1]).run(QUIET)
    assert [len(entry["classes"]) for entry in entries] == ([2, 2] if config.data.scenario == "B0-Inc2" else [3, 1])
    assert (entries[-1]["exemplars"] > 0) == (not config.recipe.is_empty)
    assert (entries[-1]["head_bytes"] > 0) == config.keeps_sums
    assert 0 <= entries[-1]["head"]["all"] <= 1


def test_a_ready_configuration_is_named_on_the_command_line_and_options_come_after_it(
    tmp_path, data_folder, replica, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXMEM_CACHE", str(tmp_path / "cache"))
    words = ["train", data_folder, "--out", "run", "--config", "cifar100_b0_inc10_icarl", "--data.scenario", "B0-Inc2"]
    words += ["--backbone.vision", replica["vit"], "--backbone.image-size", SIDE, "--loop.epochs", 1]
    words += ["--data.layout", "auto"]
    code, _, err = outcome([*words, "--max-bytes", "100kB", "--tuner.blocks", 1], monkeypatch, capsys)
    assert code == 0, err
    config = TrainConfig.from_json(json.loads((tmp_path / "run" / "run.json").read_text())["config"])
    expected = read("cifar100_b0_inc10_icarl")
    assert (config.method, config.recipe, config.loop.batch) == (expected.method, expected.recipe, expected.loop.batch)
    assert (config.data.scenario, config.loop.epochs) == ("B0-Inc2", 1)


def test_a_file_goes_before_a_ready_configuration_and_an_unknown_name_lists_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configuration_file("cub_b0_inc10_er") == READY["cub_b0_inc10_er"]
    (tmp_path / "cub_b0_inc10_er").write_text("seed: 1")
    assert read_document(configuration_file("cub_b0_inc10_er")) == {"seed": 1}
    assert str(configuration_file("mine.yaml")) == "mine.yaml", "a file that is not there is told when it is read"
    with pytest.raises(SchemaError, match=r"unknown configuration 'cub'; choose a file, or one of \['cifar100_b0"):
        configuration_file("cub")
