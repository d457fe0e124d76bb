"""Features in half precision."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.codecs.features import FeatureCodec
from exmem.errors import CodecError

__all__ = ["Float16"]

_LARGEST = 65_504.0


class Float16(FeatureCodec):
    """Rounded to IEEE half precision: relative error at most 2^-11 from 2^-14 on, absolute 2^-25 below.

    Values above 65,504 are refused.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        A floating dtype of 16 to 64 bits.
    """

    codec_id: ClassVar[str] = "exmem.float16"

    @property
    @override
    def packed_bytes(self) -> int:
        return 2 * self.width

    @override
    def pack(self, rows: NDArray[Any]) -> bytes:
        if float(np.abs(rows).max()) > _LARGEST:
            raise CodecError(f"{self.codec_id}: values must be within +-65,504; use 'bfloat16' or 'int8'")
        return rows.astype("<f2").tobytes()

    @override
    def unpack(self, data: NDArray[np.uint8], count: int) -> NDArray[Any]:
        return data.view("<f2")
