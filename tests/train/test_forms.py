"""Examples in the form in which they would be replayed, though they are not stored."""

import numpy as np
import pytest
import torch
from PIL import Image

from exmem import ExemplarMemory
from exmem.backbones import load_backbone
from exmem.recipes import BoundRecipe, Recipe
from exmem.replay import Pipeline
from exmem.replay.augment import ColourJitter
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText
from exmem.train.hidden import embedded, stored_form
from tests.exemplars import crop

SIZE, LENGTH, ROWS = (32, 48), 24, np.array([2, 0, 3])
TEXTS = ["temple roof red", "leaf", "flower leaf red roof temple", ""]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{row}.png" for row in range(4)]
    for row, path in enumerate(paths):
        Image.fromarray(crop(row, 60)).save(path)
    return ImageText(paths, TEXTS, [3, 5, 3, 4], tuple("abcdef"))


@pytest.fixture(scope="module")
def load(written):
    return lambda kind: load_backbone(kind, *written[kind], image_size=SIZE, trainable_blocks=2, max_text=8)


@pytest.fixture(scope="module")
def model(load):
    return load("joint")


def stored(folder, bound, data):
    """What a memory of the rows holds, read in their order, and what it replays of them."""
    texts = [data.texts[row] for row in ROWS.tolist()]
    images = data.images(ROWS, SIZE)
    extras = {name: np.ones((3, *spec.shape), np.float32) for name, spec in bound.schema.extras.items()}
    with bound.create_memory(folder, max_bytes="1MB", durable=False) as memory:
        slots = memory.add(bound.make(images, texts, data.labels[ROWS], extras=extras)).slots
        memory.commit()
    with ExemplarMemory.open(folder) as memory:
        batch = TensorBatch.from_numpy(memory.read(slots))
    pipeline = Pipeline(bound.restore)
    pipeline.know(lambda: [batch])
    return batch, pipeline(batch)


def assert_equal(batch, expected):
    assert batch.tokens.keys() == expected.tokens.keys()
    assert torch.equal(batch.labels, expected.labels)
    for name, tokens in expected.tokens.items():
        for field in ("values", "positions", "valid", "unknown"):
            one, other = getattr(batch.tokens[name], field), getattr(tokens, field)
            assert (one is None and other is None) or torch.equal(one, other), (name, field)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        *(("masked", {"fill": fill}) for fill in ("drop", "zero", "mean", "class_mean")),
        ("masked", {"image": "patches:thumbnail=12", "fill": "thumbnail", "text": "lost_patches"}),
        ("foveated", {}),
        ("foveated", {"image": {"name": "scales", "factors": [1, 4], "shares": [0.5]}, "fill": "zero"}),
        ("smoothed", {"extras": ["features"]}),
        ("half_jpeg", {"fill": "class_mean", "text": "none"}),
        ("text", {"fill": "class_mean"}),
    ],
    ids=str,
)
def test_the_stored_form_of_rows_is_what_a_lossless_memory_replays_of_them(tmp_path, model, data, name, parts):
    bound = BoundRecipe(Recipe.of(name).refined(**parts), model)
    bound = bound if name == "text" else BoundRecipe(bound.recipe.refined(codec="lossless"), model)
    _, expected = stored(tmp_path / "memory", bound, data)
    batch = stored_form(bound, data)(ROWS)
    assert_equal(batch, expected)
    assert batch.labels.tolist() == data.labels[ROWS].tolist()
    if parts.get("fill", "drop") != "drop" and name != "text":
        assert batch.tokens["image"].valid.shape == (3, LENGTH)
        assert batch.tokens["image"].valid.all()
    assert len(embedded(model, stored_form(bound, data), ROWS)) == 3


def test_the_stored_form_lacks_what_a_lossy_codec_does(tmp_path, model, data):
    bound = BoundRecipe(Recipe.of("masked").refined(fill="mean", codec="patch_jpeg:quality=90"), model)
    _, expected = stored(tmp_path / "memory", bound, data)
    batch = stored_form(bound, data)(ROWS)
    assert torch.equal(batch.tokens["text"].values, expected.tokens["text"].values)
    difference = batch.tokens["image"].values.float() - expected.tokens["image"].values.float()
    assert 0 < difference.abs().mean() < 6, "JPEG of quality 90 stands between"


def test_the_class_means_of_the_stored_form_are_those_of_the_rows_that_are_read_together(model, data):
    bound = BoundRecipe(Recipe.of("masked").refined(fill="class_mean"), model)
    image = stored_form(bound, data)(ROWS).tokens["image"]
    exemplars = bound.make(data.images(ROWS, SIZE), [data.texts[row] for row in ROWS], data.labels[ROWS])
    kept = np.concatenate([exemplar.tokens["image"].values for exemplar in exemplars if exemplar.label == 3])
    places = exemplars[0].tokens["image"].positions
    dropped = np.setdiff1d(np.arange(LENGTH), places)
    assert (image.values[0, dropped].numpy() == kept.reshape(-1, 3).mean(0).round()).all()
    assert (image.values[0, places].numpy() == exemplars[0].tokens["image"].values).all()


def test_a_mask_token_stands_where_patches_were_dropped(load, data):
    bound = BoundRecipe(Recipe.of("masked").refined(fill="mask_token"), load("dinov2"))
    image = stored_form(bound, data)(ROWS).tokens["image"]
    exemplars = bound.make(data.images(ROWS, SIZE), [""] * 3, data.labels[ROWS])
    for at, exemplar in enumerate(exemplars):
        assert np.flatnonzero(~image.unknown[at]).tolist() == exemplar.tokens["image"].positions.tolist()
    assert bound.backbone(stored_form(bound, data)(ROWS)).isfinite().all()


class Noted:
    """A restorer and an augmentation that say when they are called."""

    def __init__(self, restore):
        self._restore, self.calls = restore, []

    def __getattr__(self, name):
        return getattr(self._restore, name)

    def __call__(self, batch, *, generator=None):
        step = "restore" if generator is None else "augment"
        self.calls.append((step, "dense" if batch.tokens["image"].valid.all() else "sparse"))
        return batch


def test_exemplars_are_restored_then_augmented_then_filled(tmp_path, model, data):
    bound = BoundRecipe(Recipe.of("masked").refined(fill="zero"), model)
    batch, _ = stored(tmp_path / "memory", bound, data)
    noted = Noted(bound.restore)
    pipeline = Pipeline(noted, augment=noted)
    assert pipeline(batch, torch.Generator().manual_seed(0)).tokens["image"].valid.all(), "filled last"
    assert noted.calls == [("restore", "sparse"), ("augment", "sparse")]
    noted.calls.clear()
    pipeline(batch)
    assert noted.calls == [("restore", "sparse")], "without a generator nothing is augmented"


def test_the_generator_decides_what_augmentations_do(tmp_path, model, data):
    bound = BoundRecipe(Recipe.of("half_jpeg"), model)
    batch, plain = stored(tmp_path / "memory", bound, data)
    pipeline = Pipeline(bound.restore, augment=ColourJitter(probability=1.0))
    one, same, other = (
        pipeline(batch, torch.Generator().manual_seed(seed)).tokens["image"].values for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain.tokens["image"].values)
    assert torch.equal(pipeline(batch).tokens["image"].values, plain.tokens["image"].values)
