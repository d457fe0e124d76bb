"""Runs that store hidden tokens or features, each head, and what the head keeps, which counts."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console

import exmem.train.trainer
from exmem import ExemplarMemory
from exmem.cli.info import info
from exmem.errors import BudgetTooSmallError, CodecError, DataError
from exmem.recipes import BoundRecipe, Restorer
from exmem.registry import Part
from exmem.report.run import draw_run
from exmem.tokens.tensors import TensorBatch
from exmem.train.folder import RunFolder
from exmem.train.learner import Learner
from exmem.train.methods.fitting import head_bytes
from exmem.train.parts import folder_bytes
from exmem.train.trainer import Trainer
from tests.tiny import start
from tests.train.test_trainer import RUNS as RUNS_TO_CUT
from tests.train.test_trainer import cut_off, numbers

QUIET = Console(quiet=True)
WIDTH, CLASSES = 96, 4  # of a feature of the tiny backbone: class token, mean image token, mean text token
FROZEN, TUNED = "cls_attention:layers=[-2]", "cls_attention:layers=[-1]"
HIDDEN = {"image": "hidden", "scorer": FROZEN, "keep": "top_k:k=8", "codec": "int8", "text": "all"}
STORED = {
    "hidden": HIDDEN,
    "hidden, scored anew": HIDDEN | {"scorer": TUNED},
    "hidden, fused": HIDDEN | {"image": "hidden:fuse=true"},
    "hidden, of a lower layer": HIDDEN | {"image": "hidden:layer=0"},
    "hidden, without text": HIDDEN | {"text": "none"},
    "hidden, pq": HIDDEN | {"keep": "top_k:k=15", "codec": "pq:parts=8"},
    "features": {"image": "features", "codec": "int8", "text": "none"},
    "features, text beside": {"image": "features", "codec": "float16", "text": "all"},
    "masked": {"text": "all"},
}
SUMS = ("ridge", "slda", "ranpac:projection=64", "nearest_mean")
HEADS = ("logistic", "linear", *SUMS)
BUDGET = 200_000


def allowed(stored, phases, head):
    if phases == "all":
        return not stored.startswith("features") and head not in SUMS
    return head != "linear"


RUNS = [
    (stored, phases, head)
    for stored in STORED
    for phases in ("all", "first", "none")
    for head in HEADS
    if allowed(stored, phases, head)
]


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("stored", "phases", "head"), RUNS)
def test_every_level_learns_with_every_head_within_its_budget(tmp_path, backbone, data, stored, phases, head):
    options = {"max_bytes": f"{BUDGET}", "tuner": {"phases": phases}, "method": {"head": head}}
    trainer = start(tmp_path / "run", backbone, data, STORED[stored], **options)
    before = {name: value.clone() for name, value in trainer.backbone.state_dict().items()}
    entries = trainer.run(QUIET)
    assert [entry["phase"] for entry in entries] == [0, 1, 2]
    for phase, entry in enumerate(entries):
        assert {"head", "ncm"} <= entry.keys()
        assert ("linear" in entry) == (phases == "all" or (phases == "first" and phase == 0))
        assert 0 <= entry["head"]["all"] <= 1
        assert len(entry["head"]["by_phase"]) == phase + 1
        if head == "linear":
            assert entry["head"] == entry["linear"]
    moved = {name for name, value in trainer.backbone.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, value in trainer.backbone.named_parameters() if value.requires_grad}
    assert moved == (trained if phases != "none" else set()), "and no weight of the trunk"
    with ExemplarMemory.open(trainer.folder.memory) as memory:
        assert len(memory) == entries[-1]["exemplars"] > 0
        assert {*memory.labels.tolist()} == {*range(CLASSES)}
        kept = entries[-1]["head_bytes"]
        assert (kept > 0) == (head in SUMS)
        assert memory.charges == ({"head": kept} if kept else {})
        assert memory.used_bytes == folder_bytes(trainer.folder.memory) + kept <= BUDGET
        assert Restorer.of(memory) == trainer.bound.restore
    files = [*trainer.folder.path.glob("state/*head.safetensors")]
    fitted = 0 if head == "linear" else 2
    assert len(files) == fitted, "of the last phase, and of the one before, for a run that goes on"
    if kept:
        assert kept == head_bytes(trainer.config.method.head, width=WIDTH, classes=CLASSES), "as it was foreseen"
        assert {file.stat().st_size for file in files if "2" in file.name} == {kept}


def test_features_are_stored_as_the_learner_makes_them_and_the_head_sees_them_so(tmp_path, backbone, data):
    recipe = STORED["features"] | {"codec": "lossless"}
    trainer = start(tmp_path / "run", backbone, data, recipe, max_bytes="400kB", tuner={"phases": "first"})
    trainer.run(QUIET)
    with ExemplarMemory.open(trainer.folder.memory) as memory:
        batch = Restorer.of(memory)(TensorBatch.from_numpy(memory.read(memory.slots)))
    found = batch.tokens["features"].values[:, 0]
    with torch.no_grad():
        made = trainer.learner.features(trainer._hidden["train"](np.arange(32)))
    assert len(found) == 32
    for label in range(CLASSES):
        mine, own = found[batch.labels == label], made[trainer.train.labels == label]
        assert torch.cdist(mine, own).min(1).values.max() < 1e-3, "float32, in batches of another size"


def test_a_head_that_keeps_sums_goes_on_where_the_other_phases_ended(tmp_path, backbone, data):
    """With all examples seen once and no tuning, the phases do not matter to ridge."""
    found = []
    for name, split in (("once", {"first_classes": 4}), ("by phase", {"first_classes": 2, "increments": [1]})):
        options = {"max_bytes": "400kB", "method": {"head": "ridge"}, "data": split}
        entries = start(tmp_path / name, backbone, data, STORED["features"], **options).run(QUIET)
        found.append(entries[-1]["head"]["all"])
    assert found[0] == found[1]


def test_what_a_head_keeps_that_is_gone_is_told(tmp_path, backbone, data, monkeypatch):
    options = {"max_bytes": f"{BUDGET}", "method": {"head": "ridge"}}
    trainer = start(tmp_path / "run", backbone, data, STORED["features"], **options)
    phase = Trainer._phase
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_phase", lambda self, number: phase(self, number) if number < 1 else stop())
        with pytest.raises(KeyboardInterrupt):
            trainer.run(QUIET)
    for file in trainer.folder.path.glob("state/*head.safetensors"):
        file.unlink()
    with pytest.raises(DataError, match="what the head learnt is gone; use a new run folder"):
        start(tmp_path / "run", backbone, data, STORED["features"], **options).run(QUIET)


def stop():
    raise KeyboardInterrupt


@pytest.mark.parametrize("head", SUMS)
@pytest.mark.parametrize("stored", ["features", "hidden, pq"])
def test_a_budget_too_small_for_the_head_is_refused_before_anything_is_learnt(tmp_path, backbone, data, stored, head):
    kept = head_bytes(Part.of(head), width=WIDTH, classes=CLASSES)
    for max_bytes in (kept - 1, kept + 100):  # the second has no room for an empty memory beside what is kept
        with pytest.raises(BudgetTooSmallError):
            start(tmp_path / "run", backbone, data, STORED[stored], method={"head": head}, max_bytes=f"{max_bytes}")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "recipe",
    [HIDDEN | {"codec": "pq:parts=8"}, STORED["features"] | {"codec": "pq:parts=8"}],
    ids=["hidden", "features"],
)
def test_too_few_tokens_to_train_a_codec_are_told_before_anything_is_learnt(tmp_path, backbone, data, recipe):
    with pytest.raises(
        CodecError, match=r"of the first phase have \d+ tokens, and .*needs 256 .*; begin with more classes"
    ):
        start(tmp_path / "run", backbone, data, recipe)


@pytest.fixture
def tokens_seen(monkeypatch):
    """Valid image tokens of every example that the learner makes a feature of."""
    counts, features = [], Learner.features

    def spied(self, hidden):
        counts.extend(hidden.image.valid.sum(1).tolist())
        return features(self, hidden)

    monkeypatch.setattr(Learner, "features", spied)
    return counts


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (HIDDEN, 8),
        (HIDDEN | {"scorer": TUNED}, 8),
        (HIDDEN | {"image": "hidden:fuse=true"}, 9),
        (HIDDEN | {"image": "hidden:layer=0"}, 8),
        (HIDDEN | {"scorer": "random"}, 8),
        ({"keep": "top_k:k=5", "text": "all"}, 5),
        ({"keep": "top_k:k=5", "text": "none"}, 5),
    ],
    ids=str,
)
def test_a_learner_of_pruned_tokens_never_sees_others(tmp_path, backbone, data, tokens_seen, recipe, expected):
    start(tmp_path / "run", backbone, data, recipe, loop={"pruned": "always"}).run(QUIET)
    assert {*tokens_seen} == {expected}


def test_without_it_whole_examples_and_kept_tokens_are_seen(tmp_path, backbone, data, tokens_seen):
    start(tmp_path / "run", backbone, data, HIDDEN, loop={"pruned": "never"}).run(QUIET)
    assert {*tokens_seen} == {8, 16}


@pytest.mark.parametrize("scorer", [FROZEN, TUNED])
def test_pruned_tokens_are_those_that_are_stored_though_blocks_were_tuned_since(tmp_path, backbone, data, scorer):
    recipe = HIDDEN | {"scorer": scorer, "codec": "lossless"}
    options = {"max_bytes": "400kB", "loop": {"lr": 0.05}}
    trainer = start(tmp_path / "run", backbone, data, recipe, **options)
    trainer.run(QUIET)
    with ExemplarMemory.open(trainer.folder.memory) as memory:
        batch = Restorer.of(memory)(TensorBatch.from_numpy(memory.read(memory.slots)))
    seen, stored = trainer._hidden["train"](np.arange(32)).image, batch.tokens["image"]
    assert len(stored.positions) == 32
    for places, values in zip(stored.positions, stored.values, strict=True):
        same = (seen.positions == places).all(1)
        assert (seen.values[same] - values).abs().amax((1, 2)).min() < 1e-2, "seen as float16"


@pytest.fixture
def trunk_rows(monkeypatch, tmp_path):
    """Rows that went through the first block, by pass; the cache is empty."""
    monkeypatch.setattr("exmem.train.cache.cache_dir", lambda: tmp_path / "cache")
    rows, init = [], Trainer.__init__

    def counting(self, *arguments, **options):
        init(self, *arguments, **options)
        block = self.backbone.vision.parts.blocks[0]
        block.register_forward_hook(lambda module, given, result: rows.append(len(given[0])))

    monkeypatch.setattr(Trainer, "__init__", counting)
    return rows


@pytest.mark.parametrize("others", ["none", HIDDEN | {"keep": "top_k:k=3"}, HIDDEN | {"codec": "float16"}], ids=str)
def test_one_pass_of_the_trunk_gives_hidden_tokens_and_scores_to_all_runs(tmp_path, backbone, data, trunk_rows, others):
    every = len(data[0]) + len(data[1])
    start(tmp_path / "one", backbone, data, HIDDEN).run(QUIET)
    assert sum(trunk_rows) == every, "and none for exemplars: they are replayed from above it"
    start(tmp_path / "two", backbone, data, others, seed=1).run(QUIET)
    assert sum(trunk_rows) == every
    start(tmp_path / "three", backbone, data, HIDDEN, loop={"pruned": "never"}).run(QUIET)
    assert sum(trunk_rows) == every


@pytest.mark.parametrize("pruned", ["always", "never"])
def test_a_run_with_scores_after_one_without_runs_the_trunk_for_what_it_scores_once(
    tmp_path, backbone, data, trunk_rows, pruned
):
    start(tmp_path / "one", backbone, data, "none").run(QUIET)
    plain = sum(trunk_rows)
    assert plain == len(data[0]) + len(data[1])
    scored = len(data[0]) + (len(data[1]) if pruned == "always" else 0)  # what is stored, and what is tested
    for name in ("two", "three"):
        start(tmp_path / name, backbone, data, HIDDEN, loop={"pruned": pruned}).run(QUIET)
        assert sum(trunk_rows) == plain + scored
    files = [*(tmp_path / "cache" / "hidden").iterdir()]
    assert len(files) == (4 if pruned == "always" else 3), "hidden tokens of two splits, and scores"


@pytest.mark.parametrize("phases", ["auto", "first"])
@pytest.mark.parametrize("stored", ["hidden", "hidden, pq", "features"])
def test_images_of_a_run_whose_memory_holds_no_pixels_are_drawn_of_what_there_is(
    tmp_path, backbone, data, stored, phases
):
    trainer = start(tmp_path / "run", backbone, data, STORED[stored], tuner={"phases": phases})
    trainer.run(QUIET)
    draw_run(trainer)
    assert trainer.folder.accuracy_image.exists()


def test_info_shows_the_head_and_what_it_keeps(tmp_path, backbone, data, capsys):
    options = {"max_bytes": f"{BUDGET}", "method": {"head": "ridge"}}
    entries = start(tmp_path / "run", backbone, data, STORED["features"], **options).run(QUIET)
    info(tmp_path / "run", json=True)
    told = json.loads(capsys.readouterr().out)
    assert [phase["head"] for phase in told["run"]["phases"]] == [entry["head"]["all"] for entry in entries]
    assert told["charges"] == {"head": entries[-1]["head_bytes"]}
    info(tmp_path / "run")
    shown = capsys.readouterr().out
    assert f"{entries[0]['head']['all']:.1%}" in shown


@pytest.mark.parametrize("run", ["hidden", "features"])
@pytest.mark.parametrize("step", ["made", "charged", "decided", "added"])
def test_a_run_that_was_cut_off_in_its_first_phase_keeps_the_memory_that_it_made(
    tmp_path, whole_run, backbone, data, monkeypatch, run, step
):
    recipe, options = RUNS_TO_CUT[run]
    whole, expected = whole_run(recipe, **options)
    with monkeypatch.context() as patch:
        steps = {
            "made": (BoundRecipe, "create_memory", 1),
            "charged": (exmem.train.trainer, "create_memory", 1),
            "decided": (RunFolder, "save_note", 1, "stored"),
            "added": (ExemplarMemory, "add", 1),
        }
        cut_off(patch, *steps[step])
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "cut", backbone, data, recipe, **options).run(QUIET)
    assert RunFolder(tmp_path / "cut").metrics() == []
    assert numbers(start(tmp_path / "cut", backbone, data, recipe, **options).run(QUIET)) == numbers(expected)
    with ExemplarMemory.open(tmp_path / "cut" / "memory") as one, ExemplarMemory.open(whole.folder.memory) as two:
        assert one.charges == two.charges
        assert bool(one.charges) == (run == "features")


@pytest.mark.parametrize("adapter", ["ssf", "full"])
def test_weights_that_move_are_charged_when_that_is_asked_for(tmp_path, backbone, data, adapter):
    tuner = {"blocks": 1, "adapter": adapter}
    free = start(tmp_path / "free", backbone, data, STORED["hidden"], max_bytes="400kB", tuner=tuner).run(QUIET)
    trainer = start(
        tmp_path / "charged", backbone, data, STORED["hidden"], max_bytes="400kB", tuner={**tuner, "charged": True}
    )
    charged = trainer.run(QUIET)
    assert free[-1]["adapter_bytes"] == 0 < charged[-1]["adapter_bytes"] == trainer.learner.adapter_bytes
    with ExemplarMemory.open(trainer.folder.memory) as memory:
        assert memory.charges == {"adapter": charged[-1]["adapter_bytes"]}
        assert memory.used_bytes <= 400_000
    with pytest.raises(BudgetTooSmallError, match="adapter"):
        start(tmp_path / "small", backbone, data, STORED["hidden"], max_bytes="9kB", tuner={**tuner, "charged": True})
