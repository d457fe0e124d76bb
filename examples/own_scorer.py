"""A scorer of one's own, seen in the patches that are kept and in the bytes that they take; no backbone needed."""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from exmem.masking import ScoreMaps
from exmem.masking.scorers import SCORERS
from exmem.recipes import BoundRecipe, PlainImages, Recipe


def ink(model, batch, *, hidden=None, paper=0):
    """Score each patch by how far its pixels are from the paper's grey, an option: `ink:paper=255` is for dark ink."""
    image = batch.tokens["image"]
    scores = (image.values.float() - paper).abs().flatten(2).mean(2)  # (B, L)
    return ScoreMaps({"image": scores.numpy()}, {"image": image.valid.numpy()})


if __name__ == "__main__":
    SCORERS.add("ink", ink)  # a package offers it by an entry point of the group exmem.scorer
    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8).repeat(8, 1).repeat(8, 2)  # (N, 64, 64)
    images, labels = np.stack([pixels] * 3, -1)[:500], digits.target[:500]
    for scorer in ("ink", "centre", "random"):
        recipe = Recipe.of("masked").refined(scorer=scorer, keep="top_k:k=24", codec="patch_webp")
        bound = BoundRecipe(recipe, PlainImages(size=64, patch=8))
        with (
            tempfile.TemporaryDirectory() as folder,
            bound.create_memory(Path(folder) / "memory", max_bytes="1MB") as memory,
        ):
            memory.add(bound.make(images, None, labels))
            memory.commit()
            print(f"{scorer}: {memory.sizes.mean():,.0f} bytes an exemplar; the patches kept of a {labels[0]}:")
            kept = memory.read(memory.slots[:1]).tokens["image"].positions[0]
        for row in range(8):
            print("   ", "".join("#" if 8 * row + column in kept else "." for column in range(8)))
