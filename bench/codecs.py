"""Image codecs on mosaics of photograph patches: bytes, quality, time; `python -m bench.codecs`.

The figures in the docstrings of `exmem.codecs.patch_*` and `exmem.codecs.mosaic` come from here.
"""

import math
import time
from collections.abc import Callable

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from exmem.codecs import get_codec
from tests.exemplars import patches

Picture = NDArray[np.uint8]
EXEMPLARS = 12


def exemplars(patch: int, grid: int) -> list[Picture]:
    """Patches of photographs, 40 % kept."""
    rng = np.random.default_rng(0)
    kept = int(0.4 * grid * grid)
    return [
        patches(seed, grid=grid, patch=patch)[np.sort(rng.choice(grid * grid, kept, replace=False))]
        for seed in range(EXEMPLARS)
    ]


def column(values: Picture) -> Picture:
    return values.reshape(-1, *values.shape[2:])


def square(values: Picture) -> Picture:
    """As square as may be, the last patch repeated to fill it."""
    wide = math.ceil(math.sqrt(len(values)))
    high = -(-len(values) // wide)
    filled = np.concatenate([values, np.repeat(values[-1:], wide * high - len(values), axis=0)])
    tiles = filled.reshape(high, wide, *values.shape[1:]).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(tiles.reshape(high * values.shape[1], wide * values.shape[2], 3))


def from_square(picture: Picture, count: int, patch: int) -> Picture:
    high, wide = picture.shape[0] // patch, picture.shape[1] // patch
    tiles = picture.reshape(high, patch, wide, patch, 3).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(-1, patch, patch, 3)[:count]


def told(name: str, sizes: list[int], raw: int, quality: float, encode: float, decode: float) -> None:
    each = f"{sum(sizes) / EXEMPLARS:9,.0f} B  {sum(sizes) / raw:5.3f} of raw"
    print(f"  {name:28}{each}  {quality:5.1f} dB  encode {1e3 * encode:7.2f} ms  decode {1e3 * decode:6.2f} ms")


def measure(name: str, given: list[Picture], encode: Callable, decode: Callable) -> None:
    start = time.perf_counter()
    streams = [bytes(encode(values)) for values in given]
    middle = time.perf_counter()
    found = [decode(stream) for stream in streams]
    end = time.perf_counter()
    raw = sum(values.nbytes for values in given)
    error = np.mean([np.mean((a.reshape(b.shape).astype(float) - b) ** 2) for a, b in zip(found, given, strict=True)])
    quality = 10 * math.log10(255**2 / error) if error else math.inf
    sizes = [len(stream) for stream in streams]
    told(name, sizes, raw, quality, (middle - start) / EXEMPLARS, (end - middle) / EXEMPLARS)


# A plain JPEG file also holds some 620 bytes of header, which `patch_jpeg` keeps apart.
def main() -> None:
    ours = [{"id": "lossless"}, {"id": "patch_webp"}, {"id": "patch_jxl", "distance": 0, "effort": 7}]
    ours += [{"id": "patch_jpeg"}, {"id": "patch_jxl"}, {"id": "patch_avif"}]
    others = {
        "PNG": (lambda values: imagecodecs.png_encode(column(values), level=9), imagecodecs.png_decode),
        "JPEG-LS": (lambda values: imagecodecs.jpegls_encode(column(values)), imagecodecs.jpegls_decode),
    }
    for patch, grid in ((32, 12), (14, 8)):
        given = exemplars(patch, grid)
        print(f"{patch} px patches, {len(given[0])} an exemplar, {given[0].nbytes:,} B raw")
        for config in ours:
            codec = get_codec(config, shape=given[0].shape[1:], dtype="uint8")
            measure(" ".join(map(str, config.values())), given, codec.encode, codec.decode)
        for name, (encode, decode) in others.items():
            measure(f"({name})", given, encode, decode)
        count = len(given[0])
        for name, encode, decode in (
            ("WebP", lambda picture: imagecodecs.webp_encode(picture, lossless=True), imagecodecs.webp_decode),
            (
                "JPEG",
                lambda picture: imagecodecs.jpeg8_encode(picture, level=75, subsampling="420"),
                imagecodecs.jpeg8_decode,
            ),
        ):
            measure(
                f"({name}, square mosaic)",
                given,
                lambda values, encode=encode: encode(square(values)),
                lambda stream, decode=decode, patch=patch, count=count: from_square(decode(stream), count, patch),
            )


if __name__ == "__main__":
    main()
