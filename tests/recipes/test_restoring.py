"""A memory alone says how its exemplars are restored: recorded in its root, believed only where it fits the schema."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import InvalidExemplarError, SchemaError
from exmem.memory.export import export_folder, import_folder
from exmem.memory.maintenance import repair
from exmem.recipes import BoundRecipe, PlainImages, Recipe, Restorer
from exmem.replay import replay_loader
from exmem.tokens.tensors import TensorBatch
from tests.recipes.cases import FINE, LABELS, PATCH, RECIPES, SIZE, TEXTS, bound_of, made, psnr, rows_of, smooth

FORMS = ["masked", "masked, thumbnail", "foveated", "smoothed", "rate_aware", "half_jpeg", "raw", "text"]
OF_MODEL = ["hidden", "hidden, fused", "hidden, of a lower layer", "features"]


def plain_bound(name="half_jpeg", **changes):
    scorer = {} if "scorer" in Recipe.of(name).unused else {"scorer": "centre"}
    recipe = Recipe.of(name).refined(**(scorer | {"codec": FINE} | changes))
    return BoundRecipe(recipe, PlainImages(size=SIZE, patch=PATCH))


def stored_in(bound, place, **options):
    """A closed memory of four exemplars."""
    with bound.create_memory(place, max_bytes="1MB", durable=False, **options) as memory:
        memory.add(made(bound, smooth()))
    return place


def assert_same_rows(batch, expected):
    for row, (tokens, others) in enumerate(zip(rows_of(batch), rows_of(expected), strict=True)):
        assert tokens.keys() == others.keys()
        for name, (positions, values) in tokens.items():
            np.testing.assert_array_equal(positions, others[name][0], err_msg=f"{row} {name}")
            np.testing.assert_array_equal(values, others[name][1], err_msg=f"{row} {name}")


@pytest.mark.parametrize("name", [*FORMS, *OF_MODEL])
def test_a_memory_is_restored_from_itself_as_by_the_recipe_that_made_it(name, backbone, tmp_path):
    bound = bound_of(name, backbone("joint"))
    place = stored_in(bound, tmp_path / "m")
    with ExemplarMemory.open(place) as memory:
        restorer = Restorer.of(memory)
        assert restorer == bound.restore
        assert (restorer.recipe, restorer.frame) == (bound.recipe, bound.restore.frame)
        stored = TensorBatch.from_numpy(memory.read(memory.slots))
        assert_same_rows(restorer(stored), bound.restore(stored))


# In dB: what a quarter of the pixels leaves of a smooth image, as in the contract; masked images have a mean colour or
# a thumbnail of 12 pixels where patches were dropped.
CLOSE = {"raw": np.inf, "masked": 10, "masked, thumbnail": 20, "rate_aware": 10}


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (32, 32)])
@pytest.mark.parametrize("name", [name for name in FORMS if name != "text"])
def test_images_come_out_of_the_loader_whole_and_upright_without_a_backbone(name, size, tmp_path):
    sharp = {"image": "smoothed:coarse=2"} if name == "smoothed" else {}
    sharp = {"image": "rate:max_bytes=900"} if name == "rate_aware" else sharp
    recipe = Recipe.of(name.split(",")[0])
    scorer = {} if "scorer" in recipe.unused else {"scorer": "centre"}
    recipe = recipe.refined(**({"codec": FINE} | RECIPES[name] | scorer | sharp))
    bound = BoundRecipe(recipe, PlainImages(size=size, patch=PATCH))
    originals = smooth(size)
    with bound.create_memory(tmp_path / "m", max_bytes="1MB", durable=False) as memory:
        slots = memory.add(made(bound, originals)).slots.tolist()
    (batch,) = replay_loader(tmp_path / "m", batch=4, seed=1)
    fill = "thumbnail" if "thumbnail" in name else "mean"
    images = batch.images(fill)
    assert (images.shape, images.dtype) == ((4, 3, *size), torch.uint8)
    for image, slot in zip(images, batch.slots.tolist(), strict=True):
        original = originals[slots.index(slot)]
        assert psnr(image.permute(1, 2, 0), original) >= CLOSE.get(name, 22)
        assert psnr(image.permute(1, 2, 0).flip(0), original) < 18, "upside down it is another image"


def test_a_memory_without_images_has_none_to_show(backbone, tmp_path):
    stored_in(bound_of("text", backbone("joint")), tmp_path / "m")
    (batch,) = replay_loader(tmp_path / "m", batch=4)
    with pytest.raises(SchemaError, match=r"got \['text'\]; this memory holds no images"):
        batch.images()


def test_a_fill_that_leaves_patches_without_a_value_shows_no_image(tmp_path):
    stored_in(plain_bound("masked"), tmp_path / "m")
    (batch,) = replay_loader(tmp_path / "m", batch=4)
    for fill in ("drop", "mask_token"):
        with pytest.raises(SchemaError, match=f"fill '{fill}' leaves patches without a value; choose mean, zero or"):
            batch.images(fill)
    with pytest.raises(SchemaError, match="unknown fill 'grey'"):
        batch.images("grey")
    (batch,) = replay_loader(tmp_path / "m", batch=4, fill="mask_token")
    with pytest.raises(SchemaError, match="without a value"):
        batch.images()


def test_the_record_stays_through_every_upkeep_of_a_memory(tmp_path):
    recipe = plain_bound("masked", text="none").recipe.refined(extras=["logits"])
    bound = BoundRecipe(recipe, PlainImages(size=SIZE, patch=PATCH), num_classes=5)
    logits = np.arange(20, dtype=np.float32).reshape(4, 5)
    with bound.create_memory(tmp_path / "m", max_bytes="1MB") as memory:
        memory.add(bound.make(smooth(), TEXTS, LABELS, extras={"logits": logits}))
        memory.commit()
        assert Restorer.of(memory) == bound.restore
        memory.evict(memory.slots[:1])
        memory.resize("500kB")
        memory.annotate(class_names={3: "three"})
        memory.compact()
        assert Restorer.of(memory) == Restorer.of(copy.copy(memory)) == bound.restore
        assert Restorer.of(pickle.loads(pickle.dumps(memory))) == bound.restore
    repair(tmp_path / "m")
    with ExemplarMemory.open(tmp_path / "m") as memory:
        assert Restorer.of(memory) == bound.restore
        export_folder(memory, tmp_path / "out")
    with import_folder(tmp_path / "out", tmp_path / "again") as memory:
        assert memory.schema == bound.schema
        assert Restorer.of(memory) == bound.restore
        (batch,) = replay_loader(memory, batch=8)
        assert sorted(batch.extras["logits"][:, 0].tolist()) == [5, 10, 15]


def test_logits_and_features_are_stored_and_come_back_and_missing_ones_are_refused(backbone, tmp_path):
    model = backbone("vit")
    recipe = Recipe.of("half_jpeg").refined(extras=["logits", "features"])
    bound = BoundRecipe(recipe, model, num_classes=7)
    rng = np.random.default_rng(0)
    extras = {"logits": rng.normal(size=(4, 7)), "features": rng.normal(size=(4, model.feature_dim))}
    with bound.create_memory(tmp_path / "m", max_bytes="1MB") as memory:
        memory.add(bound.make(smooth(), TEXTS, LABELS, extras=extras))
        memory.commit()
        (batch,) = replay_loader(memory, batch=4, seed=2)
    for name, values in extras.items():
        np.testing.assert_array_equal(batch.extras[name], values[batch.slots].astype(np.float32))
    for wrong in (None, {"logits": extras["logits"]}, {**extras, "more": np.zeros(4)}):
        with pytest.raises(InvalidExemplarError, match=r"expected the extras \['features', 'logits'\], got"):
            bound.make(smooth(), TEXTS, LABELS, extras=wrong)
    with pytest.raises(InvalidExemplarError, match="expected as many of each"):
        bound.make(smooth(), TEXTS, LABELS, extras={**extras, "logits": extras["logits"][:3]})
    with pytest.raises(SchemaError, match="bind it with num_classes="):
        BoundRecipe(recipe, model)


def memory_of(folder, document, specs=None):
    """An empty memory that records anything as its recipe."""
    specs = {"image": TokenSpec(grid=(4, 6), shape=(8, 8, 3), codec="raw")} if specs is None else specs
    return ExemplarMemory.create(folder, schema=Schema(specs, {}, document), max_bytes="100kB", durable=False)


def record(**changes):
    recipe = Recipe.of("masked").refined(codec="raw", text="none").to_json()
    return json.loads(json.dumps({"recipe": recipe, "frame": {"grid": [4, 6], "patch": 8}} | changes))


def test_a_memory_that_records_parts_without_effect_as_earlier_versions_did_is_restored(tmp_path):
    recipe = Recipe.of("half_jpeg").refined(codec="raw", text="none")
    document = record(recipe=recipe.to_json() | {"scorer": "cls_attention:layers=[-3]", "keep": "top_k:k=2"})
    specs = {"image": TokenSpec(positions=1, shape=(16, 24, 3), codec="raw")}
    with memory_of(tmp_path / "m", document, specs) as memory:
        assert Restorer.of(memory).recipe == recipe


HUGE = {"name": "scaled", "divisor": 2**30}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "expected a record of 'recipe', 'frame' and 'weights'"),
        ({"recipe": {}}, "expected a record of 'recipe', 'frame' and 'weights'"),
        (record(more=1), "expected a record of 'recipe', 'frame' and 'weights'"),
        (record(recipe="masked"), "recipe"),
        (record(recipe="/etc/passwd.yaml"), "recipe"),
        (record(recipe=[1]), "recipe"),
        (record(recipe={"image": "holograms"}), "unknown image form 'holograms'; choose one of"),
        (record(recipe={"later": 1}), r"unknown keys \['later'\]"),
        (record(recipe={"image": {"name": "scales", "factors": "a"}}), "expected one factor or more"),
        (record(frame=3), "expected a frame with 'grid' and 'patch'"),
        (record(frame={"grid": [2**40, 1], "patch": 8}), r"each side of the grid must be an integer of 1\.\.16384"),
        (record(frame={"grid": [4, 6], "patch": 2**40}), "patch must be an integer"),
        (record(frame={"grid": [2**14, 2**14], "patch": 2**14}), "a frame has at most 16,777,216 pixels"),
        (record(frame={"grid": [True, 6], "patch": 8}), "each side of the grid"),
        (record(frame={"grid": [8, 8], "patch": 8}), r"stores 'image' as \(64, \(8, 8, 3\)\), got \(24, "),
        (record(frame={"grid": [4, 6], "patch": 16}), "stores 'image' as"),
        (record(frame=None), "both or neither"),
        (record(recipe={"image": "none", "text": "all"}), "both or neither"),
        (record(recipe={"image": HUGE}), "leaves nothing of images of 32 x 48"),
        (record(recipe={"image": {"name": "patches", "thumbnail": 12}}), r"'thumbnail' as .* got None"),
    ],
)
def test_a_record_that_does_not_fit_is_an_error_and_neither_a_crash_nor_gigabytes(tmp_path, document, message):
    with memory_of(tmp_path / "m", document) as memory:
        memory.add([Exemplar({"image": TokenSet([3], np.zeros((1, 8, 8, 3), np.uint8))}, label=0)])
        memory.commit()
        with pytest.raises(SchemaError, match="records a recipe that does not fit this version") as raised:
            Restorer.of(memory)
        assert raised.match(message)
        with pytest.raises(SchemaError, match="does not fit"):
            replay_loader(memory, batch=1)
        assert len(memory.read(memory.slots)) == 1, "it can be read as it is stored"


@pytest.mark.parametrize(
    ("spec", "grid", "images"),
    [
        (TokenSpec(positions=16, shape=(8, 8, 3), codec="raw"), (4, 4), (3, 32, 32)),
        (TokenSpec(grid=(2, 6), shape=(8, 8, 3), codec="raw"), (2, 6), (3, 16, 48)),
        (TokenSpec(grid=(2, 3), shape=(8, 4, 3), codec="raw"), (2, 3), (3, 16, 12)),
        (Schema.images(size=(48, 20), codec="raw").modalities["image"], (1, 1), (3, 48, 20)),
        (TokenSpec(positions=7, shape=(8, 8, 3), codec="raw"), None, None),
        (TokenSpec(positions=9, shape=(5,), dtype="float32", codec="raw"), None, None),
    ],
)
def test_a_memory_that_records_nothing_is_seen_as_it_is_stored(tmp_path, spec, grid, images):
    values = np.arange(spec.positions * int(np.prod(spec.shape))).reshape(spec.positions, *spec.shape)
    values = values.astype(spec.dtype)
    with ExemplarMemory.create(tmp_path / "m", schema=Schema({"image": spec}), max_bytes="100kB") as memory:
        memory.add([Exemplar({"image": TokenSet.dense(values)}, label=0)])
        memory.commit()
        assert Restorer.of(memory).grid == grid
        assert Restorer.of(memory).length == spec.positions
        (batch,) = replay_loader(memory, batch=1)
    np.testing.assert_array_equal(batch.tokens["image"].values[0], values)
    if images is not None:
        assert batch.images().shape == (1, *images)
        top_left = batch.images()[0, :, : spec.shape[0], : spec.shape[1]]
        np.testing.assert_array_equal(top_left.permute(1, 2, 0), values[0])
        return
    with pytest.raises(SchemaError, match="expected image patches"):
        batch.images()


def test_fills_that_need_no_places_work_without_a_grid(tmp_path):
    spec = TokenSpec(positions=7, shape=(8, 8, 3), codec="raw")
    with ExemplarMemory.create(tmp_path / "m", schema=Schema({"image": spec}), max_bytes="100kB") as memory:
        memory.add([Exemplar({"image": TokenSet([2], np.full((1, 8, 8, 3), 9, np.uint8))}, label=0)])
        memory.commit()
        for fill, elsewhere in (("zero", 0), ("mean", 9), ("class_mean", 9)):
            (batch,) = replay_loader(memory, batch=1, fill=fill)
            assert batch.tokens["image"].values[0, :, 0, 0, 0].tolist() == [elsewhere] * 2 + [9] + [elsewhere] * 4


def test_hidden_tokens_or_features_get_zeros_where_they_were_dropped(tmp_path):
    spec = TokenSpec(positions=5, shape=(3,), dtype="float32", codec="raw")
    with ExemplarMemory.create(tmp_path / "m", schema=Schema({"image": spec}), max_bytes="100kB") as memory:
        memory.add([Exemplar({"image": TokenSet([2], np.ones((1, 3), np.float32))}, label=0)])
        memory.commit()
        (batch,) = replay_loader(memory, batch=1, fill="zero")
    assert batch.tokens["image"].values[0, :, 0].tolist() == [0, 0, 1, 0, 0]
