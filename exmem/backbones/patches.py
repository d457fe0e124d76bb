"""Pictures as patches."""

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError

__all__ = ["patchify", "unpatchify"]


def patchify(images: NDArray[np.uint8], patch: int) -> NDArray[np.uint8]:
    """Cut pictures into patches, row by row.

    Parameters
    ----------
    images : ndarray, shape (B, H, W, 3), uint8
        Pictures whose sides are multiples of `patch`.
    patch : int
        Side of a patch.

    Returns
    -------
    ndarray, shape (B, L, patch, patch, 3), uint8
        L = (H / patch) * (W / patch) patches.

    Raises
    ------
    InvalidExemplarError
        If a side is no multiple of `patch`.
    """
    rows, height, width, channels = images.shape
    if height % patch or width % patch:
        raise InvalidExemplarError(f"expected sides that are multiples of {patch}, got {height} x {width}")
    tiles = images.reshape(rows, height // patch, patch, width // patch, patch, channels)
    return np.ascontiguousarray(tiles.transpose(0, 1, 3, 2, 4, 5)).reshape(rows, -1, patch, patch, channels)


def unpatchify(patches: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Put patches together; the inverse of `patchify`.

    Parameters
    ----------
    patches : ndarray, shape (B, L, p, p, 3), uint8
        Patches, row by row.
    grid : tuple of int
        Rows and columns of patches.

    Returns
    -------
    ndarray, shape (B, H, W, 3), uint8
        Pictures.
    """
    count, _, patch, _, channels = patches.shape
    tiles = patches.reshape(count, *grid, patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(tiles).reshape(count, grid[0] * patch, grid[1] * patch, channels)
