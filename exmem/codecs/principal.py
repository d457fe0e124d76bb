"""Features as few coordinates of their principal components."""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.bits import pack_codes, row_bytes, unpack_codes
from exmem.codecs.features import FeatureCodec
from exmem.codecs.tables import (
    Channels,
    from_text,
    normal_levels,
    read_scales,
    scales_bytes,
    to_text,
    training_rows,
    within,
)
from exmem.errors import CodecError
from exmem.tokens.checks import shown, whole_number

__all__ = ["PrincipalComponents"]

_BITS = (4, 2, 1)  # of a coordinate, the widest first
_OFF = {0: 1.0, 1: 0.3634, 2: 0.1175, 4: 0.00954}  # of the variance, left by so many bits (Max 1960, table 1)
_LEVELS = 3  # of a value in the basis, 2.4 bits as zstd leaves them: five bits more change no accuracy (bench.bits)
_STEPS = 2_047  # of a coordinate in the largest: sums of their products with the basis are exact in float32
_CLIPS = np.linspace(0.3, 1, 8)  # of the largest value of a component, tried as the end of its levels
_LEAST_ROWS, _MOST_ROWS = 32, 16_384  # of training
_FARTHEST = 1e15  # of a value from the centre


class _Tables(NamedTuple):
    channels: Channels
    basis: NDArray[np.float32]  # (R, D), whole numbers
    scales: NDArray[np.float32]  # (R,)
    inverse: NDArray[np.float64]  # (D, R): centred values -> coordinates of deviation 1


class PrincipalComponents(FeatureCodec):
    """A token is its coordinates on the principal components of the training tokens, each in 4, 2, 1 or 0 bits.

    Bits go where they take most off the squared error; levels are those of least error for a normal distribution
    (Max 1960). It needs a quarter of the bytes of `scalar` for the same accuracy, and a basis, which is stored once a
    memory and counts: about half a byte times the values of a token, for each component. What tokens have beside these
    components, unlike those of the training, is lost.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        A floating dtype of 16 to 64 bits.
    bytes : int
        Most bytes of an encoded token; no coordinate takes more than 4 bits.
    components : sequence of int
        What `train` returns: how many coordinates have 4, 2 and 1 bits.
    basis : str
        What `train` returns: `Channels` (the centres), a scale for each component (uint8, after a float32), and the
        components as whole numbers of -3..3 (int8), all as one zstd frame in base64.

    Raises
    ------
    CodecError
        If an option is none of these, or the basis is missing or does not belong to tokens of that shape.
    """

    codec_id: ClassVar[str] = "exmem.principal"
    stored_apart: ClassVar[frozenset[str]] = frozenset({"basis"})
    trained: ClassVar[bool] = True

    def __init__(
        self,
        *,
        shape: Sequence[int] = (),
        dtype: DTypeLike = "float32",
        bytes: int = 24,  # noqa: A002 - the word of a recipe
        components: Sequence[int] = (),
        basis: str = "",
    ) -> None:
        super().__init__(shape=shape, dtype=dtype)
        self.bytes: int = _bytes(bytes)
        if not basis:
            raise CodecError(f"{self.codec_id} needs a basis; make its configuration by PrincipalComponents.train")
        self.components: tuple[int, int, int] = _counts(components, self.width)
        self._basis = basis
        self._tables = _read(basis, sum(self.components), self.width)

    @classmethod
    def train(cls, values: NDArray[Any], *, seed: int = 0, bytes: int = 24) -> dict[str, Any]:  # noqa: A002
        """Find the components and return the configuration of the codec.

        Parameters
        ----------
        values : ndarray, shape (K, *shape), floating
            Tokens like those that will be stored, 32 or more; 16,384 of them are used.
        seed : int
            Seed of the tokens that are used.
        bytes : int
            Most bytes of an encoded token.

        Returns
        -------
        dict
            JSON configuration, for `TokenSpec(codec=...)`.

        Raises
        ------
        CodecError
            If there are too few tokens, values are not finite or too large, or the bytes are none.

        Notes
        -----
        An eigendecomposition of the smaller of values and training tokens: a second for 1,000 of them.
        """
        most = _bytes(bytes)
        rows = training_rows(values, cls.codec_id, least=_LEAST_ROWS, seed=seed, most=_MOST_ROWS)
        if np.abs(rows).max() > _FARTHEST:
            raise CodecError(f"{cls.codec_id}: values must be within +-{_FARTHEST:g}")
        data = Channels.to_bytes(rows.mean(0), rows.std(0))
        rows = rows - Channels.from_bytes(data, rows.shape[1]).centres
        variances, vectors = _principal(rows)
        counts = _allotted(variances, most)
        whole, steps = _rounded(vectors[: sum(counts)])
        coordinates = rows @ np.linalg.pinv(whole * steps[:, None])
        data += scales_bytes(steps * coordinates.std(0)) + whole.astype(np.int8).tobytes()
        return cls._config_for(values, bytes=most, components=list(counts), basis=to_text(data))

    @override
    def get_config(self) -> dict[str, Any]:
        options = {"bytes": self.bytes, "components": list(self.components)}
        return super().get_config() | options | {"basis": self._basis}

    @property
    @override
    def packed_bytes(self) -> int:
        return sum(row_bytes(count, bits) for count, bits in zip(self.components, _BITS, strict=True))

    @override
    def pack(self, rows: NDArray[Any]) -> bytes:
        centred = (rows - self._tables.channels.centres.astype(np.float64)).clip(-_FARTHEST, _FARTHEST)
        # Summed value by value: a product of matrices would round a token in other ways beside others.
        normal, parts, first = np.einsum("kd,dr->kr", centred, self._tables.inverse), list[NDArray[np.uint8]](), 0
        for count, bits in zip(self.components, _BITS, strict=True):
            levels = normal_levels(bits)
            codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, normal[:, first : first + count], side="right")
            parts.append(pack_codes(codes, bits))
            first += count
        return np.concatenate(parts, axis=1).tobytes()

    @override
    def unpack(self, data: NDArray[np.uint8], count: int) -> NDArray[Any]:
        channels, basis, scales, _ = self._tables
        table, parts, first = data.reshape(count, self.packed_bytes), [], 0
        for number, bits in zip(self.components, _BITS, strict=True):
            width = row_bytes(number, bits)
            parts.append(normal_levels(bits)[unpack_codes(table[:, first : first + width], bits, number)])
            first += width
        coordinates = np.concatenate(parts, axis=1) * scales
        step = np.float32(max(float(scales.max()) * _FARTHEST_LEVEL / _STEPS, _TINY))
        rows = np.rint(coordinates / step) @ basis  # whole numbers below 2^24: the same in any order of summing
        return within(rows * step + channels.centres, self.dtype)


_FARTHEST_LEVEL = float(normal_levels(4).max())
_TINY = float(np.finfo(np.float32).tiny)


def _bytes(value: object) -> int:
    return whole_number(value, "exmem.principal: bytes", least=1, most=2**16 - 1, error=CodecError)


def _counts(given: object, width: int) -> tuple[int, int, int]:
    if not isinstance(given, list | tuple) or len(given) != len(_BITS):
        raise CodecError(f"exmem.principal: components must be three numbers, got {shown(given)}")
    four, two, one = (whole_number(count, "exmem.principal: components", error=CodecError) for count in given)
    if not 1 <= four + two + one <= width:
        raise CodecError(f"exmem.principal: components must be 1..{width} together, got {shown(given)}")
    return four, two, one


def _principal(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return variances along the principal components of centred rows (K, D), falling, and these (R, D)."""
    if len(rows) >= rows.shape[1]:
        variances, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
        vectors = vectors.T
    else:  # the same by the smaller matrix
        variances, left = np.linalg.eigh(rows @ rows.T / len(rows))
        scales = np.sqrt(np.maximum(variances, max(variances.max() * 1e-12, _TINY)) * len(rows))
        vectors = left.T @ rows / scales[:, None]
    held = np.flatnonzero(variances > max(variances.max() * 1e-9, _TINY))[::-1]
    if not len(held):  # all tokens are the same
        return np.zeros(1), np.eye(1, rows.shape[1])
    return variances[held], vectors[held]


def _allotted(variances: NDArray[np.float64], most: int) -> tuple[int, int, int]:
    """Return how many of the first coordinates get 4, 2 and 1 bits, in so many bytes, whole ones for each."""
    gains = np.concatenate([variances * (_OFF[a] - _OFF[b]) / (b - a) for a, b in ((0, 1), (1, 2), (2, 4))])
    costs = np.repeat([1, 1, 2], len(variances))
    order = np.argsort(-gains, kind="stable")
    taken = order[np.cumsum(costs[order]) <= 8 * most] // len(variances)
    four, two, _ = (int((taken == stage).sum()) for stage in (2, 1, 0))  # each has the stages below it, too
    four -= four % 2
    two -= (two - four) % 4
    left = 8 * most - 4 * four - 2 * (two - four)
    return four, two - four, min(left, len(variances) - two)


def _rounded(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return components (R, D) as whole numbers of few levels, and the steps (R,) of least squared error."""
    largest = np.abs(vectors).max(1)
    best = (np.full(len(vectors), np.inf), np.zeros_like(vectors), np.ones(len(vectors)))
    for clip in _CLIPS:
        steps = largest * clip / _LEVELS
        whole = np.rint(vectors / steps[:, None]).clip(-_LEVELS, _LEVELS)
        errors = ((whole * steps[:, None] - vectors) ** 2).sum(1)
        better = errors < best[0]
        best = (
            np.where(better, errors, best[0]),
            np.where(better[:, None], whole, best[1]),
            np.where(better, steps, best[2]),
        )
    return best[1], best[2]


@functools.lru_cache(maxsize=16)
def _read(basis: str, number: int, width: int) -> _Tables:
    """Read a basis of so many components of tokens of a width."""
    for_channels, for_scales = Channels.num_bytes(width), len(scales_bytes(np.zeros(number)))
    try:
        data = from_text(basis, for_channels + for_scales + number * width)
        channels = Channels.from_bytes(data[:for_channels], width)
        scales = read_scales(data[for_channels : for_channels + for_scales])
    except ValueError as error:
        raise CodecError(
            f"exmem.principal: the basis cannot be read as {number} components of {width} values ({error})"
        ) from error
    whole = np.frombuffer(data, np.int8, offset=for_channels + for_scales).reshape(number, width)
    if (whole.size and np.abs(whole.astype(np.int64)).max() > _LEVELS) or not scales.max() < _FARTHEST:
        raise CodecError("exmem.principal: a value of the basis is out of range")
    inverse = np.linalg.pinv(whole * scales[:, None].astype(np.float64))
    table = whole.astype(np.float32)
    table.flags.writeable = False
    inverse.flags.writeable = False
    return _Tables(channels, table, scales, inverse)
