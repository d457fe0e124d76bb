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
    """Cut images into patches, row by row, as a copy.

    Parameters
    ----------
    images : ndarray or Tensor, shape (B, H, W, C)
        Pixels, of any dtype.
    patch : int or tuple of int
        Side of a patch in pixels, or its height and width.

    Returns
    -------
    ndarray or Tensor, shape (B, L, h, w, C)
        Patches; position 0 is the upper left one, and L is (H / h) (W / w).

    Raises
    ------
    InvalidExemplarError
        If a side of the images is no multiple of the patch's.

    Examples
    --------
    >>> import numpy as np
    >>> cut_patches(np.zeros((2, 32, 48, 3), np.uint8), 16).shape
    (2, 6, 16, 16, 3)
    """
    count, height, width, channels = images.shape
    down, across = (patch, patch) if isinstance(patch, int) else patch
    if height % down or width % across:
        raise InvalidExemplarError(f"expected sides that are multiples of {patch}, got {height} x {width}")
    rows, columns = height // down, width // across
    tiles = images.reshape(count, rows, down, columns, across, channels).swapaxes(2, 3)
    return tiles.reshape(count, rows * columns, down, across, channels)


def join_patches(patches: _Array, grid: tuple[int, int]) -> _Array:
    """Put all patches of images together again: the inverse of `cut_patches`.

    Parameters
    ----------
    patches : ndarray or Tensor, shape (B, L, h, w, C)
        All patches, row by row.
    grid : tuple of int
        Rows and columns of patches; their product is L.

    Returns
    -------
    ndarray or Tensor, shape (B, rows * h, columns * w, C)
        Images.
    """
    count, _, height, width, channels = patches.shape
    rows, columns = grid
    tiles = patches.reshape(count, rows, columns, height, width, channels).swapaxes(2, 3)
    return tiles.reshape(count, rows * height, columns * width, channels)
