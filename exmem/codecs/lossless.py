"""Lossless compression of any values."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.base import Payload, PayloadCodec, read_count, write_count
from exmem.errors import CodecError
from exmem.tokens.checks import whole_number

__all__ = ["Lossless"]


class Lossless(PayloadCodec):
    """Zstandard over little-endian values, bit for bit.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        dtype of the values.
    level : int
        Effort of the compressor, 1..19.

    Raises
    ------
    CodecError
        If `level` is out of range.
    """

    codec_id: ClassVar[str] = "exmem.lossless"

    def __init__(self, *, shape: Sequence[int] = (), dtype: DTypeLike = "uint8", level: int = 9) -> None:
        super().__init__(shape=shape, dtype=dtype)
        level = whole_number(level, f"{self.codec_id}: level", least=1, most=19, error=CodecError)
        self.level = level
        self._zstd = Zstd(level=level)

    @override
    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"level": self.level}

    @override
    def token_count(self, payload: Payload) -> int:
        return read_count(payload)[0]

    @override
    def encode(self, buf: NDArray[Any]) -> bytes:
        values = self.check_values(buf)
        packed = self._zstd.encode(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
        return write_count(len(values)) + bytes(packed)

    @override
    def decode_into(self, payload: Payload, out: NDArray[Any]) -> None:
        self.check_count(payload, out)
        if out.nbytes == 0:
            return
        plain = np.zeros(out.nbytes, np.uint8)
        try:
            # A destination of exactly the right size: a frame that would grow beyond it is refused by the decoder.
            self._zstd.decode(payload[read_count(payload)[1] :], plain)
        except (RuntimeError, ValueError) as error:
            raise CodecError(f"{self.codec_id}: the payload cannot be decoded ({error})") from error
        out[...] = plain.view(np.dtype(self.dtype).newbyteorder("<")).reshape(out.shape)
