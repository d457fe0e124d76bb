"""Memories of hidden tokens and of features: replay starts at a layer, or at the head, of what made them."""

import contextlib
import json
import warnings

import numpy as np
import pytest
import torch

from exmem import ExemplarMemory, Schema
from exmem.errors import CodecError, DataWarning, ExmemError, InvalidExemplarError, SchemaError
from exmem.memory.export import export_folder, import_folder
from exmem.memory.maintenance import repair
from exmem.recipes import BoundRecipe, PlainImages, Recipe, Restorer
from exmem.replay import ReplayDataset, replay_loader
from exmem.replay.augment import ColourJitter, Flip, TextExchange, TokenDropout
from exmem.tokens.tensors import TensorBatch
from exmem.train.learner import Learner
from exmem.train.tuners.lora import Lora
from tests.backbones.models import load
from tests.backbones.test_layers import TOWERS, blocks_run
from tests.exemplars import folder_bytes
from tests.recipes.cases import LABELS, LENGTH, SIZE, TEXTS, bound_of, images_of, made, rows_of

EVERY = {"codec": "lossless", "keep": "keep_ratio:ratio=1.0"}  # the recipe `hidden` of all tokens, as they are
CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # float32, sums over another padding


def stored_in(bound, place, **options):
    """A closed memory of the exemplars of `made`, in the order of its slots."""
    with bound.create_memory(place, max_bytes="1MB", durable=False, **options) as memory:
        assert memory.add(made(bound)).slots.tolist() == [0, 1, 2, 3]
    return place


def replayed(place):
    """One batch of all four exemplars by slot, as the loader draws them."""
    (batch,) = replay_loader(place, batch=4)
    order = batch.slots.argsort()
    assert batch.slots[order].tolist() == [0, 1, 2, 3]
    tokens = {name: of_modality.select(order) for name, of_modality in batch.tokens.items()}
    return TensorBatch(tokens, batch.labels[order], layer=batch.layer)


def seen(model):
    """The batch that was stored, as the backbone sees it at first."""
    return TensorBatch.from_numpy(model.tokens(images_of(), TEXTS))


@pytest.fixture
def fresh(written):
    """What loads a backbone that a test may change; blocks 0 and 1 are frozen."""
    return lambda kind="joint", blocks=1: load(kind, written[kind], size=SIZE, blocks=blocks)


@pytest.mark.parametrize("image", ["hidden", "hidden:layer=1", "hidden:layer=0"])
@pytest.mark.parametrize("kind", TOWERS)
def test_what_a_memory_of_hidden_tokens_replays_is_what_the_pixels_are(tmp_path, fresh, kind, image):
    model = fresh(kind)
    stored_in(bound_of("hidden", model, image=image, **EVERY), tmp_path / "m")
    batch = replayed(tmp_path / "m")
    layer = {"hidden": 2, "hidden:layer=1": 1, "hidden:layer=0": 0}[image]
    assert batch.layer == layer
    assert blocks_run(model, batch) == [*range(layer, 2)], "none below the layer"
    found, expected = model.embed(batch), model.embed(seen(model))
    torch.testing.assert_close(found.image.values, expected.image.values, **CLOSE)
    torch.testing.assert_close(found.prefix, expected.prefix, **CLOSE)
    assert torch.equal(found.image.positions, expected.image.positions)
    torch.testing.assert_close(model(batch), model.encode(expected), **CLOSE)


@pytest.mark.parametrize("kind", ["joint", "vit"])
def test_kept_tokens_are_those_of_all_patches_and_stand_in_their_places(tmp_path, fresh, kind):
    model = fresh(kind)
    bound = bound_of("hidden", model, codec="lossless")
    stored_in(bound, tmp_path / "m")
    keep = bound.masking(images_of(), TEXTS, LABELS).keep["image"]
    every = model.embed(seen(model))
    for row, found in enumerate(rows_of(replayed(tmp_path / "m"))):
        kept = np.flatnonzero(keep[row])
        assert len(kept) == 8
        np.testing.assert_array_equal(found["image"][0], kept)
        np.testing.assert_allclose(found["image"][1], every.image.values[row, kept], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found["prefix"][1], every.prefix[row], rtol=1e-4, atol=1e-4)


def test_one_more_token_stands_for_those_that_are_dropped(fresh):
    model = fresh()
    bound = bound_of("hidden, fused", model)
    masked = bound.masking(images_of(), TEXTS, LABELS)
    every = model.embed(seen(model)).image.values
    for row, exemplar in enumerate(made(bound)):
        keep, scores = masked.keep["image"][row], masked.maps.scores["image"][row]
        best = int(np.where(keep, -np.inf, scores).argmax())
        places = exemplar.tokens["hidden"].positions - model.num_prefix
        assert places[places >= 0].tolist() == sorted([*np.flatnonzero(keep), best])
        mean = np.average(every[row][~keep], axis=0, weights=scores[~keep].clip(0))
        np.testing.assert_allclose(exemplar.tokens["hidden"].values[places == best][0], mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", ["all", "keep_ratio:ratio=0.5", "none"])
def test_texts_are_stored_as_ids_beside_hidden_tokens(tmp_path, fresh, text):
    model = fresh()
    bound = bound_of("hidden", model, text=text)
    stored_in(bound, tmp_path / "m")
    batch = replayed(tmp_path / "m")
    assert {*batch.tokens} == {"prefix", "image"} | ({"text"} if text != "none" else set())
    assert model(batch).isfinite().all()
    if text == "all":
        ids = seen(model).tokens["text"]
        assert torch.equal(batch.tokens["text"].values, ids.values)
        assert torch.equal(batch.tokens["text"].valid, ids.valid)
    if text == "none":
        assert model.embed(batch).text.valid.shape == (4, 0)


def test_what_is_known_of_a_batch_makes_the_same_exemplars_without_a_pass(fresh):
    model = fresh()
    bound = bound_of("hidden", model, codec="lossless")
    assert bound.masking.is_fixed
    expected, trunk = made(bound), model.embed(seen(model))
    scores = bound.masking(images_of(), TEXTS, LABELS).maps.scores["image"]
    passes = []
    hook = model.vision.parts.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    found = bound.make(images_of(), TEXTS, LABELS, hidden=trunk, scores=scores)
    assert passes == []
    pruned = bound.pruned(trunk, scores)
    again = bound.make(images_of(), TEXTS, LABELS, hidden=pruned, scores=scores)
    hook.remove()
    for one in (found, again):
        for exemplar, other in zip(one, expected, strict=True):
            np.testing.assert_array_equal(exemplar.tokens["hidden"].positions, other.tokens["hidden"].positions)
            np.testing.assert_allclose(exemplar.tokens["hidden"].values, other.tokens["hidden"].values, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes", "kind", "message"),
    [
        ("hidden", {"image": "hidden:layer=3"}, "joint", r"image 'hidden:layer=3': the blocks from 2 on are tuned"),
        ("hidden", {}, "vilt", "Vilt has no tower for images alone; use joint, vit, dinov2, clip or siglip, or a"),
        ("hidden", {}, "bert", "stores images, and this learner sees none"),
        ("hidden", {"codec": "patch_jpeg"}, "joint", "patch_jpeg"),
        ("hidden", {"codec": "pq:parts=7"}, "joint", "parts must divide 32 values, got 7"),
        ("hidden", {"scorer": "cls_attention:layers=[3]"}, "joint", r"layers \[3\] do not exist: the model has 3"),
        ("hidden", {"keep": "top_k:k=25"}, "joint", r"k must be an integer of 1\.\.24, got 25"),
        ("features", {"codec": "patch_jpeg"}, "joint", "patch_jpeg"),
        ("features", {"codec": "pq:parts=7"}, "joint", "parts must divide 96 values, got 7; use parts=6"),
        ("features", {"extras": ["features"]}, "joint", "stores features already; leave them out of the extras"),
        ("masked", {"codec": "pq:parts=8"}, "joint", "takes float16, float32 or float64"),
    ],
    ids=str,
)
def test_what_does_not_fit_a_backbone_is_told_when_the_recipe_is_bound(fresh, name, changes, kind, message):
    with pytest.raises(ExmemError, match=message):
        bound_of(name, fresh(kind), **changes)


@pytest.mark.parametrize("name", ["hidden", "features"])
def test_plain_images_have_neither_hidden_tokens_nor_features(name):
    recipe = Recipe.of(name) if name == "features" else Recipe.of(name).refined(scorer="centre")
    with pytest.raises(SchemaError, match="stores what a backbone makes of images; bind it to one"):
        BoundRecipe(recipe, PlainImages(size=32, patch=8))


@pytest.mark.parametrize("modalities", [("image", "text"), ("image",), ("text",)], ids="+".join)
def test_features_come_out_as_the_learner_makes_them(tmp_path, fresh, modalities):
    model = fresh()
    model.restrict(*modalities)
    learner = Learner(model, Lora(rank=2, alpha=2))
    stored_in(bound_of("features", model), tmp_path / "m")
    batch = replayed(tmp_path / "m")
    assert {*batch.tokens} == {"features"}
    assert batch.layer is None
    found = batch.tokens["features"]
    assert (found.values.shape, found.values.dtype) == ((4, 1, model.feature_dim), torch.float32)
    with torch.no_grad():
        expected = learner.features(model.embed(seen(model)))
    assert torch.equal(found.values[:, 0], expected)
    assert batch.labels.tolist() == LABELS.tolist()


def test_features_that_are_known_are_stored_without_a_pass(tmp_path, fresh):
    model = fresh()
    known = np.random.default_rng(0).standard_normal((4, model.feature_dim), np.float32)
    passes = []
    model.vision.parts.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    exemplars = bound_of("features", model).make(images_of(), TEXTS, LABELS, features=known)
    assert passes == []
    for row, exemplar in enumerate(exemplars):
        np.testing.assert_array_equal(exemplar.tokens["features"].values, known[row : row + 1])


TRAINED = [("hidden", {"codec": "pq:parts=8", "keep": "top_k:k=24"}), ("features", {"codec": "pq:parts=8"})]


def samples_of(bound):
    """As many exemplars as the codec is trained on: 11 of 25 tokens, or 256 features."""
    images = images_of(count=11)
    if bound.recipe.level == "features":
        noise = np.random.default_rng(0).integers(0, 9, (256, *images.shape[1:]), np.uint8)
        images = images[np.arange(256) % 11] // 2 + noise
    return bound.make(images, ["leaf"] * len(images), [0] * len(images))


@pytest.mark.parametrize(("name", "changes"), TRAINED, ids=str)
def test_a_codec_is_trained_on_samples_its_tables_are_stored_once_and_count(tmp_path, fresh, name, changes):
    model = fresh()
    bound = bound_of(name, model, **changes)
    assert bound.is_trained
    with pytest.raises(SchemaError, match="codec 'pq' is trained: give samples=, exemplars of this recipe"):
        bound.create_memory(tmp_path / "m", max_bytes="1MB")
    with pytest.raises(CodecError, match="training needs 256 finite tokens or more, got"):
        bound.create_memory(tmp_path / "m", max_bytes="1MB", samples=samples_of(bound)[:4])
    assert not (tmp_path / "m").exists()
    place = stored_in(bound, tmp_path / "m", samples=samples_of(bound))
    with ExemplarMemory.open(place) as memory:
        assert memory.used_bytes == folder_bytes(place)
        (tables,) = {spec.codec["codebooks"] for name, spec in memory.schema.modalities.items() if name != "text"}
        holding = [file for file in place.rglob("*") if file.is_file() and tables.encode() in file.read_bytes()]
        assert len(holding) == 1
        assert memory.used_bytes > len(tables)
        assert Restorer.of(memory) == bound.restore
        stored = TensorBatch.from_numpy(memory.read(memory.slots))
        restored = Restorer.of(memory)(stored)
    own = "features" if name == "features" else "image"
    assert torch.equal(restored.tokens[own].values, replayed(place).tokens[own].values)
    if name == "hidden":
        assert model(restored).isfinite().all()
        assert restored.tokens["image"].valid.sum(1).tolist() == [LENGTH] * 4
        exact, found = model.embed(seen(model)).image.values, restored.tokens["image"].values
        assert (found - exact).pow(2).mean() < 0.5 * exact.var(), "nearer than a mean"


def test_the_same_samples_train_the_same_tables(tmp_path, fresh):
    bound = bound_of("hidden", fresh(), codec="pq:parts=8", keep="top_k:k=24")
    samples = samples_of(bound)
    assert bound.schema_for(samples) == bound.schema_for(samples)


# Each pair: who made the memory, and who checks it.
HIDDEN = [("hidden", {}), ("hidden", {"image": "hidden:layer=0"})]


def checked(bound, place):
    """Check a memory; warnings are errors."""
    with ExemplarMemory.open(place) as memory:
        bound.check(memory)


@pytest.mark.parametrize(("name", "changes"), [*HIDDEN, ("features", {}), ("masked", {}), ("text", {})], ids=str)
def test_a_memory_goes_with_the_backbone_that_made_it_loaded_again(tmp_path, fresh, name, changes):
    place = stored_in(bound_of(name, fresh(), **changes), tmp_path / "m")
    checked(bound_of(name, fresh(), **changes), place)


def shake(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)


@pytest.mark.parametrize(("name", "changes"), HIDDEN, ids=str)
def test_hidden_tokens_of_other_weights_below_the_layer_are_refused(tmp_path, fresh, name, changes):
    place = stored_in(bound_of(name, fresh(), **changes), tmp_path / "m")
    model = fresh()
    shake(model.vision.parts.embeddings)
    with pytest.raises(SchemaError, match="holds hidden tokens that other weights made than those below layer"):
        checked(bound_of(name, model, **changes), place)


def test_weights_above_the_layer_matter_to_features_alone(tmp_path, fresh):
    places = {name: stored_in(bound_of(name, fresh()), tmp_path / name) for name in ("hidden", "features", "masked")}
    model = fresh()
    shake(model.vision.parts.blocks[2])
    for name in ("hidden", "masked"):
        checked(bound_of(name, model), places[name])
    with pytest.warns(DataWarning, match="holds features of a backbone that was tuned since: they are stale"):
        checked(bound_of("features", model), places["features"])


def test_a_backbone_that_tunes_more_blocks_cannot_replay_what_is_above_them(tmp_path, fresh):
    place = stored_in(bound_of("hidden", fresh(blocks=1)), tmp_path / "m")
    model = fresh(blocks=2)
    with pytest.raises(SchemaError, match="use the recipe and the backbone that made them"):
        checked(bound_of("hidden", model), place)
    with pytest.raises(SchemaError, match="they are stale; use a backbone that tunes fewer blocks"):
        model.embed(replayed(place))


@pytest.mark.parametrize("name", ["hidden", "features"])
def test_adapters_that_have_learnt_nothing_yet_are_no_tuning_and_those_that_have_are(tmp_path, fresh, name):
    place, model = stored_in(bound_of(name, fresh()), tmp_path / "m"), fresh()
    Learner(model, Lora(rank=2, alpha=2))
    bound = bound_of(name, model)
    checked(bound, place)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.add_(0.1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        checked(bound, place)
    assert [warning.category for warning in told] == ([DataWarning] if name == "features" else [])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("augment", [None, TokenDropout(ratio=0.5), TextExchange(probability=1.0)], ids=str)
def test_workers_and_augmentations_of_tokens_leave_layer_and_prefix_as_they_are(tmp_path, fresh, augment, workers):
    model = fresh()
    place = stored_in(bound_of("hidden", model), tmp_path / "m")
    (plain,) = replay_loader(place, batch=4, seed=1)
    (batch,) = replay_loader(place, batch=4, seed=1, augment=augment, num_workers=workers)
    assert batch.layer == 2
    assert torch.equal(batch.tokens["prefix"].values, plain.tokens["prefix"].values)
    dropped = isinstance(augment, TokenDropout)
    assert batch.tokens["image"].valid.sum(1).tolist() == [4 if dropped else 8] * 4
    assert model(batch).isfinite().all()
    with pytest.raises(SchemaError, match="holds hidden tokens, not pixels"):
        batch.images()


@pytest.mark.parametrize("name", ["hidden", "features"])
def test_what_has_no_effect_on_what_is_stored_is_refused(tmp_path, fresh, name):
    place = stored_in(bound_of(name, fresh()), tmp_path / "m")
    with pytest.raises(SchemaError, match="fill 'mean' has no effect"):
        replay_loader(place, batch=4, fill="mean")
    if name == "features":
        with pytest.raises(SchemaError, match="augmentation has no effect"):
            replay_loader(place, batch=4, augment=TokenDropout(ratio=0.5))


def test_samples_and_memories_are_looked_at(tmp_path, fresh):
    bound, other = bound_of("hidden", fresh()), bound_of("masked", fresh())
    for wrong in (made(other), [1, 2], "ab"):
        with pytest.raises(InvalidExemplarError, match="expected"):
            bound_of("hidden", fresh(), codec="pq:parts=8,centres=16").schema_for(wrong)
    for wrong in (None, "folder"):
        with pytest.raises(SchemaError, match="expected an open ExemplarMemory"):
            bound.check(wrong)
    with pytest.raises(SchemaError, match="measures patches, not hidden tokens"):
        bound_of("hidden", fresh(), keep="fit_bytes:max_bytes=300")


@pytest.mark.parametrize(("name", "changes"), [("hidden", {}), ("features", {}), *TRAINED], ids=str)
def test_the_record_of_layer_weights_and_tables_stays_through_every_upkeep(tmp_path, fresh, name, changes):
    bound = bound_of(name, fresh(), **changes)
    samples = samples_of(bound) if bound.is_trained else ()
    place = stored_in(bound, tmp_path / "m", samples=samples)
    with ExemplarMemory.open(place, mode="r+") as memory:
        schema, record = memory.schema, dict(memory.schema.recipe)
        memory.evict([0])
        memory.compact()
        assert (memory.schema, dict(memory.schema.recipe)) == (schema, record)
    repair(place)
    with ExemplarMemory.open(place) as memory:
        export_folder(memory, tmp_path / "out")
        kept = TensorBatch.from_numpy(memory.read(memory.slots))
    with import_folder(tmp_path / "out", tmp_path / "again") as memory:
        assert memory.schema == schema
        assert Restorer.of(memory) == bound.restore
        found = TensorBatch.from_numpy(memory.read(memory.slots))
        bound.check(memory)
    for own, tokens in kept.tokens.items():
        assert torch.equal(found.tokens[own].values, tokens.values)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": [1]},
        {"weights": 3},
        {"more": 1},
        *(
            {"frame": frame}
            for frame in ({"layer": True}, {"layer": -1}, {"width": 16}, {"prefix": 2}, {"width": None})
        ),
        {"frame": {"layer": None}},
        {"image": {"name": "hidden", "layer": 1}},
    ],
    ids=str,
)
def test_a_record_of_hidden_tokens_that_does_not_fit_is_an_error_and_no_crash(tmp_path, fresh, changes):
    bound = bound_of("hidden", fresh())
    document = json.loads(json.dumps(bound.schema_for().recipe)) | {"weights": changes.get("weights", "00")}
    for name, value in changes.get("frame", {}).items():
        document["frame"].pop(name, None)
        document["frame"] |= {} if value is None else {name: value}
    document["recipe"]["image"] = changes.get("image", document["recipe"]["image"])
    document |= {"more": 1} if "more" in changes else {}
    schema = Schema(bound.schema.modalities, {}, document)
    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes="1MB", durable=False) as memory:
        memory.add(made(bound))
        memory.commit()
        with pytest.raises(SchemaError, match="records a recipe that does not fit this version"):
            Restorer.of(memory)
        with contextlib.suppress(SchemaError):
            bound.check(memory)


@pytest.mark.parametrize("level", ["hidden", "features"])
def test_a_data_set_has_a_field_of_what_is_stored_as_no_pixels(tmp_path, fresh, level):
    bound = bound_of(level, fresh(), codec="lossless")
    stored_in(bound, tmp_path / "m")
    dataset, memory = (
        ReplayDataset(tmp_path / "m", fields=(level, f"{level}_valid")),
        ExemplarMemory.open(tmp_path / "m"),
    )
    spec = memory.schema.modalities[level]
    for slot in range(4):
        (values, valid), tokens = dataset[slot], memory.read([slot]).tokens[level]
        assert np.flatnonzero(valid).tolist() == tokens.positions[0][tokens.valid[0]].tolist()
        assert values.shape == (spec.shape if level == "features" else (spec.positions, *spec.shape))
        dense = values[None] if level == "features" else values
        np.testing.assert_array_equal(dense[valid], tokens.values[0][tokens.valid[0]])
        assert not dense[~valid].any()
    with pytest.raises(SchemaError, match=f"no field .*{level}"):
        ReplayDataset(tmp_path / "m", fields=("image",))


@pytest.mark.parametrize("augment", [Flip(grids={"image": (4, 6)}), ColourJitter()])
def test_an_augmentation_of_pixels_refuses_hidden_tokens(tmp_path, fresh, augment):
    stored_in(bound_of("hidden", fresh(), codec="lossless"), tmp_path / "m")
    with pytest.raises(SchemaError, match="changes pixels, and these are hidden tokens; leave it out"):
        next(iter(replay_loader(tmp_path / "m", batch=2, augment=augment)))


def test_an_option_that_a_trained_codec_refuses_is_a_wrong_recipe(fresh):
    with pytest.raises(SchemaError, match=r"recipe 'features': exmem\.scalar: bits must be 1, 2, 4 or 8, got 3"):
        bound_of("features", fresh(), codec="scalar:bits=3")


@pytest.mark.parametrize("level", ["hidden", "features"])
def test_what_is_made_is_the_same_in_training_mode_which_stays(fresh, level):
    model = fresh()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    bound = bound_of(level, model, codec="lossless")
    expected = made(bound)
    for part in model.modules():
        part.training = True
    found = made(bound)
    assert all(part.training for part in model.modules())
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.tokens[level].positions, other.tokens[level].positions)
        np.testing.assert_array_equal(one.tokens[level].values, other.tokens[level].values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["joint", "vit"])
def test_hidden_tokens_are_replayed_in_the_dtype_of_the_weights(tmp_path, fresh, kind, dtype):
    model = fresh(kind).to(dtype)
    stored_in(bound_of("hidden", model, codec="lossless"), tmp_path / "m")
    assert model(replayed(tmp_path / "m")).dtype == dtype


def test_a_scorer_that_needs_gradients_scores_hidden_tokens(fresh):
    (one, *_) = made(bound_of("hidden", fresh("vit"), codec="lossless", scorer="grad_attention"))
    assert np.isfinite(one.tokens["hidden"].values).all()


def test_a_codec_that_is_none_of_the_recipe_and_scores_of_another_shape_are_refused(tmp_path, fresh):
    bound = bound_of("features", fresh(), codec="scalar:bits=4")
    other = bound_of("features", fresh(), codec="scalar:bits=8")
    samples = made(bound)
    config = other.schema_for(samples).modalities["features"].codec
    for wrong in (config, {"id": "raw"}):
        with pytest.raises(SchemaError, match=r"codec: expected what .*'bits': 4.* was trained to"):
            bound.create_memory(tmp_path / "m", max_bytes="1MB", samples=samples, codec=wrong)
    hidden = bound_of("hidden", fresh(), codec="lossless")
    states = hidden.backbone.embed(seen(hidden.backbone))
    with pytest.raises(SchemaError, match=r"scores: expected shape \(4, 24\), got \(3, 24\)"):
        hidden.pruned(states, np.zeros((3, 24), np.float32))


def test_features_of_other_normalisation_or_shorter_texts_are_stale(tmp_path, fresh):
    stored_in(bound_of("features", fresh(), codec="lossless"), tmp_path / "m")
    other = fresh()
    other.pixel_mean += 0.1
    with ExemplarMemory.open(tmp_path / "m") as memory, pytest.warns(DataWarning, match="stale"):
        bound_of("features", other, codec="lossless").check(memory)
