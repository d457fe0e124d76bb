"""Image patches as AVIF."""

from collections.abc import Sequence
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.mosaic import MosaicCodec
from exmem.errors import CodecError
from exmem.tokens.checks import choice, whole_number

__all__ = ["PatchAvif"]

_MOST = 32_768  # libavif's default size limit of a side
_PIXEL_FORMATS = {"420": "YUV420", "444": "YUV444"}


class PatchAvif(MosaicCodec):
    """The kept patches of an image as one AVIF mosaic.

    (Measured by `bench/codecs.py`, 32-pixel patches: quality 60 takes 22 % fewer bytes than `patch_jpeg` at quality
    75 and is 0.8 dB better, and encodes 60 times slower. Its container costs some 300 bytes an exemplar, so it does
    not pay below about 1.5 kB.)

    Parameters
    ----------
    shape : sequence of int
        Shape of a patch: `(h, w, 3)` for colour, `(h, w, 1)` or `(h, w)` for grey.
    dtype : dtype-like
        Must be uint8.
    quality : int
        1 (small) to 100 (good).
    speed : int
        Speed of the encoder, 0 (small) to 10 (fast).
    subsampling : {"420", "444"}
        Chroma resolution; ignored for grey.

    Raises
    ------
    CodecError
        If shape, dtype, quality, speed or subsampling cannot be used.
    """

    codec_id: ClassVar[str] = "exmem.patch_avif"

    def __init__(
        self,
        *,
        shape: Sequence[int] = (),
        dtype: DTypeLike = "uint8",
        quality: int = 60,
        speed: int = 8,
        subsampling: str = "420",
    ) -> None:
        super().__init__(shape=shape, dtype=dtype, block=8, most=_MOST)
        quality = whole_number(quality, f"{self.codec_id}: quality", least=1, most=100, error=CodecError)
        speed = whole_number(speed, f"{self.codec_id}: speed", least=0, most=10, error=CodecError)
        choice(subsampling, f"{self.codec_id}: subsampling", _PIXEL_FORMATS, error=CodecError)
        self.quality: int = quality
        self.speed: int = speed
        self.subsampling: str = subsampling

    @override
    def get_config(self) -> dict[str, Any]:
        options = {"quality": self.quality, "speed": self.speed, "subsampling": self.subsampling}
        return super().get_config() | options

    @override
    def pack(self, image: NDArray[np.uint8]) -> bytes:
        formats = imagecodecs.AVIF.PIXEL_FORMAT
        wanted = formats.YUV400 if self._grey else formats[_PIXEL_FORMATS[self.subsampling]]
        return bytes(
            imagecodecs.avif_encode(image, level=self.quality, speed=self.speed, pixelformat=wanted, numthreads=1)
        )

    @override
    def unpack(self, content: bytes, image: NDArray[np.uint8]) -> None:
        imagecodecs.avif_decode(content, numthreads=1, out=image)  # refuses a stream of another size
