"""What a limit in samples becomes in bytes: crops of two photographs of 224 pixels, scaled down where fewer are asked.

python -m bench.limits            2,000 samples of 224 and of 32 pixels
python -m bench.limits 500 96     500 of 96 pixels
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exmem.recipes import BoundRecipe, PlainImages
from tests.exemplars import crop

__all__ = ["file_bytes", "stored_bytes"]

RECIPES = ("raw", "jpeg", "half_jpeg")
_AT_ONCE = 250


def _image(seed: int, size: int) -> NDArray[np.uint8]:
    whole = crop(seed, max(size, 224))
    return np.asarray(Image.fromarray(whole).resize((size, size), Image.Resampling.BICUBIC))


def stored_bytes(recipe: str, samples: int, size: int) -> int:
    """Bytes on disk, all that counts, of a memory of so many images."""
    bound = BoundRecipe(recipe, PlainImages(size=size, patch=16))
    budget = 2 * samples * (3 * size * size + 1000) + 2**20
    with tempfile.TemporaryDirectory() as folder:
        with bound.create_memory(Path(folder) / "m", max_bytes=budget, durable=False) as memory:
            for start in range(0, samples, _AT_ONCE):
                seeds = range(start, min(start + _AT_ONCE, samples))
                images = np.stack([_image(seed, size) for seed in seeds])
                memory.add(bound.make(images, [""] * len(seeds), [seed % 10 for seed in seeds]))
            memory.commit()
            assert len(memory) == samples
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def file_bytes(samples: int, size: int, quality: int = 30) -> int:
    """Bytes of so many JPEG files, names and blocks of the disk left out."""
    total = 0
    for seed in range(samples):
        Image.fromarray(_image(seed, size)).save(file := io.BytesIO(), "JPEG", quality=quality)
        total += len(file.getvalue())
    return total


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:]]
    for samples, size in [(given[0], given[1])] if given else [(2000, 224), (2000, 32)]:
        raw = samples * 3 * size * size
        print(f"{samples:,} samples of {size} px: {4 * raw / 1e6:,.1f} MB as float32, {raw / 1e6:,.1f} MB as uint8")
        files = file_bytes(samples, size)
        print(f"  JPEG files, quality 30: {files / 1e6:,.2f} MB, {files / samples:,.0f} bytes each")
        for recipe in RECIPES:
            held = stored_bytes(recipe, samples, size)
            print(f"  recipe {recipe}: {held / 1e6:,.2f} MB, {held / samples:,.0f} bytes each, {raw / held:.1f} : 1")


if __name__ == "__main__":
    main()
