"""What trained codecs keep beside their codes, small: a centre and a scale for each channel, and scales in a byte."""

import base64
import binascii
from typing import Any, NamedTuple

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from exmem.errors import CodecError

__all__ = [
    "STEPS",
    "Channels",
    "from_text",
    "least_spread",
    "normal_levels",
    "read_scales",
    "scales_bytes",
    "to_text",
    "training_rows",
    "whole_centres",
]

# Upper halves of the levels that are best for a normal distribution, in standard deviations (Max 1960, table 1).
_NORMAL_LEVELS = {
    1: (0.7978846,),
    2: (0.4527800, 1.5104176),
    4: (0.1283950, 0.3880483, 0.6567591, 0.9423405, 1.2562310, 1.6180460, 2.0690170, 2.7325900),
}
STEPS = 16  # of a centre in a scale, and of a scale in an octave
_LEAST_SHARE = 1 / 2_040  # of the centre in its scale, so that STEPS times their ratio fits into 16 bits
_MOST_EXPONENT = 255
_LARGEST_BYTES = 4
_HEAD_BYTES = 4


def normal_levels(bits: int) -> NDArray[np.float32]:
    """Return the levels of 1, 2 or 4 bits, rising, in deviations from the centre."""
    upper = np.array(_NORMAL_LEVELS[bits], np.float32)
    return np.concatenate([-upper[::-1], upper])


class Channels(NamedTuple):
    """Centre and scale of each of D channels, rounded to what three bytes hold; a scale of 0 is a channel of zeros."""

    centres: NDArray[np.float32]
    scales: NDArray[np.float32]

    def normalise(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return values (K, D) in scales from their centres; `restore` turns them back."""
        divisors = np.where(self.scales > 0, self.scales, 1).astype(np.float64)
        with np.errstate(over="ignore"):  # what is so far out is infinitely far
            return (rows - self.centres.astype(np.float64)) / divisors

    def restore(self, normal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values (K, D) of normalised ones; `normal` is written over."""
        normal *= self.scales
        normal += self.centres
        return normal

    @classmethod
    def to_bytes(cls, centres: NDArray[Any], spreads: NDArray[Any]) -> bytes:
        """Write centres and what their scales must be at least: scales first, then centres in sixteenths of them."""
        data = scales_bytes(np.maximum(spreads, least_spread(centres)))
        whole = whole_centres(centres, read_scales(data)).astype(np.int32)
        folded = np.where(whole < 0, -2 * whole - 1, 2 * whole).astype("<u2")  # small numbers have an upper byte of 0,
        return data + np.ascontiguousarray(folded.view(np.uint8).reshape(-1, 2).T).tobytes()  # and zstd takes these off

    @classmethod
    def from_bytes(cls, data: bytes, width: int) -> "Channels":
        """Read what `to_bytes` wrote for so many channels; ValueError where a centre or scale is not finite."""
        if len(data) != cls.num_bytes(width):
            raise ValueError(f"they are {len(data)} bytes, expected {cls.num_bytes(width)}")
        scales = read_scales(data[: _LARGEST_BYTES + width])
        folded = np.frombuffer(data, np.uint8, offset=_LARGEST_BYTES + width).reshape(2, width).T.copy().view("<u2")
        whole = folded.ravel().astype(np.int64)
        centres = np.where(whole % 2, -(whole + 1) // 2, whole // 2) * (scales.astype(np.float64) / STEPS)
        if np.abs(centres).max(initial=0) > np.finfo(np.float32).max:
            raise ValueError("a centre is out of range")
        return cls(centres.astype(np.float32), scales)

    @staticmethod
    def num_bytes(width: int) -> int:
        """Return the bytes of so many channels before they are compressed."""
        return _LARGEST_BYTES + 3 * width


def whole_centres(centres: NDArray[Any], scales: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return centres in sixteenths of their scales, which `least_spread` keeps within 16 bits."""
    steps = np.where(scales > 0, scales, 1).astype(np.float64) / STEPS
    whole: NDArray[np.int16] = np.rint(centres / steps).clip(-32_767, 32_767).astype(np.int16)
    return whole


def least_spread(centres: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a scale must be at least for its centre to be written."""
    spread: NDArray[np.float64] = np.abs(centres) * _LEAST_SHARE
    return spread


def scales_bytes(scales: NDArray[Any]) -> bytes:
    """Write scales, 0 or more, as the largest (float32) and how many sixteenths of an octave (uint8) each is below it.

    They are rounded up, by 4.4 % at most; one that is 65,536 times smaller than the largest becomes that.
    """
    largest = np.float32(scales.max(initial=0))
    ratios = np.maximum(scales, np.finfo(np.float64).tiny) / max(float(largest), np.finfo(np.float64).tiny)
    exponents = np.floor(-STEPS * np.log2(ratios) + 1e-6).clip(0, _MOST_EXPONENT).astype(np.uint8)
    return bytes(largest.astype("<f4").tobytes() + exponents.tobytes())


def read_scales(data: bytes) -> NDArray[np.float32]:
    """Read what `scales_bytes` wrote; ValueError where the largest is not finite or below 0."""
    largest = float(np.frombuffer(data, "<f4", count=1)[0])
    if not 0 <= largest <= np.finfo(np.float32).max:
        raise ValueError("a scale is out of range")
    exponents = np.frombuffer(data, np.uint8, offset=_LARGEST_BYTES)
    return np.asarray(largest * np.exp2(-exponents.astype(np.float64) / STEPS), np.float32)


def to_text(data: bytes) -> str:
    """Return bytes as text of a configuration: their number as uint32 and a zstd frame of them, in base64."""
    head = len(data).to_bytes(_HEAD_BYTES, "little")
    return base64.b64encode(head + bytes(Zstd(level=19).encode(data))).decode("ascii")


def from_text(text: object, num_bytes: int) -> bytes:
    """Return the bytes of `to_text`; ValueError where they are not exactly so many."""
    if not isinstance(text, str):
        raise ValueError(f"expected text, got {type(text).__name__}")
    out = np.zeros(num_bytes, np.uint8)
    try:
        packed = base64.b64decode(text, validate=True)
        if int.from_bytes(packed[:_HEAD_BYTES], "little") != num_bytes:
            raise ValueError(f"they are not {num_bytes} bytes")
        # A destination of the right size: a frame that would grow beyond it is refused by the decoder.
        Zstd().decode(packed[_HEAD_BYTES:], out)
    except (binascii.Error, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(str(error)) from error
    return out.tobytes()


def training_rows(values: NDArray[Any], codec_id: str, *, least: int, seed: int, most: int) -> NDArray[np.float64]:
    """Return training tokens as rows, at most so many of them, drawn by the seed; CodecError where they are no such."""
    known = {"float16", "float32", "float64"}
    if not isinstance(values, np.ndarray) or values.dtype.name not in known or values.ndim < 1:
        kind = getattr(values, "dtype", type(values).__name__)
        raise CodecError(f"{codec_id} takes float16, float32 or float64 tokens (K, ...) to train on, got {kind}")
    if len(values) < least or not values.size:
        raise CodecError(f"{codec_id}: training needs {least} finite tokens or more, got {len(values)}")
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(values) <= np.finfo(np.float32).max)
    if wrong.any():
        raise CodecError(f"{codec_id}: training needs values that are finite in float32, got {values[wrong][0]}")
    if len(values) > most:
        values = values[np.sort(np.random.default_rng(seed).choice(len(values), most, replace=False))]
    return values.reshape(len(values), -1).astype(np.float64)


def within(rows: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Cut rows, in place, to the range of a dtype: a level may lie beyond the value that it stands for."""
    largest = np.float32(min(np.finfo(dtype).max, np.finfo(np.float32).max))
    return np.clip(rows, -largest, largest, out=rows)
