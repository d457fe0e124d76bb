"""The trainer on a tiny random backbone and real pictures: kept within the budget, and continued after a kill."""

from typing import get_args

import numpy as np
import pytest
from exmem.report.drawn_run import draw_run
from PIL import Image
from rich.console import Console

from exmem import ExemplarMemory
from exmem.backbones import Vilt
from exmem.errors import DataError, LockedError, SchemaError
from exmem.train.config import RecipeName, TrainConfig
from exmem.train.data import load_imagefolder
from exmem.train.folder import RunFolder
from exmem.train.trainer import Trainer, folder_bytes
from tests.tiny import CONFIG, SIDE, load_joint, start, write_imagefolder, write_models, write_vilt


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXMEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_imagefolder(write_imagefolder(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    models = write_models(tmp_path_factory.mktemp("models"))
    return lambda: load_joint(models)


def numbers(entries):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


@pytest.mark.parametrize("recipe", get_args(RecipeName))
def test_every_recipe_runs_within_its_budget(tmp_path, backbone, data, recipe):
    entries = start(tmp_path / "run", backbone, data, recipe=recipe).run(Console(quiet=True))
    assert [entry["phase"] for entry in entries] == [0, 1, 2]
    assert folder_bytes(tmp_path / "run" / "memory") <= 40_000
    assert (entries[-1]["exemplars"] > 0) == (recipe != "none")
    assert entries[-1]["disk_bytes"] == folder_bytes(tmp_path / "run" / "memory")
    assert not (tmp_path / "run" / "features").exists()


RUNS = {
    "cached": {},
    "live": {"cache_features": False, "augmentations": ("text_exchange", "flip"), "scorer": "random", "fill": "zero"},
    "mixed": {
        "selection": "random",
        "augmentations": ("text_exchange", "token_dropout"),
        "keep_rule": "top_k",
        "keep_patches": 5,
        "sampler": "uniform",
        "new_stored_form": 0.5,
        "test_stored_form": True,
    },
    "class_mean": {"cache_features": False, "fill": "class_mean"},
    "none": {"recipe": "none"},
}
CUTS = [(run, step) for run in ("cached", "live", "mixed") for step in ("_train", "_store", "_measure")]
CUTS += [("class_mean", "_train")]


@pytest.mark.parametrize(("run", "where"), [*CUTS, ("none", "_train"), ("none", "_learnt_means"), ("none", "_measure")])
def test_a_run_that_was_cut_off_ends_with_the_same_numbers(tmp_path, backbone, data, monkeypatch, where, run):
    options = RUNS[run]
    expected = start(tmp_path / "whole", backbone, data, **options).run(Console(quiet=True))
    step = getattr(Trainer, where)

    def cut_off(self, phase, *arguments):
        found = step(self, phase, *arguments)
        if phase == 1:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, where, cut_off)
        trainer = start(tmp_path / "cut", backbone, data, **options)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(Console(quiet=True))
    found = start(tmp_path / "cut", backbone, data, **options).run(Console(quiet=True))
    assert numbers(found) == numbers(expected)
    if "recipe" not in options:
        one, two = (ExemplarMemory.open(tmp_path / name / "memory") for name in ("whole", "cut"))
        np.testing.assert_array_equal(one.slots, two.slots)
        np.testing.assert_array_equal(one.labels, two.labels)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"selection": "best"}, "selection: unknown 'best'; choose one of"),
        ({"sampler": "best"}, "sampler: unknown 'best'; choose one of"),
        ({"augmentations": ("flip", "blur")}, "augmentations: unknown 'blur'; choose one of"),
        ({"recipe": "none", "scorer": "best"}, "scorer: unknown 'best'; choose one of"),
        ({"fill": "mask_token"}, "Joint has no mask token"),
        ({"score_layers": (2,)}, r"layers \[2\] do not exist: the model has 2; choose from -2..1"),
        ({"keep_rule": "top_k"}, "keep_patches must be at most 16"),
    ],
)
def test_what_is_needed_after_the_first_phase_is_checked_before_it(tmp_path, backbone, data, options, why):
    with pytest.raises(SchemaError, match=why):
        start(tmp_path / "run", backbone, data, **options)


@pytest.mark.parametrize("options", [{"fill": "thumbnail", "thumbnail": 8}, {"recipe": "text", "fill": "class_mean"}])
def test_random_masks_go_with_every_recipe_and_fill(tmp_path, backbone, data, options):
    trainer = start(tmp_path / "run", backbone, data, new_stored_form=0.5, new_masks="random", **options)
    assert len(trainer.run(Console(quiet=True))) == 3


def test_a_folder_of_another_run_is_refused_and_says_what_differs(tmp_path, backbone, data):
    start(tmp_path / "run", backbone, data, recipe="none").run(Console(quiet=True))
    with pytest.raises(DataError, match=r"epochs: 1, 2"):
        start(tmp_path / "run", backbone, data, recipe="none", epochs=2).run(Console(quiet=True))


@pytest.mark.parametrize(
    "options", [{}, {"cache_features": False, "augmentations": ("text_exchange",), "tuned_blocks": 2}]
)
def test_vilt_learns_too(tmp_path, data, options):
    config = TrainConfig(**(CONFIG | {"backbone": "vilt"} | options))
    backbone = Vilt.from_pretrained(
        write_vilt(tmp_path / "vilt"), image_size=SIDE, trainable_blocks=config.tuned_blocks, max_text=8
    )
    trainer = Trainer(RunFolder(tmp_path / "run"), config, backbone, train=data[0], test=data[1])
    entries = trainer.run(Console(quiet=True))
    assert len(entries) == 3
    assert entries[-1]["exemplars"] > 0
    assert {name for name in trainer.learner.tuned() if "lora_B" in name}
    assert all(value.any() for name, value in trainer.learner.tuned().items() if "lora_B" in name)


def test_kept_texts_cannot_be_exchanged_where_image_and_text_are_mixed(tmp_path, data):
    backbone = Vilt.from_pretrained(write_vilt(tmp_path / "vilt"), image_size=SIDE, trainable_blocks=1, max_text=8)
    config = TrainConfig(**(CONFIG | {"backbone": "vilt", "augmentations": ("text_exchange",)}))
    with pytest.raises(SchemaError, match="cache_features=False"):
        Trainer(RunFolder(tmp_path / "run"), config, backbone, train=data[0], test=data[1]).run(Console(quiet=True))


def test_kept_streams_that_were_deleted_are_computed_again(tmp_path, backbone, data, monkeypatch):
    trainer = start(tmp_path / "run", backbone, data)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_measure", _interrupt_at(2, Trainer._measure))
        with pytest.raises(KeyboardInterrupt):
            trainer.run(Console(quiet=True))
    for file in (tmp_path / "run" / "features").iterdir():
        file.unlink()
    assert len(start(tmp_path / "run", backbone, data).run(Console(quiet=True))) == 3


def _interrupt_at(phase, step):
    def interrupted(self, at, *arguments):
        if at == phase:
            raise KeyboardInterrupt
        return step(self, at, *arguments)

    return interrupted


def test_a_class_that_holds_no_exemplar_is_told(tmp_path, backbone, data):
    entries = start(tmp_path / "run", backbone, data, recipe="raw", max_bytes="13kB").run(Console(quiet=True))
    with ExemplarMemory.open(tmp_path / "run" / "memory") as memory:
        without = sorted(set(range(4)) - set(memory.labels.tolist()))
    assert without
    assert entries[-1]["classes_without_exemplars"] == without


def test_a_run_folder_is_for_one_process(tmp_path, backbone, data):
    with RunFolder(tmp_path / "run").locked(), pytest.raises(LockedError, match="another process"):
        start(tmp_path / "run", backbone, data).run(Console(quiet=True))


@pytest.mark.parametrize("recipe", ["masked", "none"])
def test_pictures_are_drawn_of_what_there_is(tmp_path, backbone, data, recipe):
    trainer = start(tmp_path / "run", backbone, data, recipe=recipe)
    trainer.run(Console(quiet=True))
    draw_run(trainer)
    with Image.open(tmp_path / "run" / "accuracy.png") as picture:
        assert min(picture.size) > 400
    for name in ("exemplars.png", "exemplars.html"):
        assert (tmp_path / "run" / name).exists() == (recipe == "masked")
