"""Every fill makes of stored tokens what it says, in this process and in workers."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import SchemaError
from exmem.recipes import FILLS, FillContext, Restorer
from exmem.recipes.fills import class_means
from exmem.replay import Pipeline, replay_loader
from exmem.tokens.patches import cut_patches
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.exemplars import crop

ROWS, COLUMNS, PATCH, THUMB = 3, 4, 16, 12  # images of 48 x 64 pixels
GRID, LENGTH = (ROWS, COLUMNS), ROWS * COLUMNS
DENSE = sorted(set(FILLS) - {"drop"})


def image_of(seed):
    return crop(seed, COLUMNS * PATCH)[: ROWS * PATCH]


def exemplar(seed):
    """A crop with some of its patches, by seed, a thumbnail and a text; three classes."""
    kept = np.sort(np.random.default_rng(seed).choice(LENGTH, 3 + seed % 5, replace=False))
    small = np.asarray(Image.fromarray(image_of(seed)).resize((THUMB, THUMB)))
    return Exemplar(
        {
            "image": TokenSet(kept, cut_patches(image_of(seed)[None], PATCH)[0, kept]),
            "text": TokenSet.dense(np.arange(4, dtype=np.int32)),
            "thumbnail": TokenSet.dense(small[None]),
        },
        label=seed % 3,
    )


def create(folder, *, without=(), grid=GRID):
    specs = {
        "image": TokenSpec(grid=grid, positions=LENGTH, shape=(PATCH, PATCH, 3), codec="raw"),
        "text": TokenSpec(positions=4, dtype="int32"),
        "thumbnail": TokenSpec(positions=1, shape=(THUMB, THUMB, 3), codec="raw"),
    }
    kept = {name: spec for name, spec in specs.items() if name not in without}
    return ExemplarMemory.create(folder, schema=Schema(kept), max_bytes="2MB", durable=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "m"
    with create(folder) as memory:
        memory.add([exemplar(seed) for seed in range(12)])
    return folder


def stored_and_seen(memory, slots, fill):
    """What is stored of exemplars, and what a model sees of them."""
    stored = TensorBatch.from_numpy(memory.read(slots))
    pipeline = Pipeline(Restorer.of(memory), fill=fill)
    pipeline.follow(memory)
    return stored, pipeline(stored)


def image_seen(folder, slot, fill):
    with ExemplarMemory.open(folder) as memory:
        return stored_and_seen(memory, [slot], fill)[1].tokens["image"]


def tokens_of(colours, positions, *, keep=None, unknown=None):
    """Rows of patches of one colour, 2 x 2 pixels."""
    values = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None, :].repeat(1, 1, 2, 2, 1)
    keep = torch.ones(values.shape[:2], dtype=torch.bool) if keep is None else torch.tensor(keep)
    return TokenTensors(values, torch.tensor(positions), keep, None if unknown is None else torch.tensor(unknown))


def image_only(tokens, labels=(0,)):
    return TensorBatch({"image": tokens}, torch.tensor(labels))


def colours(batch, row=0):
    values = batch.tokens["image"].values[row]
    assert (values == values[:, :1, :1]).all(), "each patch has one colour"
    return values[:, 0, 0].tolist()


@pytest.mark.parametrize("name", DENSE)
def test_kept_patches_lie_in_their_places_and_nothing_else_changes(folder, name):
    with ExemplarMemory.open(folder) as memory:
        stored, _ = stored_and_seen(memory, [5], "drop")
        before = {key: tokens.values.clone() for key, tokens in stored.tokens.items()}
        _, found = stored_and_seen(memory, [5], name)
    dense = found.tokens["image"]
    assert dense.values.shape == (1, LENGTH, PATCH, PATCH, 3)
    assert dense.valid.all()
    assert dense.positions.tolist() == [list(range(LENGTH))]
    kept = stored.tokens["image"].positions[0]
    assert 0 < len(kept) < LENGTH
    assert torch.equal(dense.values[0, kept], stored.tokens["image"].values[0])
    assert torch.equal(found.tokens["text"].values, before["text"])
    assert found.labels.tolist() == [2]
    assert all(torch.equal(stored.tokens[key].values, values) for key, values in before.items())
    assert (dense.unknown is not None) == (name == "mask_token")


@pytest.mark.parametrize("name", sorted(FILLS))
def test_a_batch_without_image_comes_back_as_it_is(tmp_path, name):
    with create(tmp_path / "m", without=("image", "thumbnail")) as memory:
        memory.add([dataclasses.replace(exemplar(1), tokens={"text": exemplar(1).tokens["text"]})])
    (seen,) = replay_loader(tmp_path / "m", batch=1, fill=name)
    assert seen.tokens["text"].values.tolist() == [[0, 1, 2, 3]]
    batch = TensorBatch({"text": seen.tokens["text"]}, torch.tensor([1]))
    assert FILLS.make(name)(batch, FillContext(length=LENGTH)) is batch


@pytest.mark.parametrize("name", sorted(set(FILLS) - {"drop", "thumbnail"}))
def test_a_token_of_unknown_value_stays_one_and_has_no_colour(name):
    tokens = tokens_of([[[90, 90, 90], [0, 0, 0]]], [[0, 2]], unknown=[[False, True]])
    context = FillContext(length=3, class_means={0: torch.tensor([5.0, 5.0, 5.0])})
    found = FILLS.make(name)(image_only(tokens), context)
    dropped = {"zero": 0, "mean": 90, "class_mean": 5, "mask_token": 0}[name]
    assert colours(found) == [[90] * 3, [dropped] * 3, [0] * 3]
    assert found.tokens["image"].unknown.tolist() == [[False, name == "mask_token", True]]


def test_the_mean_is_that_of_the_kept_patches_of_each_exemplar():
    tokens = tokens_of(
        [[[10, 0, 255], [30, 1, 255]], [[200, 100, 50], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]],
        [[1, 3], [0, 0], [0, 0]],
        keep=[[True, True], [True, False], [False, False]],
    )
    found = FILLS.make("mean")(image_only(tokens, (0, 0, 0)), FillContext(length=4))
    assert colours(found) == [[20, 0, 255], [10, 0, 255], [20, 0, 255], [30, 1, 255]]  # 0.5 is rounded to even
    assert colours(found, 1) == [[200, 100, 50]] * 4
    assert colours(found, 2) == [[0, 0, 0]] * 4, "black where nothing was kept"


def test_the_class_mean_counts_every_pixel_of_the_class_once(folder):
    with ExemplarMemory.open(folder) as memory:
        means = class_means([stored_and_seen(memory, memory.slots, "drop")[0]])
    assert set(means) == {0, 1, 2}
    patches = np.concatenate([exemplar(seed).tokens["image"].values for seed in (1, 4, 7, 10)])
    np.testing.assert_allclose(means[1], patches.reshape(-1, 3).mean(0), rtol=1e-6)
    kept = exemplar(4).tokens["image"].positions
    lost = np.setdiff1d(np.arange(LENGTH), kept)
    found = image_seen(folder, 4, "class_mean").values[0, lost]
    assert (found == means[1].round().to(torch.uint8)).all()


def test_class_means_follow_the_commits_that_a_loader_follows(tmp_path):
    def dropped_colours(loader):
        """The colour of a dropped patch, by class."""
        (batch,) = loader
        image = batch.tokens["image"].values
        lost = {0: 0, 1: 0, 3: 0}
        for slot, label in zip(batch.slots.tolist(), batch.labels.tolist(), strict=True):
            place = np.setdiff1d(np.arange(LENGTH), exemplar(seeds[slot]).tokens["image"].positions)[0]
            lost[label] = image[batch.slots.tolist().index(slot), place, 0, 0].tolist()
        return lost

    seeds = [0, 1, 3]
    with create(tmp_path / "m") as memory:
        memory.add([exemplar(0), exemplar(1)])
        memory.commit()
        loader = replay_loader(memory, batch=3, fill="class_mean")
        fixed = replay_loader(memory, batch=3, fill="class_mean", follow=False)
        first = dropped_colours(loader)
        assert dropped_colours(loader) == first
        memory.add([exemplar(3)])
        memory.commit()
        second = dropped_colours(loader)
        assert dropped_colours(fixed) == first
    assert second[0] != first[0]
    assert second[1] == first[1]


def test_a_class_without_mean_is_refused():
    with pytest.raises(SchemaError, match=r"no mean colour of the classes \[7\]"):
        FILLS.make("class_mean")(image_only(tokens_of([[[1, 1, 1]]], [[0]]), (7,)), FillContext(length=2))


def test_the_thumbnail_lies_under_the_patches_and_leaves_the_batch(folder):
    with ExemplarMemory.open(folder) as memory:
        assert sorted(stored_and_seen(memory, [4], "thumbnail")[1].tokens) == ["image", "text"]
    lost = np.setdiff1d(np.arange(LENGTH), exemplar(4).tokens["image"].positions)
    original = cut_patches(image_of(4)[None], PATCH)[0, lost].astype(float)
    errors = {
        name: np.abs(image_seen(folder, 4, name).values[0, lost].numpy() - original)
        for name in ("thumbnail", "mean", "zero")
    }
    assert errors["thumbnail"].mean() < errors["mean"].mean() < errors["zero"].mean()


def test_an_exemplar_without_thumbnail_gets_black():
    image = tokens_of([[[9, 9, 9]], [[9, 9, 9]]], [[1], [0]])
    thumbnail = tokens_of([[[50, 60, 70]], [[0, 0, 0]]], [[0], [0]], keep=[[True], [False]])
    batch = TensorBatch({"image": image, "thumbnail": thumbnail}, torch.tensor([0, 0]))
    found = FILLS.make("thumbnail")(batch, FillContext(length=4))
    assert colours(found, 0) == [[50, 60, 70], [9, 9, 9], [50, 60, 70], [50, 60, 70]]
    assert colours(found, 1) == [[9, 9, 9], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_the_thumbnail_needs_its_modality_and_the_grid(tmp_path):
    with create(tmp_path / "flat", grid=None) as memory:
        memory.add([exemplar(0)])
        memory.commit()
        with pytest.raises(SchemaError, match=r"12 patches form no square; give grid=\(rows, columns\)"):
            stored_and_seen(memory, memory.slots, "thumbnail")
    with create(tmp_path / "m", without=("thumbnail",)) as memory:
        tokens = {name: tokens for name, tokens in exemplar(0).tokens.items() if name != "thumbnail"}
        memory.add([dataclasses.replace(exemplar(0), tokens=tokens)])
        memory.commit()
        with pytest.raises(
            SchemaError, match=r"needs a modality 'thumbnail', got \['image', 'text'\]; store one: TokenSpec"
        ):
            stored_and_seen(memory, memory.slots, "thumbnail")
    with pytest.raises(SchemaError, match=r"grid of 12 patches, got \(4, 4\)"):
        FillContext(length=LENGTH, grid=(4, 4))


@pytest.mark.parametrize("name", ["mean", "class_mean", "thumbnail"])
def test_features_have_no_colours(name):
    features = TokenTensors.dense(torch.ones(1, 4, 8))
    batch = TensorBatch({"image": features, "thumbnail": tokens_of([[[1, 1, 1]]], [[0]])}, torch.tensor([0]))
    context = FillContext(length=4, class_means={0: torch.zeros(3)})
    with pytest.raises(SchemaError, match=r"of shape \(h, w, 3\), got \(8,\); use 'drop', 'zero' or 'mask_token'"):
        FILLS.make(name)(batch, context)
    assert torch.equal(FILLS.make("zero")(batch, context).tokens["image"].values, features.values)


def test_the_mask_token_stands_where_patches_were_dropped(folder):
    image = image_seen(folder, 3, "mask_token")
    known = (~image.unknown[0]).nonzero().flatten().tolist()
    assert known == exemplar(3).tokens["image"].positions.tolist()
    assert not image.values[image.unknown].any()


@pytest.mark.parametrize("name", sorted(FILLS))
def test_worker_processes_fill_alike(folder, name):
    options = {"batch": 4, "fill": name, "seed": 2}
    here = list(replay_loader(folder, **options))
    there = list(replay_loader(folder, **options, num_workers=2))
    assert len(here) == 3
    for one, two in zip(here, there, strict=True):
        assert torch.equal(one.tokens["image"].values, two.tokens["image"].values)
        assert sorted(one.tokens) == sorted(two.tokens)
