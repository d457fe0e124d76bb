"""A run sums itself up: a page of Markdown, an accuracy matrix, bytes of each class; trackers are told the same."""

import re

import numpy as np
import pytest
import yaml
from accelerate.tracking import GeneralTracker
from PIL import Image
from rich.console import Console

from exmem.errors import SchemaError
from exmem.report.plots import plot_class_bytes, plot_matrix
from exmem.report.run import draw_run
from exmem.train.config import TrainConfig
from exmem.train.data import load_data
from exmem.train.ranks import Ranks
from tests.tiny import load_joint, start, write_imagefolder, write_models


class Recording(GeneralTracker):
    """A tracker that keeps what it is told."""

    name, requires_logging_directory, main_process_only = "recording", False, True

    def __init__(self):
        super().__init__()
        self.config, self.logged, self.finished = {}, [], False

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **options):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    place = tmp_path_factory.mktemp("summed")
    data, models, tracker = load_data(write_imagefolder(place / "data")), write_models(place / "m"), Recording()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exmem.train.cache.cache_dir", lambda: place / "cache")
        trainer = start(place / "run", lambda: load_joint(models), data, ranks=Ranks.joined(trackers=[tracker]))
        entries = trainer.run(Console(quiet=True))
        draw_run(trainer)
    return trainer, entries, tracker


def test_a_summary_says_what_the_phases_came_to(ended):
    trainer, entries, _ = ended
    text = trainer.folder.summary.read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| \d", line)]
    assert [[int(row[0]), int(row[1])] for row in rows] == [[1, 2], [2, 3], [3, 4]]
    for row, entry in zip(rows, entries, strict=True):
        assert row[2].strip() == f"{entry['head']['all']:.1%}"
        assert row[4].strip() == str(entry["exemplars"])
        assert row[6].strip() == f"{entry['losses'][-1]:.3f}"
    average = np.mean([entry["head"]["all"] for entry in entries])
    assert f"Average incremental accuracy {average:.1%}" in text
    assert "weights of the backbone are trained" in text
    for name in re.findall(r"!\[.*\]\((.*)\)", text):
        with Image.open(trainer.folder.path / name) as image:
            assert min(image.size) > 200


def test_the_configuration_of_a_run_is_a_file_that_train_takes(ended):
    trainer, _, _ = ended
    document = yaml.safe_load((trainer.folder.path / "config.yaml").read_text())
    assert TrainConfig.from_json(document) == trainer.config


def test_trackers_are_told_the_options_and_each_phase(ended):
    _, entries, tracker = ended
    assert tracker.config["loop.epochs"] == "1"
    assert [step for step, _ in tracker.logged] == [0, 1, 2]
    for (_, values), entry in zip(tracker.logged, entries, strict=True):
        assert values["accuracy/head"] == entry["head"]["all"]
        assert values["loss"] == entry["losses"][-1]
        assert values["exemplars"] == entry["exemplars"]
    assert tracker.finished


def test_a_tracker_that_is_unknown_or_not_installed_is_told():
    with pytest.raises(SchemaError, match=r"unknown tracker 'tensorbord'; choose one of .*'tensorboard'"):
        Ranks.joined(trackers=["tensorbord"])
    with pytest.raises(SchemaError, match="tracker 'comet_ml' is not installed; install its package"):
        Ranks.joined(trackers=["comet_ml"])


def test_a_matrix_has_a_row_for_each_phase_and_numbers_where_they_can_be_read():
    entries = [{"head": {"by_phase": [0.5] * row + [0.9]}} for row in range(3)]
    entries[1]["head"]["by_phase"][0] = float("nan")  # classes without test examples
    figure = plot_matrix(entries)
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["50", "50", "90", "90", "90"]
    many = plot_matrix([{"head": {"by_phase": [0.5] * (row + 1)}} for row in range(50)])
    assert not many.axes[0].texts
    assert len(many.axes[0].get_xticks()) <= 20


def test_bytes_of_classes_stand_in_order_with_their_exemplars():
    figure = plot_class_bytes(["a$b", "c_{d", "e"], np.array([3000, 0, 1500]), np.array([3, 0, 1]))
    (axis,) = figure.axes
    assert [bar.get_height() for bar in axis.patches] == [3.0, 0.0, 1.5]
    assert [text.get_text() for text in axis.texts] == ["3", "0", "1"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a$b", "c_{d", "e"]
    figure.canvas.draw()
    many = plot_class_bytes([f"class {n}" for n in range(1000)], np.ones(1000, np.int64), np.ones(1000, np.int64))
    assert len(many.axes[0].get_xticklabels()) <= 40
