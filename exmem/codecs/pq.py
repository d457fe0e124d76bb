"""Features as codes of trained codebooks."""

import base64
import binascii
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from exmem.codecs.features import FeatureCodec
from exmem.errors import CodecError
from exmem.tokens.checks import whole_number

__all__ = ["ProductQuantisation"]

_CENTRES = 256
_PARTS_BYTES = 2


class ProductQuantisation(FeatureCodec):
    """Product quantisation (Jegou et al. 2011): a token is cut into parts, and each part becomes one byte.

    The byte names the nearest of 256 centres of the part's codebook. Codebooks are trained once (`train`), are part of
    the configuration, and are stored once a memory, where they count. The error of a token is its distance to the
    nearest centres; it has no bound for values unlike those of the training.

    Parameters
    ----------
    codebooks : str
        What `train` returns: `parts` as 16 bits, then float16 codebooks of shape (parts, 256, width / parts) as a zstd
        frame, in base64.
    shape : sequence of int
        Shape of one token's value.
    dtype : dtype-like
        A floating dtype of 16 to 64 bits.
    parts : int
        Bytes of an encoded token; divides the number of its values.

    Raises
    ------
    CodecError
        If the codebooks do not belong to tokens of that shape.
    """

    codec_id: ClassVar[str] = "exmem.pq"
    stored_apart: ClassVar[frozenset[str]] = frozenset({"codebooks"})

    def __init__(
        self, *, codebooks: str = "", shape: Sequence[int] = (), dtype: DTypeLike = "float32", parts: int = 8
    ) -> None:
        super().__init__(shape=shape, dtype=dtype)
        parts = whole_number(parts, f"{self.codec_id}: parts", least=1, most=2**16 - 1, error=CodecError)
        self.parts = parts
        if self.width % parts:
            raise CodecError(f"{self.codec_id}: parts must divide {self.width} values, got {parts}")
        if not codebooks:
            raise CodecError(f"{self.codec_id} needs codebooks; make its configuration by ProductQuantisation.train")
        self._books = _read(codebooks, (parts, _CENTRES, self.width // parts))
        self._codebooks = codebooks

    @classmethod
    def train(cls, values: NDArray[Any], *, parts: int, seed: int = 0, rounds: int = 15) -> dict[str, Any]:
        """Train codebooks by k-means and return the configuration of the codec.

        Parameters
        ----------
        values : ndarray, shape (K, *shape), floating
            Tokens like those that will be stored, 256 or more.
        parts : int
            Bytes of an encoded token; divides the number of its values.
        seed : int
            Seed of the first centres.
        rounds : int
            Rounds of k-means.

        Returns
        -------
        dict
            JSON configuration, for `TokenSpec(codec=...)`.

        Raises
        ------
        CodecError
            If there are too few tokens, values are not finite, or `parts` does not divide them.
        """
        rows = np.ascontiguousarray(values, np.float32).reshape(len(values), -1)
        if len(rows) < _CENTRES or not np.isfinite(rows).all():
            raise CodecError(f"{cls.codec_id}: training needs {_CENTRES} finite tokens or more, got {len(rows)}")
        if not 1 <= parts < 2**16 or rows.shape[1] % parts:
            raise CodecError(f"{cls.codec_id}: parts must divide {rows.shape[1]} values, got {parts}")
        rng = np.random.default_rng(seed)
        books = np.stack([_k_means(part, rng, rounds) for part in np.split(rows, parts, axis=1)]).astype("<f2")
        packed = parts.to_bytes(_PARTS_BYTES, "little") + bytes(Zstd(level=9).encode(books.tobytes()))
        codebooks = base64.b64encode(packed).decode("ascii")
        config = {"id": cls.codec_id, "shape": list(values.shape[1:]), "dtype": values.dtype.name}
        return config | {"parts": parts, "codebooks": codebooks}

    @override
    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"parts": self.parts, "codebooks": self._codebooks}

    @property
    @override
    def packed_bytes(self) -> int:
        return self.parts

    @override
    def pack(self, rows: NDArray[Any]) -> bytes:
        parts = np.split(rows.astype(np.float32), self.parts, axis=1)
        codes = [_nearest(part, book) for part, book in zip(parts, self._books, strict=True)]
        return np.stack(codes, axis=1).astype(np.uint8).tobytes()

    @override
    def unpack(self, data: NDArray[np.uint8], count: int) -> NDArray[Any]:
        codes = data.reshape(count, self.parts)
        return np.concatenate([book[codes[:, column]] for column, book in enumerate(self._books)], axis=1)


def _nearest(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    distances = (centres**2).sum(axis=1) - 2 * rows @ centres.T
    nearest: NDArray[np.int64] = distances.argmin(axis=1)
    return nearest


def _k_means(rows: NDArray[np.float32], rng: np.random.Generator, rounds: int) -> NDArray[np.float32]:
    """Lloyd's algorithm; a centre that nothing is nearest to moves to a random row."""
    centres = rows[rng.choice(len(rows), _CENTRES, replace=False)]
    for _ in range(rounds):
        nearest = _nearest(rows, centres)
        counts = np.bincount(nearest, minlength=_CENTRES)
        sums = np.zeros(centres.shape, np.float64)
        np.add.at(sums, nearest, rows)
        centres = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        centres[counts == 0] = rows[rng.choice(len(rows), int(np.count_nonzero(counts == 0)))]
    return centres


@functools.lru_cache(maxsize=16)
def _read(codebooks: str, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    try:
        packed, out = base64.b64decode(codebooks, validate=True), np.zeros(shape, "<f2")
        if int.from_bytes(packed[:_PARTS_BYTES], "little") != shape[0]:
            raise ValueError("they were trained for another number of parts")
        Zstd().decode(packed[_PARTS_BYTES:], out.reshape(-1).view(np.uint8))
    except (binascii.Error, RuntimeError, ValueError, TypeError) as error:
        raise CodecError(f"exmem.pq: the codebooks cannot be read as float16 of shape {shape} ({error})") from error
    if not np.isfinite(out).all():
        raise CodecError("exmem.pq: the codebooks hold NaN or infinity")
    books = out.astype(np.float32)
    books.flags.writeable = False
    return books
