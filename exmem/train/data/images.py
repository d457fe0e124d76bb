"""Files of pictures, decoded as people have them: turned, deep, transparent, large."""

import os
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from exmem.errors import DataError

__all__ = ["decode_picture"]

_BEHIND = (255, 255, 255)  # shows where a picture is transparent: white, as on paper and on most pages
_SIXTEEN = {"I;16", "I;16B", "I;16L", "I;16N"}
_SCALED = {"PNG", "PPM"}  # of these, Pillow may give 16 bits as integers of 32


def decode_picture(path: str | os.PathLike[str], size: int | tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture as (H, W, 3) RGB, `size` pixels or (H, W) of them; see `ImageText.image`."""
    height, width = (size, size) if isinstance(size, int) else size
    try:
        # The picture is scaled down at once: a large one is no attack here, and Pillow refuses those beyond bounds.
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as file,
        ):
            file.draft(None, (max(height, width),) * 2)
            sixteen = file.mode in _SIXTEEN or (file.mode == "I" and file.format in _SCALED)
            picture = _rgb(ImageOps.exif_transpose(file), sixteen=sixteen)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise DataError(f"{os.fspath(path)}: expected a picture, got {error}; replace it or drop its row") from error
    if picture.size != (width, height):
        scale = max(width / picture.width, height / picture.height)
        larger = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
        left, top = (larger[0] - width) // 2, (larger[1] - height) // 2
        picture = picture.resize(larger, Image.Resampling.BICUBIC)
        picture = picture.crop((left, top, left + width, top + height))
    return np.asarray(picture)


def _rgb(picture: Image.Image, *, sixteen: bool) -> Image.Image:
    if picture.mode == "I" and not sixteen:
        raise ValueError("integers of 32 bits, whose range is not known; save it in 8 or 16 bits")
    if sixteen or picture.mode == "F":
        return Image.fromarray(_in_eight_bits(np.asarray(picture))).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    clear = picture.convert("RGBA")
    behind = Image.new("RGBA", clear.size, (*_BEHIND, 255))
    return Image.alpha_composite(behind, clear).convert("RGB")


def _in_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    numbers = values.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    most = 1.0 if values.dtype.kind == "f" else 65_535.0
    if not (low >= 0 and high <= most):  # NaN neither
        raise ValueError(
            f"{values.dtype} values from {low:g} to {high:g}, where 0 to {most:g} are known; save it in 8 bits"
        )
    scaled: NDArray[np.uint8] = np.round(numbers * (255 / most)).astype(np.uint8)
    return scaled
