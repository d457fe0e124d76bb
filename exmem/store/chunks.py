"""The bytes of chunks and shards, as the Zarr v3 specification defines them."""

import functools
import struct
from collections.abc import Mapping
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from exmem.errors import CodecError

__all__ = [
    "ABSENT",
    "CRC_BYTES",
    "ENTRY_BYTES",
    "append_crc",
    "build_shard",
    "decode_rows",
    "encode_rows",
    "index_bytes",
    "shard_bytes",
    "strip_crc",
]

ABSENT = 2**64 - 1
CRC_BYTES = 4
ENTRY_BYTES = 16


@functools.cache
def _zstd() -> Any:
    return Zstd(level=9)


def append_crc(data: bytes) -> bytes:
    """Append the CRC-32C of `data`, little-endian (Zarr codec `crc32c`)."""
    return data + struct.pack("<I", google_crc32c.value(data))


def strip_crc(data: bytes | NDArray[np.uint8]) -> bytes | NDArray[np.uint8]:
    """Check and remove what `append_crc` appended; nothing is copied out of an array.

    Parameters
    ----------
    data : bytes or ndarray, uint8
        Content and its checksum.

    Returns
    -------
    bytes or ndarray, uint8
        The content.

    Raises
    ------
    CodecError
        If the checksum does not match.
    """
    content = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or struct.pack("<I", google_crc32c.value(content)) != bytes(data[-CRC_BYTES:]):
        raise CodecError("the checksum does not match")
    return content


def encode_rows(rows: NDArray[Any], *, transposed: bool = False) -> bytes:
    """Encode one chunk of a row array or, transposed, of the catalog.

    Parameters
    ----------
    rows : ndarray, shape (R, ...)
        All rows of the chunk.
    transposed : bool
        Whether the columns are stored one after the other.

    Returns
    -------
    bytes
        The chunk.
    """
    plain = np.ascontiguousarray(rows.T if transposed else rows)
    return append_crc(bytes(_zstd().encode(plain.astype(plain.dtype.newbyteorder("<"), copy=False).tobytes())))


def decode_rows(data: bytes, shape: tuple[int, ...], dtype: str, *, transposed: bool = False) -> NDArray[Any]:
    """Decode one chunk of a row array or of the catalog; nothing beyond `shape` is ever allocated.

    Parameters
    ----------
    data : bytes
        The chunk.
    shape : tuple of int
        Shape of the chunk.
    dtype : str
        dtype of the values.
    transposed : bool
        Whether the columns are stored one after the other.

    Returns
    -------
    ndarray, shape `shape`
        The rows.

    Raises
    ------
    CodecError
        If the chunk is damaged.
    """
    content = strip_crc(data)
    stored = np.zeros(shape[::-1] if transposed else shape, np.dtype(dtype).newbyteorder("<"))
    try:
        _zstd().decode(content, stored.reshape(-1).view(np.uint8))
    except (RuntimeError, ValueError) as error:
        raise CodecError(f"the chunk cannot be decompressed ({error})") from error
    return np.ascontiguousarray(stored.T if transposed else stored).astype(dtype, copy=False)


def index_bytes(slots: int) -> int:
    """Return the bytes of the index of a shard of `slots` chunks, its checksum included."""
    return ENTRY_BYTES * slots + CRC_BYTES


def shard_bytes(payload_bytes: int, payloads: int, slots: int) -> int:
    """Return the size of a shard that holds `payloads` payloads of `payload_bytes` in all."""
    return payload_bytes + payloads * CRC_BYTES + index_bytes(slots) if payloads else 0


def build_shard(chunks: Mapping[int, bytes], slots: int) -> bytes:
    """Build a shard: the chunks in slot order, then the index, then the checksum of the index.

    Parameters
    ----------
    chunks : mapping of int to bytes
        Place within the shard -> encoded chunk (payload and checksum).
    slots : int
        Places of the shard.

    Returns
    -------
    bytes
        The shard (Zarr codec `sharding_indexed`, index at the end).
    """
    index = np.full((slots, 2), ABSENT, "<u8")
    offset = 0
    for place in sorted(chunks):
        index[place] = offset, len(chunks[place])
        offset += len(chunks[place])
    return b"".join([*(chunks[place] for place in sorted(chunks)), append_crc(index.tobytes())])
