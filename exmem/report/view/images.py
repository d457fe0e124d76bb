"""Tokens as images: kept patches in their places, dropped ones hatched, scores as a heat map."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError
from exmem.tokens import TokenSet, TokenSpec

__all__ = ["Placed", "draw_heat", "draw_placed", "find_grid", "parse_grid", "place_tokens", "put_together"]

_Pixel = TypeVar("_Pixel", bound=np.generic)

_SIDE = 240  # smaller images are drawn with whole multiples of their pixels
_STRIPES, _STRIPE = np.array([150, 186], np.uint8), 4  # greys of the hatching, pixels of a stripe
_OUTLINE = np.array([0, 229, 255], np.uint8)  # a colour that the heat map lacks
_BRIGHTEST = 98.0  # percentile; the few highest scores would leave everything else dark
_OPACITY = 0.68
# Ten colours of matplotlib's inferno (van der Walt & Smith 2015), evenly spaced.
_HEAT = np.array(
    [
        (0, 0, 4),
        (27, 12, 65),
        (74, 12, 107),
        (120, 28, 109),
        (165, 44, 96),
        (207, 68, 70),
        (237, 105, 37),
        (251, 155, 6),
        (247, 209, 61),
        (252, 255, 164),
    ],
    np.float64,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """An image of which parts may be missing: pixels (H, W, 3), and where something is stored, (H, W)."""

    pixels: NDArray[np.uint8]
    kept: NDArray[np.bool_]


def parse_grid(text: str) -> tuple[int, int]:
    """Read rows and columns of patches, written such as 12x16."""
    matched = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if matched is None:
        raise SchemaError(f"expected a grid of rows and columns such as 12x16, got {text!r}")
    return int(matched[1]), int(matched[2])


def find_grid(positions: int) -> tuple[int, int]:
    """Return the rows and columns nearest to a square, rows <= columns; 7 positions are 1 x 7."""
    rows = next(side for side in range(math.isqrt(positions), 0, -1) if positions % side == 0)
    return rows, positions // rows


def place_tokens(tokens: TokenSet, spec: TokenSpec, grid: tuple[int, int]) -> Placed:
    """Put patches of a modality that `is_image` holds in their places; grey ones become colour."""
    (rows, columns), (height, width, *channels) = grid, spec.shape
    pixels = np.zeros((rows, height, columns, width, 3), np.uint8)
    kept = np.zeros((rows, height, columns, width), np.bool_)
    down, across = np.divmod(tokens.positions, columns)
    pixels[down, :, across] = tokens.values.reshape(len(tokens), height, width, *(channels or [1]))
    kept[down, :, across] = True
    return Placed(pixels.reshape(rows * height, -1, 3), kept.reshape(rows * height, -1))


def put_together(layers: Sequence[Placed]) -> Placed:
    """Lay images of one scene and aspect ratio over each other, the finest on top and at its resolution."""
    coarse_first = sorted(layers, key=lambda layer: layer.kept.size)
    height, width = coarse_first[-1].kept.shape
    pixels, kept = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.bool_)
    for layer in coarse_first:
        there = _scaled(layer.kept, height, width)
        pixels[there] = _scaled(layer.pixels, height, width)[there]
        kept |= there
    return Placed(pixels, kept)


def draw_placed(placed: Placed) -> NDArray[np.uint8]:
    """Draw an image, small ones enlarged, hatched in grey where nothing is stored: stored black stays black."""
    pixels, kept = _enlarged(placed.pixels), _enlarged(placed.kept)
    down, across = np.indices(kept.shape)
    hatching = _STRIPES[(down + across) // _STRIPE % 2]
    drawn: NDArray[np.uint8] = np.where(kept[..., None], pixels, hatching[..., None])
    return drawn


def draw_heat(
    scores: NDArray[np.float32],
    grid: tuple[int, int],
    image: NDArray[np.uint8],
    *,
    keep: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Draw one score a patch over an image, from dark (the lowest) to light (the 98th percentile and above)."""
    low, high = float(scores.min()), float(np.percentile(scores, _BRIGHTEST))
    share = np.clip((scores - low) / (high - low if high > low else 1), 0, 1) * (len(_HEAT) - 1)
    colours = np.stack([np.interp(share, np.arange(len(_HEAT)), channel) for channel in _HEAT.T], -1)
    under = _enlarged(image)
    height, width = under.shape[:2]
    heat = _scaled(colours.reshape(*grid, 3), height, width)
    blended = _OPACITY * heat + (1 - _OPACITY) * under.mean(-1, keepdims=True)
    drawn: NDArray[np.uint8] = blended.round().astype(np.uint8)
    if keep is not None:
        inside = _scaled(keep.reshape(grid), height, width)
        drawn[inside & ~_shrunk(inside)] = _OUTLINE
    return drawn


def _scaled(values: NDArray[_Pixel], height: int, width: int) -> NDArray[_Pixel]:
    """Take the nearest value: what is drawn is what is stored, not an interpolation of it."""
    down = np.arange(height) * values.shape[0] // height
    across = np.arange(width) * values.shape[1] // width
    scaled: NDArray[_Pixel] = values[down[:, None], across]
    return scaled


def _enlarged(values: NDArray[_Pixel]) -> NDArray[_Pixel]:
    times = max(1, _SIDE // max(values.shape[:2]))
    return values.repeat(times, 0).repeat(times, 1)


def _shrunk(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what is two pixels or more from the outside; beyond the image is outside too."""
    padded = np.pad(inside, 2)
    height, width = inside.shape
    shifts = [(2, 0), (2, 4), (0, 2), (4, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
    shrunk: NDArray[np.bool_] = np.logical_and.reduce(
        [padded[down : down + height, left : left + width] for down, left in shifts]
    )
    return shrunk
