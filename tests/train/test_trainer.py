"""The trainer on a tiny random backbone and real images: kept within the budget, and continued after it was cut off."""

import collections
import functools
import io
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from exmem import ExemplarMemory
from exmem.backbones import Joint
from exmem.cli.main import main
from exmem.codecs import PatchJpeg
from exmem.errors import DataError, DataWarning, ExmemError, LockedError
from exmem.recipes import RECIPES
from exmem.report.run import draw_run
from exmem.train import trainer as trainer_module
from exmem.train.data import load_data
from exmem.train.exemplars import Exemplars
from exmem.train.folder import RunFolder
from exmem.train.parts import folder_bytes
from exmem.train.trainer import Trainer
from tests.tiny import start

QUIET = Console(quiet=True)
SCORED = "cls_attention:layers=[-2]"  # the last frozen one of two blocks
HIDDEN = {"image": "hidden", "scorer": SCORED, "keep": "top_k:k=8", "codec": "int8", "text": "all"}
PQ = HIDDEN | {"keep": "top_k:k=15", "codec": "pq:parts=8"}  # 256 tokens of the 16 examples of the first phase
TINY = {"masked": {}, "hidden": PQ}  # named recipes as the tiny backbone can have them


def numbers(entries):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


def cut_off(patch, owner, name, calls, about=None):
    """Let a method end in an interrupt once it has returned so many times, where given from calls about something."""
    step, count = getattr(owner, name), 0

    @functools.wraps(step)
    def cut(*arguments, **options):
        nonlocal count
        result = step(*arguments, **options)
        count += about is None or about in arguments
        if count == calls:
            raise KeyboardInterrupt
        return result

    patch.setattr(owner, name, cut)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_runs_within_its_budget(whole_run, recipe):
    trainer, entries = whole_run(TINY.get(recipe, recipe))
    assert [entry["phase"] for entry in entries] == [0, 1, 2]
    assert folder_bytes(trainer.folder.memory) <= 40_000
    assert (entries[-1]["exemplars"] > 0) == (recipe != "none")
    assert entries[-1]["disk_bytes"] == folder_bytes(trainer.folder.memory)
    assert entries == trainer.folder.metrics()


RUNS = {  # recipe and options
    "kept": ({}, {}),
    "live": (
        {"scorer": "random", "fill": "zero"},
        {"loop": {"keep_hidden": False, "augment": ["text_exchange", "flip"]}},
    ),
    "mixed": (
        {"keep": "top_k:k=5", "extras": ["features", "logits"]},
        {
            "selection": "random",
            "loop": {
                "augment": ["text_exchange", "token_dropout"],
                "sampler": "uniform",
                "stored_form": 0.5,
                "test_stored_form": True,
            },
        },
    ),
    "class_mean": ({"fill": "class_mean"}, {"loop": {"keep_hidden": False}}),
    "scaled": (
        {"image": "scaled:divisor=2", "text": "all"},
        {"loop": {"augment": ["flip", "colour_jitter"]}},
    ),
    "hidden": (PQ, {"loop": {"augment": ["token_dropout"], "test_stored_form": True}}),
    "hidden live": (HIDDEN, {"loop": {"keep_hidden": False, "pruned": "never"}, "tuner": {"phases": "first"}}),
    "features": (
        {"image": "features", "codec": "int8", "text": "none"},
        {"max_bytes": "200kB", "method": {"head": "ridge"}, "tuner": {"phases": "first"}},
    ),
    "none": ("none", {}),
    "dark": (
        {"extras": ["logits"]},
        {
            "max_bytes": "20kB",
            "method": {"dark_weight": 0.5, "dark_update": True, "head": "linear"},
            "loop": {"candidates": 2, "ema": 0.5, "accumulation": 2, "epochs": 2},
        },
    ),
    "corrected": ("raw", {"max_bytes": "400kB", "method": {"head": "linear", "corrected": 0.2}}),
    "joint": ("none", {"loop": {"joint": True, "precision": "bfloat16"}, "method": {"head": "cosine"}}),
}
STEPS = {  # each is called at least so often in a run of three phases that it ends the second
    "learnt": (Trainer, "_train", 2),
    "checkpointed": (RunFolder, "save_checkpoint", 2),
    "carried": (RunFolder, "save_head", 2),
    "fitted": (Trainer, "_fit_head", 2),
    "decided": (RunFolder, "save_note", 3, "stored"),  # a phase notes it twice: what is stored, and where
    "added": (ExemplarMemory, "add", 2),
    "committed": (ExemplarMemory, "commit", 2),
    "seen": (Exemplars, "update", 2),
    "stored": (Trainer, "_store", 2),
    "measured": (Trainer, "_measure", 2),
    "completed in part": (ExemplarMemory, "update", 3),
    "completed": (trainer_module, "complete_logits", 2),
    "means": (RunFolder, "save_tensors", 4),  # a checkpoint, and the means
}
OF_FEW = {"means", "carried", "completed", "completed in part"}
CUTS = [("kept", step) for step in STEPS if step not in OF_FEW]
CUTS += [("hidden", step) for step in ("learnt", "fitted", "decided", "added", "stored")]
CUTS += [("hidden live", step) for step in ("checkpointed", "added", "measured")]
CUTS += [("features", step) for step in ("checkpointed", "carried", "fitted", "decided", "added", "stored")]
CUTS += [(run, step) for run in ("live", "mixed") for step in ("learnt", "added", "stored", "measured")]
CUTS += [("scaled", "committed"), ("class_mean", "checkpointed"), ("class_mean", "stored")]
CUTS += [("none", step) for step in ("learnt", "means", "measured")]
CUTS += [("dark", step) for step in ("learnt", "added", "completed in part", "completed", "measured")]
CUTS += [("corrected", "learnt"), ("corrected", "added")]
CUTS += [("joint", step) for step in ("learnt", "means", "measured")]


@pytest.mark.parametrize(("run", "step"), CUTS)
def test_a_run_that_was_cut_off_ends_with_the_same_numbers(tmp_path, whole_run, backbone, data, monkeypatch, run, step):
    recipe, options = RUNS[run]
    whole, expected = whole_run(recipe, **options)

    def begin(folder):
        return start(folder, backbone, data, recipe, **options)

    with monkeypatch.context() as patch:
        cut_off(patch, *STEPS[step])
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path / "cut").run(QUIET)
    assert len(RunFolder(tmp_path / "cut").metrics()) == 1
    entries = begin(tmp_path / "cut").run(QUIET)
    assert numbers(entries) == numbers(expected)
    if whole.bound is not None:
        one, two = ExemplarMemory.open(whole.folder.memory), ExemplarMemory.open(tmp_path / "cut" / "memory")
        for name in ("slots", "labels", "sizes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


@pytest.fixture
def half_run(tmp_path, backbone, data, monkeypatch):
    """A run that was cut off before its second phase was measured."""

    def run(recipe=None, **options):
        with monkeypatch.context() as patch:
            cut_off(patch, Trainer, "_store", calls=2)
            with pytest.raises(KeyboardInterrupt):
                start(tmp_path / "half", backbone, data, recipe, **options).run(QUIET)
        return RunFolder(tmp_path / "half")

    return run


def test_data_and_run_that_were_copied_go_on_from_their_copies(
    tmp_path, whole_run, half_run, backbone, data_folder, monkeypatch
):
    half = half_run()
    shutil.copytree(data_folder, tmp_path / "elsewhere" / "data")
    shutil.copytree(half.path, tmp_path / "elsewhere" / "run")
    shutil.rmtree(half.path)
    copied = load_data(tmp_path / "elsewhere" / "data")
    entries = start(tmp_path / "elsewhere" / "run", backbone, copied).run(QUIET)
    assert numbers(entries) == numbers(whole_run()[1])


@pytest.mark.parametrize("commands", [("compact",), ("repair",), ("repair", "compact")])
def test_a_memory_that_was_looked_after_in_the_middle_does_not_lose_its_run(
    whole_run, half_run, backbone, data, monkeypatch, capsys, commands
):
    half = half_run()
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["exmem", command, str(half.memory)])
        main()
    entries = start(half.path, backbone, data).run(QUIET)
    without_bytes = [[{**entry, "disk_bytes": 0} for entry in numbers(run)] for run in (entries, whole_run()[1])]
    assert without_bytes[0] == without_bytes[1]


@pytest.mark.parametrize("loop", [{"keep_hidden": False, "num_workers": 0}, {"num_workers": 1}])
def test_a_run_goes_on_with_hidden_tokens_kept_or_not_and_other_workers(half_run, backbone, data, loop):
    half = half_run(loop={"augment": ["token_dropout"]})
    (first,) = half.metrics()
    entries = start(half.path, backbone, data, loop={"augment": ["token_dropout"], **loop}).run(QUIET)
    assert len(entries) == 3
    assert entries[0] == first
    assert half.described()[0].loop.keep_hidden == loop.get("keep_hidden", True)


def test_a_run_that_has_finished_no_phase_begins_anew_with_other_settings_and_says_so(
    tmp_path, whole_run, backbone, data, monkeypatch
):
    with monkeypatch.context() as patch:
        cut_off(patch, Trainer, "_store", calls=1)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", backbone, data, "raw", loop={"epochs": 2}).run(QUIET)
    told = io.StringIO()
    entries = start(tmp_path / "run", backbone, data).run(Console(file=told, width=300))
    assert "no phase was finished; begun anew with other settings" in told.getvalue()
    assert numbers(entries) == numbers(whole_run()[1])


def test_a_folder_of_another_run_is_refused_and_says_what_differs(tmp_path, whole_run, backbone, data, data_folder):
    trainer, entries = whole_run("none")
    with pytest.raises(DataError, match=r"differs in loop\.epochs: 1, 2 \(there, here\)"):
        start(trainer.folder.path, backbone, data, "none", loop={"epochs": 2}).run(QUIET)
    shutil.copytree(data_folder, tmp_path / "data")
    shutil.copy(tmp_path / "data" / "test" / "0-0.png", tmp_path / "data" / "test" / "1-0.png")
    with pytest.raises(DataError, match="differs in the test data"):
        start(trainer.folder.path, backbone, load_data(tmp_path / "data"), "none").run(QUIET)
    assert trainer.folder.metrics() == entries


def test_a_second_run_computes_no_hidden_tokens_of_the_data(tmp_path, whole_run, backbone, data, monkeypatch):
    whole_run("none")
    embedded = []
    embed = Joint.embed
    monkeypatch.setattr(Joint, "embed", lambda self, batch: embedded.append(len(batch)) or embed(self, batch))
    start(tmp_path / "again", backbone, data, "none", seed=1).run(QUIET)
    assert embedded == []
    monkeypatch.setenv("EXMEM_HIDDEN_BYTES", "1kB")
    monkeypatch.setattr("exmem.train.cache.cache_dir", lambda: tmp_path / "small")
    start(tmp_path / "third", backbone, data, "none").run(QUIET)
    assert sum(embedded) == len(data[0]) + len(data[1])
    assert not [*(tmp_path / "small").rglob("*.safetensors")]


@pytest.mark.parametrize("recipe", [{}, "half_jpeg"])
def test_each_image_is_encoded_once_in_a_phase_though_candidates_are_planned_twice(
    tmp_path, backbone, data, monkeypatch, recipe
):
    encoded, encode = [], PatchJpeg.encode

    def counted(self, values):
        encoded.append(np.asarray(values).tobytes())
        return encode(self, values)

    monkeypatch.setattr(PatchJpeg, "encode", counted)
    monkeypatch.setattr("exmem.train.storing._FIRST_RANKS", 2)
    made = []
    make = Trainer._made
    monkeypatch.setattr(Trainer, "_made", lambda self, rows, *rest: made.append(len(rows)) or make(self, rows, *rest))
    (entry,) = start(tmp_path / "run", backbone, data, recipe, data={"first_classes": 4}, max_bytes="400kB").run(QUIET)
    assert made == [8, 8, 16], "two of each class, then twice as many in all, then the rest"
    assert entry["exemplars"] == 32
    assert max(collections.Counter(encoded).values()) == 1
    assert len(encoded) == 32


@pytest.mark.parametrize(
    ("recipe", "options", "why"),
    [
        ({"fill": "mask_token"}, {}, "fill 'mask_token': Joint has none here"),
        ({"scorer": {"name": "cls_attention", "layers": [2]}}, {}, r"layers \[2\] do not exist: the model has 2"),
        ({"keep": "top_k:k=17"}, {}, r"k must be an integer of 1\.\.16, got 17"),
        ({"image": {"name": "scales", "factors": [4, 2], "shares": [0.5]}}, {}, "falling sides of a patch"),
        ({"image": "smoothed:coarse=17"}, {}, r"coarse must be in 1\.\.16"),
        ({}, {"data": {"modalities": "text"}}, "stores images, and this learner sees none; use recipe 'text'"),
        ("text", {"data": {"modalities": "image"}}, "stores texts alone, and this learner sees none"),
        (
            "text",
            {"data": {"modalities": "text"}, "loop": {"stored_form": 0.5, "stored_masks": "random"}},
            "masks images, and this learner sees none; use loop.stored_masks='scores'",
        ),
        ({}, {"data": {"first_classes": 5}}, r"first_classes must be in 1\.\.4"),
    ],
    ids=str,
)
def test_what_is_needed_after_the_first_phase_is_checked_before_it(tmp_path, load_seeing, data, recipe, options, why):
    with pytest.raises(ExmemError, match=why):
        start(tmp_path / "run", load_seeing(options), data, recipe, **options)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def load_seeing(backbone):
    """What loads a backbone that sees the modalities of the options."""

    def load(options):
        model = backbone()
        seen = options.get("data", {}).get("modalities", "both")
        if seen != "both":
            model.restrict(seen)
        return lambda: model

    return load


@pytest.mark.parametrize(
    "recipe", [{"image": "patches:thumbnail=8", "fill": "thumbnail"}, {"image": "none", "fill": "class_mean"}], ids=str
)
def test_random_masks_go_with_every_recipe_and_fill(tmp_path, backbone, data, recipe):
    loop = {"stored_form": 0.5, "stored_masks": "random"}
    assert len(start(tmp_path / "run", backbone, data, recipe, loop=loop).run(QUIET)) == 3


def test_hidden_tokens_of_exemplars_that_were_deleted_are_computed_again(half_run, whole_run, backbone, data):
    half = half_run()
    files = [*half.path.glob("state/*hidden*")]
    assert files
    for file in files:
        file.unlink()
    assert numbers(start(half.path, backbone, data).run(QUIET)) == numbers(whole_run()[1])


def test_a_class_that_holds_no_exemplar_is_told(tmp_path, backbone, data):
    entries = start(tmp_path / "run", backbone, data, "raw", max_bytes="13kB").run(QUIET)
    with ExemplarMemory.open(tmp_path / "run" / "memory") as memory:
        without = sorted(set(range(4)) - set(memory.labels.tolist()))
    assert without
    assert entries[-1]["classes_without_exemplars"] == without


def test_a_run_in_a_folder_that_another_process_holds_is_refused(tmp_path, backbone, data):
    with RunFolder(tmp_path / "run").locked(), pytest.raises(LockedError, match="another process"):
        start(tmp_path / "run", backbone, data).run(QUIET)


@pytest.mark.parametrize("recipe", [{}, "none"], ids=["masked", "none"])
def test_images_are_drawn_of_what_there_is(whole_run, recipe):
    trainer, _ = whole_run(recipe)
    draw_run(trainer)
    with Image.open(trainer.folder.accuracy_image) as image:
        assert min(image.size) > 400
    for file in (trainer.folder.sheet, trainer.folder.page):
        assert file.exists() == (recipe == {})


def test_a_memory_of_a_run_has_the_extras_of_its_recipe(whole_run):
    recipe, options = RUNS["mixed"]
    trainer, _ = whole_run(recipe, **options)
    with ExemplarMemory.open(trainer.folder.memory) as memory:
        batch = memory.read(memory.slots)
    assert batch.extras["features"].shape == (len(batch), trainer.backbone.feature_dim)
    learnt = ~np.isnan(batch.extras["logits"])
    first = list(trainer.scenario.phases[0])
    for row, label in enumerate(batch.labels.tolist()):
        assert learnt[row, label]
        assert learnt[row, first].all()
        phase = 0 if label in first else trainer.scenario.phases.index((label,))
        assert learnt[row].sum() == len(trainer.scenario.seen(phase)), "as many as were known then"
    assert torch.from_numpy(batch.extras["logits"][learnt]).isfinite().all()


@pytest.fixture
def interrupted(tmp_path, backbone, data):
    """A run that stopped after its first phase."""
    trainer = start(tmp_path / "run", backbone, data)
    with pytest.MonkeyPatch.context() as patch:
        phase = Trainer._phase
        patch.setattr(Trainer, "_phase", lambda self, number: phase(self, number) if number < 1 else stop())
        with pytest.raises(KeyboardInterrupt):
            trainer.run(Console(quiet=True))
    return trainer.folder


def stop():
    raise KeyboardInterrupt


def test_a_run_whose_memory_is_gone_does_not_go_on_without_a_word(interrupted, backbone, data):
    shutil.rmtree(interrupted.memory)
    with pytest.raises(DataError, match="the memory of this run is gone, and 1 phases are finished with it"):
        start(interrupted.path, backbone, data).run(Console(quiet=True))


def test_a_run_that_lost_exemplars_says_so_and_goes_on(interrupted, backbone, data):
    with ExemplarMemory.open(interrupted.memory, mode="r+") as memory:
        memory.evict(memory.slots[:2])
    with pytest.warns(DataWarning, match=r"phase 1 ended with \d+ exemplars, \d+ are left"):
        assert len(start(interrupted.path, backbone, data).run(Console(quiet=True))) == 3


def test_a_checkpoint_that_is_gone_and_a_line_that_is_none_are_told(interrupted, backbone, data):
    metrics = interrupted.metrics_file.read_text()
    interrupted.metrics_file.write_text(metrics + "garbage\n")
    with pytest.raises(DataError, match="line 2: expected the measures of a phase as JSON"):
        start(interrupted.path, backbone, data).run(Console(quiet=True))
    interrupted.metrics_file.write_text(metrics)
    shutil.rmtree(interrupted.path / "state")
    with pytest.raises(DataError, match="the checkpoint of phase 1 is gone"):
        start(interrupted.path, backbone, data).run(Console(quiet=True))
