"""Image patches, lossless."""

from collections.abc import Sequence
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.mosaic import MosaicCodec
from exmem.errors import CodecError
from exmem.tokens.checks import whole_number

__all__ = ["PatchWebp"]

_MOST = 16_383  # libwebp's WEBP_MAX_DIMENSION
_CONTAINER = 20  # RIFF, size, WEBP, VP8L, size: made again from the length of the stream


class PatchWebp(MosaicCodec):
    """The kept patches of an image as one lossless WebP mosaic, bit for bit.

    (Choice, measured by `bench/codecs.py`: 0.44 of the raw bytes for 32-pixel patches, 0.51 for 14-pixel ones, 4-5 %
    more than JPEG XL at effort 7, but decoded 7-10 times faster; PNG takes 0.57 and 0.63, JPEG-LS 0.52 and 0.59, zstd
    0.73 and 0.76.) The container's 20 bytes are not stored.

    Parameters
    ----------
    shape : sequence of int
        Shape of a patch: `(h, w, 3)` for colour, `(h, w, 1)` or `(h, w)` for grey.
    dtype : dtype-like
        Must be uint8.
    effort : int
        Effort of the encoder, 0 (fast) to 6 (small).

    Raises
    ------
    CodecError
        If shape, dtype or effort cannot be used.
    """

    codec_id: ClassVar[str] = "exmem.patch_webp"
    knows_grey: ClassVar[bool] = False

    def __init__(self, *, shape: Sequence[int] = (), dtype: DTypeLike = "uint8", effort: int = 4) -> None:
        super().__init__(shape=shape, dtype=dtype, block=1, most=_MOST)
        effort = whole_number(effort, f"{self.codec_id}: effort", least=0, most=6, error=CodecError)
        self.effort = effort

    @override
    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"effort": self.effort}

    @override
    def pack(self, image: NDArray[np.uint8]) -> bytes:
        stream = bytes(imagecodecs.webp_encode(image, lossless=True, method=self.effort))
        size = int.from_bytes(stream[16:_CONTAINER], "little")
        if stream[12:16] != b"VP8L" or _CONTAINER + size + size % 2 != len(stream):
            raise CodecError(f"{self.codec_id}: this libwebp writes another container; use another imagecodecs version")
        return stream[_CONTAINER : _CONTAINER + size]

    @override
    def unpack(self, content: bytes, image: NDArray[np.uint8]) -> None:
        # The VP8L header (RFC 9649, section 3.4): a signature byte, then 14 bits width - 1 and 14 bits height - 1.
        bits = int.from_bytes(content[1:5], "little")
        shape = ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
        if len(content) < 5 or content[0] != 0x2F or shape != image.shape[:2]:
            raise CodecError(f"{self.codec_id}: the payload holds an image of {shape}, not {image.shape[:2]}")
        odd = b"\0" * (len(content) % 2)
        riff = (12 + len(content) + len(odd)).to_bytes(4, "little")
        stream = b"".join((b"RIFF", riff, b"WEBPVP8L", len(content).to_bytes(4, "little"), content, odd))
        imagecodecs.webp_decode(stream, hasalpha=False, out=image)
