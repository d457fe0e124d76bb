"""Sets of numbers as short text, for the document of the state: increasing numbers as gaps, places as lists or bits."""

import base64
import binascii
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "dead_token",
    "from_text",
    "leb128",
    "pack_dead",
    "pack_increasing",
    "text_bytes",
    "to_text",
    "unpack_dead",
    "unpack_increasing",
]

_MOST_BYTES = 9  # of a count: seven bits each, 63 bits in all


def leb128(number: int) -> bytes:
    """Return a number of 0 or more as LEB128: seven bits a byte, low first, the high bit set on all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def pack_increasing(numbers: NDArray[np.int64]) -> bytes:
    """Return strictly increasing numbers of 0 or more as LEB128 gaps: each less the one before, less one."""
    gaps = np.diff(numbers, prepend=-1) - 1
    if len(gaps) == 0 or int(gaps.max()) < 0x80:
        return gaps.astype(np.uint8).tobytes()
    septets = gaps[:, None] >> (7 * np.arange(_MOST_BYTES))
    used = np.maximum((septets > 0).sum(axis=1), 1)
    places = np.arange(_MOST_BYTES) < used[:, None]
    more = np.arange(_MOST_BYTES) < used[:, None] - 1
    packed: NDArray[np.uint8] = ((septets & 0x7F) | np.where(more, 0x80, 0)).astype(np.uint8)
    plain: bytes = packed[places].tobytes()
    return plain


def unpack_increasing(packed: bytes) -> NDArray[np.int64]:
    """Return what `pack_increasing` packed; ValueError when it is cut off or too large for 63 bits."""
    data = np.frombuffer(packed, np.uint8)
    if len(data) == 0:
        return np.zeros(0, np.int64)
    last = data < 0x80
    if not last[-1]:
        raise ValueError("a number is cut off")
    number = np.concatenate([[0], np.cumsum(last)[:-1]])
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(data)) - starts[number]
    if int(place.max()) >= _MOST_BYTES:
        raise ValueError("a number is too large")
    gaps = np.zeros(int(last.sum()), np.int64)
    np.add.at(gaps, number, (data & 0x7F).astype(np.int64) << (7 * place))
    numbers = np.cumsum(gaps + 1) - 1
    if int(numbers[-1]) < 0 or (np.diff(numbers) <= 0).any():
        raise ValueError("the numbers overflow")
    return numbers


def dead_token(segment: int, dead: int, rows: int) -> bytes:
    """Return the dead rows (as bits) of one segment: its number, then a count and the places, or 0 and a bitmap."""
    count = dead.bit_count()
    if count * 8 < rows:
        places = bytes(place for place in range(rows) if dead >> place & 1)
        return leb128(segment) + bytes([count]) + places
    return leb128(segment) + b"\0" + dead.to_bytes(-(-rows // 8), "little")


def pack_dead(tokens: Mapping[int, bytes]) -> bytes:
    """Return the tokens of all segments with dead rows, by number."""
    return b"".join(tokens[segment] for segment in sorted(tokens))


def unpack_dead(packed: bytes, rows: int) -> dict[int, int]:
    """Return the dead rows of each segment as bits; ValueError when the bytes are no such tokens."""
    dead_of: dict[int, int] = {}
    at, width = 0, -(-rows // 8)
    while at < len(packed):
        segment, shift = 0, 0
        while packed[at] & 0x80:
            segment, shift, at = segment | (packed[at] & 0x7F) << shift, shift + 7, at + 1
            if at >= len(packed) or shift > 7 * _MOST_BYTES:
                raise ValueError("a number is cut off")
        segment |= packed[at] << shift
        if at + 1 >= len(packed):
            raise ValueError("a count is cut off")
        count = packed[at + 1]
        end = at + 2 + (count or width)
        body = packed[at + 2 : end]
        dead = sum(1 << place for place in set(body)) if count else int.from_bytes(body, "little")
        if len(body) != (count or width) or dead >> rows or segment in dead_of:
            raise ValueError(f"the dead rows of segment {segment} are damaged")
        dead_of[segment], at = dead, end
    return dead_of


def to_text(packed: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(packed).decode("ascii")


def from_text(text: str) -> bytes:
    """Return the bytes of base64; ValueError when it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"no base64: {error}") from error


def text_bytes(packed_bytes: int) -> int:
    """Return the length of the base64 of so many bytes."""
    return 4 * -(-packed_bytes // 3)
