"""The share of kept patches at the border."""

import numpy as np
import pytest

from exmem.errors import InvalidExemplarError
from exmem.masking import border_share


def test_the_border_is_the_outer_ring_of_any_grid():
    keep = np.zeros((3, 12), np.bool_)  # 3 x 4: all but places 5 and 6
    keep[0, [0, 5, 6, 11]] = True
    keep[1] = True
    share = border_share(keep, (3, 4))
    assert share.kept.tolist() == [0.5, 10 / 12, 0]
    assert share.grid == 10 / 12
    assert border_share(np.ones((1, 4), np.bool_), (1, 4)) == ([1], 1)


def test_what_does_not_fit_the_grid_is_refused():
    with pytest.raises(InvalidExemplarError, match=r"expected keep \(B, 12\)"):
        border_share(np.ones((1, 11), np.bool_), (3, 4))
