"""Pictures as patches."""

import numpy as np
import pytest

from exmem.errors import InvalidExemplarError
from exmem.tokens.patches import cut_patches
from tests.exemplars import photographs


def test_patches_follow_each_other_row_by_row():
    pictures = np.stack([photo[:32, :48] for photo in photographs()])
    patches = cut_patches(pictures, 8)
    assert patches.shape == (len(pictures), 24, 8, 8, 3)
    for place in range(24):
        top, left = 8 * (place // 6), 8 * (place % 6)
        np.testing.assert_array_equal(patches[:, place], pictures[:, top : top + 8, left : left + 8])
    with pytest.raises(InvalidExemplarError, match="multiples of 5"):
        cut_patches(pictures, 5)
