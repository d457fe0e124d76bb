"""Where the time of adding 256 exemplars in batches of 10 goes; `python -m bench.profile_adding`."""

import cProfile
import pstats
import tempfile
from pathlib import Path

from bench.test_store_speed import COUNT, GRID, PATCH, masked
from exmem import Exemplar, ExemplarMemory, Schema, TokenSpec

PARTS = {
    "the JPEG encoder": "_encode_picture",
    "encoding, with validation and rows": "encode_exemplars",
    "staging, with writing full shards": "stage",
    "the bound of the bytes": "bound",
    "everything": "add",
}


def main() -> None:
    given = [Exemplar({"image": masked(seed)}, label=seed % 10) for seed in range(COUNT)]
    spec = TokenSpec(positions=GRID * GRID, shape=(PATCH, PATCH, 3), codec="patch_jpeg")
    profile = cProfile.Profile()
    with (
        tempfile.TemporaryDirectory() as folder,
        ExemplarMemory.create(
            Path(folder) / "m", schema=Schema({"image": spec}), max_bytes="64MB", threads=1, durable=False
        ) as memory,
    ):
        profile.enable()
        for start in range(0, COUNT, 10):
            memory.add(given[start : start + 10])
        profile.disable()
    found = {}
    for (file, _, name), (_, _, _, seconds, _) in pstats.Stats(profile).stats.items():
        if "exmem" in file:
            found[name] = max(found.get(name, 0.0), seconds)
    for part, name in PARTS.items():
        print(f"{part:36}{1e3 * found[name]:8.1f} ms  {found[name] / found['add']:5.0%}")


if __name__ == "__main__":
    main()
