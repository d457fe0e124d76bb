"""Image tokens as one JPEG per exemplar, with the header that all exemplars share kept apart."""

import base64
import binascii
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.mosaic import MosaicCodec
from exmem.errors import CodecError
from exmem.tokens.checks import choice, whole_number

__all__ = ["PatchJpeg"]

_MAX_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION
_EOI = b"\xff\xd9"
_SOF0, _SOS = 0xC0, 0xDA


class PatchJpeg(MosaicCodec):
    """The kept patches of an image as one JPEG mosaic.

    Only the entropy-coded data is stored per exemplar; the header (about 600 bytes) is the same for all and is part of
    the configuration, so a payload of any age decodes without knowing the encoder.

    Parameters
    ----------
    shape : sequence of int
        Shape of a patch: `(h, w, 3)` for colour, `(h, w, 1)` or `(h, w)` for grey.
    dtype : dtype-like
        Must be uint8.
    quality : int
        1 (small) to 100 (good), as libjpeg counts.
    subsampling : {"420", "444"}
        Chroma resolution; ignored for grey.
    header : str, optional
        The shared header in base64, as `get_config` gives it; made by the encoder when left out.

    Raises
    ------
    CodecError
        If shape, dtype, quality, subsampling or header cannot be used.
    """

    codec_id: ClassVar[str] = "exmem.patch_jpeg"

    def __init__(
        self,
        *,
        shape: Sequence[int] = (),
        dtype: DTypeLike = "uint8",
        quality: int = 75,
        subsampling: str = "420",
        header: str | None = None,
    ) -> None:
        quality = whole_number(quality, f"{self.codec_id}: quality", least=1, most=100, error=CodecError)
        subsampling = str(subsampling)  # 444 is a number where configurations are written as text
        choice(subsampling, f"{self.codec_id}: subsampling", ("420", "444"), error=CodecError)
        grey = len(tuple(shape)) == 2 or tuple(shape)[2:] == (1,)
        super().__init__(shape=shape, dtype=dtype, block=16 if subsampling == "420" and not grey else 8, most=_MAX_SIDE)
        self.quality: int = quality
        self.subsampling: str = subsampling
        self._set_header(_decode_header(header) if header is not None else self._encode_header())

    @override
    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "quality": self.quality,
            "subsampling": self.subsampling,
            "header": base64.b64encode(self._header).decode("ascii"),
        }

    @override
    def pack(self, image: NDArray[np.uint8]) -> bytes:
        stream = self._encode_image(image)
        if stream[: len(self._header)] != self._header_for(len(image)) or not stream.endswith(_EOI):
            raise CodecError(
                f"{self.codec_id}: this libjpeg writes other JPEG tables than the memory was made with; "
                "add with the imagecodecs version that made it, or make a new memory"
            )
        return stream[len(self._header) : -len(_EOI)]

    @override
    def unpack(self, content: bytes, image: NDArray[np.uint8]) -> None:
        imagecodecs.jpeg8_decode(b"".join((self._header_for(len(image)), content, _EOI)), out=image)

    def _encode_image(self, image: NDArray[Any]) -> bytes:
        subsampling = None if self._grey else self.subsampling
        return bytes(imagecodecs.jpeg8_encode(image, level=self.quality, subsampling=subsampling))

    def _encode_header(self) -> bytes:
        """Return the bytes up to the scan of an image of one patch, its height set to 0."""
        height, width = self._tile
        stream = self._encode_image(np.zeros((height, width) if self._grey else (height, width, 3), np.uint8))
        frame, end = _segments(stream)
        return stream[:frame] + b"\0\0" + stream[frame + 2 : end]

    def _set_header(self, header: bytes) -> None:
        self._height_at, end = _segments(header)
        if (
            end != len(header)
            or int.from_bytes(header[self._height_at + 2 : self._height_at + 4], "big") != self._tile[1]
        ):
            raise CodecError(f"{self.codec_id}: the shared header does not belong to patches of shape {self.shape}")
        self._header = header

    def _header_for(self, height: int) -> bytes:
        at = self._height_at
        return b"".join((self._header[:at], height.to_bytes(2, "big"), self._header[at + 2 :]))


@functools.lru_cache(maxsize=64)
def _decode_header(header: str) -> bytes:
    try:
        return base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise CodecError(f"the shared JPEG header is not base64 ({error})") from error


def _segments(stream: bytes) -> tuple[int, int]:
    # The height field of the frame header and the end of the scan header (ITU-T T.81, annex B).
    at, height_at = 2, -1
    while stream[:2] == b"\xff\xd8" and at + 4 <= len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker == _SOF0:
            height_at = at + 5
        at += 2 + length
        if marker == _SOS and height_at > 0 and at <= len(stream):
            return height_at, at
    raise CodecError("not a baseline JPEG header")
