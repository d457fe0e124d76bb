"""Values as they are: no compression."""

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.base import Payload, PayloadCodec
from exmem.errors import CodecError

__all__ = ["Raw"]


class Raw(PayloadCodec):
    """Little-endian values without compression, as mainstream replay buffers hold them.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        dtype of the values.
    """

    codec_id: ClassVar[str] = "exmem.raw"
    copies: ClassVar[bool] = sys.byteorder == "little"
    worth_threads: ClassVar[bool] = False

    def __init__(self, *, shape: Sequence[int] = (), dtype: DTypeLike = "uint8") -> None:
        super().__init__(shape=shape, dtype=dtype)
        self._stored = np.dtype(self.dtype).newbyteorder("<")

    @override
    def token_count(self, payload: Payload) -> int:
        return len(payload) // self.token_bytes

    @override
    def encode(self, buf: NDArray[Any]) -> bytes:
        values = self.check_values(buf)
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()

    @override
    def decode_into(self, payload: Payload, out: NDArray[Any]) -> None:
        if len(payload) != len(out) * self.token_bytes:
            raise CodecError(f"{self.codec_id}: expected {len(out) * self.token_bytes} bytes, got {len(payload)}")
        out[...] = np.frombuffer(payload, self._stored).reshape(out.shape)
