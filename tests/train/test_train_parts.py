"""Parts of the trainer: scenario, metrics, configuration, run folder, ranking, progress."""

import io
import math
import re

import numpy as np
import pytest
import torch
from rich.console import Console

from exmem.errors import DataError, SchemaError
from exmem.selection import SELECTIONS
from exmem.train.config import TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.metrics import accuracies, average_incremental_accuracy, backward_transfer, forgetting, last_accuracy
from exmem.train.progress import RunProgress
from exmem.train.scenario import Scenario
from exmem.train.storing import rank_examples


def test_an_uneven_split_gives_each_class_once():
    scenario = Scenario.split(22, first=6, increments=[5, 3], seed=1)
    assert [len(phase) for phase in scenario.phases] == [6, 5, 3, 3, 3, 2]
    assert sorted(scenario.seen(5)) == list(range(22))
    assert scenario == Scenario.split(22, first=6, increments=[5, 3], seed=1)
    assert scenario != Scenario.split(22, first=6, increments=[5, 3], seed=2)


@pytest.mark.parametrize(("first", "increments"), [(23, [1]), (0, [1]), (20, [1, 1, 5])])
def test_a_split_that_does_not_fit_is_refused(first, increments):
    with pytest.raises(SchemaError, match="classes"):
        Scenario.split(22, first=first, increments=increments, seed=0)


def test_a_class_must_not_come_twice():
    with pytest.raises(SchemaError, match="two phases"):
        Scenario(((0, 1), (1,)))


def test_accuracies_worked_by_hand():
    scenario = Scenario(((0, 1), (2,)))
    found = accuracies(np.array([0, 0, 2, 1]), np.array([0, 1, 2, 2]), scenario, 1)
    assert found == {"all": 0.5, "by_phase": [0.5, 0.5]}
    rows = [[0.9], [0.5, 0.8], [0.6, 0.7, 1.0]]
    assert forgetting(rows) == pytest.approx(0.2)
    assert backward_transfer(rows) == pytest.approx(-0.2)
    assert forgetting([[0.9]]) == 0
    assert average_incremental_accuracy([0.9, 0.6]) == pytest.approx(0.75)
    assert last_accuracy([0.9, 0.6]) == 0.6
    nothing = accuracies(np.zeros(0, np.int64), np.zeros(0, np.int64), scenario, 0)
    assert math.isnan(nothing["all"])
    assert forgetting([[math.nan], [math.nan, 0.8], [math.nan, 0.7, 1.0]]) == pytest.approx(0.1)


def test_a_configuration_survives_json_and_refuses_unknown_keys():
    config = TrainConfig(first_classes=3, increments=(2, 1), score_layers=(-3, -1))
    assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(SchemaError, match=r"unknown keys \['epoch'\]; known are .*'epochs'"):
        TrainConfig.from_json({"first_classes": 1, "increments": [1], "epoch": 3})
    with pytest.raises(SchemaError, match="lacks"):
        TrainConfig.from_json({"first_classes": 1})
    other = TrainConfig(first_classes=3, increments=(2, 1), score_layers=(-3, -1), lr=0.1)
    assert config.differences(other) == ["lr: 0.001, 0.1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"increments": ()},
        {"lr": float("nan")},
        {"augment_probability": 2.0},
        {"qualities": (0, 50)},
        {"quality": 0},
        {"recipe": "x"},
        {"scale_factors": (1, 0)},
        {"scale_factors": ()},
        {"keep_ratio": 0.0},
        {"keep_mass": 1.5},
        {"text_threshold": -1.0},
    ],
)
def test_a_value_out_of_range_is_named(wrong):
    with pytest.raises(SchemaError, match=next(iter(wrong))):
        TrainConfig(**({"first_classes": 3, "increments": (1,)} | wrong))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"recipe": "none", "new_stored_form": 0.5}, "stores nothing"),
        ({"recipe": "none", "test_stored_form": True}, "stores nothing"),
        ({"recipe": "text", "text_rule": "none"}, "nothing to store"),
        ({"recipe": "half_jpeg", "fill": "thumbnail"}, "needs recipe 'masked'"),
        ({"scorer": "grad_attention", "new_stored_form": 0.5}, "knows nothing of new classes"),
        ({"scorer": "grad_attention", "test_stored_form": True}, "tell their labels"),
        ({"fill": "class_mean", "test_stored_form": True}, "show their labels"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, why):
    with pytest.raises(SchemaError, match=why):
        TrainConfig(first_classes=3, increments=(1,), **options)


def test_a_run_folder_keeps_metrics_notes_and_the_last_two_checkpoints(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.metrics() == []
    assert folder.checkpoint(0) is None
    folder.add_metrics({"phase": 0, "linear": {"all": math.nan, "by_phase": [0.5, math.nan]}})
    folder.add_metrics({"phase": 1, "linear": {"all": 0.25, "by_phase": []}})
    text = folder.metrics_file.read_text()
    assert "NaN" not in text
    assert len(text.splitlines()) == 2
    found = folder.metrics()
    assert math.isnan(found[0]["linear"]["all"])
    assert math.isnan(found[0]["linear"]["by_phase"][1])
    assert found[1] == {"phase": 1, "linear": {"all": 0.25, "by_phase": []}}
    for phase in range(3):
        folder.save_checkpoint(phase, {"weight": torch.full((2,), float(phase))})
    assert folder.checkpoint(0) is None
    assert folder.checkpoint(1)["weight"].tolist() == [1.0, 1.0]
    folder.save_note(1, "plan", {"rows": [3, 1]})
    assert folder.note(1, "plan") == {"rows": [3, 1]}
    assert folder.note(2, "plan") is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_with_other_things_is_not_taken(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    config = TrainConfig(first_classes=3, increments=(1,))
    with pytest.raises(DataError, match=r"photo\.jpg"):
        RunFolder(tmp_path).claim(config, {})
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.claim(config, {"key": "a"})
    folder.claim(config, {"key": "a"})
    with pytest.raises(DataError, match="data key: 'a', 'b'"):
        folder.claim(config, {"key": "b"})


@pytest.mark.parametrize("selection", sorted(SELECTIONS))
def test_examples_are_ranked_within_their_class(selection):
    labels = np.array([4, 1, 4, 4, 1])
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    options = {"selection": selection, "seed": [0, 1], "values": np.array([0.3, 0.2, 0.1, 0.7, 0.9])}
    ranks = rank_examples(features, labels, **options)
    assert sorted(ranks[labels == 4].tolist()) == [0, 1, 2]
    assert sorted(ranks[labels == 1].tolist()) == [0, 1]
    np.testing.assert_array_equal(ranks, rank_examples(features, labels, **options))
    if selection == "loss":
        assert ranks.tolist() == [1, 1, 2, 0, 0]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_what_is_left(terminal, monkeypatch):
    out = io.StringIO()
    now = [100.0]
    monkeypatch.setattr("exmem.train.progress.time.monotonic", lambda: now[0])
    console = Console(file=out, force_terminal=terminal, width=100)
    with RunProgress(console, name="masked", total=100, done=20) as progress:
        progress.stage("phase 2/3, storing")
        progress.advance(10)
        now[0] += 30
        progress.reach(60)  # 40 units in 30 s, 40 are left
        progress.line("second", last=False)
        now[0] += 30
        progress.reach(100)
        progress.line("third", last=True)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "second; about 0:00:30 left" in text
    assert "third\n" in text
    assert ("phase 2/3, storing" in text) == terminal
