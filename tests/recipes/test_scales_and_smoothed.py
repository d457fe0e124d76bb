"""Several scales and smoothed images: who gets which scale, and what an image in place looks like."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exmem.codecs import get_codec
from exmem.errors import SchemaError
from exmem.recipes import Frame, Recipe
from exmem.recipes.forms.composing import patches_at
from exmem.recipes.forms.scaled import part_of_size
from tests.recipes.cases import (
    LABELS,
    LENGTH,
    PATCH,
    PRIORITIES,
    SIZE,
    TEXTS,
    bound_of,
    images_of,
    made,
    restored,
    rows_of,
    scored,
)

FALLING = np.arange(LENGTH, 0, -1) / LENGTH  # position 0 is best


@pytest.fixture(scope="module")
def model(backbone):
    return backbone("vit")


def scales_of(model, scores, *, factors=(1, 2, 4), shares=(0.5, 0.5), keep="mean_threshold"):
    image = {"name": "scales", "factors": factors, "shares": shares}
    return scored(bound_of("foveated", model, image=image, keep=keep), scores)


def places(exemplar):
    """Positions by modality."""
    return {name: tokens.positions.tolist() for name, tokens in exemplar.tokens.items()}


def test_the_keep_rule_says_what_is_finest_and_the_rest_goes_down_by_score(model):
    # 24 falling scores: top 4 are finest; of the other 20, a quarter is next, then a half; the rest is dropped.
    bound = scales_of(model, FALLING, shares=(0.25, 0.5), keep="top_k:k=4")
    found = places(made(bound, rows=slice(1))[0])
    assert found == {"image": [*range(4)], "image_4": [*range(4, 9)], "image_2": [*range(9, 19)]}
    reversed_ones = places(made(scales_of(model, FALLING[::-1], keep="top_k:k=4"), rows=slice(1))[0])
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
    bound = scales_of(model, scores, shares=shares.tolist(), keep=f"top_k:k={kept}")
    found = places(made(bound, rows=slice(1))[0])
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


def test_the_finest_scale_holds_the_patches_and_coarser_ones_the_smaller_image(model):
    bound = scales_of(model, FALLING, keep="keep_ratio:ratio=0.25")
    (own,) = made(bound, rows=slice(1))
    for name, side in (("image", 8), ("image_4", 4), ("image_2", 2)):
        every = patches_at(images_of()[0], model.grid, side)
        np.testing.assert_array_equal(own.tokens[name].values, every[own.tokens[name].positions])
    positions, values = rows_of(restored(bound, [own]))[0]["image"]
    assert positions.tolist() == [*range(LENGTH)]
    np.testing.assert_array_equal(values[own.tokens["image"].positions], own.tokens["image"].values)


def test_one_scale_alone_is_masking_and_one_coarse_scale_a_small_image(model):
    (fine,) = made(scales_of(model, FALLING, factors=(1,), shares=(), keep="top_k:k=5"), rows=slice(1))
    assert places(fine) == {"image": [*range(5)]}
    coarse = scales_of(model, FALLING, factors=(4,), shares=(), keep=f"top_k:k={LENGTH}")
    assert [*coarse.schema.modalities] == ["image_2"]
    assert [*rows_of(restored(coarse, made(coarse, rows=slice(1))))[0]] == ["image"]


@pytest.mark.parametrize(
    ("factors", "shares"),
    [
        ((1, 2), ()),
        ((1, 2), (0.5, 0.5)),
        ((1, 2), (-0.1,)),
        ((1, 2), (1.1,)),
        ((1, 2, 4), (0.7, 0.4)),
        ((1,), (0.1,)),
        ((1, 2), (float("nan"),)),
    ],
)
def test_each_coarser_scale_has_one_share_and_together_they_are_at_most_all(factors, shares):
    with pytest.raises(SchemaError, match=rf"one share .* for each of the {len(factors) - 1} coarser scales"):
        Recipe(image={"name": "scales", "factors": factors, "shares": shares})


def smoothed_of(model, scores, *, divisor=1, coarse=4, keep="mean_threshold"):
    return scored(bound_of("smoothed", model, image=f"smoothed:divisor={divisor},coarse={coarse}", keep=keep), scores)


def test_the_image_is_fine_where_tokens_are_kept_and_smooth_elsewhere(model):
    bound = smoothed_of(model, FALLING, keep="top_k:k=6")  # the first of four rows of patches
    given_one = images_of()[0]
    found = made(bound, rows=slice(1))[0].tokens["image"].values[0]
    assert found.shape == (*SIZE, 3)
    np.testing.assert_array_equal(found[:PATCH], given_one[:PATCH])
    steps = [np.abs(np.diff(image[PATCH:].astype(int), axis=1)).mean() for image in (found, given_one)]
    assert steps[0] < steps[1] / 2, "less detail below"
    # Averages stay: smoothing moves no brightness from one part of the image to another.
    np.testing.assert_allclose(found[PATCH:].mean((0, 1)), given_one[PATCH:].mean((0, 1)), atol=2)
    (whole,) = made(smoothed_of(model, FALLING, coarse=1), rows=slice(1))
    np.testing.assert_array_equal(whole.tokens["image"].values[0], given_one)


def test_what_is_kept_lies_over_the_same_part_of_a_smaller_image(model):
    scores = np.zeros(LENGTH)
    scores[[8, 15]] = 1  # of 4 x 6 patches: (1, 2) and (2, 3)
    for divisor, side in ((2, 4), (1, 8), (8 / 3, 3)):
        assert part_of_size(Frame(grid=model.grid, patch=model.patch), divisor) == (4 * side, 6 * side)
        smooth = smoothed_of(model, scores, divisor=divisor, coarse=2, keep="top_k:k=2")
        fine = smoothed_of(model, scores, divisor=divisor, coarse=1)
        one, whole = (made(bound, rows=slice(1))[0].tokens["image"].values[0] for bound in (smooth, fine))
        same = (one == whole).all(2)
        assert same[side : 2 * side, 2 * side : 3 * side].all()
        assert same[2 * side : 3 * side, 3 * side : 4 * side].all()
        assert same.mean() < 0.3


def test_smoothing_saves_bytes(model):
    codec = get_codec({"id": "patch_jpeg", "quality": 75}, shape=(*SIZE, 3), dtype="uint8")
    sizes = []
    for kept in (24, 12, 1):
        (own,) = made(smoothed_of(model, FALLING, keep=f"top_k:k={kept}"), rows=slice(1))
        sizes.append(len(codec.encode(own.tokens["image"].values)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.6 * sizes[0]


@pytest.mark.parametrize("coarse", [0, -1, 17])
def test_coarse_must_leave_something(model, coarse):
    with pytest.raises(SchemaError, match=r"coarse must be in 1\.\.16, .* got"):
        smoothed_of(model, FALLING, divisor=2, coarse=coarse)


def test_words_that_the_text_rule_keeps_are_stored(backbone):
    bound = bound_of("smoothed", backbone("joint"), image="smoothed:coarse=2", text="lost_patches")
    masked = bound.masking(images_of(), TEXTS, LABELS)
    for row, own in enumerate(bound.make(images_of(), TEXTS, LABELS, PRIORITIES)):
        assert own.tokens["text"].positions.tolist() == np.flatnonzero(masked.keep["text"][row]).tolist()
        words = torch.from_numpy(masked.tokens.tokens["text"].values[row])
        assert own.tokens["text"].values.tolist() == words[own.tokens["text"].positions].tolist()
