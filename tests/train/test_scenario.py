"""Scenarios by name, in the order of PILOT, and as files that hold the names of the classes of each phase."""

import json

import pytest
import yaml

from exmem.errors import DataError, SchemaError
from exmem.report.compare import compared
from exmem.train.config import DataConfig
from exmem.train.folder import RunFolder
from exmem.train.predictor import Predictor
from exmem.train.scenario import Scenario, scenario_of_run
from tests.tiny import start

NAMES = ["ant", "bee", "cat", "dog", "eel"]
# What PyCIL and PILOT print as the class order of CIFAR-100 with seed 1993, first of all classes.
CIFAR = [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38]


def named(scenario, names=NAMES, **options):
    return Scenario.of(DataConfig(scenario=scenario, **options), names)


def sizes(scenario, count, **options):
    return [len(phase) for phase in named(scenario, [f"c{number}" for number in range(count)], **options).phases]


def write(file, document):
    file.write_text(json.dumps(document) if file.suffix == ".json" else yaml.safe_dump(document))
    return str(file)


def test_a_name_has_the_phases_that_pilot_gives_it():
    assert sizes("B0-Inc10", 100) == [10] * 10
    assert sizes("B50-Inc5", 100) == [50, *[5] * 10]
    assert sizes("B100-Inc20", 200) == [100, *[20] * 5]
    assert sizes("B0-Inc3", 7) == [3, 3, 1]
    assert sizes("B4-Inc3", 4) == [4]


def test_the_classes_of_a_name_come_in_the_order_that_pilot_and_pycil_print():
    scenario = named("B0-Inc10", [*map(str, range(100))])
    assert scenario.seen(1) == (*CIFAR,)
    assert sorted(scenario.seen(9)) == [*range(100)]
    assert named("B0-Inc10", [*map(str, range(100))], class_seed=1993) == scenario
    assert named("B0-Inc10", [*map(str, range(100))], class_seed=1994) != scenario
    # np.random.seed(0); np.random.permutation(5)
    assert named("B0-Inc2", class_seed=0).phases == ((2, 0), (1, 3), (4,))


@pytest.mark.parametrize("name", ["B0-Inc6", "B6-Inc1"])
def test_a_first_phase_of_more_classes_than_there_are_is_refused(name):
    with pytest.raises(SchemaError, match=rf"'{name}' has 6 classes in its first phase, the data has 5"):
        named(name)


def test_without_a_scenario_the_order_of_the_classes_is_what_it_was():
    assert Scenario.of(DataConfig(increments=(2,)), NAMES) == Scenario.split(5, first=2, increments=[2], seed=0)
    assert Scenario.of(DataConfig(increments=(2,)), NAMES).phases == ((2, 4), (3, 0), (1,))


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml", "JSON"])
def test_a_file_has_the_classes_of_each_phase_by_name(tmp_path, suffix):
    file = write(tmp_path / f"s.{suffix}", {"name": "mine", "phases": [["dog", "ant"], ["eel", "cat", "bee"]]})
    assert named(file).phases == ((3, 0), (4, 2, 1))
    assert named(file).named(NAMES) == [["dog", "ant"], ["eel", "cat", "bee"]]
    assert named(file, [*reversed(NAMES)]).named([*reversed(NAMES)]) == named(file).named(NAMES)


def test_a_number_in_a_file_is_the_class_whose_label_is_that_number(tmp_path):
    file = write(tmp_path / "s.json", {"phases": [[10, "7"], [0]]})
    assert named(file, ["0", "7", "10"]).phases == ((2, 1), (0,))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"phases": [["ant", "bee"], ["gnu", "emu"]]}, r"s.json has classes that the data lacks: \['emu', 'gnu'\]"),
        ({"phases": [["ant", "bee"], ["dog"]]}, r"s.json lacks classes of the data: \['cat', 'eel'\]; add them"),
        ({"phases": [["ant", "bee"], ["ant"]]}, r"s.json has classes twice: \['ant'\]"),
        ({"phases": [[*"abcdefg"]]}, r"lacks: \['a', 'b', 'c', 'd', 'e'\] and 2 more; correct or drop them"),
        ({"phases": []}, "expected 'phases', a list of classes for each phase, got"),
        ({}, "expected 'phases', a list of classes for each phase, got None"),
        ({"phases": "ant"}, "expected 'phases', a list of classes for each phase, got 'ant'"),
        ({"phases": [["ant"], []]}, "phase 2: expected a list of names of classes, one or more"),
        ({"phases": [["ant"], "bee"]}, "phase 2: expected a list of names of classes, one or more, got 'bee'"),
        ({"phases": [["ant", True]]}, "phase 1: expected names of classes, got True; write it in quotes"),
        ({"phases": [[1.5]]}, "phase 1: expected names of classes, got 1.5; write it in quotes"),
        ({"phases": [NAMES], "seed": 3}, r"unknown keys \['seed'\]; known are \['phases', 'name'\]"),
        ([NAMES], "expected a mapping of options"),
    ],
    ids=str,
)
def test_a_file_that_does_not_go_with_the_data_is_told_by_the_names_of_the_classes(tmp_path, document, message):
    file = write(tmp_path / "s.json", document)
    with pytest.raises(SchemaError, match=message):
        named(file)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SchemaError, match=r"none\.yaml: expected a file of YAML or JSON, got .*No such file"):
        named(str(tmp_path / "none.yaml"))


def numbers(entries):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


BY_NAME = {"first_classes": None, "increments": [10], "scenario": "B0-Inc2"}


@pytest.fixture(scope="module")
def by_name(tmp_path_factory, backbone, data):
    """A run of a scenario by name, and what it measured."""
    from tests.train.test_trainer import QUIET

    folder = tmp_path_factory.mktemp("named") / "run"
    return folder, start(folder, backbone, data, data=BY_NAME).run(QUIET)


def test_the_scenario_of_a_run_gives_another_run_the_same_numbers(tmp_path, by_name, backbone, data):
    from tests.train.test_trainer import QUIET

    folder, entries = by_name
    document = json.loads((folder / "scenario.json").read_text())
    # np.random.seed(1993); np.random.permutation(4)
    assert document == {"name": "B0-Inc2", "phases": [["class0", "class2"], ["class3", "class1"]]}
    by_file = BY_NAME | {"scenario": str(folder / "scenario.json")}
    again = start(tmp_path / "again", backbone, data, data=by_file).run(QUIET)
    assert numbers(again) == numbers(entries)
    written = json.loads((tmp_path / "again" / "scenario.json").read_text())
    assert written == {"phases": document["phases"]}


def test_what_a_run_learnt_is_asked_without_the_file_of_its_scenario(tmp_path, by_name, backbone, data, models):
    from tests.train.test_trainer import QUIET

    file = tmp_path / "mine.yaml"
    write(file, {"phases": [["class3"], ["class0", "class1", "class2"]]})
    weights = {"vision": str(models[0]), "text": str(models[1])}
    trainer = start(tmp_path / "run", backbone, data, data=BY_NAME | {"scenario": str(file)}, backbone=weights)
    trainer.run(QUIET)
    moved = file.rename(tmp_path / "moved.yaml")
    assert Predictor(tmp_path / "run").seen == (3, 0, 1, 2)
    (group,), notes = compared([tmp_path / "run"])
    assert (len(group.runs[0]), notes) == (2, [])
    with pytest.raises(SchemaError, match=r"mine\.yaml: expected a file of YAML or JSON"):
        start(tmp_path / "run", backbone, data, data=BY_NAME | {"scenario": str(file)}, backbone=weights)
    start(tmp_path / "run", backbone, data, data=BY_NAME | {"scenario": str(moved)}, backbone=weights).run(QUIET)
    write(moved, {"phases": [["class0"], ["class3", "class1", "class2"]]})
    with pytest.raises(DataError, match=r"differs in the classes of its phases \(scenario\.json\)"):
        start(tmp_path / "run", backbone, data, data=BY_NAME | {"scenario": str(moved)}, backbone=weights).run(QUIET)


def test_a_run_from_before_there_were_scenario_files_has_that_of_its_configuration(tmp_path):
    run, names = RunFolder(tmp_path), [f"class{number}" for number in range(4)]
    data = DataConfig(first_classes=2, increments=(1,))
    assert scenario_of_run(run, data, names) == Scenario.split(4, first=2, increments=[1], seed=0)


def test_runs_of_one_scenario_in_different_files_are_one_configuration_and_others_are_not(tmp_path):
    from tests.report.test_compare import write_run

    phases = [["a", "c"], ["b", "d"]]
    for name, order in (("one", phases), ("copy", phases), ("other", phases[::-1])):
        folder = tmp_path / name
        write_run(folder, [0.6, 0.4], seed=len(name), data={"scenario": f"{name}.json"})
        write(folder / "scenario.json", {"phases": order})
    groups, _ = compared([tmp_path / name for name in ("one", "copy", "other")])
    assert sorted(len(group.runs) for group in groups) == [1, 2]
    assert all("data.scenario=file " in group.name for group in groups)
