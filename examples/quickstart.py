"""A memory of images and texts under 64 kB: filled until it evicts, opened again, sampled, and where its bytes went."""

import tempfile
from pathlib import Path

import numpy as np

from exmem import ExemplarMemory, Schema
from exmem.masking import mean_threshold
from exmem.tokens import cut_patches

SIZE, PATCH, WORDS = 64, 16, 8
rng = np.random.default_rng(0)


def images_of(label, count):
    """Make images of a blob in the colour of a class, (count, 64, 64, 3), and how much of it is in each pixel."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    centres = rng.integers(16, 48, (2, count, 1, 1))
    blob = np.exp(-((rows - centres[0]) ** 2 + (columns - centres[1]) ** 2) / 150)[..., None]
    colour = np.random.default_rng(label).integers(0, 256, 3)
    noise = rng.normal(0, 6, (count, SIZE, SIZE, 3))
    return np.clip(90 * (1 - blob) + colour * blob + noise, 0, 255).astype(np.uint8), blob[..., 0]


with tempfile.TemporaryDirectory() as folder:
    schema = Schema.images(size=SIZE, patch=PATCH, text=WORDS)  # JPEG-coded patches and token ids
    with ExemplarMemory.create(Path(folder) / "memory", schema=schema, max_bytes="64kB") as memory:
        for label in range(10):
            images, importance = images_of(label, 40)
            patches = cut_patches(images, PATCH)  # (40, 16, 16, 16, 3)
            scores = cut_patches(importance[..., None], PATCH).mean((2, 3, 4))  # what a scorer would say, (40, 16)
            keep = mean_threshold(scores)
            words = rng.integers(1000, 2000, (40, WORDS)).astype(np.int32)
            report = memory.add_batch(
                {"image": patches, "text": words},
                labels=np.full(40, label),
                keep={"image": keep},
                priorities=-np.arange(40),  # the first is the best, and goes last
            )
            memory.commit()
            stored = np.count_nonzero(report.slots >= 0)
            print(f"class {label}: {stored} of 40 stored, {len(report.evicted)} evicted, {memory.used_bytes:,} bytes")

    memory = ExemplarMemory.open(Path(folder) / "memory")  # for reading: as any number of processes may
    print(f"\nopened again: {len(memory)} exemplars of {len(memory.summary())} classes")
    batch = memory.sample(8, sampler="balanced", seed=0)
    image = batch.tokens["image"]
    print("a sample: classes", batch.labels.tolist())
    print("patches", image.values.shape, "of which are no padding", image.valid.sum(1).tolist())
    print("those of the first stand at", image.positions[0][image.valid[0]].tolist())

    print(f"\n{memory.used_bytes:,} of {memory.max_bytes:,} bytes:")
    for part, nbytes in memory.bytes_by_part().items():
        print(f"{part:>10} {nbytes:>7,}")
