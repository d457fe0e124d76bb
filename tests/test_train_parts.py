"""Parts of the trainer: scenario, metrics, configuration, ranking."""

import numpy as np
import pytest

from exmem.errors import SchemaError
from exmem.train.config import TrainConfig
from exmem.train.metrics import accuracies, average_incremental_accuracy, backward_transfer, forgetting, last_accuracy
from exmem.train.scenario import Scenario


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
    [{"epochs": 0}, {"increments": ()}, {"lr": float("nan")}, {"exchange_text": 2.0}, {"quality": 0}, {"recipe": "x"}],
)
def test_a_value_out_of_range_is_named(wrong):
    with pytest.raises(SchemaError, match=next(iter(wrong))):
        TrainConfig(**({"first_classes": 3, "increments": (1,)} | wrong))
