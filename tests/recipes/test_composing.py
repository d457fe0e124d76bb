"""One image as patches of several sizes, put together again."""

import numpy as np
import pytest
import torch

from exmem.errors import SchemaError
from exmem.recipes.forms.composing import compose_scales, patch_sides, patches_at, scale_codec, scale_name
from exmem.recipes.forms.scaled import resized
from exmem.tokens.patches import cut_patches
from exmem.tokens.tensors import TokenTensors, upsampled
from tests.recipes.cases import assert_packed, images_of

GRID, PATCH = (2, 3), 4


def tokens(side, *rows):
    """Rows of {position: grey value, or a table of them}, as patches of a side."""
    longest = max(map(len, rows))
    values = torch.zeros(len(rows), longest, side, side, 3, dtype=torch.uint8)
    positions = torch.zeros(len(rows), longest, dtype=torch.int64)
    keep = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, patches in enumerate(rows):
        for column, (position, grey) in enumerate(sorted(patches.items())):
            values[row, column] = torch.tensor(grey).expand(side, side)[..., None]
            positions[row, column], keep[row, column] = position, True
    return TokenTensors(values, positions, keep)


def greys(found, row=0):
    """The first channel of what was put together, by position; all channels are the same here."""
    count = int(found.valid[row].sum())
    assert (found.values == found.values[..., :1]).all()
    return {int(found.positions[row, at]): found.values[row, at, ..., 0].tolist() for at in range(count)}


def cut(image, side):
    """All patches of a image of 8 x 12 pixels, at a side."""
    return TokenTensors.dense(torch.from_numpy(patches_at(image, GRID, side).copy())[None])


def part(dense, places):
    """Some places of dense patches."""
    rows = torch.zeros(1, 1, dtype=torch.int64)
    places = torch.tensor([places], dtype=torch.int64)
    return TokenTensors(dense.values[rows, places], places, torch.ones_like(places, dtype=torch.bool))


def test_two_coarse_pixels_become_the_cubic_curve_worked_by_hand():
    # Cubic convolution with a = -0.75 at -0.25, 0.25, 0.75 and 1.25 between 0 and 100: -10.5, 22.7, 77.3 and 110.5.
    found = compose_scales([(1, tokens(1, {0: 0, 1: 100}))], (1, 2), 2)
    assert greys(found) == {0: [[0, 23], [0, 23]], 1: [[77, 111], [77, 111]]}


def test_a_fine_patch_is_as_it_was_and_its_mean_is_the_neighbour_of_coarse_ones():
    parts = [(2, tokens(2, {1: [[50, 90], [110, 150]]})), (1, tokens(1, {0: 0}))]
    expected = {0: [[0, 23], [0, 23]], 1: [[50, 90], [110, 150]]}  # the mean is 100, as above
    assert greys(compose_scales(parts, (1, 2), 2)) == expected
    assert greys(compose_scales(parts[::-1], (1, 2), 2)) == expected, "in whatever order they come"


def test_the_finest_counts_where_a_place_is_held_at_several_scales():
    parts = [(1, tokens(1, {0: 200, 1: 200})), (2, tokens(2, {0: 10, 1: 10})), (4, tokens(4, {1: 90}))]
    found = greys(compose_scales(parts, (1, 2), 4))
    assert found[1] == [[90] * 4] * 4
    assert max(map(max, found[0])) < 40, "nothing of the 200"


def test_what_is_dropped_stays_away_and_does_not_darken_its_neighbours():
    found = compose_scales([(4, tokens(4, {5: 70})), (1, tokens(1, {0: 70, 4: 70}))], GRID, PATCH)
    assert greys(found) == {place: [[70] * 4] * 4 for place in (0, 4, 5)}


@pytest.mark.parametrize("grey", [0, 1, 127, 254, 255])
def test_one_colour_at_all_scales_is_that_colour_exactly(grey):
    parts = [(1, tokens(1, {0: grey, 5: grey})), (2, tokens(2, {1: grey})), (4, tokens(4, {3: grey, 4: grey}))]
    found = compose_scales(parts, GRID, PATCH)
    assert found.positions.tolist() == [[0, 1, 3, 4, 5]]
    assert (found.values == grey).all()


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_one_scale_alone_is_the_image_scaled_up(side):
    image = images_of((8, 12), 1)[0]
    found = compose_scales([(side, cut(image, side))], GRID, PATCH)
    small = torch.from_numpy(resized(image, (GRID[0] * side, GRID[1] * side)).copy())
    assert torch.equal(found.values, cut_patches(upsampled(small[None, None], (8, 12))[:, 0], PATCH))
    assert found.positions.tolist() == [[*range(6)]]


def test_everything_at_the_finest_scale_is_the_image_itself():
    image = images_of((8, 12), 1)[0]
    found = compose_scales([(PATCH, cut(image, PATCH)), (2, part(cut(image, 2), []))], GRID, PATCH)
    np.testing.assert_array_equal(found.values[0].numpy(), cut_patches(image[None], PATCH)[0])


def test_coarse_patches_lie_smoothly_beside_fine_ones():
    image = images_of((8, 12), 1)[0]
    fine, coarse = part(cut(image, PATCH), [0, 2, 4]), part(cut(image, 2), [1, 3, 5])
    found = compose_scales([(PATCH, fine), (2, coarse)], GRID, PATCH).values[0].float()
    alone = torch.from_numpy(cut_patches(image[None], PATCH)[0]).float()
    blocks = coarse.values[0].float().repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(found[[0, 2, 4]], alone[[0, 2, 4]])
    assert (found[[1, 3, 5]] - alone[[1, 3, 5]]).square().mean() < (blocks - alone[[1, 3, 5]]).square().mean()


def test_rows_of_different_scales_do_not_touch_each_other():
    rows = [({0: 10, 3: 20}, {1: 30}), ({}, {0: 40, 2: 50, 5: 60}), ({4: 70}, {}), ({}, {})]
    fine, coarse = (tokens(side, *own) for side, own in zip((4, 2), zip(*rows, strict=True), strict=True))
    together = compose_scales([(4, fine), (2, coarse)], GRID, PATCH)
    assert_packed(together)
    assert together.valid.sum(1).tolist() == [3, 3, 1, 0]
    for row, (own, other) in enumerate(rows):
        alone = compose_scales([(4, tokens(4, own)), (2, tokens(2, other))], GRID, PATCH)
        assert greys(together, row) == greys(alone)
        assert {*greys(alone)} == {*own, *other}


def test_no_token_at_all_is_none_in_any_row():
    found = compose_scales([(4, tokens(4, {}, {})), (1, tokens(1, {}, {}))], GRID, PATCH)
    assert found.values.shape == (2, 0, 4, 4, 3)
    nobody = tokens(2, {0: 1}).select(torch.zeros(0, dtype=torch.int64))
    assert compose_scales([(2, nobody)], GRID, PATCH).values.shape == (0, 0, 4, 4, 3)


@pytest.mark.parametrize("factors", [[], [0.5, 2], [1, 100, 200], [0, 1], [2, 1], [1, 1, 2], [1, -2]])
def test_scales_must_fall_and_fit_into_a_patch(factors):
    with pytest.raises(SchemaError, match=r"falling sides of a patch in 1\.\.8 pixels"):
        patch_sides(factors, 8)


def test_sides_are_rounded_and_named_where_they_are_not_the_backbones_own():
    assert patch_sides([1, 2, 4], 14) == [14, 7, 4]
    assert patch_sides([2, 8], 8) == [4, 1]
    assert [scale_name(side, 14) for side in (14, 7)] == ["image", "image_7"]


def test_colour_is_halved_only_where_its_blocks_pad_no_more():
    jpeg = {"id": "patch_jpeg", "quality": 50}
    subsampling = {side: scale_codec(side, jpeg)["subsampling"] for side in (4, 7, 8, 14, 16, 20, 32)}
    assert subsampling == {4: "444", 7: "444", 8: "444", 14: "420", 16: "420", 20: "444", 32: "420"}
    assert scale_codec(7, {**jpeg, "subsampling": "420"})["subsampling"] == "420", "what a recipe says counts"
    assert scale_codec(7, {"id": "raw"}) == {"id": "raw"}
