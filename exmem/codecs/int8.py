"""Features in eight bits."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.codecs.features import FeatureCodec
from exmem.errors import CodecError

__all__ = ["Int8"]

_LEVELS = 127
_SCALE_BYTES = 4


class Int8(FeatureCodec):
    """Multiples of a scale per token, -127..127: the error is at most 1/254 of the token's largest value.

    (A rounding error of the dtype itself comes on top.) The scale is a float32, so values must be within its range.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        A floating dtype of 16 to 64 bits.
    """

    codec_id: ClassVar[str] = "exmem.int8"

    @property
    @override
    def packed_bytes(self) -> int:
        return _SCALE_BYTES + self.width

    @override
    def pack(self, rows: NDArray[Any]) -> bytes:
        largest = np.abs(rows).max(axis=1).astype(np.float64)
        if largest.max() > np.finfo(np.float32).max:
            raise CodecError(f"{self.codec_id}: values must be within the range of float32")
        scales = (largest / _LEVELS).astype("<f4")
        # Near the largest float32 a scale that was rounded up leads beyond it.
        beyond = scales.astype(np.float64) * _LEVELS > np.finfo(np.float32).max
        scales[beyond] = np.nextafter(scales[beyond], np.float32(0))
        # The scale as it is stored, so that encoder and decoder agree; where it underflows, all is 0.
        steps = np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
        levels = np.clip(np.rint(rows / steps), -_LEVELS, _LEVELS).astype(np.int8)
        return np.concatenate(
            [scales.view(np.uint8).reshape(-1, _SCALE_BYTES), levels.view(np.uint8)], axis=1
        ).tobytes()

    @override
    def unpack(self, data: NDArray[np.uint8], count: int) -> NDArray[Any]:
        table = data.reshape(count, self.packed_bytes)
        scales = np.ascontiguousarray(table[:, :_SCALE_BYTES]).view("<f4")
        rows: NDArray[Any] = table[:, _SCALE_BYTES:].view(np.int8) * scales.astype(
            np.float64 if self.dtype == "float64" else np.float32
        )
        return rows
