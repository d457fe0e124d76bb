"""Restored, augmented, filled: in this order, in this one place."""

import numpy as np
import pytest
import torch

from exmem import ExemplarMemory
from exmem.errors import SchemaError
from exmem.recipes import BoundRecipe, PlainImages, Recipe, Restorer
from exmem.replay import Pipeline, replay_loader
from exmem.replay.augment import Flip, TokenDropout
from exmem.tokens.tensors import TensorBatch
from tests.recipes.cases import LABELS, TEXTS, smooth

SIZE, PATCH, LENGTH = (32, 48), 8, 24


def memory_of(place, **changes):
    """A memory of four images, of which a quarter of the patches is fine."""
    parts = {"scorer": "centre", "keep": "keep_ratio:ratio=0.25", "codec": "raw"} | changes
    bound = BoundRecipe(Recipe.of("foveated").refined(**parts), PlainImages(size=SIZE, patch=PATCH))
    with bound.create_memory(place, max_bytes="1MB", durable=False) as memory:
        memory.add(bound.make(smooth(), TEXTS, LABELS))
    return place


@pytest.mark.parametrize("fill", ["mean", "zero", "class_mean", "mask_token"])
def test_coarser_scales_are_seen_whatever_the_fill(tmp_path, fill):
    place = memory_of(tmp_path / "m")  # all positions are held at some scale: there is nothing to fill
    (plain,) = replay_loader(place, batch=4, fill="drop")
    (filled,) = replay_loader(place, batch=4, fill=fill)
    assert plain.tokens["image"].valid.shape == (4, LENGTH)
    assert torch.equal(filled.tokens["image"].values, plain.tokens["image"].values)
    unknown = filled.tokens["image"].unknown
    assert unknown is None or not unknown.any()
    assert [*filled.tokens] == ["image"], "no scale stays beside it"


def test_what_no_scale_holds_is_filled_after_it_was_restored(tmp_path):
    place = memory_of(tmp_path / "m", image="scales:factors=[1,4],shares=[0.5]")
    (dropped,) = replay_loader(place, batch=4, fill="drop")
    (filled,) = replay_loader(place, batch=4, fill="zero")
    held = dropped.tokens["image"]
    assert 6 < held.valid.sum(1).min() < LENGTH, "more than the fine ones, fewer than all"
    for row in range(4):
        places = held.positions[row, held.valid[row]]
        assert torch.equal(filled.tokens["image"].values[row, places], held.values[row, held.valid[row]])
        lost = np.setdiff1d(np.arange(LENGTH), places)
        assert not filled.tokens["image"].values[row, lost].any()


def test_an_augmentation_sees_restored_patches_before_they_are_filled(tmp_path):
    place = memory_of(tmp_path / "m", image="scales:factors=[1,4],shares=[0.5]")
    seen = []

    def watch(batch, *, generator):
        seen.append({name: tokens.valid.shape[1] for name, tokens in batch.tokens.items()})
        return batch

    (batch,) = replay_loader(place, batch=4, fill="mean", augment=watch)
    assert [*seen[0]] == ["image"]
    assert seen[0]["image"] < LENGTH == batch.tokens["image"].valid.shape[1]


def test_a_flip_before_the_fill_mirrors_the_whole_image(tmp_path):
    place = memory_of(tmp_path / "m")
    flip = Flip(grids={"image": (4, 6)}, probability=1.0)
    (plain,), (flipped,) = replay_loader(place, batch=4), replay_loader(place, batch=4, augment=flip)
    assert torch.equal(flipped.images(), plain.images().flip(3))


def test_batches_are_augmented_only_where_a_generator_is_given(tmp_path):
    place = memory_of(tmp_path / "m")
    with ExemplarMemory.open(place) as memory:
        pipeline = Pipeline(Restorer.of(memory), augment=TokenDropout(ratio=0.5))
        stored = TensorBatch.from_numpy(memory.read(memory.slots))
    assert pipeline(stored).tokens["image"].valid.shape[1] == LENGTH
    generator = torch.Generator().manual_seed(0)
    assert pipeline(stored, generator).tokens["image"].valid.shape[1] == LENGTH // 2


def test_the_recipes_own_fill_is_used_unless_another_is_asked_for(tmp_path):
    masked = {"image": "patches", "fill": "zero"}
    place = memory_of(tmp_path / "m", **masked)
    (own,), (other,) = replay_loader(place, batch=4), replay_loader(place, batch=4, fill="drop")
    assert own.tokens["image"].valid.shape[1] == LENGTH
    assert other.tokens["image"].valid.shape[1] == LENGTH // 4
    with pytest.raises(SchemaError, match=r"unknown fill 'grey'; choose one of \['class_mean'"):
        replay_loader(place, batch=4, fill="grey")


def test_a_batch_keeps_its_labels_slots_and_grid_on_any_device(tmp_path):
    (batch,) = replay_loader(memory_of(tmp_path / "m"), batch=4, seed=3)
    moved = batch.to("cpu")
    assert (moved.grid, moved.slots.tolist()) == ((4, 6), batch.slots.tolist())
    assert batch.labels.tolist() == LABELS[batch.slots].tolist()
    assert torch.equal(moved.images(), batch.images())
