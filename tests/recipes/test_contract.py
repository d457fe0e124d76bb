"""What every recipe promises, on backbones of images, of texts and of both."""

import numpy as np
import pytest
import torch

from exmem.codecs import get_codec
from exmem.errors import SchemaError
from exmem.recipes import FORMS as IMAGE_FORMS
from exmem.recipes import RECIPES as NAMED
from exmem.recipes import BoundRecipe, Recipe
from exmem.tokens import TokenSpec
from exmem.tokens.tensors import TensorBatch
from tests.backbones.models import load
from tests.exemplars import assert_same
from tests.recipes.cases import (
    FORMS,
    LABELS,
    LENGTH,
    PARTIAL,
    PRIORITIES,
    RECIPES,
    TEXTS,
    assert_packed,
    bound_of,
    fits,
    made,
    psnr,
    recipe_of,
    restored,
    rows_of,
    sharpest,
    smooth,
)

IMAGES = [name for name in RECIPES if name != "text"]
PIXELS = [name for name in RECIPES if recipe_of(name).level == "pixels"]


@pytest.fixture(params=FORMS)
def model(request, backbone):
    return backbone(request.param)


@pytest.fixture(params=RECIPES)
def name(request):
    return request.param


def bound_or_error(name, model, **more):
    """The recipe bound, or None after the error that says why a backbone cannot have it."""
    if fits(name, model):
        return bound_of(name, model, **more)
    message = "texts alone, and this learner sees none; use" if name == "text" else "stores images, and this learner"
    if recipe_of(name).level == "hidden" and "image" in model.token_specs():
        message = "stores hidden tokens of images, and Vilt has no tower for images alone; use joint, vit"
    with pytest.raises(SchemaError, match=message):
        bound_of(name, model, **more)
    return None


def test_every_named_recipe_and_every_image_form_is_tried():
    assert {name.split(",")[0] for name in RECIPES} == {*NAMED} - {"none"}
    assert {recipe_of(name).image.name for name in RECIPES} == {*IMAGE_FORMS, "none"}


def test_a_recipe_that_stores_nothing_is_bound_to_nothing(backbone):
    assert Recipe.of("none").is_empty
    with pytest.raises(SchemaError, match="'none' stores nothing; choose one that stores an image or a text"):
        BoundRecipe(Recipe.of("none"), backbone("joint"))


@pytest.mark.one_in(3)
def test_exemplars_fit_the_schema_and_come_back_from_a_memory_as_tokens_of_the_backbone(tmp_path, name, model):
    bound = bound_or_error(name, model)
    if bound is None:
        return
    exemplars = made(bound)
    assert [one.label for one in exemplars] == LABELS.tolist()
    assert [one.priority for one in exemplars] == PRIORITIES.tolist()
    with bound.create_memory(tmp_path / "m", max_bytes="1MB", durable=False) as memory:
        report = memory.add(exemplars)
        memory.commit()
        stored = memory.read(report.slots)
    for one, expected in zip(stored, exemplars, strict=True):
        assert_same(one, expected, exact=name in {"raw", "text", "features"})
    found = bound.restore(TensorBatch.from_numpy(stored))
    specs, width = model.token_specs(), {}
    if bound.recipe.level == "hidden":
        width = {"image": (model.width,), "prefix": (model.width,)}
        specs |= {"prefix": specs["image"]}
    if bound.recipe.level == "features":
        specs = {"features": TokenSpec(positions=1, shape=(model.feature_dim,), dtype="float32")}
    assert {*found.tokens} - {"thumbnail"} == ({"text"} if name == "text" else {*specs})
    for own, tokens in found.tokens.items():
        assert_packed(tokens)
        if own in specs:
            assert tuple(tokens.values.shape[2:]) == width.get(own, specs[own].shape)
            assert tokens.values.dtype == (torch.float32 if own in width else getattr(torch, specs[own].dtype))
            assert int(tokens.positions.max()) < specs[own].positions
    assert found.labels.tolist() == LABELS.tolist()
    if bound.recipe.level != "features":
        assert model(found).isfinite().all()


@pytest.mark.one_in(3)
def test_the_same_images_make_the_same_exemplars_alone_and_in_a_batch(name, model):
    bound = bound_or_error(name, model)
    if bound is None:
        return
    together = made(bound)
    for found, expected in zip(made(bound), together, strict=True):
        assert_same(found, expected)
    whole = rows_of(restored(bound, together))
    near = 1e-4 if bound.recipe.level in {"hidden", "features"} else 0  # sums of another batch in another order
    for row in range(len(TEXTS)):
        (alone,) = made(bound, rows=slice(row, row + 1))
        assert_same(alone, together[row], exact=not near)
        for own, (positions, values) in rows_of(restored(bound, [alone]))[0].items():
            np.testing.assert_array_equal(positions, whole[row][own][0])
            np.testing.assert_allclose(values, whole[row][own][1], rtol=near, atol=near, err_msg=own)


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("form", ["joint", "vit"])
def test_all_positions_come_back_or_exactly_those_that_were_kept(name, form, backbone):
    bound = bound_of(name, backbone(form))
    exemplars = made(bound)
    for own, found in zip(exemplars, rows_of(restored(bound, exemplars)), strict=True):
        expected = {*range(LENGTH)}
        if name in PARTIAL:
            pieces = [tokens.positions for of, tokens in own.tokens.items() if of not in {"text", "thumbnail"}]
            expected = {*np.concatenate(pieces).tolist()}
            assert 0 < len(expected) < LENGTH
            assert sum(map(len, pieces)) == len(expected), "no position twice"
        assert found["image"][0].tolist() == sorted(expected)


# Bounds in dB. JPEG of quality 90 keeps brightness to steps of about 3 (38 dB) and colour at half the resolution, which
# shows at the edges of a flower. The images hold nothing finer than four pixels, so that a quarter of the side loses
# what two cubic filters take from the sharpest edges. With its patches one place off, a image is at less than 15 dB.
CLOSE = {"raw": np.inf, "jpeg": 32, "masked": 32, "masked, thumbnail": 32, "masked, fit_bytes": 32}


@pytest.mark.parametrize("name", PIXELS)
def test_what_comes_back_is_close_to_the_image(name, backbone, tmp_path):
    bound = bound_of(name, backbone("joint"), **sharpest(name))
    with bound.create_memory(tmp_path / "m", max_bytes="1MB", durable=False) as memory:
        slots = memory.add(made(bound, smooth())).slots
        memory.commit()
        found = bound.restore(TensorBatch.from_numpy(memory.read(slots)))
    every = backbone("joint").tokens(smooth(), TEXTS).tokens["image"].values
    for row, tokens in enumerate(rows_of(found)):
        positions, values = tokens["image"]
        assert psnr(values, every[row, positions]) >= CLOSE.get(name, 25)
        assert psnr(np.roll(values, 1, 0), every[row, positions]) < 15


@pytest.mark.parametrize("name", IMAGES)
def test_without_a_text_rule_no_text_is_stored(name, backbone):
    bound = bound_of(name, backbone("joint"), text="none")
    assert "text" not in bound.schema.modalities
    assert all("text" not in one.tokens for one in made(bound))
    assert "text" not in restored(bound, made(bound)).tokens


@pytest.mark.parametrize("name", ["masked", "foveated", "smoothed", "rate_aware", "third_jpeg"])
def test_square_and_upright_images_come_back_in_their_places(name, written):
    for size in ((32, 32), (48, 32)):
        model = load("vit", written["vit"], size=size)
        bound = bound_of(name, model, **sharpest(name))
        exemplars = made(bound, smooth(size))
        every = model.tokens(smooth(size), TEXTS).tokens["image"].values
        for row, tokens in enumerate(rows_of(restored(bound, exemplars))):
            positions, values = tokens["image"]
            assert psnr(values, every[row, positions]) >= 25


@pytest.mark.parametrize("name", ["jpeg", "masked", "rate_aware"])
def test_payloads_are_jpeg_of_the_configured_quality(name, backbone):
    image = {"image": "rate:qualities=[40]"} if name == "rate_aware" else {}
    bound = bound_of(name, backbone("vit"), codec="patch_jpeg:quality=40", **image)
    for own, spec in bound.schema.modalities.items():
        assert get_codec(spec.codec, shape=spec.shape, dtype=spec.dtype).quality == 40, own
