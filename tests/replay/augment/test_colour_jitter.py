"""Colours change alike in a whole exemplar."""

import numpy as np
import pytest
import torch

from exmem.replay.augment import ColourJitter
from exmem.tokens.patches import cut_patches
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.replay.augment.cases import batch, generator

ONLY = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def flat(*colours):
    """One exemplar with a patch of each colour."""
    values = torch.tensor(colours, dtype=torch.uint8).reshape(1, -1, 1, 1, 3).repeat(1, 1, 2, 2, 1)
    return TensorBatch({"image": TokenTensors.dense(values)}, torch.tensor([0]))


def jittered(given, *, seed=0, **options):
    found = ColourJitter(**(ONLY | options))(given, generator=generator(seed)).tokens["image"].values
    return found[0, :, 0, 0].int()


@pytest.mark.parametrize("seed", range(5))
def test_each_factor_does_what_its_name_says(seed):
    dark, bright = jittered(flat([50] * 3, [100] * 3), brightness=0.9, seed=seed)
    assert (bright - 2 * dark).abs().max() <= 1, "brightness is a factor"
    assert bright[0] != 100
    low, high = jittered(flat([50] * 3, [150] * 3), contrast=0.9, seed=seed)
    assert (low + high - 200).abs().max() <= 1, "contrast spreads around the mean grey of 100"
    assert high[0] != 150
    red = jittered(flat([200, 100, 100]), saturation=0.5, seed=seed)[0]
    # luma 0.299 * 200 + 0.701 * 100 = 129.9 stays, but for the rounding of each channel
    assert abs(float(red @ torch.tensor([299, 587, 114], dtype=red.dtype)) / 1000 - 129.9) < 0.5
    assert red[0] != 200
    assert jittered(flat([90] * 3), saturation=1.0, contrast=1.0, seed=seed).tolist() == [[90] * 3], "flat grey stays"


def test_values_are_clamped_not_wrapped():
    found = torch.stack(
        [jittered(flat([255] * 3, [0] * 3), brightness=1.0, contrast=1.0, seed=seed) for seed in range(9)]
    )
    assert (found[:, 0] >= found[:, 1]).all()
    assert found.max() == 255


def test_all_scales_of_an_exemplar_change_alike():
    given = batch([2, 3], [0, 1], whole=True)
    found = ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4)(given, generator=generator(1)).tokens
    whole = found["whole"].values[:, 0].numpy()
    np.testing.assert_array_equal(found["image"].values.numpy(), cut_patches(whole, 8))
    np.testing.assert_array_equal(found["coarse"].values.numpy(), cut_patches(whole, 16))
    before = given.tokens["whole"].values[:, 0].numpy()
    assert all((whole[row] != before[row]).mean() > 0.5 for row in (0, 1))


def test_mean_grey_counts_known_tokens_only():
    values = torch.tensor([50, 150, 0, 0], dtype=torch.uint8).reshape(1, 4, 1, 1, 1).repeat(1, 1, 2, 2, 3)
    keep, unknown = torch.tensor([[True, True, True, False]]), torch.tensor([[False, False, True, False]])
    tokens = TokenTensors(values, torch.tensor([[0, 1, 2, 0]]), keep, unknown)
    found = jittered(TensorBatch({"image": tokens}, torch.tensor([0])), contrast=0.9)
    assert (found[0] + found[1] - 200).abs().max() <= 1
    assert found[2:].tolist() == [[0] * 3] * 2
