"""Foveated exemplars: who gets which scale, and what the picture in place looks like."""

import numpy as np
import pytest
import torch
from exmem.recipes.scales import patches_at
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exmem.codecs import get_codec
from exmem.errors import SchemaError
from exmem.recipes import FoveatedPicture, FoveatedTokens
from tests.recipes.cases import (
    LABELS,
    LENGTH,
    PATCH,
    PRIORITIES,
    SIZE,
    TEXTS,
    made,
    masking_of,
    pictures,
    restored,
    rows_of,
)

FALLING = np.arange(LENGTH, 0, -1) / LENGTH  # position 0 is best


@pytest.fixture(scope="module")
def model(backbone):
    return backbone("vit")


def tokens_recipe(model, scores, *, scales=(8, 4, 2), shares=(0.5, 0.5), quality=90, **rule):
    return FoveatedTokens(masking_of(model, scores, **rule), scales=scales, shares=shares, quality=quality)


def places(exemplar):
    """Positions by modality."""
    return {name: tokens.positions.tolist() for name, tokens in exemplar.tokens.items()}


def test_the_keep_rule_says_what_is_finest_and_the_rest_goes_down_by_score(model):
    # 24 falling scores: top 4 are finest; of the other 20, a quarter is next, then a half; the rest is dropped.
    recipe = tokens_recipe(model, FALLING, shares=(0.25, 0.5), keep_rule="top_k", k=4)
    found = places(made(recipe, rows=slice(1))[0])
    assert found == {"image": [*range(4)], "image_4": [*range(4, 9)], "image_2": [*range(9, 19)]}
    reversed_ones = places(made(tokens_recipe(model, FALLING[::-1], keep_rule="top_k", k=4), rows=slice(1))[0])
    assert reversed_ones["image"] == [*range(20, 24)]
    assert reversed_ones["image_4"] == [*range(10, 20)]
    assert reversed_ones["image_2"] == [*range(10)]


@given(
    scores=arrays(np.float32, LENGTH, elements=st.floats(0, 1, width=16)),
    kept=st.integers(1, LENGTH),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_each_place_is_held_once_or_dropped_and_shares_are_kept_to(model, scores, kept, shares):
    shares = np.array(shares) / max(1, sum(shares))
    recipe = tokens_recipe(model, scores, shares=shares.tolist(), keep_rule="top_k", k=kept)
    found = places(made(recipe, rows=slice(1))[0])
    held = [place for own in found.values() for place in own]
    assert len(held) == len({*held})
    assert len(found["image"]) == kept
    others = LENGTH - kept
    ends = np.round(np.cumsum(shares) * others)
    assert [len(found["image_4"]), len(found["image_2"])] == np.diff(ends, prepend=0).tolist()
    best = [scores[own].min(initial=np.inf) for own in (found["image"], found["image_4"], found["image_2"])]
    lost = [place for place in range(LENGTH) if place not in held]
    for better, worse in zip(best, (found["image_4"], found["image_2"], lost), strict=True):
        assert scores[worse].max(initial=-np.inf) <= better


def test_the_finest_scale_holds_the_patches_and_coarser_ones_the_smaller_picture(model):
    recipe = tokens_recipe(model, FALLING, keep_rule="keep_ratio", ratio=0.25)
    (own,) = made(recipe, rows=slice(1))
    for name, side in (("image", 8), ("image_4", 4), ("image_2", 2)):
        every = patches_at(pictures()[0], model.grid, side)
        np.testing.assert_array_equal(own.tokens[name].values, every[own.tokens[name].positions])
    positions, values = rows_of(restored(recipe, [own]))[0]["image"]
    assert positions.tolist() == [*range(LENGTH)]
    np.testing.assert_array_equal(values[own.tokens["image"].positions], own.tokens["image"].values)


def test_one_scale_alone_is_masking_and_one_coarse_scale_a_small_picture(model):
    (fine,) = made(tokens_recipe(model, FALLING, scales=(8,), shares=(), keep_rule="top_k", k=5), rows=slice(1))
    assert places(fine) == {"image": [*range(5)]}
    coarse = tokens_recipe(model, FALLING, scales=(2,), shares=(), keep_rule="top_k", k=LENGTH)
    assert [*coarse.schema().modalities] == ["image_2"]
    assert [*rows_of(restored(coarse, made(coarse, rows=slice(1))))[0]] == ["image"]


@pytest.mark.parametrize(
    ("scales", "shares"),
    [((8, 4), ()), ((8, 4), (0.5, 0.5)), ((8, 4), (-0.1,)), ((8, 4), (1.1,)), ((8, 4, 2), (0.7, 0.4)), ((8,), (0.1,))],
)
def test_each_coarser_scale_has_one_share_and_together_they_are_at_most_all(model, scales, shares):
    with pytest.raises(SchemaError, match=rf"one share .* for each of the {len(scales) - 1} coarser scales"):
        tokens_recipe(model, FALLING, scales=scales, shares=shares)
    with pytest.raises(SchemaError, match="coarser scales"):
        tokens_recipe(model, FALLING, scales=(8, 4), shares=(float("nan"),))


def picture_recipe(model, scores, *, size=SIZE, coarse=4, quality=90, **rule):
    return FoveatedPicture(masking_of(model, scores, **rule), size=size, coarse=coarse, quality=quality)


def test_the_picture_is_fine_where_tokens_are_kept_and_smooth_elsewhere(model):
    recipe = picture_recipe(model, FALLING, keep_rule="top_k", k=6)  # the first of four rows of patches
    given_one = pictures()[0]
    found = made(recipe, rows=slice(1))[0].tokens["image"].values[0]
    assert found.shape == (*SIZE, 3)
    np.testing.assert_array_equal(found[:PATCH], given_one[:PATCH])
    steps = [np.abs(np.diff(picture[PATCH:].astype(int), axis=1)).mean() for picture in (found, given_one)]
    assert steps[0] < steps[1] / 2, "less detail below"
    # Averages stay: smoothing moves no brightness from one part of the picture to another.
    np.testing.assert_allclose(found[PATCH:].mean((0, 1)), given_one[PATCH:].mean((0, 1)), atol=2)
    (whole,) = made(picture_recipe(model, FALLING, coarse=1), rows=slice(1))
    np.testing.assert_array_equal(whole.tokens["image"].values[0], given_one)


def test_what_is_kept_lies_over_the_same_part_of_a_smaller_picture(model):
    scores = np.zeros(LENGTH)
    scores[[8, 15]] = 1  # of 4 x 6 patches: (1, 2) and (2, 3)
    for size, side in (((16, 24), 4), ((32, 48), 8), ((12, 18), 3)):
        recipe = picture_recipe(model, scores, size=size, keep_rule="top_k", k=2)
        fine = picture_recipe(model, scores, size=size, coarse=1)
        one, whole = (made(own, rows=slice(1))[0].tokens["image"].values[0] for own in (recipe, fine))
        same = (one == whole).all(2)
        assert same[side : 2 * side, 2 * side : 3 * side].all()
        assert same[2 * side : 3 * side, 3 * side : 4 * side].all()
        assert same.mean() < 0.3


def test_smoothing_saves_bytes(model):
    codec = get_codec({"id": "patch_jpeg", "quality": 75}, shape=(*SIZE, 3), dtype="uint8")
    sizes = []
    for kept in (24, 12, 1):
        (own,) = made(picture_recipe(model, FALLING, keep_rule="top_k", k=kept), rows=slice(1))
        sizes.append(len(codec.encode(own.tokens["image"].values)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.6 * sizes[0]


@pytest.mark.parametrize("coarse", [0, -1, 17])
def test_coarse_must_leave_something(model, coarse):
    with pytest.raises(SchemaError, match=r"coarse must be in 1\.\.16 .* got"):
        picture_recipe(model, FALLING, size=(16, 24), coarse=coarse)


def test_words_that_the_text_rule_keeps_are_stored(backbone):
    masking = masking_of(backbone("joint"), FALLING, text_rule="lost_patches")
    masked = masking(pictures(), TEXTS, LABELS)
    recipe = FoveatedPicture(masking, size=(16, 24), coarse=2, quality=90)
    for row, own in enumerate(recipe.make(pictures(), TEXTS, LABELS, PRIORITIES)):
        assert own.tokens["text"].positions.tolist() == np.flatnonzero(masked.keep["text"][row]).tolist()
        words = torch.from_numpy(masked.tokens.tokens["text"].values[row])
        assert own.tokens["text"].values.tolist() == words[own.tokens["text"].positions].tolist()
