"""What codecs share that store feature vectors in fewer bits: as many bytes for every token."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.base import Payload, PayloadCodec
from exmem.errors import CodecError

__all__ = ["FeatureCodec"]


class FeatureCodec(PayloadCodec, abc.ABC):
    """Finite floating values of 16 to 64 bits, packed into the same number of bytes, 1 or more, for every token."""

    worth_threads: ClassVar[bool] = False

    def __init__(self, *, shape: Sequence[int] = (), dtype: DTypeLike = "float32") -> None:
        super().__init__(shape=shape, dtype=dtype)
        if self.dtype not in {"float16", "float32", "float64"} or 0 in self.shape:
            raise CodecError(
                f"{self.codec_id} takes float16, float32 or float64 tokens with values, got {self.dtype} of shape "
                f"{self.shape}; use 'lossless' for other values"
            )
        self.width: int = int(np.prod(self.shape, dtype=np.int64))

    @classmethod
    def _config_for(cls, values: NDArray[Any], **options: Any) -> dict[str, Any]:
        """Return the configuration of a codec of tokens like those given (K, *shape), with options."""
        return {"id": cls.codec_id, "shape": list(values.shape[1:]), "dtype": values.dtype.name, **options}

    @property
    @abc.abstractmethod
    def packed_bytes(self) -> int:
        """Bytes of one encoded token."""

    @abc.abstractmethod
    def pack(self, rows: NDArray[Any]) -> bytes:
        """Encode finite rows (K, width), `packed_bytes` each."""

    @abc.abstractmethod
    def unpack(self, data: NDArray[np.uint8], count: int) -> NDArray[Any]:
        """Decode `count` rows out of `count * packed_bytes` bytes, (count, width)."""

    @override
    def token_count(self, payload: Payload) -> int:
        return len(payload) // self.packed_bytes

    @override
    def encode(self, buf: NDArray[Any]) -> bytes:
        rows = self.check_values(buf).reshape(-1, self.width)
        if not np.isfinite(rows).all():
            raise CodecError(f"{self.codec_id}: values must be finite, got NaN or infinity; check what made them")
        return self.pack(rows) if len(rows) else b""

    @override
    def decode_into(self, payload: Payload, out: NDArray[Any]) -> None:
        if len(payload) != len(out) * self.packed_bytes:
            expected = len(out) * self.packed_bytes
            raise CodecError(f"{self.codec_id}: expected {expected} bytes for {len(out)} tokens, got {len(payload)}")
        if len(out):
            with np.errstate(over="ignore", invalid="ignore"):  # damaged bytes may be any number
                out[...] = self.unpack(np.frombuffer(payload, np.uint8), len(out)).reshape(out.shape)
