"""Images cut into patches and put together again, as NumPy arrays and as torch tensors; this imports no torch."""

from typing import TYPE_CHECKING, TypeVar

from exmem.errors import InvalidExemplarError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["cut_patches", "join_patches"]

_Array = TypeVar("_Array", "NDArray[np.generic]", "NDArray[np.uint8]", "Tensor")


def cut_patches(images: _Array, patch: int | tuple[int, int]) -> _Array:
    """Cut images into patches, row by row.

    Parameters
    ----------
    images : ndarray or Tensor, shape (B, H, W, C)
        Images whose sides are multiples of `patch`.
    patch : int or tuple of int
        Side of a patch in pixels, or its height h and width w.

    Returns
    -------
    ndarray or Tensor, shape (B, L, h, w, C)
        L = (H / h) * (W / w) patches, a copy.

    Raises
    ------
    InvalidExemplarError
        If a side is no multiple of `patch`.
    """
    count, height, width, channels = images.shape
    down, across = (patch, patch) if isinstance(patch, int) else patch
    if height % down or width % across:
        raise InvalidExemplarError(f"expected sides that are multiples of {patch}, got {height} x {width}")
    rows, columns = height // down, width // across
    tiles = images.reshape(count, rows, down, columns, across, channels).swapaxes(2, 3)
    return tiles.reshape(count, rows * columns, down, across, channels)


def join_patches(patches: _Array, grid: tuple[int, int]) -> _Array:
    """Put all patches of images together.

    Parameters
    ----------
    patches : ndarray or Tensor, shape (B, L, h, w, C)
        Every patch, row by row.
    grid : tuple of int
        Rows and columns of patches; their product is L.

    Returns
    -------
    ndarray or Tensor, shape (B, rows * h, columns * w, C)
        The images.
    """
    count, _, height, width, channels = patches.shape
    rows, columns = grid
    tiles = patches.reshape(count, rows, columns, height, width, channels).swapaxes(2, 3)
    return tiles.reshape(count, rows * height, columns * width, channels)
