"""Pictures as patches."""

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError

__all__ = ["patchify"]


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
