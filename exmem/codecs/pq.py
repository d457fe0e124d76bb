"""Features as codes of trained codebooks."""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.bits import pack_codes, row_bytes, unpack_codes
from exmem.codecs.features import FeatureCodec
from exmem.codecs.k_means import k_means, nearest
from exmem.codecs.tables import Channels, from_text, read_scales, scales_bytes, to_text, training_rows, within
from exmem.errors import CodecError
from exmem.tokens.checks import shown, whole_number

__all__ = ["ProductQuantisation"]

_BITS = {16: 4, 256: 8}  # of a code, by the number of centres
_LEVELS = 31  # of a value in a codebook: six bits round it far more finely than the centres lie, and zstd likes them
_MOST_PARTS = 2**16 - 1
_MOST_ROWS = 16_384  # of training
_FARTHEST = 1e15  # of a value whose distances float32 can still sum
_MOST_SHARED = 65_536  # parts of training tokens for a codebook that all parts share


class _Tables(NamedTuple):
    books: NDArray[np.float32]  # (parts or 1, centres, width / parts)
    channels: Channels | None


class ProductQuantisation(FeatureCodec):
    """Product quantisation (Jegou et al. 2011): a token is cut into parts, and each part becomes a code.

    The code names the nearest of 256 centres of the part's codebook, a byte, or of 16, half a byte. Codebooks are
    trained once (`train`), are part of the configuration, and are stored once a memory, where they count: about
    200 bytes a value of the token for 256 centres, 15 for 16. Small memories let all parts share one codebook, which
    costs next to nothing. The error of a token is its distance to the nearest centres; it has no bound for values
    unlike those of the training.

    Parameters
    ----------
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        A floating dtype of 16 to 64 bits.
    parts : int
        Codes of an encoded token; divides the number of its values.
    centres : {16, 256}
        Centres of a codebook.
    whiten : bool
        Whether each channel is brought to mean 0 and deviation 1 before and back afterwards (3 bytes a channel), so
        that no channel counts more for its scale.
    shared : bool
        Whether all parts have the same codebook.
    codebooks : str
        What `train` returns: with `whiten` the `Channels`, then a scale for each codebook (float32 and uint8), then
        codebooks of shape (parts or 1, centres, width / parts) as int8, all as one zstd frame in base64.

    Raises
    ------
    CodecError
        If an option is none of these, or the codebooks are missing or do not belong to tokens of that shape.
    """

    codec_id: ClassVar[str] = "exmem.pq"
    stored_apart: ClassVar[frozenset[str]] = frozenset({"codebooks"})
    trained: ClassVar[bool] = True

    def __init__(
        self,
        *,
        shape: Sequence[int] = (),
        dtype: DTypeLike = "float32",
        parts: int = 8,
        centres: int = 256,
        whiten: bool = True,
        shared: bool = False,
        codebooks: str = "",
    ) -> None:
        super().__init__(shape=shape, dtype=dtype)
        self.parts, self.centres = _checked(self.width, parts, centres, self.codec_id)
        self.whiten: bool = _flag(whiten, "whiten")
        self.shared: bool = _flag(shared, "shared")
        if not codebooks:
            raise CodecError(f"{self.codec_id} needs codebooks; make its configuration by ProductQuantisation.train")
        books_shape = (1 if self.shared else self.parts, self.centres, self.width // self.parts)
        self._tables = _read(codebooks, books_shape, self.width if self.whiten else 0)
        self._codebooks = codebooks

    @classmethod
    def train(
        cls,
        values: NDArray[Any],
        *,
        seed: int = 0,
        parts: int = 8,
        centres: int = 256,
        whiten: bool = True,
        shared: bool = False,
    ) -> dict[str, Any]:
        """Train codebooks by k-means and return the configuration of the codec.

        Parameters
        ----------
        values : ndarray, shape (K, *shape), floating
            Tokens like those that will be stored, as many as there are centres or more; 16,384 of them are used.
        seed : int
            Seed of the tokens that are used and of the first centres.
        parts, centres, whiten, shared
            As for the class.

        Returns
        -------
        dict
            JSON configuration, for `TokenSpec(codec=...)`.

        Raises
        ------
        CodecError
            If there are too few tokens, values are not finite, or an option is none of those of the class.

        Notes
        -----
        Some seconds for 16,384 tokens of 384 values.
        """
        rows = training_rows(values, cls.codec_id, least=2 if shared else centres, seed=seed, most=_MOST_ROWS)
        parts, centres = _checked(rows.shape[1], parts, centres, cls.codec_id)
        whiten, shared = _flag(whiten, "whiten"), _flag(shared, "shared")
        data, rng = b"", np.random.default_rng(seed)
        if whiten:
            data = Channels.to_bytes(rows.mean(0), rows.std(0))
            rows = Channels.from_bytes(data, rows.shape[1]).normalise(rows)
        elif np.abs(rows).max() > _FARTHEST:
            raise CodecError(f"{cls.codec_id}: values must be within +-{_FARTHEST:g} where they are not whitened")
        cut = rows.astype(np.float32).reshape(len(rows), parts, -1)
        if shared:
            every = cut.reshape(-1, 1, cut.shape[2])
            if len(every) < centres:
                raise CodecError(f"{cls.codec_id}: training needs {centres} parts of tokens or more, got {len(every)}")
            cut = every[rng.choice(len(every), min(len(every), _MOST_SHARED), replace=False)]
        books = np.stack([k_means(np.ascontiguousarray(cut[:, part]), centres, rng) for part in range(cut.shape[1])])
        options = {"parts": parts, "centres": centres, "whiten": whiten, "shared": shared}
        return cls._config_for(values, **options, codebooks=to_text(data + _books_bytes(books)))

    @override
    def get_config(self) -> dict[str, Any]:
        options = {"parts": self.parts, "centres": self.centres, "whiten": self.whiten, "shared": self.shared}
        return super().get_config() | options | {"codebooks": self._codebooks}

    @property
    @override
    def packed_bytes(self) -> int:
        return row_bytes(self.parts, _BITS[self.centres])

    @override
    def pack(self, rows: NDArray[Any]) -> bytes:
        books, channels = self._tables
        normal = rows.astype(np.float64) if channels is None else channels.normalise(rows)
        cut = normal.clip(-_FARTHEST, _FARTHEST).astype(np.float32).reshape(len(rows), self.parts, -1)
        codes = np.empty((len(rows), self.parts), np.uint8)
        for part in range(self.parts):
            codes[:, part] = nearest(cut[:, part], books[0 if self.shared else part])
        return pack_codes(codes, _BITS[self.centres]).tobytes()

    @override
    def unpack(self, data: NDArray[np.uint8], count: int) -> NDArray[Any]:
        books, channels = self._tables
        codes = unpack_codes(data.reshape(count, self.packed_bytes), _BITS[self.centres], self.parts)
        first = np.zeros(1, np.intp) if self.shared else np.arange(self.parts) * self.centres
        rows = books.reshape(-1, books.shape[2])[codes + first].reshape(count, self.width)
        return within(rows if channels is None else channels.restore(rows), self.dtype)


def _checked(width: int, parts: int, centres: int, codec_id: str) -> tuple[int, int]:
    parts = whole_number(parts, f"{codec_id}: parts", least=1, most=_MOST_PARTS, error=CodecError)
    if width % parts:
        near = min(
            (part for part in range(1, _MOST_PARTS + 1) if width % part == 0), key=lambda part: abs(part - parts)
        )
        raise CodecError(f"{codec_id}: parts must divide {width} values, got {parts}; use parts={near}")
    centres = whole_number(centres, f"{codec_id}: centres", error=CodecError)
    if centres not in _BITS:
        raise CodecError(f"{codec_id}: centres must be 16 or 256, got {centres}")
    return parts, centres


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise CodecError(f"exmem.pq: {name} must be True or False, got {shown(value)}")
    return value


def _books_bytes(books: NDArray[np.float32]) -> bytes:
    """Write the scale of each codebook, and its values as multiples of it in -31..31."""
    data = scales_bytes(np.abs(books).max((1, 2)).astype(np.float64) / _LEVELS)
    steps = read_scales(data).astype(np.float64)[:, None, None]
    return data + np.rint(books / np.where(steps > 0, steps, 1)).clip(-_LEVELS, _LEVELS).astype(np.int8).tobytes()


@functools.lru_cache(maxsize=16)
def _read(codebooks: str, shape: tuple[int, int, int], whitened: int) -> _Tables:
    """Read codebooks of a shape, after them the channels that are whitened, if any."""
    for_channels = Channels.num_bytes(whitened) if whitened else 0
    for_scales = len(scales_bytes(np.zeros(shape[0])))
    try:
        data = from_text(codebooks, for_channels + for_scales + int(np.prod(shape)))
        channels = Channels.from_bytes(data[:for_channels], whitened) if whitened else None
        steps = read_scales(data[for_channels : for_channels + for_scales])
    except ValueError as error:
        raise CodecError(f"exmem.pq: the codebooks cannot be read as those of shape {shape} ({error})") from error
    whole = np.frombuffer(data, np.int8, offset=for_channels + for_scales).reshape(shape)
    with np.errstate(over="ignore"):
        books = whole * steps[:, None, None]
    if not np.isfinite(books).all():
        raise CodecError("exmem.pq: a value of the codebooks is out of range")
    books.flags.writeable = False
    return _Tables(books, channels)
