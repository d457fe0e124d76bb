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
    """Cut images (B, H, W, C) into patches (B, L, h, w, C), row by row, a copy; `patch` is a side or both."""
    count, height, width, channels = images.shape
    down, across = (patch, patch) if isinstance(patch, int) else patch
    if height % down or width % across:
        raise InvalidExemplarError(f"expected sides that are multiples of {patch}, got {height} x {width}")
    rows, columns = height // down, width // across
    tiles = images.reshape(count, rows, down, columns, across, channels).swapaxes(2, 3)
    return tiles.reshape(count, rows * columns, down, across, channels)


def join_patches(patches: _Array, grid: tuple[int, int]) -> _Array:
    """Put all patches (B, L, h, w, C), row by row, together: images (B, rows * h, columns * w, C)."""
    count, _, height, width, channels = patches.shape
    rows, columns = grid
    tiles = patches.reshape(count, rows, columns, height, width, channels).swapaxes(2, 3)
    return tiles.reshape(count, rows * height, columns * width, channels)
