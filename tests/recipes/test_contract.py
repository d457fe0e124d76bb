"""What every recipe promises, on backbones of images, of texts and of both."""

from typing import get_args

import numpy as np
import pytest
import torch
from exmem.train.making import make_recipe

from exmem import ExemplarMemory
from exmem.codecs import get_codec
from exmem.errors import SchemaError
from exmem.recipes import Recipe
from exmem.tokens.tensors import TensorBatch
from exmem.train.config import RecipeName
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
    config,
    fits,
    made,
    psnr,
    recipe_of,
    restored,
    rows_of,
    smooth,
)

IMAGES = [name for name in RECIPES if name != "text"]


@pytest.fixture(params=FORMS)
def model(request, backbone):
    return backbone(request.param)


@pytest.fixture(params=RECIPES)
def name(request):
    return request.param


def recipe_or_error(name, model, **more):
    """The recipe, or None after the error that says why a backbone cannot have it."""
    if fits(name, model):
        return recipe_of(name, model, **more)
    message = "sees text; choose another" if name == "text" else "stores pictures, and this learner sees none; use"
    with pytest.raises(SchemaError, match=message):
        recipe_of(name, model, **more)
    return None


def test_every_recipe_of_a_configuration_is_tried():
    assert {own.get("recipe", name) for name, own in RECIPES.items()} == {*get_args(RecipeName)} - {"none"}
    assert make_recipe(config(recipe="none"), None) is None


def test_exemplars_fit_the_schema_and_come_back_from_a_memory_as_tokens_of_the_backbone(tmp_path, name, model):
    recipe: Recipe | None = recipe_or_error(name, model)
    if recipe is None:
        return
    exemplars = made(recipe)
    assert [one.label for one in exemplars] == LABELS.tolist()
    assert [one.priority for one in exemplars] == PRIORITIES.tolist()
    with ExemplarMemory.create(tmp_path / "m", schema=recipe.schema(), max_bytes="1MB", durable=False) as memory:
        report = memory.add(exemplars)
        memory.commit()
        stored = memory.read(report.slots)
    for found, expected in zip(stored, exemplars, strict=True):
        assert_same(found, expected, exact=name in {"raw", "text"})
    found = recipe.restore(TensorBatch.from_numpy(stored))
    specs = model.token_specs()
    assert {*found.tokens} - {"thumbnail"} == ({"text"} if name == "text" else {*specs})
    for own, tokens in found.tokens.items():
        assert_packed(tokens)
        if own in specs:
            assert tuple(tokens.values.shape[2:]) == specs[own].shape
            assert tokens.values.dtype == getattr(torch, specs[own].dtype)
            assert int(tokens.positions.max()) < specs[own].positions
    assert found.labels.tolist() == LABELS.tolist()
    assert model(found).isfinite().all()


def test_the_same_pictures_make_the_same_exemplars_alone_and_in_a_batch(name, model):
    recipe = recipe_or_error(name, model)
    if recipe is None:
        return
    together = made(recipe)
    for found, expected in zip(made(recipe), together, strict=True):
        assert_same(found, expected)
    whole = rows_of(restored(recipe, together))
    for row in range(len(TEXTS)):
        (alone,) = made(recipe, rows=slice(row, row + 1))
        assert_same(alone, together[row])
        for own, (positions, values) in rows_of(restored(recipe, [alone]))[0].items():
            np.testing.assert_array_equal(positions, whole[row][own][0])
            np.testing.assert_array_equal(values, whole[row][own][1], err_msg=own)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("form", ["joint", "vit"])
def test_all_positions_come_back_or_exactly_those_that_were_kept(name, form, backbone):
    recipe = recipe_of(name, backbone(form))
    exemplars = made(recipe)
    for own, found in zip(exemplars, rows_of(restored(recipe, exemplars)), strict=True):
        expected = {*range(LENGTH)}
        if name in PARTIAL:
            pieces = [tokens.positions for of, tokens in own.tokens.items() if of not in {"text", "thumbnail"}]
            expected = {*np.concatenate(pieces).tolist()}
            assert 0 < len(expected) < LENGTH
            assert sum(map(len, pieces)) == len(expected), "no position twice"
        assert found["image"][0].tolist() == sorted(expected)


# Bounds in dB. JPEG of quality 90 keeps brightness to steps of about 3 (38 dB) and colour at half the resolution, which
# shows at the edges of a flower. The pictures hold nothing finer than four pixels, so that a quarter of the side loses
# what two cubic filters take from the sharpest edges. With its patches one place off, a picture is at less than 15 dB.
CLOSE = {"raw": np.inf, "jpeg": 32, "masked": 32, "masked, thumbnail": 32, "masked, fit_bytes": 32}


@pytest.mark.parametrize("name", IMAGES)
def test_what_comes_back_is_close_to_the_picture(name, backbone, tmp_path):
    recipe = recipe_of(name, backbone("joint"), qualities=(90,), coarse=2)
    with ExemplarMemory.create(tmp_path / "m", schema=recipe.schema(), max_bytes="1MB", durable=False) as memory:
        slots = memory.add(made(recipe, smooth())).slots
        memory.commit()
        found = recipe.restore(TensorBatch.from_numpy(memory.read(slots)))
    every = backbone("joint").tokens(smooth(), TEXTS).tokens["image"].values
    for row, tokens in enumerate(rows_of(found)):
        positions, values = tokens["image"]
        assert psnr(values, every[row, positions]) >= CLOSE.get(name, 25)
        assert psnr(np.roll(values, 1, 0), every[row, positions]) < 15


@pytest.mark.parametrize("name", IMAGES)
def test_without_a_text_rule_no_text_is_stored(name, backbone):
    recipe = recipe_of(name, backbone("joint"), text_rule="none")
    assert "text" not in recipe.schema().modalities
    assert all("text" not in one.tokens for one in made(recipe))
    assert "text" not in restored(recipe, made(recipe)).tokens


@pytest.mark.parametrize("name", ["masked", "foveated", "foveated_picture", "rate_aware", "third_jpeg"])
def test_square_and_upright_pictures_come_back_in_their_places(name, written):
    for size in ((32, 32), (48, 32)):
        model = load("vit", written["vit"], size=size)
        recipe = recipe_of(name, model, qualities=(90,), coarse=2)
        exemplars = made(recipe, smooth(size))
        every = model.tokens(smooth(size), TEXTS).tokens["image"].values
        for row, tokens in enumerate(rows_of(restored(recipe, exemplars))):
            positions, values = tokens["image"]
            assert psnr(values, every[row, positions]) >= 25


@pytest.mark.parametrize("name", ["jpeg", "masked", "rate_aware"])
def test_payloads_are_jpeg_of_the_configured_quality(name, backbone):
    recipe = recipe_of(name, backbone("vit"), quality=40, qualities=(40,))
    for own, spec in recipe.schema().modalities.items():
        assert get_codec(spec.codec, shape=spec.shape, dtype=spec.dtype).quality == 40, own
