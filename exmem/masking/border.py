"""How much of what is kept lies at the border, where attention sinks gather."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError

__all__ = ["BorderShare", "border_share"]


class BorderShare(NamedTuple):
    """Shares at the border of the grid; a scorer without sinks has about the same in both.

    Parameters
    ----------
    kept : ndarray, shape (B,), float64
        Share of the kept tokens of each row that lie at the border; 0 where nothing is kept.
    grid : float
        Share of the grid that is border.
    """

    kept: NDArray[np.float64]
    grid: float


def border_share(keep: NDArray[np.bool_], grid: tuple[int, int]) -> BorderShare:
    """Measure how many of the kept patches lie in the first or last row or column of the grid.

    Parameters
    ----------
    keep : ndarray, shape (B, L), bool
        Image tokens that are kept.
    grid : tuple of int
        Rows and columns of patches, L of them.

    Returns
    -------
    BorderShare
        The share of the kept patches, and that of all patches to compare it with.

    Raises
    ------
    InvalidExemplarError
        If `keep` does not fit the grid.

    Examples
    --------
    >>> share = border_share(np.array([[True] * 5 + [False] * 4]), (3, 3))
    >>> float(share.kept[0]), round(share.grid, 3)
    (0.8, 0.889)
    """
    height, width = grid
    if keep.ndim != 2 or keep.shape[1] != height * width:
        raise InvalidExemplarError(
            f"expected keep (B, {height * width}) for a grid {height} x {width}, got {keep.shape}"
        )
    border = np.ones(grid, np.bool_)
    border[1:-1, 1:-1] = False
    at_border = (keep & border.ravel()).sum(axis=1)
    return BorderShare(at_border / np.maximum(keep.sum(axis=1), 1), float(border.mean()))
