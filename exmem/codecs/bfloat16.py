"""Features in bfloat16."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.codecs.features import FeatureCodec
from exmem.errors import CodecError

__all__ = ["BFloat16"]

_LARGEST = 3.3895e38  # what rounds to the largest finite bfloat16


class BFloat16(FeatureCodec):
    """Rounded to the upper half of a float32, to nearest, ties to even: relative error at most 2^-8 from 2^-126 on.

    The range is that of float32; larger values of float64 are refused.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        A floating dtype of 16 to 64 bits.
    """

    codec_id: ClassVar[str] = "exmem.bfloat16"

    @property
    @override
    def packed_bytes(self) -> int:
        return 2 * self.width

    @override
    def pack(self, rows: NDArray[Any]) -> bytes:
        if float(np.abs(rows).max()) > _LARGEST:
            raise CodecError(f"{self.codec_id}: values must be within +-{_LARGEST}; use 'int8'")
        bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return (rounded >> np.uint32(16)).astype("<u2").tobytes()

    @override
    def unpack(self, data: NDArray[np.uint8], count: int) -> NDArray[Any]:
        return (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
