"""What each codec is tried with: configuration, shapes and dtypes that it takes, and how far it may be off."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.codecs import CODECS, get_codec
from tests.exemplars import crop, photographs

PATCHES = [((8, 8, 3), "uint8"), ((16, 16, 3), "uint8"), ((14, 14, 3), "uint8"), ((9, 5, 3), "uint8")]
GREY = [((16, 16, 1), "uint8"), ((7, 7), "uint8")]
FEATURES = [((384,), "float32"), ((12,), "float16"), ((2, 6), "float64"), ((), "float32")]
ANY = [((), "int32"), ((3,), "float32"), *PATCHES, *GREY, ((2, 2, 5), "float16"), ((1,), "bool"), ((4,), "int64")]

_NOT_SHOWN = {"id", "shape", "dtype", "codebooks", "channels", "basis"}

Bound = Callable[[NDArray[Any]], NDArray[Any] | float]


class Case(NamedTuple):
    """A codec for tokens of one shape and dtype; `bound` gives the largest error of each value, or says psnr."""

    config: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    bound: Bound | str

    def codec(self):
        return get_codec(self.config, shape=self.shape, dtype=self.dtype)

    def __str__(self) -> str:
        options = "".join(f"-{key}={value}" for key, value in self.config.items() if key not in _NOT_SHOWN)
        return f"{self.config['id']}{options}-{self.shape}-{self.dtype}"


def exact(given: NDArray[Any]) -> float:
    return 0.0


def half(given: NDArray[Any]) -> NDArray[Any]:
    return np.maximum(np.abs(given) * 2.0**-11, 2.0**-25)


def brain(given: NDArray[Any]) -> NDArray[Any]:
    rounding = 2.0**-11 if given.dtype == np.float16 else 0.0  # back to a dtype of 11 bits
    return np.abs(given) * (2.0**-8 + rounding)


def eighth(given: NDArray[Any]) -> NDArray[Any]:
    axes = tuple(range(1, given.ndim))
    largest = np.abs(given.astype(np.float64)).max(axis=axes, keepdims=True) if axes else np.abs(given)
    rounding = 2.0**-11 if given.dtype == np.float16 else 2.0**-22
    return largest * (1 / 254 + rounding) + 1e-12


def even(given: NDArray[Any]) -> NDArray[Any]:
    """Half a step of 256 levels over the token's range, which is written 17/16 as wide and rounded up by 1/128."""
    axes = tuple(range(1, given.ndim))
    wide = given.astype(np.float64)
    span = wide.max(axis=axes, keepdims=True) - wide.min(axis=axes, keepdims=True) if axes else np.zeros(len(given))
    # A token of equal values has a scale of 1/2040 of them.
    span = np.maximum(span, np.abs(wide) / 1_020)
    return span * (17 / 16) * (1 + 2.0**-7) / 510 + np.abs(wide) * (2.0**-11 if given.dtype == np.float16 else 2.0**-22)


@functools.cache
def trained(codec: str, shape: tuple[int, ...], dtype: str, **options: Any) -> dict[str, Any]:
    config: dict[str, Any] = CODECS[codec].train(features(shape, dtype, 600), seed=1, **options)
    return config


def cases() -> list[Case]:
    found = [Case({"id": codec}, *tokens, exact) for codec in ("raw", "lossless") for tokens in ANY]
    found += [Case({"id": "patch_webp"}, *tokens, exact) for tokens in [*PATCHES, *GREY]]
    found += [Case({"id": "patch_jxl", "distance": 0}, *tokens, exact) for tokens in [*PATCHES, *GREY]]
    for codec in ({"id": "patch_jpeg"}, {"id": "patch_jpeg", "subsampling": "444"}, {"id": "patch_jxl"}):
        found += [Case(codec, *tokens, "psnr") for tokens in [*PATCHES, *GREY]]
    for codec in ({"id": "patch_avif"}, {"id": "patch_avif", "subsampling": "444"}):
        found += [Case(codec, *tokens, "psnr") for tokens in [*PATCHES, *GREY]]
    for name, bound in (("float16", half), ("bfloat16", brain), ("int8", eighth)):
        found += [Case({"id": name}, *tokens, bound) for tokens in FEATURES]
    for bits in (8, 4, 2, 1):
        bound = even if bits == 8 else "close"
        found += [Case({"id": "scalar", "bits": bits, "scales": "token"}, *tokens, bound) for tokens in FEATURES]
        found += [Case(trained("exmem.scalar", *tokens, bits=bits), *tokens, "close") for tokens in FEATURES[:3]]
    for options in (
        {"parts": 8},
        {"parts": 8, "whiten": False},
        {"parts": 64, "shared": True},
        {"parts": 96, "centres": 16},
    ):
        found += [Case(trained("exmem.pq", *FEATURES[0], **options), *FEATURES[0], "close")]
    for options in ({"bytes": 24}, {"bytes": 7}, {"bytes": 400}):
        found += [Case(trained("exmem.principal", *FEATURES[0], **options), *FEATURES[0], "close")]
    found += [Case(trained("exmem.principal", *tokens, bytes=3), *tokens, "close") for tokens in FEATURES[1:3]]
    found += [Case(trained("exmem.pq", *FEATURES[1], parts=3), *FEATURES[1], "close")]
    found += [Case(trained("exmem.pq", *FEATURES[2], parts=3, centres=16, shared=True), *FEATURES[2], "close")]
    return found


def values(case: Case, count: int) -> NDArray[Any]:
    """Real pixels for patches, vectors of different sizes for features."""
    if case.dtype == "uint8" and len(case.shape) >= 2:
        height, width = case.shape[:2]
        whole = crop(3, 200) if count < 40 else photographs()[0]
        down = (whole.shape[0] - height) // max(count, 1)
        tiles = np.array([whole[i * down : i * down + height, i : i + width] for i in range(count)], np.uint8)
        tiles = tiles.reshape(count, height, width, 3)
        return tiles if case.shape[2:] == (3,) else np.ascontiguousarray(tiles[..., 0]).reshape(count, *case.shape)
    if case.dtype.startswith("float"):
        return features(case.shape, case.dtype, count)
    rng = np.random.default_rng(0)
    return rng.integers(0, 2 if case.dtype == "bool" else 100, (count, *case.shape)).astype(case.dtype)


def features(shape: tuple[int, ...], dtype: str, count: int) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    scales = 10.0 ** rng.integers(-2, 3, (count, *(1 for _ in shape)))
    return (rng.normal(size=(count, *shape)) * (scales if shape != (384,) else 1)).astype(dtype)


def check_close(case: Case, found: NDArray[Any], given: NDArray[Any]) -> None:
    if not len(given):
        return
    error = np.abs(found.astype(np.float64) - given.astype(np.float64))
    if case.bound == "psnr":
        # 24 dB is far below what these settings give (28 dB and more), far above what a mistake gives.
        assert 10 * np.log10(255**2 / max(np.mean(error**2), 1e-9)) > 24
    elif case.bound == "close":
        assert np.mean(error**2) < 1.3 * np.mean(given.astype(np.float64) ** 2)
    else:
        assert (error <= case.bound(given)).all()
