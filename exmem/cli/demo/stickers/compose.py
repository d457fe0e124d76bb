"""Pasting artwork as a white-edged sticker on a crop of a photograph."""

import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["compose", "crop_photograph", "paste_sticker", "sample_photographs", "sticker_mask"]

_OPAQUE = 60  # alpha above this belongs to the artwork


def sample_photographs() -> list[Image.Image]:
    """Return the two photographs that scikit-learn carries (CC-BY), RGB."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(picture) for picture in load_sample_images().images]


def sticker_mask(artwork: Image.Image, corner: tuple[int, int], size: int) -> Image.Image:
    """Return the sticker under a piece of RGBA artwork: its outline grown by 3 % and filled.

    `corner` is left and top in the image; the mask, `size` x `size` of mode L, is 255 on the sticker, 0 beside it.
    """
    from scipy.ndimage import binary_fill_holes

    grown = max(1, round(size * 0.015))
    border = grown + 1
    canvas = Image.new("L", (size + 2 * border, size + 2 * border), 0)
    solid = artwork.getchannel("A").point([255 if alpha > _OPAQUE else 0 for alpha in range(256)])
    canvas.paste(solid, (corner[0] + border, corner[1] + border))
    outline = np.asarray(canvas.filter(ImageFilter.MaxFilter(2 * grown + 1))) > 0
    filled = Image.fromarray(np.where(binary_fill_holes(outline), 255, 0).astype(np.uint8))
    return filled.crop((border, border, border + size, border + size))


def compose(
    artwork: Image.Image, size: int, rng: random.Random, photographs: Sequence[Image.Image] | None
) -> Image.Image:
    """Place artwork: on white, centred; or as a sticker of 55-90 % of the side at a random place on a photograph."""
    if photographs is None:
        canvas = Image.new("RGB", (size, size), (255, 255, 255))
        side = round(size * 0.9)
        placed = artwork.resize((side, side), Image.Resampling.LANCZOS)
        canvas.paste(placed, ((size - side) // 2, (size - side) // 2), placed)
        return canvas
    canvas = crop_photograph(size, rng, photographs)
    return paste_sticker(canvas, artwork, round(size * rng.uniform(0.55, 0.9)), rng)


def crop_photograph(size: int, rng: random.Random, photographs: Sequence[Image.Image]) -> Image.Image:
    """Return a random square of a photograph, scaled to `size`, as it is or mirrored."""
    photograph = rng.choice(photographs)
    span = rng.randint(min(size, *photograph.size), min(photograph.size))
    left, top = rng.randint(0, photograph.width - span), rng.randint(0, photograph.height - span)
    canvas = photograph.crop((left, top, left + span, top + span)).resize((size, size), Image.Resampling.BICUBIC)
    return canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else canvas


def paste_sticker(canvas: Image.Image, artwork: Image.Image, side: int, rng: random.Random) -> Image.Image:
    """Paste artwork, scaled to a square of `side`, with its white sticker at a random place; return the canvas."""
    size = canvas.width
    corner = (rng.randint(0, size - side), rng.randint(0, size - side))
    placed = artwork.resize((side, side), Image.Resampling.LANCZOS)
    canvas.paste((255, 255, 255), (0, 0, size, size), sticker_mask(placed, corner, size))
    canvas.paste(placed, corner, placed)
    return canvas
