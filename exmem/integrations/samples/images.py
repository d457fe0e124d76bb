"""Images of PIL as the pixels that are stored."""

import warnings

import numpy as np
from PIL import Image, ImageOps

from exmem.errors import DataWarning, InvalidExemplarError

__all__ = ["fitted"]

_ORIENTATION = 0x0112  # tag of EXIF


def fitted(image: Image.Image, size: tuple[int, int] | None, *, mode: str = "RGB") -> Image.Image:
    """Return an image of 8 bits a channel in a mode, scaled to cover a size (height, width) and cut at the middle.

    InvalidExemplarError if it has more bits. DataWarning if it is to be turned, or lets through what lies behind it:
    neither is stored.
    """
    if image.mode.startswith("I") or image.mode == "F":
        raise InvalidExemplarError(
            f"expected an image of 8 bits a channel, got PIL mode {image.mode}; convert it first"
        )
    if image.getexif().get(_ORIENTATION, 1) != 1:
        told = "is to be turned as its EXIF says, which is not stored; give ImageOps.exif_transpose(image)"
        warnings.warn(f"an image {told}", DataWarning, stacklevel=2)
    if mode != "RGBA" and _is_clear(image):
        told = "is partly transparent, which is not stored; lay it over a colour first, as its transform does"
        warnings.warn(f"an image {told}", DataWarning, stacklevel=2)
    if image.mode != mode:
        image = image.convert(mode)
    if size is None or image.size == (size[1], size[0]):
        return image
    return ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)


def _is_clear(image: Image.Image) -> bool:
    return image.has_transparency_data and bool(np.asarray(image.convert("RGBA"))[..., 3].min(initial=255) < 255)
