"""A program that keeps exemplars with the core of exmem alone; it is run where nothing else is installed."""

import importlib.util
import sys

import numpy as np

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec

SCHEMA = Schema(
    {
        "image": TokenSpec(positions=16, shape=(8, 8, 3), dtype="uint8", codec="patch_jpeg"),
        "text": TokenSpec(positions=8, dtype="int32"),
    }
)


def exemplar(rng, label):
    patches = rng.integers(0, 256, (16, 8, 8, 3), np.uint8)
    text = TokenSet([0, 1], np.array([101, label], np.int32))
    return Exemplar({"image": TokenSet.kept(patches, np.arange(16) % 2 == 0), "text": text}, label=label)


def main():
    rng = np.random.default_rng(0)
    with ExemplarMemory.create("memory", schema=SCHEMA, max_bytes="60kB") as memory:
        for phase in range(4):
            report = memory.add([exemplar(rng, label=phase) for _ in range(60)])
            memory.commit()
            assert memory.used_bytes <= memory.max_bytes
        assert len(report.evicted), "240 exemplars do not fit"
        assert len(memory.evict_class(0))

    with ExemplarMemory.open("memory") as memory:
        assert sorted(set(memory.labels.tolist())) == [1, 2, 3]
        batch = memory.sample(8, sampler="balanced", seed=0)
        texts = batch.tokens["text"].values
        assert (texts[:, 0] == 101).all()
        assert (texts[:, 1] == batch.labels).all()

    heavy = ["torch", "transformers", "PIL", "datasets", "matplotlib", "scipy", "sklearn"]
    assert [name for name in heavy if name in sys.modules] == []
    if "core" in sys.argv:
        assert [name for name in heavy if importlib.util.find_spec(name)] == []


if __name__ == "__main__":
    main()
