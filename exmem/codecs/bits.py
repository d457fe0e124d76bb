"""Codes of 1, 2, 4 or 8 bits, packed into bytes row by row; the first code takes the lowest bits."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack_codes", "row_bytes", "unpack_codes"]


def row_bytes(width: int, bits: int) -> int:
    """Return the bytes of a row of so many codes."""
    return -(-width * bits // 8)


def pack_codes(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Pack codes (K, width) into bytes (K, row_bytes); what is left over in the last byte of a row is 0."""
    per_byte, (count, width) = 8 // bits, codes.shape
    num_bytes = row_bytes(width, bits)
    padded = np.zeros((count, num_bytes * per_byte), np.uint8)
    padded[:, :width] = codes
    shifted = padded.reshape(count, num_bytes, per_byte) << _shifts(bits)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(shifted, axis=2)
    return packed


def unpack_codes(data: NDArray[np.uint8], bits: int, width: int) -> NDArray[np.uint8]:
    """Return the codes (K, width) of packed rows (K, row_bytes); whatever the bytes, each is below 2^bits."""
    if bits == 8:
        return data
    return _codes_of_bytes(bits)[data].reshape(len(data), data.shape[1] * 8 // bits)[:, :width]


def _shifts(bits: int) -> NDArray[np.uint8]:
    return np.arange(0, 8, bits, dtype=np.uint8)


@functools.cache
def _codes_of_bytes(bits: int) -> NDArray[np.uint8]:
    """Return the codes that each of the 256 bytes holds."""
    codes: NDArray[np.uint8] = np.arange(256, dtype=np.uint8)[:, None] >> _shifts(bits) & np.uint8(2**bits - 1)
    codes.flags.writeable = False
    return codes
