"""What a run learnt is asked about other examples: it answers as it did when it was measured."""

import shutil

import numpy as np
import pytest
import torch
from rich.console import Console

from exmem.errors import DataError
from exmem.train.data import ImageText
from exmem.train.predictor import Predictor
from tests.tiny import start

HIDDEN = {"image": "hidden", "keep": "top_k:k=4", "text": "all", "codec": "float16"}
ROOM = {"max_bytes": "400kB"}


@pytest.fixture
def finished(tmp_path, models, backbone, data):
    """A run that has ended, whose configuration names its models."""

    def run(recipe=None, **options):
        vision, text = map(str, models)
        named = {"backbone": {"vision": vision, "text": text}}
        trainer = start(tmp_path / "run", backbone, data, recipe, **(ROOM | named | options))
        return tmp_path / "run", trainer.run(Console(quiet=True))[-1]

    return run


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ({}, {}),
        ("half_jpeg", {"method": {"head": "linear", "aligned": True}}),
        ("raw", {"method": {"head": "nearest_exemplar_mean"}, "loop": {"keep_hidden": False}}),
        (HIDDEN, {}),
        (HIDDEN | {"scorer": "cls_attention:layers=[-1]"}, {}),
        ({"image": "features", "codec": "float16"}, {}),
        ("none", {"method": {"head": "slda"}}),
        ("none", {"method": {"head": "cosine"}, "loop": {"joint": True, "precision": "bfloat16"}}),
        ("none", {"method": {"head": "linear"}, "tuner": {"adapter": "ssf"}}),
    ],
    ids=str,
)
def test_the_test_examples_of_a_run_are_answered_as_they_were(finished, data, recipe, options):
    run, entry = finished(recipe, **options)
    torch.manual_seed(99)
    predictor = Predictor(run)
    measured = predictor.measure(data[1])
    assert measured == entry["head"]
    predicted = predictor.predict(data[1])
    assert (predicted == data[1].labels).mean() == entry["head"]["all"]


def test_classes_come_by_name_and_those_that_are_not_learnt_yet_are_left_out(finished, data):
    run, _ = finished(method={"head": "linear"})
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    predictor = Predictor(run)
    names = data[1].class_names[::-1]
    renamed = ImageText(data[1].paths, data[1].texts, len(names) - 1 - data[1].labels, names)
    assert predictor.measure(renamed) == predictor.measure(data[1])
    with pytest.raises(DataError, match=r"expected the classes of the run.*got \['other'\] too"):
        predictor.measure(ImageText(data[1].paths, data[1].texts, data[1].labels, [*data[1].class_names, "other"]))
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    earlier = Predictor(run)
    assert len(earlier.seen) == 3
    assert set(earlier.predict(data[1]).tolist()) <= set(earlier.seen)
    assert len(earlier.measure(data[1])["by_phase"]) == 2


def test_nothing_to_look_at_is_well(finished, data):
    run, _ = finished()
    assert Predictor(run).predict(data[1].subset([])).tolist() == []


@pytest.mark.parametrize("what", ["no run", "no phase", "checkpoint", "head", "other weights"])
def test_what_cannot_be_asked_is_told(finished, tmp_path, data, what):
    run, _ = finished()
    expected = {
        "no run": "expected the folder of a run of `exmem train`, found none",
        "no phase": "no phase of this run was finished",
        "checkpoint": "the checkpoint of phase 3 is gone",
        "head": "what the head learnt is gone",
        "other weights": "the run's backbone had other weights",
    }[what]
    if what == "no run":
        run = tmp_path / "empty"
    elif what == "no phase":
        (run / "metrics.jsonl").unlink()
    elif what == "checkpoint":
        (run / "state" / "phase2-tuned.safetensors").unlink()
    elif what == "head":
        (run / "state" / "phase2-head.safetensors").unlink()
    elif what == "other weights":
        file = run / "run.json"
        file.write_text(file.read_text().replace('"image_size": 32', '"image_size": 16'))
    with pytest.raises(DataError, match=expected):
        Predictor(run)


@pytest.mark.parametrize("recipe", ["none", "raw"])
def test_what_was_learnt_is_asked_without_the_memory(finished, data, recipe):
    run, entry = finished(recipe)
    shutil.rmtree(run / "memory", ignore_errors=True)
    assert Predictor(run).measure(data[1]) == entry["head"]


def test_predictions_do_not_depend_on_what_is_asked_beside(finished, data):
    run, _ = finished("raw")
    predictor = Predictor(run)
    together = predictor.predict(data[1])
    alone = np.concatenate([predictor.predict(data[1].subset([row])) for row in range(len(data[1]))])
    assert (alone == together).all()
