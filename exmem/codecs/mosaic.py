"""What codecs share that store the kept patches of an image as one image."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.base import Payload, PayloadCodec, read_count, write_count
from exmem.errors import CodecError

__all__ = ["MosaicCodec"]


class MosaicCodec(PayloadCodec, abc.ABC):
    """The kept patches, uint8 of 1 or 3 channels, as one column, each padded with its own edge to whole blocks.

    `block` is what sides are padded to multiples of, `most` the largest side that the image codec takes. (Choice,
    measured by `bench/codecs.py` on photographs at 40 % kept, against a square mosaic without padding, headers aside:
    JPEG is 13 % smaller for 32-pixel patches, 2 % smaller and 1.1 dB better for 14-pixel ones, lossless WebP 1-3 %
    smaller, because no block mixes two patches and no filler tiles are needed.)
    """

    knows_grey: ClassVar[bool] = True  # False where grey is stored as colour

    def __init__(self, *, shape: Sequence[int], dtype: DTypeLike, block: int, most: int) -> None:
        super().__init__(shape=shape, dtype=dtype)
        self._grey = len(self.shape) == 2 or self.shape[2:] == (1,)
        if self.dtype != "uint8" or not (self._grey or (len(self.shape) == 3 and self.shape[2] == 3)):
            raise CodecError(
                f"{self.codec_id} takes uint8 patches of shape (h, w), (h, w, 1) or (h, w, 3), got {self.dtype} of "
                f"shape {self.shape}; use 'lossless' for other values"
            )
        self._tile = tuple(-(-side // block) * block for side in self.shape[:2])
        self._most = most
        if not 0 < min(self._tile) <= max(self._tile) <= most:
            raise CodecError(f"{self.codec_id}: sides of a patch must be in 1..{most}, got {self.shape[:2]}")

    @property
    @override
    def max_tokens(self) -> int:
        """Most tokens that fit into one image."""
        return self._most // self._tile[0]

    @abc.abstractmethod
    def pack(self, image: NDArray[np.uint8]) -> bytes:
        """Encode an image of whole tiles; grey ones have two axes."""

    @abc.abstractmethod
    def unpack(self, content: bytes, image: NDArray[np.uint8]) -> None:
        """Decode what `pack` returned into an image of the same shape; refuse one of another."""

    @override
    def token_count(self, payload: Payload) -> int:
        return read_count(payload)[0]

    @override
    def encode(self, buf: NDArray[Any]) -> bytes:
        values = self.check_values(buf)
        if len(values) > self.max_tokens:
            raise CodecError(f"{self.codec_id} takes at most {self.max_tokens} patches of this size, got {len(values)}")
        if len(values) == 0:
            return write_count(0)
        image = self._to_image(values)
        colour = image if self.knows_grey or not self._grey else np.repeat(image[..., None], 3, axis=-1)
        return write_count(len(values)) + self.pack(colour)

    @override
    def decode_into(self, payload: Payload, out: NDArray[Any]) -> None:
        self.check_count(payload, out)
        count, used = read_count(payload)
        if count > self.max_tokens:
            raise CodecError(f"{self.codec_id}: {count} patches cannot be in one image")
        if count == 0:
            return
        as_colour = self._grey and not self.knows_grey
        direct = None if as_colour else self._image_for(out)
        shape = (*self._image_shape(count), *((3,) if as_colour else ()))
        image = np.empty(shape, np.uint8) if direct is None else direct
        try:
            self.unpack(bytes(payload[used:]), image)
        except (RuntimeError, ValueError) as error:
            raise CodecError(f"{self.codec_id}: the payload cannot be decoded ({error})") from error
        if direct is None:
            self._from_image(image[..., 0] if as_colour else image, out)

    def _image_shape(self, count: int) -> tuple[int, ...]:
        return (count * self._tile[0], self._tile[1], *(() if self._grey else (3,)))

    def _to_image(self, values: NDArray[Any]) -> NDArray[Any]:
        """Pad each patch with its edge to whole blocks: (K * height, width[, 3])."""
        flat = values.reshape(len(values), *self.shape[:2]) if self._grey else values
        if self.shape[:2] != self._tile:
            margins = [(0, 0), *((0, tile - side) for tile, side in zip(self._tile, self.shape, strict=False))]
            flat = np.pad(flat, margins + [(0, 0)] * (flat.ndim - 3), mode="edge")
        return flat.reshape(-1, *flat.shape[2:])

    def _image_for(self, out: NDArray[Any]) -> NDArray[Any] | None:
        """Return `out` as the image to decode into, None where patches have margins to be cut off."""
        if self.shape[:2] == self._tile and out.flags.c_contiguous:
            return out.reshape(self._image_shape(len(out)))
        return None

    def _from_image(self, image: NDArray[Any], out: NDArray[Any]) -> None:
        """Cut the margins off."""
        tiles = image.reshape(len(out), *self._tile, *image.shape[2:])[:, : self.shape[0], : self.shape[1]]
        out[...] = tiles.reshape(out.shape)
