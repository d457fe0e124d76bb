"""Examples in the form in which they are replayed, stored or not."""

import numpy as np
import pytest
import torch
from exmem.train.features import embed_rows
from exmem.train.forms import Replayed, stored_form
from exmem.train.making import make_random_masks

from exmem import ExemplarMemory, TokenBatch
from exmem.errors import SchemaError
from exmem.replay import FILLS, FillContext, class_means
from exmem.replay.augment import ColourJitter
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText
from tests.backbones.models import load
from tests.recipes.cases import LABELS, LENGTH, PRIORITIES, TEXTS, config, made, pictures, recipe_of

ROWS = np.array([2, 0, 3])


class Pictures(ImageText):
    """Data whose pictures are at hand."""

    def images(self, rows, size):
        return pictures(size)[rows]


DATA = Pictures(("a.png",) * 4, tuple(TEXTS), LABELS, tuple("abcdef"))


@pytest.fixture(scope="module")
def model(written):
    return load("joint", written["joint"])


@pytest.fixture(scope="module")
def dinov2(written):
    return load("dinov2", written["dinov2"])


def assert_equal(found, expected):
    assert found.tokens.keys() == expected.tokens.keys()
    assert torch.equal(found.labels, expected.labels)
    for name, tokens in expected.tokens.items():
        for part in ("values", "positions", "valid", "unknown"):
            one, other = getattr(found.tokens[name], part), getattr(tokens, part)
            assert (one is None and other is None) or torch.equal(one, other), (name, part)


@pytest.mark.parametrize(
    ("name", "fill"),
    [
        *(("masked", fill) for fill in ("drop", "zero", "mean", "class_mean")),
        ("masked, thumbnail", "thumbnail"),
        *((name, "drop") for name in ("foveated", "foveated_picture", "rate_aware", "half_jpeg", "text")),
        ("foveated, a part dropped", "zero"),
        ("text", "class_mean"),
        ("half_jpeg", "class_mean"),
    ],
)
def test_the_stored_form_of_rows_is_what_a_lossless_memory_would_replay_of_them(model, name, fill):
    recipe = recipe_of(name, model)
    exemplars = recipe.make(pictures()[ROWS], [TEXTS[row] for row in ROWS], LABELS[ROWS], PRIORITIES[ROWS])
    tokens = recipe.restore(TensorBatch.from_numpy(TokenBatch.of(exemplars)))
    means = class_means([tokens]) if "image" in tokens.tokens else None
    expected = FILLS.make(fill)(tokens, FillContext(length=LENGTH, grid=model.grid, class_means=means))
    found = stored_form(model, DATA, recipe, fill=fill)(ROWS)
    assert_equal(found, expected)
    assert found.labels.tolist() == LABELS[ROWS].tolist()
    if fill != "drop" and name != "text":
        assert found.tokens["image"].valid.shape == (3, LENGTH)
        assert found.tokens["image"].valid.all()
    assert len(embed_rows(model, stored_form(model, DATA, recipe, fill=fill), ROWS)) == 3


def test_stored_exemplars_are_replayed_from_a_memory_as_they_would_be_before(tmp_path, model):
    recipe = recipe_of("masked", model)
    with ExemplarMemory.create(tmp_path / "m", schema=recipe.schema(), max_bytes="1MB", durable=False) as memory:
        slots = memory.add(made(recipe)).slots
        memory.commit()
        found = Replayed(model, recipe, fill="mean")(TensorBatch.from_numpy(memory.read(slots)))
    expected = stored_form(model, DATA, recipe, fill="mean")(np.arange(4))
    assert torch.equal(found.tokens["text"].values, expected.tokens["text"].values)
    difference = found.tokens["image"].values.float() - expected.tokens["image"].values.float()
    assert 0 < difference.abs().mean() < 6, "JPEG of quality 90 stands between"


def test_a_class_mean_is_that_of_the_exemplars_that_are_known(model):
    recipe = recipe_of("masked", model)
    exemplars = made(recipe)
    batch = TensorBatch.from_numpy(TokenBatch.of(exemplars))
    replayed = Replayed(model, recipe, fill="class_mean")
    with pytest.raises(SchemaError, match=r"no mean colour of the classes \[3, 4, 5\]"):
        replayed(batch)
    replayed.know(lambda: [batch])
    found = replayed(batch).tokens["image"]
    kept = np.concatenate([own.tokens["image"].values for own in exemplars if own.label == 3])
    mean = kept.reshape(-1, 3).mean(0).round()
    places = exemplars[0].tokens["image"].positions
    dropped = np.setdiff1d(np.arange(LENGTH), places)
    assert (found.values[0, dropped].numpy() == mean).all()
    assert (found.values[0, places].numpy() == exemplars[0].tokens["image"].values).all()

    def never():
        raise AssertionError("other fills read nothing")

    Replayed(model, recipe, fill="mean").know(never)


class Noted:
    """A recipe and an augmentation that say when they are called."""

    def __init__(self):
        self.calls = []

    def restore(self, batch):
        self.calls.append(("restore", "dense" if batch.tokens["image"].valid.all() else "sparse"))
        return batch

    def __call__(self, batch, *, generator):
        self.calls.append(("augment", "dense" if batch.tokens["image"].valid.all() else "sparse"))
        return batch


def test_exemplars_are_put_together_then_augmented_then_filled(model):
    batch = TensorBatch.from_numpy(TokenBatch.of(made(recipe_of("masked", model))))
    noted = Noted()
    replayed = Replayed(model, noted, fill="zero", augmentation=noted)
    found = replayed(batch, torch.Generator().manual_seed(0))
    assert noted.calls == [("restore", "sparse"), ("augment", "sparse")]
    assert found.tokens["image"].valid.all(), "filled last"
    noted.calls.clear()
    replayed(batch)
    assert noted.calls == [("restore", "sparse")], "without a generator nothing is augmented"


def test_the_generator_decides_what_augmentations_do(model):
    recipe = recipe_of("half_jpeg", model)
    batch = TensorBatch.from_numpy(TokenBatch.of(made(recipe)))
    replayed = Replayed(model, recipe, fill="drop", augmentation=ColourJitter(probability=1.0))
    one, same, other = (
        replayed(batch, torch.Generator().manual_seed(seed)).tokens["image"].values for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, replayed(batch).tokens["image"].values)


def test_a_mask_token_stands_where_patches_were_dropped(dinov2):
    recipe = recipe_of("masked", dinov2, fill="mask_token")
    found = stored_form(dinov2, DATA, recipe, fill="mask_token")(ROWS).tokens["image"]
    kept = made(recipe)
    for at, row in enumerate(ROWS.tolist()):
        assert np.flatnonzero(~found.unknown[at]).tolist() == kept[row].tokens["image"].positions.tolist()


@pytest.mark.parametrize("fill", ["drop", "thumbnail"])
def test_random_masks_keep_their_ratio_whatever_the_recipe_keeps_and_go_with_the_fill(model, fill):
    options = config(recipe="masked", fill=fill, keep_ratio=0.25, keep_rule="top_k", keep_patches=1, text_rule="none")
    recipe = make_random_masks(options, model)
    exemplars = made(recipe)
    assert [len(own.tokens["image"]) for own in exemplars] == [6] * 4
    assert len({tuple(own.tokens["image"].positions) for own in exemplars}) > 1
    assert [len(own.tokens["text"]) for own in exemplars] == [5, 3, 7, 2], "texts whole"
    found = stored_form(model, DATA, recipe, fill=fill)(ROWS).tokens["image"]
    assert found.valid.sum(1).tolist() == [6 if fill == "drop" else LENGTH] * 3


def test_random_masks_need_pictures(written):
    with pytest.raises(SchemaError, match="this learner sees none; use new_masks 'scores'"):
        make_random_masks(config(), load("bert", written["bert"]))
