"""Token images are scaled up and cut as arrays are."""

import numpy as np
import pytest
import torch

from exmem.errors import InvalidExemplarError
from exmem.tokens.patches import cut_patches, join_patches
from exmem.tokens.tensors import upsampled
from tests.exemplars import crop


def test_patches_are_those_of_the_arrays_and_join_again():
    images = np.stack([crop(seed, 64)[:32] for seed in (1, 2)])
    tensors = torch.from_numpy(images)
    for patch in (16, (8, 32)):
        np.testing.assert_array_equal(cut_patches(tensors, patch), cut_patches(images, patch))
        down, across = (patch, patch) if isinstance(patch, int) else patch
        grid = (32 // down, 64 // across)
        assert torch.equal(join_patches(cut_patches(tensors, patch), grid), tensors)
        np.testing.assert_array_equal(join_patches(cut_patches(images, patch), grid), images)
    with pytest.raises(InvalidExemplarError, match="multiples of 24, got 32 x 64"):
        cut_patches(tensors, 24)


def test_scaling_up_clamps_and_keeps_what_has_its_size():
    edge = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    edge[:, :, :, 2:] = 255
    larger = upsampled(edge, (8, 12))
    assert larger.shape == (1, 2, 8, 12, 3)
    # Bicubic overshoots on both sides of an edge; without clamping 255 would wrap to small values.
    assert (larger.int().diff(dim=3) >= 0).all()
    assert (larger[:, :, :, 0].max(), larger[:, :, :, -1].min()) == (0, 255)
    assert upsampled(edge, (4, 4)) is edge
    assert upsampled(edge[:, :0], (8, 8)).shape == (1, 0, 8, 8, 3)


def test_a_crop_scaled_down_and_up_is_close_to_what_it_was():
    whole = crop(3, 96)
    small = torch.from_numpy(whole.reshape(32, 3, 32, 3, 3).mean((1, 3)).round().astype(np.uint8))
    larger = upsampled(small[None, None], (96, 96))[0, 0]
    blocks = small.repeat_interleave(3, 0).repeat_interleave(3, 1)
    error = (larger.float() - torch.from_numpy(whole)).abs().mean()
    assert error < (blocks.float() - torch.from_numpy(whole)).abs().mean()
