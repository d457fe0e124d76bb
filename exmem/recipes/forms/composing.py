"""One image as token sets at several scales over the same grid: cut apart, and put together again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from exmem.errors import SchemaError
from exmem.recipes.forms.scaled import resized
from exmem.tokens.checks import real_number, shown
from exmem.tokens.patches import cut_patches, join_patches
from exmem.tokens.tensors import TokenTensors, packed, upsampled

__all__ = ["check_factors", "compose_scales", "patch_sides", "patches_at", "scale_codec", "scale_name"]


def check_factors(factors: Sequence[float]) -> None:
    """Refuse factors that are no numbers; whether they fit, a patch tells."""
    if isinstance(factors, str) or not factors:
        raise SchemaError(f"expected one factor or more, got {shown(factors)}")
    for factor in factors:
        real_number(factor, "each of the factors")


def patch_sides(factors: Sequence[float], patch: int) -> list[int]:
    """Return the side of a stored patch at each scale; SchemaError unless they are 1..patch pixels and fall."""
    sides = [max(1, round(patch / factor)) if factor > 0 else 0 for factor in factors]
    if not sides or not all(1 <= side <= patch for side in sides) or sides != sorted({*sides})[::-1]:
        raise SchemaError(
            f"factors must give falling sides of a patch in 1..{patch} pixels, got {list(factors)}, which give {sides}"
        )
    return sides


def scale_name(side: int, patch: int) -> str:
    """Name the modality of a scale: `image` at the backbone's own, else such as `image_7`."""
    return "image" if side == patch else f"image_{side}"


def scale_codec(side: int, codec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a codec for patches of a side: JPEG halves chroma unless its larger blocks would pad the patches more."""
    if codec["id"] != "patch_jpeg":
        return dict(codec)
    more_padding = -(-side // 16) * 16 > -(-side // 8) * 8
    return {"subsampling": "444" if more_padding else "420", **codec}


def patches_at(image: NDArray[np.uint8], grid: tuple[int, int], side: int) -> NDArray[np.uint8]:
    """Cut an image (H, W, 3) into all patches (L, side, side, 3) of a grid at a scale."""
    patches: NDArray[np.uint8] = cut_patches(resized(image, (grid[0] * side, grid[1] * side))[None], side)[0]
    return patches


def compose_scales(parts: Sequence[tuple[int, TokenTensors]], grid: tuple[int, int], patch: int) -> TokenTensors:
    """Put patches of several sides together as patches of one; a position that no scale holds stays away.

    Where a position is held at several scales, the finest counts. From the coarsest scale to the finest, the image so
    far is scaled up (bicubic) and the patches of the scale are put over it, so that coarse patches are scaled up with
    their neighbours and no seams appear (a choice).
    """
    ordered = sorted(parts, key=lambda part: part[0])
    side, first = ordered[0]
    rows, length = len(first.valid), grid[0] * grid[1]
    known = first.valid.new_zeros(rows, length)
    coarse = first.values.new_zeros(rows, length, side, side, 3)
    for _, tokens in ordered:
        places, values = _places(tokens)
        coarse[places] = _averaged(values, side)
        known[places] = True
    weights = known[..., None].float()
    mean = (coarse.float().mean((2, 3)) * weights).sum(1) / weights.sum(1).clamp(min=1)
    coarse = torch.where(known[..., None, None, None], coarse, mean[:, None, None, None].to(torch.uint8))
    image = join_patches(coarse, grid)
    for scale, tokens in ordered:
        tiles = cut_patches(_scaled(image, grid, scale), scale).clone()
        places, values = _places(tokens)
        tiles[places] = values
        image = join_patches(tiles, grid)
    every = TokenTensors.dense(cut_patches(_scaled(image, grid, patch), patch))
    return packed(TokenTensors(every.values, every.positions, known))


def _places(tokens: TokenTensors) -> tuple[tuple[Tensor, Tensor], Tensor]:
    rows, columns = tokens.valid.nonzero(as_tuple=True)
    return (rows, tokens.positions[rows, columns]), tokens.values[rows, columns]


def _averaged(values: Tensor, side: int) -> Tensor:
    if values.shape[1] == side or len(values) == 0:
        return values[:, :side, :side]
    smaller = interpolate(values.permute(0, 3, 1, 2).float(), size=(side, side), mode="area")
    return smaller.round().to(torch.uint8).permute(0, 2, 3, 1)


def _scaled(image: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    return upsampled(image[:, None], (grid[0] * scale, grid[1] * scale))[:, 0]
