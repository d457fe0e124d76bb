"""A flip mirrors the whole image, at all of its scales."""

import numpy as np
import pytest

from exmem.errors import SchemaError
from exmem.replay.augment import Flip
from exmem.tokens.patches import cut_patches
from tests.replay.augment.cases import GRIDS, SIDES, batch, contents, generator, image_of


def test_the_mirrored_image_is_cut_into_the_same_patches():
    seeds = [1, 2, 4]
    found = Flip(grids=GRIDS, probability=1.0)(batch(seeds, [0, 0, 0], whole=True), generator=generator())
    mirrored = np.stack([image_of(seed)[:, ::-1] for seed in seeds])
    for name, side in SIDES.items():
        np.testing.assert_array_equal(found.tokens[name].values, cut_patches(mirrored, side))
    np.testing.assert_array_equal(found.tokens["whole"].values[:, 0], mirrored)


def test_kept_tokens_move_within_their_row_of_the_grid():
    given = batch([5], [0], names=("image",))
    before = given.tokens["image"].positions[0][given.tokens["image"].valid[0]].tolist()
    found = Flip(grids={"image": (4, 8)}, probability=1.0)(given, generator=generator()).tokens["image"]
    after = found.positions[0][found.valid[0]].tolist()
    assert after == sorted(8 * (place // 8) + 7 - place % 8 for place in before)
    assert 0 < len(before) < 32


def test_two_flips_are_none():
    given, flip = batch([1, 2, 5], [0, 0, 1], unknown=True), Flip(grids=GRIDS, probability=1.0)
    again = flip(flip(given, generator=generator()), generator=generator())
    for name, tokens in given.tokens.items():
        for row in range(3):
            assert contents(again.tokens[name], row) == contents(tokens, row)


def test_all_scales_of_an_exemplar_are_flipped_or_none():
    given = batch(list(range(12)), [0] * 12, whole=True)
    found = Flip(grids=GRIDS, probability=0.5)(given, generator=generator())
    flipped = {
        name: [contents(found.tokens[name], row) != contents(given.tokens[name], row) for row in range(12)]
        for name in GRIDS
    }
    assert flipped["image"] == flipped["coarse"] == flipped["whole"]
    assert 0 < sum(flipped["image"]) < 12


def test_a_scale_without_its_grid_and_a_grid_that_is_too_small_are_refused():
    given = batch([1], [0], whole=True)
    with pytest.raises(SchemaError, match=r"no grid of \['coarse', 'whole'\]"):
        Flip(grids={"image": (4, 8)})(given, generator=generator())
    with pytest.raises(SchemaError, match="'image' has position 31, outside its grid of 4 x 4"):
        Flip(grids=GRIDS | {"image": (4, 4)})(given, generator=generator())
    with pytest.raises(SchemaError, match=r"\(rows, columns\)"):
        Flip(grids={"image": (0, 8)})
