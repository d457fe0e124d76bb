"""Features in eight to one bits a value."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.bits import pack_codes, row_bytes, unpack_codes
from exmem.codecs.features import FeatureCodec
from exmem.codecs.tables import (
    STEPS,
    Channels,
    from_text,
    least_spread,
    normal_levels,
    to_text,
    training_rows,
    whole_centres,
    within,
)
from exmem.errors import CodecError
from exmem.tokens.checks import choice, whole_number

__all__ = ["ScalarQuantisation"]

_EVEN_BITS = 8  # levels at even distances over the whole range: rounding is fine enough, and clipping would show
_MARGIN = 17 / 16  # of the range, as centres are off by up to 1/32
_TOKEN_BYTES = 4  # scale and centre
_MOST_ROWS = 65_536  # of training; centre and scale of a channel do not change with more
_LARGEST_BFLOAT = 0x7F7F
_FARTHEST = float(np.finfo(np.float32).max) / 2

Scales = Literal["channel", "token"]


class ScalarQuantisation(FeatureCodec):
    """Each value becomes one of 2, 4, 16 or 256 levels around a centre, in steps of a scale.

    Below 8 bits the levels are those of least squared error for a normal distribution (Max 1960), which leaves 36 %,
    12 % or 1 % of the variance at 1, 2 or 4 bits; what is far out comes back as the outermost level. With 8 bits they
    are evenly spaced over the whole range.

    With `scales="channel"` centre and scale of each channel are trained once (`train`) and stored once a memory, where
    they count: 2 to 3 bytes a channel. With `scales="token"` they are those of each token, 4 bytes of it, and nothing
    is trained: for tokens whose channels are alike. Features of a backbone are better kept by channel.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        A floating dtype of 16 to 64 bits; values must be within the range of float32.
    bits : {1, 2, 4, 8}
        Bits of a value.
    scales : {"channel", "token"}
        What has a centre and a scale of its own.
    channels : str
        What `train` returns for `scales="channel"`: `Channels` as a zstd frame, in base64.

    Raises
    ------
    CodecError
        If an option is none of these, or the channels are missing or do not belong to tokens of that shape.
    """

    codec_id: ClassVar[str] = "exmem.scalar"
    stored_apart: ClassVar[frozenset[str]] = frozenset({"channels"})
    trained: ClassVar[bool] = True

    def __init__(
        self,
        *,
        shape: Sequence[int] = (),
        dtype: DTypeLike = "float32",
        bits: int = 2,
        scales: Scales = "channel",
        channels: str = "",
    ) -> None:
        super().__init__(shape=shape, dtype=dtype)
        self.bits, self.scales = _checked(bits, scales, self.codec_id)
        self._levels = _levels(self.bits)
        self._text = channels
        self._channels: Channels | None = None
        if scales == "token" and channels:
            raise CodecError(f"{self.codec_id}: tokens with scales of their own have no channels; leave channels out")
        if scales == "channel":
            if not channels:
                raise CodecError(
                    f"{self.codec_id} needs channels; make its configuration by ScalarQuantisation.train, "
                    "or choose scales='token'"
                )
            try:
                data = from_text(channels, Channels.num_bytes(self.width))
                self._channels = Channels.from_bytes(data, self.width)
            except ValueError as error:
                raise CodecError(f"{self.codec_id}: the channels cannot be read ({error})") from error

    @classmethod
    def train(cls, values: NDArray[Any], *, seed: int = 0, bits: int = 2, scales: Scales = "channel") -> dict[str, Any]:
        """Measure centre and scale of each channel and return the configuration of the codec.

        Parameters
        ----------
        values : ndarray, shape (K, *shape), floating
            Tokens like those that will be stored, 2 or more.
        seed : int
            Seed of the tokens that are measured, where there are more than 65,536.
        bits : {1, 2, 4, 8}
            Bits of a value.
        scales : {"channel", "token"}
            What has a centre and a scale of its own; with "token" there is nothing to train.

        Returns
        -------
        dict
            JSON configuration, for `TokenSpec(codec=...)`.

        Raises
        ------
        CodecError
            If there are too few tokens, values are not finite, or an option is none of these.
        """
        bits, scales = _checked(bits, scales, cls.codec_id)
        rows = training_rows(values, cls.codec_id, least=2, seed=seed, most=_MOST_ROWS)
        config = cls._config_for(values, bits=bits, scales=scales)
        if scales == "channel":
            centres, spreads = _centre_and_spread(rows, bits, axis=0)
            if spreads.max() > _FARTHEST:
                raise CodecError(f"{cls.codec_id}: channels must spread over less than float32, got {spreads.max():g}")
            config["channels"] = to_text(Channels.to_bytes(centres, spreads))
        return config

    @override
    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | {"bits": self.bits, "scales": self.scales}
        return config | ({"channels": self._text} if self._text else {})

    @property
    @override
    def packed_bytes(self) -> int:
        return row_bytes(self.width, self.bits) + (_TOKEN_BYTES if self._channels is None else 0)

    @override
    def pack(self, rows: NDArray[Any]) -> bytes:
        values, head = rows.astype(np.float64), np.zeros((len(rows), 0), np.uint8)
        if self._channels is not None:
            normal = self._channels.normalise(values)
        else:
            if np.abs(values).max() > np.finfo(np.float32).max:
                raise CodecError(f"{self.codec_id}: values must be within the range of float32")
            head = _token_heads(values, self.bits)
            normal = _read_heads(head).normalise(values)
        codes = np.searchsorted((self._levels[1:] + self._levels[:-1]) / 2, normal, side="right")
        return np.concatenate([head, pack_codes(codes, self.bits)], axis=1).tobytes()

    @override
    def unpack(self, data: NDArray[np.uint8], count: int) -> NDArray[Any]:
        table, channels = data.reshape(count, self.packed_bytes), self._channels
        if channels is None:
            channels = _read_heads(table[:, :_TOKEN_BYTES])
            if not np.isfinite(channels.scales).all():
                raise CodecError(f"{self.codec_id}: the payload is damaged, a scale is not finite")
            table = table[:, _TOKEN_BYTES:]
        return within(channels.restore(self._levels[unpack_codes(table, self.bits, self.width)]), self.dtype)


def _checked(bits: int, scales: Scales, codec_id: str) -> tuple[int, Scales]:
    bits = whole_number(bits, f"{codec_id}: bits", least=1, most=8, error=CodecError)
    if bits not in {1, 2, 4, _EVEN_BITS}:
        raise CodecError(f"{codec_id}: bits must be 1, 2, 4 or 8, got {bits}")
    choice(scales, f"{codec_id} scales", ("channel", "token"), error=CodecError)
    return bits, scales


def _levels(bits: int) -> NDArray[np.float32]:
    """Return the levels, rising, in scales from the centre."""
    if bits == _EVEN_BITS:
        return np.linspace(-1, 1, 2**bits).astype(np.float32)
    return normal_levels(bits)


def _centre_and_spread(
    rows: NDArray[np.float64], bits: int, *, axis: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the levels of rows or columns lie: around the mean, by their deviation; with 8 bits, the range."""
    if bits != _EVEN_BITS:
        return rows.mean(axis), rows.std(axis)
    low, high = rows.min(axis), rows.max(axis)
    return (low + high) / 2, (high - low) / 2 * _MARGIN


def _token_heads(rows: NDArray[np.float64], bits: int) -> NDArray[np.uint8]:
    """Return scale (bfloat16, rounded up) and centre (int16, sixteenths of it) of each row, (K, 4) bytes."""
    centres, spreads = _centre_and_spread(rows, bits, axis=1)
    least = np.maximum(spreads, least_spread(centres)).clip(0, np.finfo(np.float32).max)
    upper = (least.astype(np.float32).view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)
    scales = upper.clip(0, _LARGEST_BFLOAT).astype("<u2")
    whole = whole_centres(centres, (scales.astype(np.uint32) << np.uint32(16)).view(np.float32)).astype("<i2")
    return np.stack([scales, whole.view("<u2")], axis=1).view(np.uint8)


def _read_heads(heads: NDArray[np.uint8]) -> Channels:
    """Return centre and scale of each row, (K, 1); damaged bytes may be any number."""
    words = np.ascontiguousarray(heads).view("<u2")
    scales = (words[:, :1].astype(np.uint32) << np.uint32(16)).view(np.float32)
    whole = words[:, 1:].view("<i2")
    with np.errstate(all="ignore"):
        return Channels((whole * scales.astype(np.float64) / STEPS).astype(np.float32), scales)
