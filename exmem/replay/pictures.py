"""Pictures as tensors: scaled up and cut into patches."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from exmem.errors import InvalidExemplarError

__all__ = ["patches_of", "upsampled"]


def upsampled(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale token pictures up, bicubic; values are rounded and clamped.

    Parameters
    ----------
    values : Tensor, shape (B, K, h, w, 3), uint8
        Pictures.
    size : tuple of int
        Height H and width W that they get. A smaller size than they have would alias.

    Returns
    -------
    Tensor, shape (B, K, H, W, 3), uint8
        Larger pictures; the same ones where the size is theirs.
    """
    count, number, height, width, channels = values.shape
    if (height, width) == size:
        return values
    if count * number == 0:
        return values.new_zeros(count, number, *size, channels)
    channels_first = values.flatten(0, 1).permute(0, 3, 1, 2).float()
    larger = interpolate(channels_first, size=size, mode="bicubic", align_corners=False)
    pixels = larger.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return pixels.reshape(count, number, *size, channels)


def patches_of(pictures: Tensor, patch: int) -> Tensor:
    """Cut pictures into patches, row by row.

    Parameters
    ----------
    pictures : Tensor, shape (B, H, W, 3), uint8
        Pictures whose sides are multiples of `patch`.
    patch : int
        Side of a patch.

    Returns
    -------
    Tensor, shape (B, L, patch, patch, 3), uint8
        L = (H / patch) * (W / patch) patches.

    Raises
    ------
    InvalidExemplarError
        If a side is no multiple of `patch`.
    """
    count, height, width, channels = pictures.shape
    if height % patch or width % patch:
        raise InvalidExemplarError(f"expected sides that are multiples of {patch}, got {height} x {width}")
    rows, columns = height // patch, width // patch
    tiles = pictures.reshape(count, rows, patch, columns, patch, channels)
    return tiles.transpose(2, 3).reshape(count, rows * columns, patch, patch, channels)
