"""Files of images, decoded as people have them: turned, deep, transparent, large."""

import contextlib
import dataclasses
import io
import os
import stat
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from exmem.errors import DataError

__all__ = ["MAX_PIXELS", "ImageFacts", "decode_image", "inspect_image", "read_image"]

MAX_PIXELS = 400_000_000
"""Most pixels of one image that are decoded, 20,000 x 20,000: 1.6 GB of memory; of JPEG files 64 times as many."""

_BEHIND = (255, 255, 255)  # shows where an image is transparent: white, as on paper and on most pages
_SIXTEEN = {"I;16", "I;16B", "I;16L", "I;16N"}
_SCALED = {"PNG", "PPM"}  # of these, Pillow may give 16 bits as integers of 32
_ONE_SHOT = {"MPO"}  # several views of one photograph, as telephones write them; not an animation
_LARGE = 32_000_000  # pixels; beyond, an image is averaged before it is converted, which copies it several times
_OPENING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What a file holds, as `inspect_image` saw it; width and height are those of the turned image."""

    width: int
    height: int
    mode: str
    transparent: bool
    turned: bool
    deep: bool
    several: bool


def decode_image(
    path: str | os.PathLike[str], size: int | tuple[int, int], *, data: bytes | None = None
) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3) RGB, `size` pixels or (H, W) of them; `data` is what `path` names but does not hold.

    See `ImageText.image`.
    """
    height, width = (size, size) if isinstance(size, int) else size
    with _opened(path, data) as file:
        image = _decoded(file, max(height, width))
        if image.size != (width, height):
            scale = max(width / image.width, height / image.height)
            larger = max(width, round(image.width * scale)), max(height, round(image.height * scale))
            _check_size(larger, f"{image.width:,} x {image.height:,} pixels, whose sides differ too much")
            left, top = (larger[0] - width) // 2, (larger[1] - height) // 2
            image = image.resize(larger, Image.Resampling.BICUBIC).crop((left, top, left + width, top + height))
        return np.asarray(image)


def read_image(path: str | os.PathLike[str], side: int) -> Image.Image:
    """Return a whole image as RGB, turned, at a reduced size where it is much larger than `side`; else DataError."""
    with _opened(path, None) as file:
        return _decoded(file, side)


def inspect_image(path: str | os.PathLike[str], data: bytes | None = None) -> ImageFacts:
    """Decode a whole image and tell what it is; DataError where that cannot be done."""
    with _opened(path, data) as file:
        mode, deep, (width, height) = file.mode, _is_deep(file), file.size
        several = getattr(file, "n_frames", 1) > 1 and file.format not in _ONE_SHOT
        orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation in {5, 6, 7, 8}:
            width, height = height, width
        _decoded(file, 1)
        clear = file.has_transparency_data and file.convert("RGBA").getchannel("A").getextrema()[0] != 255
        return ImageFacts(width, height, mode, clear, orientation in range(2, 9), deep, several)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], data: bytes | None) -> Iterator[Image.Image]:
    try:
        if data is None and stat.S_IFMT(os.stat(path).st_mode) not in {stat.S_IFREG, stat.S_IFDIR}:  # noqa: PTH116 - as above
            raise ValueError("a pipe or a device")
        with _open(path if data is None else io.BytesIO(data)) as file:
            yield file
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them to, struct.error for one
        message = f"{os.fspath(path)}: expected an image, got {_reason(error, path)}; replace it or leave it out"
        raise DataError(message) from error


def _open(source: str | os.PathLike[str] | io.BytesIO) -> Image.Image:
    # Pillow's own bound (a warning from 89 million pixels on, a refusal from 179 million) counts those of the file, not
    # those that are decoded, and is a global; MAX_PIXELS stands for it here. Opening reads the head alone.
    with _OPENING:
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def _reason(error: Exception, path: str | os.PathLike[str]) -> str:
    if isinstance(error, FileNotFoundError):
        return "nothing, the file is missing"
    if isinstance(error, IsADirectoryError):
        return "a folder"
    if isinstance(error, UnidentifiedImageError):
        empty = os.path.exists(path) and os.path.getsize(path) == 0  # noqa: PTH110, PTH202 - it may be no path at all
        return "an empty file" if empty else "a file in no form that Pillow reads"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__


def _decoded(file: Image.Image, side: int) -> Image.Image:
    """Return a file as RGB, turned, and at a reduced size where it is much larger than `side` both ways."""
    file.draft(None, (side, side))
    _check_size(file.size, f"{file.width:,} x {file.height:,} pixels")
    deep = _is_deep(file)
    ImageOps.exif_transpose(file, in_place=True)
    factor = min(file.size) // (2 * side)
    if file.width * file.height <= _LARGE or factor < 2:
        return _rgb(file, deep=deep)
    if deep or file.mode in {"1", "P", "PA", "I", "F"}:  # indices have no average, and deep values none in Pillow
        return _rgb(file, deep=deep).reduce(factor)
    return _rgb(file.reduce(factor), deep=deep)


def _check_size(size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{what}: more than {MAX_PIXELS:,} would be decoded; scale it down or cut it")


def _is_deep(file: Image.Image) -> bool:
    return file.mode in _SIXTEEN or (file.mode == "I" and file.format in _SCALED)


def _rgb(image: Image.Image, *, deep: bool) -> Image.Image:
    if image.mode == "I" and not deep:
        raise ValueError("integers of 32 bits, whose range is not known; save it in 8 or 16 bits")
    if deep or image.mode == "F":
        return Image.fromarray(_in_eight_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    behind = Image.new("RGBA", clear.size, (*_BEHIND, 255))
    return Image.alpha_composite(behind, clear).convert("RGB")


def _in_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    most = 1.0 if values.dtype.kind == "f" else 65_535.0
    if not (low >= 0 and high <= most):  # NaN neither
        raise ValueError(
            f"{values.dtype} values from {low:g} to {high:g}, where 0 to {most:g} are known; save it in 8 bits"
        )
    scaled: NDArray[np.uint8] = np.round(values.astype(np.float32) * np.float32(255 / most)).astype(np.uint8)
    return scaled
