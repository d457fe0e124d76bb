"""Images instead of paths: what stands in the place of a file's path among the data of PyCIL and PILOT."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.integrations.samples.decoded import DecodedExemplars
from exmem.integrations.samples.fields import IMAGE

__all__ = ["Resize", "StoredImage", "image_at", "let_read", "pixels", "resize_of", "square"]

Resize = Callable[[Image.Image], Image.Image]

_MODULE = "utils.data_manager"  # of both peers, where the data set class is and what opens a path for it


class StoredImage:
    """An exemplar among paths; it is decoded whenever the peer opens it, as a path's file is."""

    __slots__ = ("_reader", "slot")

    def __init__(self, reader: DecodedExemplars, slot: int) -> None:
        self._reader, self.slot = reader, slot

    def image(self) -> Image.Image:
        """Decode it."""
        return Image.fromarray(np.ascontiguousarray(self._reader.value(IMAGE, self.slot).numpy()))

    def __copy__(self) -> "StoredImage":
        return self

    def __deepcopy__(self, memo: object) -> "StoredImage":
        return self

    def __reduce__(self) -> tuple[Callable[..., "StoredImage"], tuple[DecodedExemplars, int]]:
        return _in_another_process, (self._reader, self.slot)


def _in_another_process(reader: DecodedExemplars, slot: int) -> StoredImage:
    let_read()
    return StoredImage(reader, slot)


class _Opener:
    """What the peer opens a path with, for exemplars, too."""

    def __init__(self, opener: Callable[[Any], Image.Image]) -> None:
        self._opener = opener

    def __call__(self, path: Any) -> Image.Image:
        return path.image() if isinstance(path, StoredImage) else self._opener(path)


def let_read() -> None:
    """Let the peer's data sets open exemplars where they open paths; SchemaError if they open them in another way."""
    module = importlib.import_module(_MODULE)
    opener = getattr(module, "pil_loader", None)
    if opener is None:
        raise SchemaError(f"expected pil_loader in {module.__name__}, which opens paths there; it has none")
    if not isinstance(opener, _Opener):
        module.pil_loader = _Opener(opener)  # type: ignore[attr-defined]


def image_at(path: str) -> Image.Image:
    """Open a file, as RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def square(size: int) -> Resize:
    """Scale the shorter side to so many pixels."""

    def resized(image: Image.Image) -> Image.Image:
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    return resized


def resize_of(transforms: Sequence[Any]) -> Resize:
    """Return the first resize among the transforms of a test set; SchemaError if there is none."""
    for transform in transforms:
        if type(transform).__name__ == "Resize":
            resize: Resize = transform
            return resize
    raise SchemaError("the test transform of this data resizes nothing; give size=, at which images are kept")


def pixels(rows: NDArray[Any], resize: Resize | None) -> NDArray[np.uint8]:
    """Return images (N, H, W, 3): arrays as they are; of paths the file, resized and cut to its central square."""
    if rows.dtype == np.uint8 and rows.ndim == 4:
        return rows
    if rows.dtype.kind not in "UO":
        raise InvalidExemplarError(f"expected images (N, H, W, 3) of uint8 or paths, got {rows.dtype} of {rows.shape}")
    if resize is None:
        raise SchemaError("these are paths; size= says at which size their images are kept")
    return np.stack([_central(resize(image_at(str(path)))) for path in rows])


def _central(image: Image.Image) -> NDArray[np.uint8]:
    side = min(image.size)
    left, top = (round((length - side) / 2) for length in image.size)  # as torchvision's CenterCrop rounds
    return np.asarray(image.crop((left, top, left + side, top + side)))
