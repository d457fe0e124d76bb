"""The contract of a payload codec."""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from exmem.errors import CodecError
from exmem.tokens.checks import rows_text

if TYPE_CHECKING:  # numcodecs has no types: this is what exmem has of its base

    class Codec:
        codec_id: ClassVar[str]
else:
    from numcodecs.abc import Codec

__all__ = ["Payload", "PayloadCodec", "read_count", "write_count"]

Payload: TypeAlias = "bytes | NDArray[np.uint8]"  # an array where a mapped file must not be copied

_MAX_COUNT_BYTES = 4
MAX_TOKENS = 2**24


class PayloadCodec(Codec, abc.ABC):
    """Turns the values of K tokens into bytes and back.

    A codec is its JSON configuration: `get_codec(codec.get_config())` is an equal codec. The number of tokens is part
    of the payload, so that a decoder can refuse it before it allocates anything.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        dtype of the values.

    Raises
    ------
    CodecError
        If the codec cannot take such tokens.
    """

    stored_apart: ClassVar[frozenset[str]] = frozenset()  # options that only the array's own metadata holds
    worth_threads: ClassVar[bool] = True  # False where decoding is little more than copying
    trained: ClassVar[bool] = False  # True where `train(values, *, seed, **options)` makes the configuration
    copies: ClassVar[bool] = False  # True where a payload is the bytes of the values as they lie in memory

    def __init__(self, *, shape: Sequence[int] = (), dtype: DTypeLike = "uint8") -> None:
        self.shape: tuple[int, ...] = tuple(int(side) for side in shape)
        self.dtype = np.dtype(dtype).name
        self._row_bytes = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(dtype).itemsize

    @property
    def token_bytes(self) -> int:
        """Bytes of one decoded token."""
        return self._row_bytes

    @property
    def max_tokens(self) -> int:
        """Most tokens that fit into one payload."""
        return MAX_TOKENS

    def get_config(self) -> dict[str, Any]:
        """Return the JSON configuration from which an equal codec can be made."""
        return {"id": self.codec_id, "shape": list(self.shape), "dtype": self.dtype}

    @abc.abstractmethod
    def token_count(self, payload: Payload) -> int:
        """Return the number of tokens that a payload claims to hold.

        Parameters
        ----------
        payload : bytes
            What `encode` returned.

        Returns
        -------
        int
            Tokens, 0 or more.
        """

    @abc.abstractmethod
    def encode(self, buf: NDArray[Any]) -> bytes:
        """Encode the values of K tokens.

        Parameters
        ----------
        buf : ndarray, shape (K, *shape)
            Values of the codec's dtype.

        Returns
        -------
        bytes
            The payload; the same input gives the same bytes.
        """

    @abc.abstractmethod
    def decode_into(self, payload: Payload, out: NDArray[Any]) -> None:
        """Decode exactly `len(out)` tokens into `out`.

        Parameters
        ----------
        payload : bytes
            What `encode` returned for `len(out)` tokens.
        out : ndarray, shape (K, *shape), C-contiguous
            Receives the values.

        Raises
        ------
        CodecError
            If the payload is damaged or holds another number of tokens.
        """

    def decode(self, buf: bytes, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode a payload; see `decode_into` for reading into a larger batch.

        Parameters
        ----------
        buf : bytes
            What `encode` returned.
        out : ndarray, shape (K, *shape), optional
            Receives the values.

        Returns
        -------
        ndarray, shape (K, *shape)
            The values.

        Raises
        ------
        CodecError
            If the payload is damaged.
        """
        payload = bytes(buf)
        if out is None:
            out = np.empty((self.token_count(payload), *self.shape), self.dtype)
        self.decode_into(payload, out)
        return out

    def check_values(self, values: NDArray[Any]) -> NDArray[Any]:
        """Refuse values of another shape or dtype; return them C-contiguous.

        Parameters
        ----------
        values : ndarray, shape (K, *shape)
            Values to be encoded.

        Returns
        -------
        ndarray, shape (K, *shape)
            The same values, C-contiguous.

        Raises
        ------
        CodecError
            If shape or dtype differ from the codec's.
        """
        if values.shape[1:] != self.shape or values.dtype.name != self.dtype:
            raise CodecError(
                f"{self.codec_id} expects values {rows_text(self.shape)} of {self.dtype}, "
                f"got {values.shape} of {values.dtype}"
            )
        return np.ascontiguousarray(values)

    def check_count(self, payload: Payload, out: NDArray[Any]) -> None:
        """Refuse a payload that does not hold exactly `len(out)` tokens.

        Parameters
        ----------
        payload : bytes
            What `encode` returned.
        out : ndarray, shape (K, *shape)
            Where it is to be decoded to.

        Raises
        ------
        CodecError
            If the number of tokens differs.
        """
        count = self.token_count(payload)
        if count != len(out):
            raise CodecError(f"{self.codec_id}: the payload holds {count} tokens, expected {len(out)}")


def write_count(count: int) -> bytes:
    """Write a number of tokens as LEB128: seven bits a byte, low first, high bit set on all but the last."""
    out = bytearray()
    while count > 0x7F:
        out.append(count & 0x7F | 0x80)
        count >>= 7
    out.append(count)
    return bytes(out)


def read_count(payload: Payload) -> tuple[int, int]:
    """Return a payload's count and the bytes that it takes; CodecError if cut off or longer than four bytes."""
    count = 0
    for used, byte in enumerate(bytes(payload[:_MAX_COUNT_BYTES])):
        count |= (byte & 0x7F) << (7 * used)
        if byte < 0x80:
            return count, used + 1
    raise CodecError(f"a payload of {len(payload)} bytes does not begin with a token count")
