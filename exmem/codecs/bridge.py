"""Makes any payload codec a Zarr v3 array-to-bytes codec, registered through an entry point."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override
from zarr.abc.codec import ArrayBytesCodec

from exmem.codecs.registry import get_codec
from exmem.errors import CodecError

if TYPE_CHECKING:
    from exmem.codecs.base import PayloadCodec

__all__ = ["PayloadBridge"]


@dataclass(frozen=True)
class PayloadBridge(ArrayBytesCodec):
    """The codec `exmem.payload`: one chunk holds one exemplar, shape (1, L, *shape), fill value 0.

    `codec` is the JSON configuration of a payload codec. Trailing tokens that equal the fill value are not encoded, so
    padding costs nothing; they read back as the fill value. Which tokens were kept is not told by the values but by a
    field of the records beside them.
    """

    codec: dict[str, Any]
    is_fixed_size = False

    @property
    def payload_codec(self) -> "PayloadCodec":
        """The payload codec behind this bridge."""
        return get_codec(self.codec)

    @classmethod
    @override
    def from_dict(cls, data: dict[str, Any]) -> "PayloadBridge":
        return cls(codec=dict(data["configuration"]["codec"]))

    @override
    def to_dict(self) -> dict[str, Any]:
        return {"name": "exmem.payload", "configuration": {"codec": dict(self.codec)}}

    @override
    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        raise NotImplementedError("the size of a payload is known only after encoding")

    @override
    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        payload, codec = chunk_data.to_bytes(), self.payload_codec
        count = codec.token_count(payload)
        if chunk_spec.shape[0] != 1 or count > chunk_spec.shape[1]:
            raise CodecError(f"a payload of {count} tokens does not fit a chunk of shape {chunk_spec.shape}")
        values = np.zeros(chunk_spec.shape, codec.dtype)
        codec.decode_into(payload, values[0, :count])
        return chunk_spec.prototype.nd_buffer.from_numpy_array(values)

    @override
    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        if chunk_spec.shape[0] != 1:
            raise CodecError(f"expected one exemplar a chunk, got a chunk of shape {chunk_spec.shape}")
        values = chunk_data.as_numpy_array()[0]
        kept = np.flatnonzero(values.reshape(len(values), -1).any(axis=1))
        count = int(kept[-1]) + 1 if len(kept) else 0
        return chunk_spec.prototype.buffer.from_bytes(self.payload_codec.encode(values[:count]))
