"""The bytes of chunks and shards, as the Zarr v3 specification defines them."""

import functools
import struct
from collections.abc import Sequence
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
    "ZSTD_LEVEL",
    "append_crc",
    "build_shard",
    "decode_rows",
    "encode_rows",
    "index_bytes",
    "most_row_bytes",
    "parse_index",
    "strip_crc",
]

ABSENT = 2**64 - 1
CRC_BYTES = 4
ENTRY_BYTES = 16
ZSTD_LEVEL = 3  # a choice: 0.05 ms a chunk, where level 9 saves 2-4 % of the rows and costs ten times as much


@functools.cache
def _zstd() -> Any:
    return Zstd(level=ZSTD_LEVEL)


def append_crc(data: bytes) -> bytes:
    """Append the CRC-32C of `data`, little-endian (Zarr codec `crc32c`)."""
    return data + struct.pack("<I", google_crc32c.value(data))


def strip_crc(data: bytes | NDArray[np.uint8]) -> bytes | NDArray[np.uint8]:
    """Check and remove what `append_crc` appended, without a copy of an array; CodecError if it does not match."""
    content = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or struct.pack("<I", google_crc32c.value(content)) != bytes(data[-CRC_BYTES:]):
        raise CodecError("the checksum does not match")
    return content


def encode_rows(table: NDArray[Any], rows: int, fill: int) -> bytes:
    """Encode one chunk of `rows` rows, column by column; `table` (n, W) is its beginning, `fill` the rest."""
    plain = np.full((table.shape[1], rows), fill, table.dtype.newbyteorder("<"))
    plain[:, : len(table)] = table.T
    return append_crc(bytes(_zstd().encode(plain.tobytes())))


def decode_rows(data: bytes, rows: int, columns: int, dtype: str) -> NDArray[Any]:
    """Decode one chunk to (rows, columns); CodecError if it is damaged; nothing beyond that shape is allocated."""
    content = strip_crc(data)
    stored = np.zeros((columns, rows), np.dtype(dtype).newbyteorder("<"))
    try:
        _zstd().decode(content, stored.reshape(-1).view(np.uint8))
    except (RuntimeError, ValueError) as error:
        raise CodecError(f"the chunk cannot be decompressed ({error})") from error
    return np.ascontiguousarray(stored.T).astype(dtype, copy=False)


def most_row_bytes(plain_bytes: int) -> int:
    """Return the most bytes that a chunk of rows can take, its checksum included.

    zstd stores what it cannot compress in blocks of 128 KiB with three bytes each, behind at most 18 bytes (RFC 8878).
    """
    return plain_bytes + 3 * (plain_bytes // 2**17 + 1) + 18 + CRC_BYTES


def index_bytes(rows: int) -> int:
    """Return the bytes of the index of a shard of `rows` chunks, its checksum included."""
    return ENTRY_BYTES * rows + CRC_BYTES


def build_shard(pieces: Sequence[bytes], rows: int) -> bytes:
    """Build a shard of payloads with their checksums (empty: none there) in order, the index, and its checksum.

    Zarr codec `sharding_indexed` with the index at the end.
    """
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    index = np.full((rows, 2), ABSENT, "<u8")
    present = np.flatnonzero(lengths)
    index[present, 0] = (np.cumsum(lengths) - lengths)[present]
    index[present, 1] = lengths[present]
    return b"".join([*pieces, append_crc(index.tobytes())])


def parse_index(data: bytes, rows: int, size: int) -> NDArray[np.int64]:
    """Return start and length of each payload, (rows, 2), -1 where there is none; CodecError if that cannot be."""
    index = np.frombuffer(bytes(strip_crc(data)), "<u8").reshape(rows, 2)
    absent = index[:, 0] == ABSENT
    ranges = np.where(absent[:, None], 0, index).astype(np.int64)
    end = size - index_bytes(rows)
    if (ranges < 0).any() or (ranges[:, 0] > end).any() or (ranges[:, 1] > end - ranges[:, 0]).any():
        raise CodecError("an entry of the index leads outside the shard")
    if (ranges[~absent, 1] < CRC_BYTES).any():
        raise CodecError("an entry of the index is shorter than a checksum")
    ranges[absent] = -1
    return ranges
